"""How far an object got, without what its box only trembled.

A detector draws a box a little differently each time, and half a box when something stands in front
of the object. Summed up over a recording, that is a long way for a parked car. So a side alone is
no movement: an object has moved where two opposite sides of its box have gone the same way, by as
much as the one that went less; and steps count only from a certain length on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vault_ml.tracking.track import Box, Track

# Steps are counted from this part of an object's length (root of the area) on, and these pixels.
_STEP = 0.15
_STEP_PX = 2.0
# Single boxes that are off are smoothed away where there are so many, so close in time; over
# seconds an object may well have gone somewhere and come back.
_SMOOTHED_FROM, _SMOOTHED_BELOW_S = 5, 0.5
# An object that comes nearer grows on both axes; its feet tell how far it came.
_GROWN = 1.3
_EVENLY = 1.25


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance in a frame: pixels, or a part of its diagonal.

    Attributes:
        value: of pixels, or of hundredths of the diagonal.
        is_percent: which of them.
    """

    value: float
    is_percent: bool = False

    def in_pixels(self, frame_wh: tuple[int, int]) -> float:
        """For a frame of this size.

        >>> Distance(10, is_percent=True).in_pixels((1920, 1080))
        220.3
        """
        if not self.is_percent:
            return self.value
        return round(self.value / 100 * math.hypot(*frame_wh), 1)

    def __str__(self) -> str:
        return f"{self.value:g} % of the diagonal" if self.is_percent else f"{self.value:g} px"


@dataclass(frozen=True, slots=True)
class Travel:
    """How far an object got.

    Attributes:
        travelled_px: the length of its way, pixels.
        displacement_px: from where it was first to where it was last, pixels.
    """

    travelled_px: float
    displacement_px: float


def travel(track: Track) -> Travel:
    """How far the object of a track got, in frame pixels; 0 where its box only trembled."""
    way = [each.xyxy for each in track.observations]
    seconds = track.observations[-1].timestamp_s - track.observations[0].timestamp_s
    if len(way) >= _SMOOTHED_FROM and seconds < _SMOOTHED_BELOW_S * (len(way) - 1):
        way = _smoothed(way)
    anchor, least, travelled = way[0], _least(way[0]), 0.0
    for box in way:
        step = _step(anchor, box)
        length = math.hypot(*step)
        if length < least:
            continue
        travelled += length
        anchor, least = box, _least(box)
    displacement = math.hypot(*_step(way[0], way[-1]))
    if travelled == 0.0 or displacement < _least(way[0]):
        displacement = 0.0
    return Travel(round(travelled, 1), round(displacement, 1))


def _smoothed(way: Sequence[Box]) -> list[Box]:
    """Each box the median of itself and its neighbours; the first and the last as theirs."""
    sides = np.array(way)
    before, here, after = sides[:-2], sides[1:-1], sides[2:]
    low, high = np.minimum(before, here), np.maximum(before, here)
    inner = np.maximum(low, np.minimum(high, after)).tolist()
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in (inner[0], *inner, inner[-1])]


def _least(box: Box) -> float:
    """The shortest step that counts, pixels."""
    x1, y1, x2, y2 = box
    return max(_STEP_PX, _STEP * math.sqrt(max(x2 - x1, 0.0) * max(y2 - y1, 0.0)))


def _step(a: Box, b: Box) -> tuple[float, float]:
    """From one box to another: on each axis as far as both sides went."""
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    wider = (bx2 - bx1) / max(ax2 - ax1, 1.0)
    higher = (by2 - by1) / max(ay2 - ay1, 1.0)
    grown = math.sqrt(max(wider * higher, 1e-9))
    is_even = 1 / _EVENLY < wider / max(higher, 1e-9) < _EVENLY
    if is_even and not 1 / _GROWN < grown < _GROWN:
        return (bx1 + bx2 - ax1 - ax2) / 2, by2 - ay2
    return _agreed(bx1 - ax1, bx2 - ax2), _agreed(by1 - ay1, by2 - ay2)


def _agreed(one: float, other: float) -> float:
    if one * other <= 0:
        return 0.0
    return math.copysign(min(abs(one), abs(other)), one)
