"""Which frames to look at where something happens, told from the sizes of packets alone.

An encoder spends bytes on what it could not foresee. Behind a camera that stands still, the frames
between keyframes are small while nothing moves and large while something does; and how large each
is stands in the recording's index, before any picture is fetched or decoded.

Half of the frames' worth is given to time and half to activity, so no part of a recording is left
without frames, and no part gets all of them. Where all is quiet the choice is that of `keyframe`.

The difference of decoded pictures (`Likeness`) then tells which of them show nothing new. What the
network would have cost for those goes to other keyframes (`further`), if one of them shows more.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from vault_ml.video.sampling import PacketIndex

TIME_SHARE = 0.5
"""The part of the frames that is spread over time whatever happens: a span is at most twice as
long as with evenly spread frames. More finds what moves slowly or stands, less what is brief."""

_NEIGHBOURS = 4
"""Sizes are smoothed over so many frames on either side: with B-frames sizes go up and down in
groups of four or so, and one large frame is no event."""

_BEGINNING = 8
"""An encoder begins badly and mends that in its first frames: their sizes tell of it, and not of
the scene. They take the level of those that follow."""

_DENSEST = 3.0
"""How many times closer than evenly spread frames may come to lie: two frames of one second show
little more than one."""

_QUIET_QUANTILE = 0.2
"""The level that a fifth of the frames stays below is taken for that of the empty scene."""

_ACTIVE_FROM = 0.5
"""In doublings: activity begins at 1.4 times the quiet level. The noise of a sensor moves smoothed
sizes by a tenth."""

_MOST = 3.0
"""In doublings: beyond eight times the quiet level more bytes mean a larger object or a light
switched on, not more of an event."""

_SMALLEST_PART = 256
"""A quiet level below this part of a keyframe is nothing at all: a picture of skipped blocks."""

_CELL_DIFFERENCE = 6.0
_REGION_DIFFERENCE = 3.0
MOTION_LIMIT = 0.5
"""Grey levels by which the mean of a cell may differ between pictures of the same scene: keyframes
of one still scene differ by 1 to 2. Half of it in the camera's own region of motion, and where the
sizes say that something happens: there a difference must not be overlooked."""


class Why(StrEnum):
    """Why a frame was chosen."""

    SPREAD = "spread"
    """Nothing stands out in its span: the keyframe nearest to the span's centre."""
    MOTION = "motion"
    """The frames around it take more bytes than the scene needs when it is quiet."""
    CHANGE = "change"
    """A keyframe that shows something new, decoded in place of one that did not."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A frame to look at.

    Attributes:
        time: its presentation time, ticks.
        why: what spoke for it.
    """

    time: int
    why: Why


