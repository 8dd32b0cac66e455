"""`Boxes`: the objects of one frame, as the tracker wants them.

Boxes of several classes on one object (a car that is also a truck) are one object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.geometry import SAME_OBJECT_IOU, iou
from vault_ml.tracking.motion import Floats, noise_var
from vault_ml.tracking.pairs import within

Colours = NDArray[np.float32]
"""(n, d), each of unit length: `appearance.describe`."""

# Of two boxes with that overlap, what one side of one does not share, with a margin for rounding.
_NOT_SHARED = (1 / SAME_OBJECT_IOU - 1) * 1.01

# Rows of the table.
CENTRE, LOOKS = slice(0, 2), slice(0, 4)
AREA, BOX_VAR = 4, 5


@dataclass(frozen=True, slots=True)
class Boxes:
    """The objects of one frame, boxes of several classes on one object merged.

    Attributes:
        members: of each, its positions among the detections; the first is its box.
        table: (6, n): x and y of the centre, frame pixels; logarithms of width and height; area,
            px²; variance of the centre about the object's, px².
        class_id: (n,).
        colours: of each; None where no picture is at hand.
    """

    members: list[tuple[int, ...]]
    table: Floats
    class_id: NDArray[np.int64]
    colours: Colours | None

    @classmethod
    def of(cls, seen: Detections, colours: Colours | None) -> Boxes:
        """The objects of a frame; `colours` (n, d) of each detection."""
        members = same_objects(seen)
        xyxy: NDArray[np.float32] = seen.xyxy
        class_id = seen.class_id
        if len(members) < len(seen):
            first = np.array([group[0] for group in members], np.int64)
            xyxy, class_id = xyxy[first], class_id[first]
            colours = None if colours is None else colours[first]
        corners = xyxy.T.astype(np.float64)
        sides = np.maximum(corners[2:] - corners[:2], 1.0)
        table = np.empty((6, len(class_id)))
        table[CENTRE] = (corners[:2] + corners[2:]) * 0.5
        np.log(sides, out=table[2:4])
        table[AREA] = sides[0] * sides[1]
        table[BOX_VAR] = noise_var(table[AREA])
        return cls(members, table, class_id, colours)


def same_objects(seen: Detections) -> list[tuple[int, ...]]:
    """Positions of the boxes of each object, by falling confidence.

    A box that overlaps one of another class by more than `SAME_OBJECT_IOU` is the same object.
    """
    if not _may_overlap(seen):
        return [(index,) for index in range(len(seen))]
    overlaps: NDArray[np.bool_] = np.greater(iou(seen.xyxy, seen.xyxy), SAME_OBJECT_IOU)
    overlaps &= seen.class_id[:, None] != seen.class_id
    groups: list[list[int]] = []
    is_alone: list[bool] = np.logical_not(overlaps.any(axis=1)).tolist()
    for index in range(len(seen)):
        if not is_alone[index]:
            same = next((group for group in groups if overlaps[index, group[0]]), None)
            if same is not None:
                same.append(index)
                continue
        groups.append([index])
    return [tuple(group) for group in groups]


def _may_overlap(seen: Detections) -> bool:
    """Whether boxes of different classes might overlap by more than `SAME_OBJECT_IOU`.

    Then each side of one is no farther from that of the other than what they do not share, which is
    less than this part of either's width or height.
    """
    left, top, right, bottom = seen.xyxy.T.copy()
    wide, high = _NOT_SHARED * (right - left), _NOT_SHARED * (bottom - top)
    one, other = within(left, left + wide, left)
    is_near = seen.class_id[one] != seen.class_id[other]
    is_near &= np.abs(right[one] - right[other]) <= wide[one]
    is_near &= np.abs(top[one] - top[other]) <= high[one]
    is_near &= np.abs(bottom[one] - bottom[other]) <= high[one]
    return bool(is_near.any())
