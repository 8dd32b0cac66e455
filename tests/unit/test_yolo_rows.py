"""Heads of other projects against plain loops, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reference import slow_rows
from vault_ml.errors import ModelError
from vault_ml.yolo.head import Head, heads_from_json, heads_to_json
from vault_ml.yolo.rows import (
    FAMILIES,
    EndToEndHead,
    Yolov5Head,
    Yolov8Head,
    YoloxHead,
    grid_points,
)

NET_WH = (96, 64)
POINTS = grid_points(NET_WH)
CLASSES = 4
THRESHOLD = 0.5


def outputs_of(kind: type, seed: int) -> NDArray[np.float32]:
    """Random values where a head of this kind may have them."""
    chance = np.random.default_rng(seed)
    boxes = chance.uniform(0, 90, (POINTS, 4))
    if kind is YoloxHead:
        boxes = chance.normal(0, 1, (POINTS, 4))
    sure = chance.uniform(0, 1, (POINTS, 1))
    scores = chance.uniform(0, 1, (POINTS, CLASSES))
    if kind is Yolov8Head:
        return np.concatenate([boxes, scores], axis=1).T.astype(np.float32)
    if kind is EndToEndHead:
        labels = chance.integers(0, CLASSES, (POINTS, 1))
        return np.concatenate([boxes, sure, labels], axis=1).astype(np.float32)
    return np.concatenate([boxes, sure, scores], axis=1).astype(np.float32)


def slowly(kind: type, output: NDArray[np.float32], threshold: float) -> list[slow_rows.Box]:
    rows = output.astype(np.float64).tolist()
    if kind is Yolov8Head:
        return slow_rows.yolov8(rows, threshold)
    if kind is Yolov5Head:
        return slow_rows.yolov5(rows, threshold)
    if kind is YoloxHead:
        return slow_rows.yolox(rows, NET_WH, threshold)
    return slow_rows.end_to_end(rows, threshold)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.0, THRESHOLD, 0.9, 1.0])
@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_reads_what_plain_loops_read(kind: type, threshold: float, seed: int) -> None:
    output = outputs_of(kind, seed)
    head: Head = kind(CLASSES)
    assert head.misfit([output[None]], 1) is None
    xyxy, confidence, class_id = head.candidates([output], NET_WH, threshold)
    expected = slowly(kind, output, threshold)
    assert len(expected) == len(confidence)
    assert (threshold < 1) == bool(expected)
    assert xyxy.dtype == confidence.dtype == np.float32
    assert class_id.dtype == np.int64
    if expected:
        np.testing.assert_allclose(xyxy, [box[:4] for box in expected], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(confidence, [box[4] for box in expected], rtol=1e-5)
        assert class_id.tolist() == [box[5] for box in expected]


@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_nothing_is_no_box(kind: type) -> None:
    head: Head = kind(CLASSES)
    output = np.zeros_like(outputs_of(kind, 0))
    xyxy, confidence, class_id = head.candidates([output], NET_WH, THRESHOLD)
    assert (xyxy.shape, confidence.shape, class_id.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_only_who_resolved_overlaps_says_so(kind: type) -> None:
    head: Head = kind(CLASSES)
    assert head.is_suppressed == (kind is EndToEndHead)


@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_survives_json(kind: type) -> None:
    head: Head = kind(CLASSES)
    assert heads_from_json(heads_to_json(head)) == head


@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_other_outputs_do_not_fit(kind: type) -> None:
    head: Head = kind(CLASSES)
    output = outputs_of(kind, 0)[None]
    assert "gave 2 outputs where its head has one" in (head.misfit([output, output], 1) or "")
    for other in (output[0], output[:, :, :3], np.concatenate([output, output])):
        if other.shape != output.shape:
            assert "where its head expects (1, " in (head.misfit([other[:, :3]], 1) or "")


@pytest.mark.parametrize("value", [-0.5, 1.5], ids=["logit-below", "logit-above"])
@pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)
def test_logits_are_not_taken_for_probabilities(kind: type, value: float) -> None:
    head: Head = kind(CLASSES)
    output = outputs_of(kind, 0)
    where = (4, 7) if kind is Yolov8Head else (7, 4)
    output[where] = value
    with pytest.raises(ModelError, match="probabilities; export the model so"):
        head.candidates([output], NET_WH, THRESHOLD)


def test_logits_of_classes_are_not_taken_for_probabilities_either() -> None:
    output = np.zeros((POINTS, 5 + CLASSES), np.float32)
    output[3, 4:6] = 0.9, 4
    with pytest.raises(ModelError, match="values from 0 to 4"):
        Yolov5Head(CLASSES).candidates([output], NET_WH, THRESHOLD)


def test_half_a_hair_above_one_is_a_probability() -> None:
    output = np.zeros((300, 6), np.float32)
    output[0] = 1, 2, 3, 4, 1.0005, 2
    assert len(EndToEndHead(CLASSES).candidates([output], NET_WH, THRESHOLD)[1]) == 1


@pytest.mark.parametrize("number", [-1, CLASSES])
def test_a_class_without_a_label_is_refused(number: int) -> None:
    output = np.zeros((300, 6), np.float32)
    output[0] = 1, 2, 3, 4, 0.9, number
    with pytest.raises(ModelError, match=rf"named class {number}, but there are 4 labels"):
        EndToEndHead(CLASSES).candidates([output], NET_WH, THRESHOLD)


def test_other_grids_are_no_yolox_head() -> None:
    output = outputs_of(YoloxHead, 0)[:-1]
    with pytest.raises(ModelError, match=r"gave 125 rows where the grids of a 96x64 .* 126 cells"):
        YoloxHead(CLASSES).candidates([output], NET_WH, THRESHOLD)


def test_a_side_without_end_stays_finite() -> None:
    output = np.zeros((POINTS, 5 + CLASSES), np.float32)
    output[0, :6] = 0, 0, 1e9, 1e9, 1, 1
    xyxy, _, _ = YoloxHead(CLASSES).candidates([output], NET_WH, THRESHOLD)
    assert np.isfinite(xyxy).all()