@dataclass(frozen=True, slots=True)
class Region:
    """Where the camera saw motion, parts of the picture from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, box: Sequence[int], size_wh: tuple[int, int]) -> Region | None:
        """From a box in pixels, cut to a picture of `size_wh`; None where nothing is left of it.

        Args:
            box: x1, y1, x2, y2, as the camera counted them.
            size_wh: of the picture. A camera that watched a smaller stream counted other pixels:
                then the region is elsewhere, and another place is looked at more closely.
        """
        w, h = size_wh
        x1, x2 = (min(max(x, 0), w) for x in (box[0], box[2]))
        y1, y2 = (min(max(y, 0), h) for y in (box[1], box[3]))
        if x1 >= x2 or y1 >= y2:
            return None
        return cls(x1 / w, y1 / h, x2 / w, y2 / h)


def activity(index: PacketIndex) -> tuple[list[int], NDArray[np.float64]]:
    """How much happens at each picture.

    Returns:
        Presentation times of all shown pictures, rising, ticks; and for each how many times the
        frames around it double the size of quiet ones: 0 where nothing stands out, at most 3.
        All 0 where there are no frames between keyframes, or their sizes are not known.
    """
    times = index.shown_times()
    keyframes = set(index.keyframes)
    between = sorted(
        (time, index.sizes[i])
        for i, time in enumerate(index.pts)
        if time is not None and index.is_shown[i] and i not in keyframes and index.sizes
    )
    if len(between) <= 2 * _BEGINNING:
        return times, np.zeros(len(times))
    sums = np.cumsum([0, *(size for _, size in between)], dtype=np.float64)
    where = np.array([bisect_left(between, (time, 0)) for time in times])
    where = np.maximum(where, _BEGINNING + _NEIGHBOURS)
    low = np.clip(where - _NEIGHBOURS, 0, len(between) - 1)
    high = np.clip(where + _NEIGHBOURS + 1, 1, len(between))
    levels = (sums[high] - sums[low]) / (high - low)
    largest = max((index.sizes[i] for i in index.keyframes), default=0)
    quiet = max(float(np.quantile(levels, _QUIET_QUANTILE)), largest / _SMALLEST_PART, 1.0)
    doublings = np.log2(np.maximum(levels / quiet, 1.0))
    return times, np.where(doublings < _ACTIVE_FROM, 0.0, np.minimum(doublings, _MOST))


def choose(index: PacketIndex, frames: int) -> list[Choice]:
    """Choose up to `frames` frames: one for each of so many spans of equal worth.

    Worth is time and activity in equal parts; in a span it is the middle of its most active
    stretch that is looked at, at a keyframe where one lies in the middle half of that.

    Raises:
        ValueError: `frames` is not positive.
    """
    if frames <= 0:
        raise ValueError(f"expected a positive number of frames, got {frames}")
    times, active = activity(index)
    if not times:
        return []
    keyframes = index.keyframe_times()
    lengths = np.diff(np.array([*times, index.end], dtype=np.float64))
    worth = lengths / lengths.sum()
    happening = float((lengths * active).sum())
    if happening > 0:
        mixed = TIME_SHARE * worth + (1 - TIME_SHARE) * lengths * active / happening
        worth = np.minimum(mixed, _DENSEST * worth)
    middles = (np.cumsum(worth) - worth / 2) / worth.sum()
    spans = np.minimum((middles * frames).astype(np.int64), frames - 1)
    chosen: list[Choice] = []
    for span in range(frames):
        first, last = (int(np.searchsorted(spans, span, side)) for side in ("left", "right"))
        if first < last:
            end = times[last] if last < len(times) else index.end
            chosen.append(_one_of(times[first:last], end, active[first:last], keyframes))
    return chosen


def further(index: PacketIndex, looked_at: Sequence[int], most: int) -> list[int]:
    """Where else to look, for frames that showed nothing new: at keyframes, which cost little.

    Args:
        index: the packets of the recording.
        looked_at: times of pictures that were decoded.
        most: how many more may be decoded.

    Returns:
        Times of keyframes that were not, rising; evenly taken where there are more than `most`.
    """
    others = sorted(set(index.keyframe_times()) - set(looked_at))
    if len(others) <= most:
        return others
    return [others[(2 * at + 1) * len(others) // (2 * most)] for at in range(most)]


class Likeness:
    """The pictures that were looked at, as cells of mean brightness, to tell what is new."""

    def __init__(self, region: Region | None = None) -> None:
        """Nothing seen yet; `region` is looked at twice as closely."""
        self._region = region
        self._kept: list[tuple[int, NDArray[np.float32]]] = []

    def see(self, time: int, cells: NDArray[np.float32], *, limit: float = 1.0) -> int | None:
        """Compare a picture with those that were kept, and keep it if it shows something new.

        Args:
            time: when it is shown, ticks.
            cells: (h, w) float32, mean brightness of each cell, grey levels.
            limit: a difference up to this is none.

        Returns:
            The time of a kept picture that shows the same; None where this one is kept.
        """
        for other, kept in self._kept:
            if self.difference(kept, cells) <= limit:
                return other
        self._kept.append((time, cells))
        return None

    def difference(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        """How different two pictures are: up to 1 they show the same.

        A change of the light over all of the picture does not count.
        """
        if a.shape != b.shape:
            return math.inf
        change = b - a
        change = np.abs(change - np.median(change))
        found = float(change.max()) / _CELL_DIFFERENCE
        if self._region is not None:
            h, w = change.shape
            left, right = int(self._region.left * w), math.ceil(self._region.right * w)
            top, bottom = int(self._region.top * h), math.ceil(self._region.bottom * h)
            inside = float(change[top:bottom, left:right].max(initial=0))
            found = max(found, inside / _REGION_DIFFERENCE)
        return found


def _one_of(
    times: Sequence[int], end: int, active: NDArray[np.float64], keyframes: Sequence[int]
) -> Choice:
    """The frame of one span: `times` are its pictures, `end` is when the last of them ends."""
    peak = int(active.argmax())
    if active[peak] == 0:
        centre = (times[0] + end) / 2
        inside = keyframes[bisect_left(keyframes, times[0]) : bisect_left(keyframes, end)]
        time = _nearest(inside, centre) if inside else times[bisect_right(times, centre) - 1]
        return Choice(time, Why.SPREAD)
    first = last = peak
    while first > 0 and active[first - 1] >= active[peak] / 2:
        first -= 1
    while last + 1 < len(times) and active[last + 1] >= active[peak] / 2:
        last += 1
    stretch = slice(first, last + 1)
    centre = float(np.average(times[stretch], weights=active[stretch]))
    quarter = (times[last] - times[first]) / 4
    inside = keyframes[
        bisect_left(keyframes, centre - quarter) : bisect_right(keyframes, centre + quarter)
    ]
    time = _nearest(inside, centre) if inside else times[bisect_right(times, centre) - 1]
    return Choice(time, Why.MOTION)


def _nearest(times: Sequence[int], centre: float) -> int:
    return min(times, key=lambda time: abs(time - centre))
