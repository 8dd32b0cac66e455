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
_PLACE, _VELOCITY, _PLACE_VAR, _CROSS_VAR, _VELOCITY_VAR, _LENGTH, _ROWS = 0, 2, 4, 5, 6, 7, 8


@dataclass(frozen=True, slots=True)
class Motion:
    """Place and velocity of n objects, with one variance for both axes.

    Attributes:
        table: (8, n), all of the below, so that objects are picked and put in one step.
    """

    table: Floats

    @property
    def place(self) -> Floats:
        """(2, n): x and y of the boxes' centres, frame pixels."""
        return self.table[_PLACE:_VELOCITY]

    @property
    def velocity(self) -> Floats:
        """(2, n), pixels per second."""
        return self.table[_VELOCITY:_PLACE_VAR]

    @property
    def place_var(self) -> Floats:
        """(n,), px²."""
        return np.asarray(self.table[_PLACE_VAR])

    @property
    def cross_var(self) -> Floats:
        """(n,), covariance of place and velocity, px²/s."""
        return np.asarray(self.table[_CROSS_VAR])

    @property
    def velocity_var(self) -> Floats:
        """(n,), px²/s²."""
        return np.asarray(self.table[_VELOCITY_VAR])

    @property
    def length(self) -> Floats:
        """(n,), square root of the box's area, pixels."""
        return np.asarray(self.table[_LENGTH])

    @classmethod
    def at_rest(cls, centre: Floats, length: Floats) -> Motion:
        """Objects that are seen for the first time, (2, n) and (n,); their velocity is unknown."""
        found = cls(np.zeros((_ROWS, len(length))))
        found.place[:] = centre
        found.place_var[:] = noise_var(length)
        found.velocity_var[:] = (SPEED_PER_S * length) ** 2
        found.length[:] = length
        return found

    def after(self, seconds: Floats) -> Motion:
        """Where they may be after (n,) seconds without being seen."""
        kept = np.exp(-seconds / MEMORY_S)
        gain = MEMORY_S * (1 - kept)
        speed_var = (SPEED_PER_S * self.length) ** 2
        added = MEMORY_S**2 * (2 * seconds / MEMORY_S - 3 + 4 * kept - kept**2)
        then = Motion(self.table.copy())
        then.place[:] += gain * self.velocity
        then.velocity[:] *= kept
        then.place_var[:] += (
            2 * gain * self.cross_var
            + gain**2 * self.velocity_var
            + speed_var * np.maximum(added, 0.0)
        )
        then.cross_var[:] += gain * self.velocity_var
        then.cross_var[:] *= kept
        then.cross_var[:] += speed_var * MEMORY_S * (1 - kept) ** 2
        then.velocity_var[:] = kept**2 * self.velocity_var + speed_var * (1 - kept**2)
        return then

    def corrected(self, centre: Floats, length: Floats) -> Motion:
        """After boxes' centres, (2, n), of (n,) lengths, were seen at this time."""
        total = self.place_var + noise_var(length)
        of_place, of_velocity = self.place_var / total, self.cross_var / total
        off = centre - self.place
        now = Motion(self.table.copy())
        now.place[:] += of_place * off
        now.velocity[:] += of_velocity * off
        now.place_var[:] *= 1 - of_place
        now.cross_var[:] *= 1 - of_place
        now.velocity_var[:] -= of_velocity * self.cross_var
        now.length[:] = length
        return now


def noise_var(length: Floats) -> Floats:
    """Variance of a box's centre about its object's, px²; `length` in pixels."""
    return (BOX_NOISE * length) ** 2 + BOX_NOISE_PX**2
