from __future__ import annotations

import numpy as np
import pytest

from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy

LABELS = ("person", "car")


def detections(confidence: list[float], class_id: list[int]) -> Detections:
    n = len(confidence)
    return Detections(
        FrameXyxy(np.arange(4 * n, dtype=np.float32).reshape(n, 4)),
        np.array(confidence, np.float32),
        np.array(class_id, np.int64),
        LABELS,
    )


def test_nothing_seen_has_no_objects() -> None:
    nothing = Detections.none(LABELS)

    assert len(nothing) == 0
    assert nothing.labels == LABELS
    assert len(nothing.where(np.zeros(0, np.bool_))) == 0


def test_objects_have_labels_and_can_be_chosen() -> None:
    seen = detections([0.9, 0.8, 0.8], [1, 0, 1])

    chosen = seen.where(np.array([True, False, True]))

    assert [seen.label(index) for index in range(len(seen))] == ["car", "person", "car"]
    assert chosen.class_id.tolist() == [1, 1]
    assert chosen.xyxy.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]


@pytest.mark.parametrize(
    ("xyxy", "confidence", "class_id", "message"),
    [
        pytest.param((2, 4), [0.9], [0], "xyxy: expected shape (1, 4), got (2, 4)", id="boxes"),
        pytest.param((1, 3), [0.9], [0], "xyxy: expected shape (1, 4), got (1, 3)", id="columns"),
        pytest.param((1, 4), [[0.9]], [0], "confidence: expected shape (1,)", id="confidence"),
        pytest.param((1, 4), [0.9], [0, 1], "class_id: expected shape (1,), got (2,)", id="ids"),
        pytest.param((1, 4), [0.9], [2], "class_id: expected 0..1, got 2..2", id="no such label"),
        pytest.param((1, 4), [0.9], [-1], "class_id: expected 0..1, got -1..-1", id="negative"),
        pytest.param((2, 4), [0.8, 0.9], [0, 0], "confidence: expected falling", id="order"),
    ],
)
def test_arrays_that_disagree_are_refused(
    xyxy: tuple[int, int], confidence: list[object], class_id: list[int], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Detections(
            FrameXyxy(np.zeros(xyxy, np.float32)),
            np.array(confidence, np.float32),
            np.array(class_id, np.int64),
            LABELS,
        )

    assert message in str(caught.value)
