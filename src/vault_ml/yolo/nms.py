"""Non-maximum suppression: of boxes that overlap, the most confident stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vault_ml.geometry import NetXyxy, iou


def per_class_nms(
    xyxy: NetXyxy,
    confidence: NDArray[np.float32],
    class_id: NDArray[np.int64],
    iou_threshold: float,
) -> NDArray[np.int64]:
    """Which candidates stay.

    Classes do not disturb each other: a car that is also called a truck stays both. Within a class
    a box goes when it overlaps a kept, more confident one by more than the threshold. An operator
    who raises the threshold sees more boxes on one object; who lowers it loses people in a crowd.

    Args:
        xyxy: (n, 4) float32, net pixels, not clipped.
        confidence: (n,) float32.
        class_id: (n,) int64.
        iou_threshold: overlap above which the less confident box goes.

    Returns:
        (k,) int64, indices of those that stay, by falling confidence; equals in input order.

    Source: darknet `src/box.c` do_nms_sort. Darknet compares relative boxes; the IoU is the same
    in net pixels, since a common factor per axis cancels out.
    """
    # Stable, on the negated values: equals keep their order, so results repeat to the last bit.
    order = np.argsort(-confidence, kind="stable")
    keep = np.zeros(len(order), dtype=np.bool_)
    for label in np.unique(class_id):
        group = order[class_id[order] == label]
        keep[group[_survivors(xyxy[group], iou_threshold)]] = True
    return np.asarray(order[keep[order]], dtype=np.int64)


def _survivors(boxes: NDArray[np.float32], iou_threshold: float) -> NDArray[np.bool_]:
    """(n,) bool over boxes of one class, sorted by falling confidence."""
    overlaps = iou(boxes, boxes) > iou_threshold
    alive = np.ones(len(boxes), dtype=np.bool_)
    for index in range(len(boxes) - 1):
        if alive[index]:
            alive[index + 1 :] &= ~overlaps[index, index + 1 :]
    return alive
