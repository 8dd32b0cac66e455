"""A tiny darknet model against darknet told once more in plain loops.

The weights come from a seed, so nothing binary is kept. `make golden` writes the boxes anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from reference.darknet_weights import random_weights
from reference.slow_darknet import Image, detect
from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.export import to_onnx
from vault_ml.yolo.head import candidates, head_specs
from vault_ml.yolo.nms import per_class_nms
from vault_ml.yolo.weights import read_weights

FOLDER = Path(__file__).parent
CFG = (FOLDER / "tiny_darknet.cfg").read_text()
GOLDEN = FOLDER / "tiny_darknet.json"
THRESHOLD, NMS = 0.48, 0.45


def picture() -> NDArray[np.float32]:
    """(3, 32, 64) float32 in [0, 1], always the same."""
    return np.random.default_rng(7).random((3, 32, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def weights() -> bytes:
    return random_weights(CFG, seed=7)


@pytest.fixture(scope="module")
def oracle(weights: bytes) -> tuple[list[Image], list[dict[str, Any]]]:
    return detect(CFG, weights, picture().astype(np.float64), THRESHOLD, NMS)


@pytest.fixture(scope="module")
def maps(weights: bytes) -> list[NDArray[np.float32]]:
    network = parse_cfg(CFG, "tiny_darknet.cfg")
    arrays = read_weights(weights, "tiny.weights", network)
    session = ort.InferenceSession(
        to_onnx(network, arrays, ("red", "green", "blue")).SerializeToString()
    )
    # Two pictures in the batch: the second must not disturb the first.
    batch = np.stack([picture(), np.zeros_like(picture())])
    return [output[0] for output in session.run(None, {"images": batch})]


def assert_same_boxes(actual: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    assert [entry["class_id"] for entry in actual] == [entry["class_id"] for entry in expected]
    for one, other in zip(actual, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["box"] == pytest.approx(other["box"], abs=1e-2)


def test_the_oracle_still_gives_the_golden_boxes(oracle: tuple[Any, list[dict[str, Any]]]) -> None:
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(oracle[1], indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())

    assert len(golden) >= 10, "too few boxes to prove anything"
    assert len({entry["class_id"] for entry in golden}) == 3
    assert_same_boxes(oracle[1], golden)


def test_raw_maps_are_those_of_darknet_in_plain_loops(
    maps: list[NDArray[np.float32]], oracle: tuple[list[Image], Any]
) -> None:
    assert [values.shape for values in maps] == [values.shape for values in oracle[0]]
    for ours, theirs in zip(maps, oracle[0], strict=True):
        assert float(theirs.std()) > 0.05
        assert float(np.abs(ours - theirs).max()) < 1e-3 * float(theirs.std())


def test_boxes_are_those_of_darknet_in_plain_loops(maps: list[NDArray[np.float32]]) -> None:
    network = parse_cfg(CFG, "tiny_darknet.cfg")

    xyxy, confidence, class_id = candidates(maps, head_specs(network), network.net_wh, THRESHOLD)
    keep = per_class_nms(xyxy, confidence, class_id, NMS)

    assert len(keep) < len(confidence), "NMS had nothing to do"
    found = [
        {"class_id": int(class_id[i]), "score": float(confidence[i]), "box": xyxy[i].tolist()}
        for i in keep
    ]
    assert_same_boxes(found, json.loads(GOLDEN.read_text()))
