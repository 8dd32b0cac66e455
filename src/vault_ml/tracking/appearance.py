"""What an object looks like: its colours, to tell it from others when its place does not.

A histogram of coarse colours, of the upper and the lower half of a box. Points are taken on a grid
inside the box, nearer to its middle than to its edges, where the background shows; so the cost does
not grow with the size of an object, and all boxes of a frame are done in one go.

Source: colour histograms compared by the Bhattacharyya coefficient, after Comaniciu, Ramesh and
Meer, "Kernel-based object tracking" (2003).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# 4 x 4 x 4 coarse colours: fine enough for clothes and cars, coarse enough for changing light.
_LEVELS = 4
_COLOURS = _LEVELS**3
_HALVES = 2
LENGTH = _COLOURS * _HALVES
"""Numbers in a description."""
# Grid points per box: enough for a histogram, few enough for 50 boxes in a fraction of a ms.
_GRID_WH = (8, 12)
# The part of a box that is looked at, about its centre. A person fills less of the width.
_PART_WH = (0.6, 0.85)
# A light touch of every colour: two histograms of few points must not be strangers by chance.
_PRIOR = 0.02


def describe(picture: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Describe each box.

    Args:
        picture: (h, w, 3) uint8 RGB.
        boxes: (n, 4) float32, xyxy, pixels of `picture`; may reach outside.

    Returns:
        (n, LENGTH) float32; each row has length 1, so that the product of two rows is their
        Bhattacharyya coefficient: 1 for equal colours, near 0 for none in common.
    """
    n = len(boxes)
    if n == 0:
        return np.zeros((0, LENGTH), np.float32)
    x, y = _grid(boxes, picture.shape[1], picture.shape[0])
    # 0..255 -> 0..3 per channel, then one number per point
    levels = picture[y[:, :, None], x[:, None, :]] >> 6
    colour = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    half = np.arange(_GRID_WH[1]) * _HALVES // _GRID_WH[1]
    place = (np.arange(n)[:, None] * _HALVES + half) * _COLOURS
    index = place[:, :, None] + colour
    counts = np.bincount(index.ravel(), minlength=n * LENGTH).reshape(n, _HALVES, _COLOURS)
    share = counts / (_GRID_WH[0] * _GRID_WH[1] / _HALVES) + _PRIOR / _COLOURS
    share /= share.sum(axis=2, keepdims=True) * _HALVES
    return np.sqrt(share).reshape(n, LENGTH).astype(np.float32)


def _grid(
    boxes: NDArray[np.float32], width: int, height: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns (n, 8) and rows (n, 12) of the grid points, inside the picture."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    axes = []
    for axis, limit in ((0, width), (1, height)):
        steps = (np.arange(_GRID_WH[axis]) + 0.5) / _GRID_WH[axis] - 0.5
        points = centre[:, axis, None] + sides[:, axis, None] * _PART_WH[axis] * steps
        axes.append(np.clip(points, 0, limit - 1).astype(np.int64))
    return axes[0], axes[1]
