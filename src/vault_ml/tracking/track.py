"""`Track`: one object, as it was seen in several looked-at frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2, frame pixels."""


class Observation(NamedTuple):
    """One object in one looked-at frame. A tuple: recordings have thousands.

    Attributes:
        frame: 0-based position among the looked-at frames.
        detections: positions in that frame's `Detections`: the box, and those of other classes on
            the same object (a car that is also a truck). The first is the box.
        timestamp_s: presentation time, seconds since the first frame of the recording.
        xyxy: the box, frame pixels.
        confidence: of the box, in [0, 1].
    """

    frame: int
    detections: tuple[int, ...]
    timestamp_s: float
    xyxy: Box
    confidence: float


@dataclass(frozen=True, slots=True)
class Track:
    """One object over time.

    Attributes:
        id: counts from 1 in each recording, in order of appearance.
        class_id: index of `label` among the model's labels.
        label: what most confidence was given to, over all observations.
        observations: in order of time; at least one.
        colours: (d,) float32, what it looks like, as `appearance.describe` says; None where no
            picture was at hand.
    """

    id: int
    class_id: int
    label: str
    observations: tuple[Observation, ...]
    colours: NDArray[np.float32] | None = None

    @property
    def confidence(self) -> float:
        """The highest of its observations."""
        return max(observation.confidence for observation in self.observations)
