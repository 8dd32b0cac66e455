"""`Tracker`: which boxes of one frame after another are the same object.

Frames may be 60 ms or ten seconds apart. Place alone tells little after seconds, so it is weighed
against size, colours and class (`likelihood`), and each box goes to the object that explains it
best, all boxes of a frame together (assignment). A box that no object explains begins one.

What is known of the objects stands in one table (`objects`), and every step is one for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vault_ml.detection import Detections
from vault_ml.tracking.assignment import best_pairs
from vault_ml.tracking.boxes import Boxes, Colours
from vault_ml.tracking.likelihood import class_scores, weigh
from vault_ml.tracking.looked import Looked, class_by_id, observations_by_id
from vault_ml.tracking.objects import SEEN_AT, Objects
from vault_ml.tracking.track import Track

# An object that was not seen for longer is another one when it comes back.
FORGET_AFTER_S = 15.0


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
        self._looked: list[Looked] = []
        self._count = 0
        self._objects: Objects | None = None
        self._forgotten: list[Objects] = []

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
        return self.take(timestamp_s, seen, Boxes.of(seen, colours))

    def take(self, timestamp_s: float, seen: Detections, boxes: Boxes) -> list[int]:
        """The same with the objects in `seen` at hand, as `boxes_of` says, with their colours."""
        found = np.zeros(len(boxes.members), np.int64)
        self._forget(timestamp_s)
        if self._objects is not None:
            known = self._objects
            known.motion.go_on(timestamp_s - self._looked[-1].timestamp_s)
            pairs = weigh(known, boxes, timestamp_s, self._class_scores, self._area)
            shape = (len(known.id), len(found))
            rows, columns = best_pairs(pairs.row, pairs.column, pairs.score, shape)
            found[columns] = known.id[rows]
            known.renew(rows, boxes, columns, timestamp_s)
        new = np.flatnonzero(found == 0)
        if len(new):
            found[new] = np.arange(self._count + 1, self._count + 1 + len(new))
            begun = Objects.begun(self._count + 1, boxes, new, timestamp_s)
            self._objects = begun if self._objects is None else self._objects.and_then(begun)
            self._count += len(new)
        ids: list[int] = found.tolist()
        all_ids = ids if len(ids) == len(seen) else _of_members(boxes.members, ids)
        self._looked.append(Looked(timestamp_s, seen, boxes.members, ids, all_ids))
        return all_ids

    def tracks(self) -> list[Track]:
        """All objects so far, by id."""
        way = observations_by_id(self._looked, self._count)
        class_id = class_by_id(self._looked, self._count, len(self._labels))
        labels = [self._labels[each] for each in class_id]
        ids = range(1, self._count + 1)
        return list(map(Track, ids, class_id, labels, way, self._colours()))

    def _forget(self, now: float) -> None:
        """Close the tracks that were not seen for long: they cost time and attract strangers."""
        if self._objects is None:
            return
        seconds = now - self._objects.table[SEEN_AT]
        if len(seconds) and seconds.max() > FORGET_AFTER_S:
            keep = seconds <= FORGET_AFTER_S
            self._forgotten.append(self._objects.at(np.flatnonzero(~keep)))
            self._objects = self._objects.at(np.flatnonzero(keep))

    def _colours(self) -> list[Colours | None]:
        """What each object looks like, by id."""
        found: list[Colours | None] = [None] * self._count
        parts = self._forgotten if self._objects is None else [*self._forgotten, self._objects]
        for part in parts:
            if part.colours is not None:
                for id_, colours in zip(part.id.tolist(), part.colours, strict=True):
                    found[id_ - 1] = colours.copy()
        return found


def _of_members(members: list[tuple[int, ...]], ids: list[int]) -> list[int]:
    """For each detection the id of the object that it belongs to."""
    found = {member: id_ for group, id_ in zip(members, ids, strict=True) for member in group}
    return [found[member] for member in range(len(found))]
