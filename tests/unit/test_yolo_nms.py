from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vault_ml.geometry import NetXyxy
from vault_ml.yolo.nms import per_class_nms

BOX = [0.0, 0.0, 10.0, 10.0]
SHIFTED = [0.0, 2.5, 10.0, 12.5]  # IoU with BOX: 75 / 125 = 0.6
FAR = [100.0, 100.0, 110.0, 110.0]


def nms(
    boxes: list[list[float]],
    confidence: list[float],
    class_id: list[int] | None = None,
    threshold: float = 0.45,
) -> list[int]:
    kept: NDArray[np.int64] = per_class_nms(
        NetXyxy(np.array(boxes, np.float32).reshape(-1, 4)),
        np.array(confidence, np.float32),
        np.array(class_id or [0] * len(boxes), np.int64),
        threshold,
    )
    assert kept.dtype == np.int64
    return [int(index) for index in kept]


def test_nothing_stays_nothing() -> None:
    assert nms([], []) == []


def test_a_single_box_stays() -> None:
    assert nms([BOX], [0.5]) == [0]


@pytest.mark.parametrize(
    ("boxes", "confidence", "class_id", "threshold", "expected"),
    [
        pytest.param([BOX, SHIFTED], [0.6, 0.9], None, 0.45, [1], id="the more confident stays"),
        pytest.param([BOX, FAR], [0.6, 0.9], None, 0.45, [1, 0], id="falling confidence"),
        pytest.param([BOX, SHIFTED], [0.6, 0.9], [0, 1], 0.45, [1, 0], id="classes apart"),
        pytest.param([BOX, SHIFTED], [0.9, 0.6], None, 0.61, [0, 1], id="below the threshold"),
        pytest.param([BOX, BOX], [0.9, 0.6], None, 1.0, [0, 1], id="at the threshold both stay"),
        pytest.param([BOX, BOX, BOX], [0.5, 0.5, 0.5], None, 0.45, [0], id="equals: the first"),
        pytest.param([BOX, FAR, FAR], [0.5, 0.5, 0.5], None, 0.45, [0, 1], id="equals in order"),
        pytest.param(
            [BOX, SHIFTED, [0.0, 5.0, 10.0, 15.0]],
            [0.9, 0.8, 0.7],
            None,
            0.45,
            [0, 2],
            id="what was dropped drops nothing",
        ),
    ],
)
def test_per_class_nms(
    boxes: list[list[float]],
    confidence: list[float],
    class_id: list[int] | None,
    threshold: float,
    expected: list[int],
) -> None:
    assert nms(boxes, confidence, class_id, threshold) == expected
