"""Darknet's own photos through the detector's process: what an independent run saw, we see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import shared_file
from vault_ml.detection import Detections
from vault_ml.detector_process import DetectorOptions, DetectorProcess
from vault_ml.geometry import Letterbox, iou
from vault_ml.models.prepare import ModelFiles, PreparedModel, prepare
from vault_ml.video.frame import Frame
from vault_ml.video.picture import letterbox_into
from vault_ml.video.shared_frames import SharedFrames

PHOTOS = ("darknet/dog.jpg", "darknet/person.jpg", "darknet/horses.jpg")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    files = ModelFiles(
        "yolov3-tiny",
        shared_file("models/yolov3-tiny/yolov3-tiny-mask123.cfg"),
        shared_file("models/yolov3-tiny/yolov3-tiny.weights"),
        None,
        shared_file("models/yolov3-tiny/coco.names"),
    )
    return prepare(files, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def seen(model: PreparedModel) -> dict[str, Detections]:
    options = DetectorOptions(confidence_threshold=0.25, device="cpu")
    with (
        SharedFrames.create(len(PHOTOS), model.net_wh) as shared,
        DetectorProcess(model, options) as detector,
    ):
        detector.start()
        frames = [
            load(shared_file(f"images/{name}"), shared, index) for index, name in enumerate(PHOTOS)
        ]
        first = detector.detect(shared, frames)
        again = detector.detect(shared, frames[::-1])[::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.xyxy, other.xyxy)
        np.testing.assert_array_equal(one.confidence, other.confidence)
    return dict(zip(PHOTOS, first, strict=True))


def load(path: Path, shared: SharedFrames, slot: int) -> Frame:
    bgr = cv2.imread(str(path))
    assert bgr is not None
    height, width = bgr.shape[:2]
    letterbox = Letterbox.fit((width, height), shared.net_wh)
    letterbox_into(
        shared.pixels[slot], cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8), letterbox
    )
    return Frame(slot, 0.0, letterbox, shared.pixels[slot])


@pytest.mark.parametrize("photo", PHOTOS)
def test_sees_what_the_independent_run_saw(photo: str, seen: dict[str, Detections]) -> None:
    expected: list[dict[str, Any]] = json.loads(
        shared_file("expected/yolov3-tiny.json").read_text()
    )["images"][photo]
    ours = seen[photo]
    assert expected
    assert sorted(ours.label(index) for index in range(len(ours))) == sorted(
        each["label"] for each in expected
    )
    boxes = np.array([each["box_xyxy"] for each in expected], np.float32)
    overlaps = iou(ours.xyxy, boxes)
    for index in range(len(ours)):
        match = int(overlaps[index].argmax())
        assert overlaps[index, match] > 0.9
        assert ours.label(index) == expected[match]["label"]
        assert abs(float(ours.confidence[index]) - expected[match]["score"]) < 0.03
