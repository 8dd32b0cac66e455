"""`Looked`: what was found in each looked-at frame, and what all of them say of each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat

import numpy as np

from vault_ml.detection import Detections
from vault_ml.tracking.track import Box, Observation


@dataclass(frozen=True, slots=True)
class Looked:
    """A looked-at frame.

    Attributes:
        timestamp_s: its time.
        seen: what is in it.
        members: for each of its objects, the positions among `seen`; the first is its box.
        ids: for each of its objects, which one it is.
        all_ids: for each of `seen`, which object it is.
    """

    timestamp_s: float
    seen: Detections
    members: list[tuple[int, ...]]
    ids: list[int]
    all_ids: list[int]


def observations_by_id(frames: Sequence[Looked], count: int) -> list[tuple[Observation, ...]]:
    """Where each object with an id from 1 to `count` was seen, in order of time."""
    ids = np.array(list(chain.from_iterable(each.ids for each in frames)), np.int64)
    found = list(chain.from_iterable(map(_observations, range(len(frames)), frames)))
    in_order = [found[place] for place in ids.argsort(kind="stable").tolist()]
    ends = accumulate(np.bincount(ids, minlength=count + 1).tolist())
    return [tuple(in_order[begin:end]) for begin, end in pairwise(ends)]


def _observations(frame: int, looked: Looked) -> map[Observation]:
    sides: list[Box] = list(map(tuple, looked.seen.xyxy.tolist()))
    confidence = looked.seen.confidence.tolist()
    if len(looked.members) < len(sides):
        first = [group[0] for group in looked.members]
        sides, confidence = [sides[each] for each in first], [confidence[each] for each in first]
    at = repeat(looked.timestamp_s)
    return map(Observation, repeat(frame), looked.members, at, sides, confidence)


def class_by_id(frames: Sequence[Looked], count: int, classes: int) -> list[int]:
    """Which class most confidence was given to, for each object with an id from 1 to `count`."""
    if not count:
        return []
    ids = np.array(list(chain.from_iterable(each.all_ids for each in frames)), np.int64)
    vote = (ids - 1) * classes + np.concatenate([each.seen.class_id for each in frames])
    confidence = np.concatenate([each.seen.confidence for each in frames])
    said = np.bincount(vote, confidence, minlength=count * classes)
    # Even with no confidence at all it is one of those that were told.
    said[np.bincount(vote, minlength=count * classes) == 0] = -1.0
    # Of equal votes the lower class: the same outcome on every machine.
    found: list[int] = said.reshape(count, classes).argmax(axis=1).tolist()
    return found
