"""Raw heads against OpenCV 4's reader of the same files: an implementation that is not ours.

Real weights where we have them. For the large networks random ones, generated into a temporary
file, at a small input: the arithmetic per value is the same, only the picture is smaller.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from conftest import shared_file
from reference.darknet_weights import random_weights
from vault_ml.yolo.cfg import Network, Yolo, parse_cfg
from vault_ml.yolo.export import to_onnx
from vault_ml.yolo.labels import COCO
from vault_ml.yolo.weights import read_weights

TOLERANCE = 1e-3
"""Largest difference over the standard deviation of the reference."""


def picture(network: Network) -> NDArray[np.float32]:
    """(1, 3, h, w) float32 RGB in [0, 1]: a real photo, so that activations are real."""
    photo = cv2.imread(str(shared_file("images/darknet/dog.jpg")))
    assert photo is not None
    return np.asarray(
        cv2.dnn.blobFromImage(photo, 1 / 255, network.net_wh, swapRB=True), np.float32
    )


def ours(network: Network, weights: Path) -> list[NDArray[np.float32]]:
    arrays = read_weights(weights.read_bytes(), weights.name, network)
    labels = COCO[: network.heads[0].classes]
    model = to_onnx(network, arrays, labels).SerializeToString()
    return list(ort.InferenceSession(model).run(None, {"images": picture(network)}))


def theirs(network: Network, cfg: Path, weights: Path) -> list[NDArray[np.float32]]:
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    net.setInput(picture(network))
    # OpenCV decodes in its own yolo layer; what goes into that is the convolution before it, or
    # its activation, which OpenCV numbers one higher.
    names = set(net.getLayerNames())
    wanted = [
        f"logistic_{index}" if f"logistic_{index}" in names else f"conv_{index - 1}"
        for index, layer in enumerate(network.layers)
        if isinstance(layer, Yolo)
    ]
    return [np.asarray(output, np.float32) for output in net.forward(wanted)]


def assert_parity(cfg: Path, weights: Path) -> None:
    network = parse_cfg(cfg.read_text(), cfg.name)

    actual, expected = ours(network, weights), theirs(network, cfg, weights)

    assert len(actual) == len(expected) == len(network.heads)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        deviation = float(other.std())
        assert deviation > 0.05, "the reference is nearly constant and proves nothing"
        assert np.isfinite(one).all()
        assert float(np.abs(one - other).max()) < TOLERANCE * deviation


@pytest.mark.parametrize(
    "name",
    [
        "yolov3-tiny/yolov3-tiny",
        "yolo-fastest/yolo-fastest-1.1",
        "yolo-fastest/yolo-fastest-1.1-xl",
    ],
)
def test_raw_heads_of_real_weights_agree_with_opencv(name: str) -> None:
    assert_parity(shared_file(f"models/{name}.cfg"), shared_file(f"models/{name}.weights"))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("yolov3-tiny/yolov3", 96, id="yolov3", marks=pytest.mark.slow),
        pytest.param("cfg/yolov3-spp", 96, id="yolov3-spp", marks=pytest.mark.slow),
        pytest.param("cfg/yolov3-tiny_3l", 96, id="yolov3-tiny_3l"),
        pytest.param("cfg/yolov4", 96, id="yolov4", marks=pytest.mark.slow),
        pytest.param("cfg/yolov4-tiny", 160, id="yolov4-tiny"),
        pytest.param("cfg/yolov4-csp", 96, id="yolov4-csp", marks=pytest.mark.slow),
    ],
)
def test_raw_heads_of_random_weights_agree_with_opencv(
    name: str, size: int, tmp_path: Path
) -> None:
    text = shared_file(f"models/{name}.cfg").read_text()
    for side in ("width", "height"):
        text = re.sub(rf"^{side}\s*=\s*\d+", f"{side}={size}", text, count=1, flags=re.MULTILINE)
    cfg, weights = tmp_path / "small.cfg", tmp_path / "random.weights"
    cfg.write_text(text)
    weights.write_bytes(random_weights(text))

    assert_parity(cfg, weights)
