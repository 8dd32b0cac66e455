"""What an object looks like: its colours, to tell it from others when its place does not.

A histogram of coarse colours, of the upper and the lower half of a box. Points are taken on a grid
inside the box, nearer to its middle than to its edges, where the background shows; so the cost does
not grow with the size of an object, and all boxes of a recording are done in one go.

Source: colour histograms compared by the Bhattacharyya coefficient, after Comaniciu, Ramesh and
Meer, "Kernel-based object tracking" (2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

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
# Where the points lie: columns, then rows of the grid, as parts of a box's x1, y1, x2, y2.
_PLACES = np.zeros((sum(_GRID_WH), 4))
for _axis, (_points, _part) in enumerate(zip(_GRID_WH, _PART_WH, strict=True)):
    _from_middle = _part * ((np.arange(_points) + 0.5) / _points - 0.5)
    _rows = slice(None, _points) if _axis == 0 else slice(_GRID_WH[0], None)
    _PLACES[_rows, _axis], _PLACES[_rows, _axis + 2] = 0.5 - _from_middle, 0.5 + _from_middle
_POINTS = _GRID_WH[0] * _GRID_WH[1] // _HALVES
# Root of the share, by the number of points of a colour in its half; of all halves together.
_ROOTS = np.sqrt(
    (np.arange(_POINTS + 1) / _POINTS + _PRIOR / _COLOURS) / ((1 + _PRIOR) * _HALVES)
).astype(np.float32)
# Where the colours of each row of the grid are counted: those of the upper half, then the lower.
_HALF = (np.arange(_GRID_WH[1]) * _HALVES // _GRID_WH[1] * _COLOURS)[:, None, None]


def describe(picture: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Describe each box of one picture; see `descriptions`."""
    (found,) = descriptions([picture], [boxes])
    return found


def descriptions(
    pictures: Sequence[NDArray[np.uint8]], boxes: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Describe each box of each picture, all pictures at once.

    Args:
        pictures: (h, w, 3) uint8 RGB.
        boxes: for each picture (n, 4) float32, xyxy, its pixels; may reach outside.

    Returns:
        For each picture (n, LENGTH) float32; each row has length 1, so that the product of two rows
        is their Bhattacharyya coefficient: 1 for equal colours, near 0 for none in common.
    """
    ends = list(accumulate(map(len, boxes), initial=0))
    n = ends[-1]
    if n == 0:
        return [np.zeros((0, LENGTH), np.float32) for _ in boxes]
    # The boxes are the last axis throughout: numpy is fast where that is long.
    sides = np.array([picture.shape[:2] for picture in pictures]).repeat(np.diff(ends), axis=0)
    x, y = _grid(np.concatenate(boxes), sides.T)
    place = (y * sides[:, 1])[:, None, :] + x
    points = np.empty((3, *place.shape), np.uint8)
    for picture, (begin, end) in zip(pictures, pairwise(ends), strict=True):
        if begin < end:
            taken = picture.reshape(-1, 3).take(place[..., begin:end], axis=0)
            points[..., begin:end] = taken.transpose(3, 0, 1, 2)
    # 0..255 -> 0..3 per channel, then one number per point
    points >>= 6
    points[0] *= _LEVELS**2
    points[1] *= _LEVELS
    index = (points[0] + points[1] + points[2]) + (_HALF + np.arange(0, n * LENGTH, LENGTH))
    counts = np.bincount(index.ravel(), minlength=n * LENGTH)
    rows = _ROOTS.take(counts).reshape(n, LENGTH)
    return [rows[begin:end] for begin, end in pairwise(ends)]


def _grid(
    boxes: NDArray[np.float32], sides: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns (8, n) and rows (12, n) of the grid points, inside pictures of `sides`, (2, n)."""
    points = _PLACES @ boxes.T.astype(np.float64)
    np.maximum(points, 0, out=points)
    x, y = points[: _GRID_WH[0]], points[_GRID_WH[0] :]
    height, width = sides - 1
    np.minimum(x, width, out=x)
    np.minimum(y, height, out=y)
    whole = points.astype(np.int64)
    return whole[: _GRID_WH[0]], whole[_GRID_WH[0] :]
