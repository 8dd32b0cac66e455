"""How far an object may have got since it was last seen: a Kalman filter that takes the time.

Between two looked-at frames lie 60 ms or ten seconds, so the time is an input of every step. The
velocity keeps its direction for a second or two and then forgets it: a track that was lost for ten
seconds may have turned, and how far off it can be grows with the square root of the time, not with
its square.

Source: the integrated Ornstein-Uhlenbeck process (Singer 1970, "Estimating optimal tracking filter
performance for manned maneuvering targets", with velocity instead of acceleration; Johnson et al.
2008, "Continuous-time correlated random walk model for animal telemetry data").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Seconds after which two thirds of a velocity are forgotten.
MEMORY_S = 2.0
# How fast things move (standard deviation), in lengths of their own per second; a length is the
# square root of the box's area. A walking person makes 1.3, a car in a street up to 5.
SPEED_PER_S = 2.0
# How far a box is off the object, in lengths; and what even a tiny box is off, pixels.
BOX_NOISE = 0.06
BOX_NOISE_PX = 1.0

# Rows of the table.
PLACE, VELOCITY = slice(0, 2), slice(2, 4)
CROSS_VAR, VELOCITY_VAR, AREA, PLACE_VAR, BOX_VAR, ROWS = 4, 5, 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class Motion:
    """Place and velocity of n objects, with one variance for both axes, at one time.

    Attributes:
        table: (9, n), all of the below, so that a step of time is one product of matrices.
    """

    table: Floats

    @property
    def place(self) -> Floats:
        """(2, n): x and y of the boxes' centres, frame pixels."""
        return self.table[PLACE]

    @property
    def velocity(self) -> Floats:
        """(2, n), pixels per second."""
        return self.table[VELOCITY]

    @property
    def place_var(self) -> Floats:
        """(n,), px²."""
        return np.asarray(self.table[PLACE_VAR])

    @property
    def velocity_var(self) -> Floats:
        """(n,), px²/s²."""
        return np.asarray(self.table[VELOCITY_VAR])

    @classmethod
    def at_rest(cls, centre: Floats, area: Floats) -> Motion:
        """Objects that are seen for the first time, (2, n) and (n,); their velocity is unknown."""
        found = cls(np.zeros((ROWS, len(area))))
        found.place[:] = centre
        found.table[AREA] = area
        found.table[PLACE_VAR] = found.table[BOX_VAR] = noise_var(area)
        found.table[VELOCITY_VAR] = SPEED_PER_S**2 * area
        return found

    def go_on(self, seconds: float) -> None:
        """Where they may be `seconds` later without being seen.

        Steps add up: two of them are one of both times, so all objects go on from frame to frame
        together, and nobody asks when each was seen.
        """
        self.table[:] = _step(seconds) @ self.table

    def correct(self, centre: Floats, area: Floats, box_var: Floats) -> None:
        """Take in boxes that are seen now.

        Args:
            centre: (2, n) of the boxes, frame pixels.
            area: (n,), px².
            box_var: (n,) `noise_var` of the areas.
        """
        table = self.table
        gain = table[PLACE_VAR] / (total := table[PLACE_VAR] + box_var)
        velocity_gain = table[CROSS_VAR] / total
        off = centre - table[PLACE]
        table[VELOCITY] += velocity_gain * off
        off *= gain
        table[PLACE] += off
        table[VELOCITY_VAR] -= velocity_gain * table[CROSS_VAR]
        left = 1 - gain
        table[PLACE_VAR] *= left
        table[CROSS_VAR] *= left
        table[AREA] = area
        table[BOX_VAR] = box_var


def _step(seconds: float) -> Floats:
    """(9, 9): what so many seconds make of a table; all of it is linear in its rows."""
    kept = math.exp(-seconds / MEMORY_S)
    gain = MEMORY_S * (1 - kept)
    spread = MEMORY_S**2 * (2 * seconds / MEMORY_S - 3 + 4 * kept - kept**2)
    step = np.eye(ROWS)
    step[0, 2] = step[1, 3] = gain
    step[2, 2] = step[3, 3] = step[CROSS_VAR, CROSS_VAR] = kept
    step[PLACE_VAR, CROSS_VAR] = 2 * gain
    step[PLACE_VAR, VELOCITY_VAR] = gain**2
    step[PLACE_VAR, AREA] = SPEED_PER_S**2 * max(spread, 0.0)
    step[CROSS_VAR, VELOCITY_VAR] = gain * kept
    step[CROSS_VAR, AREA] = SPEED_PER_S**2 * MEMORY_S * (1 - kept) ** 2
    step[VELOCITY_VAR, VELOCITY_VAR] = kept**2
    step[VELOCITY_VAR, AREA] = SPEED_PER_S**2 * (1 - kept**2)
    return step


def noise_var(area: Floats) -> Floats:
    """Variance of a box's centre about its object's, px²; `area` of the box, px²."""
    return BOX_NOISE**2 * area + BOX_NOISE_PX**2
