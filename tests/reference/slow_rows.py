"""What other projects' heads mean, one value after another. Shares no code with `src`.

Each takes the output for one picture as nested lists and gives (x1, y1, x2, y2, confidence, class)
of every box above the threshold, in the output's order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
Box = tuple[float, float, float, float, float, int]


def corners(cx: float, cy: float, w: float, h: float) -> tuple[float, float, float, float]:
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def yolov8(columns: Rows, threshold: float) -> list[Box]:
    boxes = []
    for point in range(len(columns[0])):
        values = [channel[point] for channel in columns]
        for label, score in enumerate(values[4:]):
            if score > threshold:
                boxes.append((*corners(*values[:4]), score, label))
    return boxes


def yolov5(rows: Rows, threshold: float) -> list[Box]:
    boxes = []
    for values in rows:
        for label, score in enumerate(values[5:]):
            if values[4] * score > threshold:
                boxes.append((*corners(*values[:4]), values[4] * score, label))
    return boxes


def yolox(rows: Rows, net_wh: tuple[int, int], threshold: float) -> list[Box]:
    boxes, at = [], 0
    for stride in (8, 16, 32):
        for y in range(net_wh[1] // stride):
            for x in range(net_wh[0] // stride):
                values = rows[at]
                at += 1
                cx, cy = (values[0] + x) * stride, (values[1] + y) * stride
                w, h = math.exp(values[2]) * stride, math.exp(values[3]) * stride
                for label, score in enumerate(values[5:]):
                    if values[4] * score > threshold:
                        boxes.append((*corners(cx, cy, w, h), values[4] * score, label))
    assert at == len(rows)
    return boxes


def end_to_end(rows: Rows, threshold: float) -> list[Box]:
    return [
        (*values[:4], values[4], round(values[5]))  # type: ignore[misc]  # six values
        for values in rows
        if values[4] > threshold
    ]
