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


@dataclass(frozen=True, slots=True)
class Motion:
    """Place and velocity of n objects, with one variance for both axes.

    Attributes:
        place: (n, 2), centres of the boxes, frame pixels.
        velocity: (n, 2), pixels per second.
        place_var: (n,), px².
        cross_var: (n,), covariance of place and velocity, px²/s.
        velocity_var: (n,), px²/s².
        length: (n,), square root of the box's area, pixels.
    """

    place: Floats
    velocity: Floats
    place_var: Floats
    cross_var: Floats
    velocity_var: Floats
    length: Floats

    @classmethod
    def at_rest(cls, centre: Floats, length: Floats) -> Motion:
        """Objects that are seen for the first time; their velocity is not known."""
        n = len(centre)
        return cls(
            centre,
            np.zeros((n, 2)),
            noise_var(length),
            np.zeros(n),
            (SPEED_PER_S * length) ** 2,
            length,
        )

    def after(self, seconds: Floats) -> Motion:
        """Where they may be after (n,) seconds without being seen."""
        kept = np.exp(-seconds / MEMORY_S)
        gain = MEMORY_S * (1 - kept)
        speed_var = (SPEED_PER_S * self.length) ** 2
        added = MEMORY_S**2 * (2 * seconds / MEMORY_S - 3 + 4 * kept - kept**2)
        return Motion(
            self.place + gain[:, None] * self.velocity,
            kept[:, None] * self.velocity,
            self.place_var
            + 2 * gain * self.cross_var
            + gain**2 * self.velocity_var
            + speed_var * np.maximum(added, 0.0),
            kept * (self.cross_var + gain * self.velocity_var)
            + speed_var * MEMORY_S * (1 - kept) ** 2,
            kept**2 * self.velocity_var + speed_var * (1 - kept**2),
            self.length,
        )

    def corrected(self, centre: Floats, length: Floats) -> Motion:
        """After (n, 2) boxes' centres, of (n,) lengths, were seen at this time."""
        total = self.place_var + noise_var(length)
        of_place, of_velocity = self.place_var / total, self.cross_var / total
        off = centre - self.place
        return Motion(
            self.place + of_place[:, None] * off,
            self.velocity + of_velocity[:, None] * off,
            (1 - of_place) * self.place_var,
            (1 - of_place) * self.cross_var,
            self.velocity_var - of_velocity * self.cross_var,
            length,
        )


def noise_var(length: Floats) -> Floats:
    """Variance of a box's centre about its object's, px²; `length` in pixels."""
    return (BOX_NOISE * length) ** 2 + BOX_NOISE_PX**2
