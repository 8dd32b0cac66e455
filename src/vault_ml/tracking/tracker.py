"""`Tracker`: which boxes of one frame after another are the same object.

Frames may be 60 ms or ten seconds apart. Place alone tells little after seconds, so it is weighed
against size, colours and class (`likelihood`), and each box goes to the object that explains it
best, all boxes of a frame together (assignment). A box that no object explains begins one.

What is known of the objects stands in arrays, a row each, and every step is one for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vault_ml.detection import Detections
from vault_ml.geometry import SAME_OBJECT_IOU, iou
from vault_ml.tracking.likelihood import Colours, Looks, class_scores, scores
from vault_ml.tracking.motion import Floats, Motion
from vault_ml.tracking.pairs import Whole, within
from vault_ml.tracking.track import Observation, Track

# An object that was not seen for longer is another one when it comes back.
FORGET_AFTER_S = 15.0
# How much of an object's description a new box replaces.
_COLOURS_RENEWED = 0.3
# At first as many things stand as move. A step tells one from the other.
_FIRST_STILL = 0.5
_LEAST_STILL, _MOST_STILL = 0.02, 0.98
_RENEWED = 0.4

# Of two boxes with that overlap, what one side of one does not share, with a margin for rounding.
_NOT_SHARED = (1 / SAME_OBJECT_IOU - 1) * 1.01


@dataclass(frozen=True, slots=True)
class _Boxes:
    """The objects of one frame, boxes of several classes on one object merged.

    Attributes:
        members: of each, its positions among the detections; the first is its box.
        looks, length: of each; length in pixels.
    """

    members: list[tuple[int, ...]]
    looks: Looks
    length: Floats

    @classmethod
    def of(cls, seen: Detections, colours: Colours | None) -> _Boxes:
        members = same_objects(seen)
        xyxy: NDArray[np.float32] = seen.xyxy
        class_id = seen.class_id
        if len(members) < len(seen):
            first = np.array([group[0] for group in members], np.int64)
            xyxy, class_id = xyxy[first], class_id[first]
            colours = None if colours is None else colours[first]
        corners = xyxy.T.astype(np.float64)
        sides = np.maximum(corners[2:] - corners[:2], 1.0)
        table = np.concatenate([(corners[:2] + corners[2:]) / 2, np.log(sides)])
        return cls(members, Looks(table, class_id, colours), np.sqrt(sides[0] * sides[1]))


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


@dataclass(slots=True)
class _Objects:
    """What is known of n objects: a row each.

    Attributes:
        id: (n,).
        motion: at `seen_at`.
        looks: when they were last seen; colours over all times.
        seen_at: (n,) time of the last frame that shows each, seconds.
        is_still: (n,) how probable it is that each stands.
    """

    id: Whole
    motion: Motion
    looks: Looks
    seen_at: Floats
    is_still: Floats

    @classmethod
    def begun(cls, first_id: int, boxes: _Boxes, columns: Whole, now: float) -> _Objects:
        n, looks = len(columns), boxes.looks
        return cls(
            np.arange(first_id, first_id + n),
            Motion.at_rest(looks.centre.take(columns, axis=1), boxes.length[columns]),
            _some(looks, columns),
            np.full(n, now),
            np.full(n, _FIRST_STILL),
        )

    def at(self, rows: Whole) -> _Objects:
        return _Objects(
            self.id[rows],
            Motion(self.motion.table.take(rows, axis=1)),
            _some(self.looks, rows),
            self.seen_at[rows],
            self.is_still[rows],
        )

    def and_then(self, more: _Objects) -> _Objects:
        mine, theirs = self.looks, more.looks
        colours: Colours | None = None
        if mine.colours is not None and theirs.colours is not None:
            colours = np.concatenate([mine.colours, theirs.colours])
        return _Objects(
            np.concatenate([self.id, more.id]),
            Motion(np.concatenate([self.motion.table, more.motion.table], axis=1)),
            Looks(
                np.concatenate([mine.table, theirs.table], axis=1),
                np.concatenate([mine.class_id, theirs.class_id]),
                colours,
            ),
            np.concatenate([self.seen_at, more.seen_at]),
            np.concatenate([self.is_still, more.is_still]),
        )

    def renew(
        self, predicted: Motion, boxes: _Boxes, rows: Whole, columns: Whole, now: float
    ) -> None:
        """Bring the objects in `rows` up to the boxes in `columns`."""
        mine, theirs = self.looks, _some(boxes.looks, columns)
        length = boxes.length[columns]
        off = np.hypot(*(theirs.centre - mine.centre.take(rows, axis=1)))
        # A step of a third of a length is one; below a tenth a box only trembles.
        step = np.minimum(np.maximum((off / length - 0.1) / 0.2, 0.0), 1.0)
        still = (1 - _RENEWED) * self.is_still[rows] + _RENEWED * (1 - step)
        self.is_still[rows] = np.minimum(np.maximum(still, _LEAST_STILL), _MOST_STILL)
        then = Motion(predicted.table.take(rows, axis=1))
        _put(self.motion.table, rows, then.corrected(theirs.centre, length).table)
        self.seen_at[rows] = now
        _put(mine.table, rows, theirs.table)
        mine.class_id[rows] = theirs.class_id
        if mine.colours is not None and theirs.colours is not None:
            mixed = mine.colours.take(rows, axis=0)
            mixed *= 1 - _COLOURS_RENEWED
            mixed += _COLOURS_RENEWED * theirs.colours
            mixed /= np.sqrt(np.einsum("ij,ij->i", mixed, mixed))[:, None]
            mine.colours[rows] = mixed


@dataclass(frozen=True, slots=True)
class _Looked:
    """A looked-at frame: what was seen, and for each of its objects which one it is."""

    timestamp_s: float
    seen: Detections
    members: list[tuple[int, ...]]
    ids: list[int]


class Tracker:
    """The objects of one recording. Feed it frame by frame, then ask for `tracks`."""

    def __init__(self, labels: Sequence[str], frame_wh: tuple[int, int]) -> None:
        """Begin a recording.

        Args:
            labels: the model's class names.
            frame_wh: size of its frames, pixels.
        """
        self._labels = tuple(labels)
        self._class_scores = class_scores(self._labels)
        self._area = float(frame_wh[0] * frame_wh[1])
        self._looked: list[_Looked] = []
        self._count = 0
        self._objects: _Objects | None = None
        self._forgotten: list[_Objects] = []

    def update(
        self, timestamp_s: float, seen: Detections, colours: Colours | None = None
    ) -> list[int]:
        """Take the next looked-at frame.

        Args:
            timestamp_s: its time; later than the one before.
            seen: what is in it, frame pixels. A frame without objects belongs here too.
            colours: (n, d) float32, a description of each (`appearance.describe`); None where no
                picture is at hand. Either always or never.

        Returns:
            For each detection the id of its track.
        """
        boxes = _Boxes.of(seen, colours)
        found = np.zeros(len(boxes.members), np.int64)
        self._forget(timestamp_s)
        if self._objects is not None:
            predicted = self._objects.motion.after(timestamp_s - self._objects.seen_at)
            rows, columns = self._assign(self._objects, predicted, boxes, timestamp_s)
            found[columns] = self._objects.id[rows]
            self._objects.renew(predicted, boxes, rows, columns, timestamp_s)
        new = np.flatnonzero(found == 0)
        if len(new):
            found[new] = np.arange(self._count + 1, self._count + 1 + len(new))
            begun = _Objects.begun(self._count + 1, boxes, new, timestamp_s)
            self._objects = begun if self._objects is None else self._objects.and_then(begun)
            self._count += len(new)
        ids: list[int] = found.tolist()
        self._looked.append(_Looked(timestamp_s, seen, boxes.members, ids))
        if len(ids) == len(seen):
            return ids
        of_member = dict(
            chain.from_iterable(
                ((member, id_) for member in group)
                for group, id_ in zip(boxes.members, ids, strict=True)
            )
        )
        return [of_member[member] for member in range(len(seen))]

    def tracks(self) -> list[Track]:
        """All objects so far, by id."""
        observations: list[list[Observation]] = [[] for _ in range(self._count)]
        votes: list[dict[int, float]] = [{} for _ in range(self._count)]
        for frame, looked in enumerate(self._looked):
            at, seen = looked.timestamp_s, looked.seen
            sides: list[tuple[float, float, float, float]] = list(map(tuple, seen.xyxy.tolist()))
            confidence, class_id = seen.confidence.tolist(), seen.class_id.tolist()
            for members, id_ in zip(looked.members, looked.ids, strict=True):
                first, said = members[0], votes[id_ - 1]
                for member in members:
                    each = class_id[member]
                    said[each] = said.get(each, 0.0) + confidence[member]
                observations[id_ - 1].append(
                    Observation(frame, members, at, sides[first], confidence[first])
                )
        colours = self._colours()
        found = []
        for place, (way, said) in enumerate(zip(observations, votes, strict=True)):
            # Of equal votes the lower class: the same outcome on every machine.
            label = min(said, key=lambda each: (-said[each], each))
            found.append(Track(place + 1, label, self._labels[label], tuple(way), colours[place]))
        return found

    def _assign(
        self, objects: _Objects, predicted: Motion, boxes: _Boxes, now: float
    ) -> tuple[Whole, Whole]:
        """Rows and columns of the pairs that are one object."""
        score = scores(
            predicted,
            objects.looks,
            objects.is_still,
            now - objects.seen_at,
            boxes.looks,
            boxes.length,
            classes=self._class_scores,
            area=self._area,
        )
        rows, columns = linear_sum_assignment(score, maximize=True)
        is_pair = score[rows, columns] > 0
        return rows[is_pair], columns[is_pair]

    def _forget(self, now: float) -> None:
        """Close the tracks that were not seen for long: they cost time and attract strangers."""
        if self._objects is None:
            return
        keep = now - self._objects.seen_at <= FORGET_AFTER_S
        if not keep.all():
            self._forgotten.append(self._objects.at(np.flatnonzero(~keep)))
            self._objects = self._objects.at(np.flatnonzero(keep))

    def _colours(self) -> list[Colours | None]:
        """What each object looks like, by id."""
        found: list[Colours | None] = [None] * self._count
        parts = self._forgotten if self._objects is None else [*self._forgotten, self._objects]
        for part in parts:
            if part.looks.colours is not None:
                for id_, colours in zip(part.id.tolist(), part.looks.colours, strict=True):
                    found[id_ - 1] = colours.copy()
        return found


def _put(table: Floats, rows: Whole, values: Floats) -> None:
    """Put (k, p) values into p columns of a (k, n) table: numpy is fast on one axis at a time."""
    for line, new in zip(table, values, strict=True):
        line[rows] = new


def _some(looks: Looks, rows: Whole) -> Looks:
    return Looks(
        looks.table.take(rows, axis=1),
        looks.class_id[rows],
        None if looks.colours is None else looks.colours.take(rows, axis=0),
    )
