"""`Tracker`: which boxes of one frame after another are the same object.

Frames may be 60 ms or ten seconds apart. Place alone tells little after seconds, so it is weighed
against size, colours and class (`likelihood`), and each box goes to the track that explains it
best, all boxes of a frame together (assignment). A box that no track explains begins one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vault_ml.detection import Detections
from vault_ml.geometry import SAME_OBJECT_IOU, iou
from vault_ml.tracking.likelihood import class_scores, of_colours, of_place, of_size
from vault_ml.tracking.motion import Floats, Motion
from vault_ml.tracking.track import Observation, Track

# An object that was not seen for longer is another one when it comes back.
FORGET_AFTER_S = 15.0
# How much of a track's description a new box replaces.
_COLOURS_RENEWED = 0.3
# At first as many things stand as move. A step tells one from the other.
_FIRST_STILL = 0.5
_STILL_BOUNDS = (0.02, 0.98)
_RENEWED = 0.4


@dataclass(slots=True)
class _Object:
    """What is remembered of an object beside its state."""

    id: int
    votes: dict[int, float] = field(default_factory=dict)
    observations: list[Observation] = field(default_factory=list)
    colours: NDArray[np.float32] | None = None

    def as_track(self, labels: Sequence[str]) -> Track:
        # Of equal votes the lower class: the same outcome on every machine.
        class_id = min(self.votes, key=lambda each: (-self.votes[each], each))
        return Track(self.id, class_id, labels[class_id], tuple(self.observations), self.colours)


@dataclass(frozen=True, slots=True)
class _Boxes:
    """The objects of one frame, boxes of several classes on one object merged."""

    members: list[list[int]]
    centre: Floats
    length: Floats
    log_size: Floats
    class_id: NDArray[np.int64]
    colours: NDArray[np.float32] | None

    @classmethod
    def of(cls, seen: Detections, colours: NDArray[np.float32] | None) -> _Boxes:
        members = same_objects(seen)
        first = np.array([group[0] for group in members], np.int64)
        xyxy = seen.xyxy[first].astype(np.float64)
        sides = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 1.0)
        return cls(
            members,
            (xyxy[:, :2] + xyxy[:, 2:]) / 2,
            np.sqrt(sides[:, 0] * sides[:, 1]),
            np.log(sides),
            seen.class_id[first],
            None if colours is None else colours[first],
        )


def same_objects(seen: Detections) -> list[list[int]]:
    """Positions of the boxes of each object, by falling confidence.

    A box that overlaps one of another class by more than `SAME_OBJECT_IOU` is the same object.
    """
    groups: list[list[int]] = []
    overlaps: NDArray[np.bool_] = np.greater(iou(seen.xyxy, seen.xyxy), SAME_OBJECT_IOU)
    overlaps &= seen.class_id[:, None] != seen.class_id[None, :]
    is_alone: NDArray[np.bool_] = np.logical_not(overlaps.any(axis=1))
    for index in range(len(seen)):
        if not is_alone[index]:
            same = next((group for group in groups if overlaps[index, group[0]]), None)
            if same is not None:
                same.append(index)
                continue
        groups.append([index])
    return groups


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
        self._frame = 0
        self._done: list[_Object] = []
        self._objects: list[_Object] = []  # those below belong to these, row by row
        self._motion = Motion.at_rest(np.zeros((0, 2)), np.zeros(0))
        self._last = np.zeros((0, 2))
        self._log_size = np.zeros((0, 2))
        self._seen_at = np.zeros(0)
        self._is_still = np.zeros(0)
        self._class_id = np.zeros(0, np.int64)
        self._colours: NDArray[np.float32] | None = None

    def update(
        self,
        timestamp_s: float,
        seen: Detections,
        colours: NDArray[np.float32] | None = None,
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
        self._forget(timestamp_s)
        predicted = self._motion.after(timestamp_s - self._seen_at)
        rows, columns = self._assign(predicted, boxes, timestamp_s)
        self._renew(predicted, boxes, rows, columns, timestamp_s)
        taken = dict(zip(columns.tolist(), rows.tolist(), strict=True))
        new = [column for column in range(len(boxes.members)) if column not in taken]
        first_new = len(self._objects)
        self._begin(boxes, np.array(new, np.int64), timestamp_s)
        taken |= {column: first_new + place for place, column in enumerate(new)}
        ids = [0] * len(seen)
        for column, members in enumerate(boxes.members):
            known = self._objects[taken[column]]
            self._observe(known, members, seen, timestamp_s)
            for member in members:
                ids[member] = known.id
        self._frame += 1
        return ids

    def tracks(self) -> list[Track]:
        """All objects so far, by id."""
        for row, known in enumerate(self._objects):
            known.colours = None if self._colours is None else self._colours[row].copy()
        objects = sorted([*self._done, *self._objects], key=lambda each: each.id)
        return [each.as_track(self._labels) for each in objects]

    def _assign(
        self, predicted: Motion, boxes: _Boxes, now: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the pairs that are one object."""
        score = of_place(
            predicted, self._last, self._is_still, boxes.centre, boxes.length, self._area
        )
        score += of_size(self._log_size, boxes.log_size, now - self._seen_at)
        score += self._class_scores[np.ix_(self._class_id, boxes.class_id)]
        if self._colours is not None and boxes.colours is not None:
            score += of_colours(self._colours, boxes.colours)
        # A pair below 0 is worth as much as none, so it never displaces a good one.
        rows, columns = linear_sum_assignment(np.maximum(score, 0.0), maximize=True)
        is_pair = score[rows, columns] > 0
        return rows[is_pair], columns[is_pair]

    def _renew(
        self,
        predicted: Motion,
        boxes: _Boxes,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        now: float,
    ) -> None:
        """Bring the state of the tracks in `rows` up to the boxes in `columns`."""
        centre, length = boxes.centre[columns], boxes.length[columns]
        off = np.hypot(*(centre - self._last[rows]).T)
        # A step of a third of a length is one; below a tenth a box only trembles.
        step = np.clip((off / length - 0.1) / 0.2, 0.0, 1.0)
        still = (1 - _RENEWED) * self._is_still[rows] + _RENEWED * (1 - step)
        self._is_still[rows] = np.clip(still, *_STILL_BOUNDS)
        fields = ("place", "velocity", "place_var", "cross_var", "velocity_var", "length")
        then = Motion(*(getattr(predicted, name)[rows] for name in fields))
        corrected = then.corrected(centre, length)
        for name in fields:
            getattr(self._motion, name)[rows] = getattr(corrected, name)
        self._last[rows], self._log_size[rows] = centre, boxes.log_size[columns]
        self._seen_at[rows] = now
        self._class_id[rows] = boxes.class_id[columns]
        if self._colours is not None and boxes.colours is not None:
            mixed = (1 - _COLOURS_RENEWED) * self._colours[rows]
            mixed += _COLOURS_RENEWED * boxes.colours[columns]
            self._colours[rows] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)

    def _begin(self, boxes: _Boxes, columns: NDArray[np.int64], now: float) -> None:
        """Begin a track for each of the boxes in `columns`."""
        new = Motion.at_rest(boxes.centre[columns], boxes.length[columns])
        fields = ("place", "velocity", "place_var", "cross_var", "velocity_var", "length")
        self._motion = Motion(
            *(np.concatenate([getattr(self._motion, name), getattr(new, name)]) for name in fields)
        )
        number = len(self._done) + len(self._objects)
        self._objects += [_Object(number + 1 + place) for place in range(len(columns))]
        self._last = np.concatenate([self._last, boxes.centre[columns]])
        self._log_size = np.concatenate([self._log_size, boxes.log_size[columns]])
        self._seen_at = np.concatenate([self._seen_at, np.full(len(columns), now)])
        self._is_still = np.concatenate([self._is_still, np.full(len(columns), _FIRST_STILL)])
        self._class_id = np.concatenate([self._class_id, boxes.class_id[columns]])
        if boxes.colours is not None:
            known = self._colours if self._colours is not None else boxes.colours[:0]
            self._colours = np.concatenate([known, boxes.colours[columns]])

    def _forget(self, now: float) -> None:
        """Close the tracks that were not seen for long: they cost time and attract strangers."""
        keep = now - self._seen_at <= FORGET_AFTER_S
        if keep.all():
            return
        for row in np.flatnonzero(~keep):
            known = self._objects[row]
            known.colours = None if self._colours is None else self._colours[row].copy()
            self._done.append(known)
        self._objects = [self._objects[row] for row in np.flatnonzero(keep)]
        fields = ("place", "velocity", "place_var", "cross_var", "velocity_var", "length")
        self._motion = Motion(*(getattr(self._motion, name)[keep] for name in fields))
        self._last, self._log_size = self._last[keep], self._log_size[keep]
        self._seen_at, self._is_still = self._seen_at[keep], self._is_still[keep]
        self._class_id = self._class_id[keep]
        self._colours = None if self._colours is None else self._colours[keep]

    def _observe(
        self, known: _Object, members: Sequence[int], seen: Detections, now: float
    ) -> None:
        first = members[0]
        for member in members:
            class_id = int(seen.class_id[member])
            known.votes[class_id] = known.votes.get(class_id, 0.0) + float(seen.confidence[member])
        x1, y1, x2, y2 = (float(side) for side in seen.xyxy[first])
        known.observations.append(
            Observation(
                self._frame, tuple(members), now, (x1, y1, x2, y2), float(seen.confidence[first])
            )
        )
