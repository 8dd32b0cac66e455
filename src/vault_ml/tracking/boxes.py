"""`Boxes`: the objects of one frame, as the tracker wants them.

Boxes of several classes on one object (a car that is also a truck) are one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.geometry import SAME_OBJECT_IOU, iou
from vault_ml.tracking.motion import Floats, noise_var
from vault_ml.tracking.pairs import Whole, within

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
        (found,) = boxes_of([seen])
        return found.coloured(None if colours is None else colours.take(found.first, axis=0))

    @property
    def first(self) -> Whole:
        """(n,) position of each object's box among the detections."""
        return _first(self.members)

    def coloured(self, colours: Colours | None) -> Boxes:
        """The same with (n, d) `colours` of each object."""
        return Boxes(self.members, self.table, self.class_id, colours)


def boxes_of(seen: Sequence[Detections]) -> list[Boxes]:
    """The objects of each frame, without colours.

    Of all frames at once: what numpy is asked for a recording, it need not be asked for each frame.
    """
    counts = [len(each) for each in seen]
    if not sum(counts):
        return [Boxes([], np.empty((6, 0)), np.zeros(0, np.int64), None) for _ in seen]
    table = _table(np.concatenate([each.xyxy for each in seen]))
    found, begin = [], 0
    for each, members in zip(seen, same_objects(seen), strict=True):
        first = _first(members)
        found.append(Boxes(members, table.take(begin + first, axis=1), each.class_id[first], None))
        begin += len(each)
    return found


def same_objects(seen: Sequence[Detections]) -> list[list[tuple[int, ...]]]:
    """For each frame the positions of the boxes of each object, by falling confidence.

    A box that overlaps one of another class by more than `SAME_OBJECT_IOU` is the same object.
    """
    counts = [len(each) for each in seen]
    alone: list[tuple[int, ...]] = [(index,) for index in range(max(counts, default=0))]
    found = [alone[:count] for count in counts]
    if any(len(set(each.class_id.tolist())) > 1 for each in seen):
        xyxy = np.concatenate([each.xyxy for each in seen])
        class_id = np.concatenate([each.class_id for each in seen])
        frame = np.arange(len(seen)).repeat(counts)
        for index in set(frame[_may_overlap(xyxy, class_id, frame)].tolist()):
            found[index] = _groups(seen[index])
    return found


def _first(members: list[tuple[int, ...]]) -> Whole:
    return np.array([group[0] for group in members], np.int64)


def _table(xyxy: NDArray[np.float32]) -> Floats:
    corners = xyxy.T.astype(np.float64)
    sides = np.maximum(corners[2:] - corners[:2], 1.0)
    table = np.empty((6, len(xyxy)))
    table[CENTRE] = (corners[:2] + corners[2:]) * 0.5
    np.log(sides, out=table[2:4])
    table[AREA] = sides[0] * sides[1]
    table[BOX_VAR] = noise_var(table[AREA])
    return table


def _groups(seen: Detections) -> list[tuple[int, ...]]:
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


def _may_overlap(xyxy: NDArray[np.float32], class_id: Whole, frame: Whole) -> Whole:
    """Boxes that one of another class in their frame might overlap by more than `SAME_OBJECT_IOU`.

    Then each side of one is no farther from that of the other than what they do not share, which is
    less than this part of either's width or height.

    Args:
        xyxy: (n, 4), frame pixels; at least one.
        class_id: (n,).
        frame: (n,) in which each is.

    Returns:
        (p,) positions; of two such boxes at least one is told.
    """
    left, top, right, bottom = xyxy.T.copy()
    wide, high = _NOT_SHARED * (right - left), _NOT_SHARED * (bottom - top)
    # Frames lie side by side, so far from each other that no stretch reaches into the next.
    apart = float(left.max() - left.min()) + max(float(wide.max()), 0.0) + 1.0
    begins = left + frame * apart
    one, other = within(begins, begins + wide, begins)
    is_near = class_id[one] != class_id[other]
    one, other = one[is_near], other[is_near]
    is_near = np.abs(right[one] - right[other]) <= wide[one]
    is_near &= np.abs(top[one] - top[other]) <= high[one]
    is_near &= np.abs(bottom[one] - bottom[other]) <= high[one]
    return np.asarray(one[is_near])
