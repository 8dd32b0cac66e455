"""Every runtime sees on darknet's photos what ONNX Runtime sees; rectangles see the same things."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conftest import shared_file
from vault_ml.detection import Detections
from vault_ml.detector_process import DetectorProcess
from vault_ml.geometry import iou
from vault_ml.inference.opening import installed_engines
from vault_ml.models.prepare import ModelFiles, PreparedModel, prepare
from vault_ml.runtime_for import runtime_for
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.sampling import Sampling

PHOTOS = ("darknet/dog.jpg", "darknet/person.jpg", "darknet/horses.jpg")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(cache: Path) -> PreparedModel:
    files = ModelFiles(
        "yolov3-tiny",
        shared_file("models/yolov3-tiny/yolov3-tiny-mask123.cfg"),
        shared_file("models/yolov3-tiny/yolov3-tiny.weights"),
        None,
        shared_file("models/yolov3-tiny/coco.names"),
    )
    return prepare(files, cache)


def look(
    model: PreparedModel, cache: Path, runtime: str, *, rect: bool
) -> tuple[list[Detections], list[tuple[int, int]]]:
    """What is seen on each photo, and the size of each input."""
    plan = runtime_for(
        model, runtime=runtime, precision="fp32", rect=rect, model_dir=cache, cache_dir=cache
    )
    options = plan.detector_options(confidence_threshold=0.25, nms_threshold=0.45)
    seen, sizes = [], []
    with DecoderPool(1) as pool, DetectorProcess(plan.model, options) as detector:
        detector.start()
        assert detector.info.runtime.startswith(runtime)
        for name in PHOTOS:
            fd = os.open(shared_file(f"images/{name}"), os.O_RDONLY)
            try:
                with pool.decode(
                    fd, frames=1, sampling=Sampling.KEYFRAME, net_wh=model.net_wh, rect=rect
                ) as decoded:
                    seen += detector.detect(decoded.shared, decoded.frames)
                    sizes += [frame.letterbox.net_wh for frame in decoded.frames]
            finally:
                os.close(fd)
    return seen, sizes


def assert_same(ours: Sequence[Detections], theirs: Sequence[Detections]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert [one.label(i) for i in range(len(one))] == [
            other.label(i) for i in range(len(other))
        ]
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=0.1)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-3)


@pytest.fixture(scope="module")
def reference(model: PreparedModel, cache: Path) -> list[Detections]:
    seen, sizes = look(model, cache, "onnxruntime", rect=False)
    assert sizes == [model.net_wh] * len(PHOTOS)
    return seen


@pytest.fixture(scope="module")
def rectangular(model: PreparedModel, cache: Path) -> list[Detections]:
    seen, sizes = look(model, cache, "onnxruntime", rect=True)
    assert sizes == [(416, 320), (416, 288), (416, 288)]  # 768x576, 640x424, 773x512
    return seen


@pytest.mark.parametrize("runtime", [each for each in installed_engines() if each != "onnxruntime"])
def test_every_runtime_sees_the_same(
    runtime: str, model: PreparedModel, cache: Path, reference: list[Detections]
) -> None:
    assert_same(look(model, cache, runtime, rect=False)[0], reference)


@pytest.mark.parametrize("runtime", [each for each in installed_engines() if each != "onnxruntime"])
def test_every_runtime_sees_the_same_in_rectangles(
    runtime: str, model: PreparedModel, cache: Path, rectangular: list[Detections]
) -> None:
    assert_same(look(model, cache, runtime, rect=True)[0], rectangular)


def test_rectangles_see_what_is_plain_to_see(
    reference: list[Detections], rectangular: list[Detections]
) -> None:
    plain = 0
    for square, rect in zip(reference, rectangular, strict=True):
        overlaps = iou(square.xyxy, rect.xyxy)
        for index in np.flatnonzero(square.confidence > 0.6):
            plain += 1
            labels = [rect.label(int(other)) for other in np.flatnonzero(overlaps[index] > 0.5)]
            assert square.label(int(index)) in labels
    assert plain >= 3
