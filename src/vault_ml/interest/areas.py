"""Areas of a picture, and what an operator wants to know of a camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Point = tuple[float, float]
"""x and y as parts of the picture's width and height, origin top left."""


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the picture.

    Attributes:
        name: what reasons call it.
        points: the corners of a polygon, in order; the last is joined to the first.
        labels: the classes it is for; None is all.
    """

    name: str
    points: tuple[Point, ...]
    labels: frozenset[str] | None = None

    def concerns(self, label: str) -> bool:
        """Whether it is for a class."""
        return self.labels is None or label in self.labels

    def holds(self, point: Point) -> bool:
        """Whether a point is inside, by the even-odd rule.

        >>> Area("left half", ((0, 0), (0.5, 0), (0.5, 1), (0, 1))).holds((0.25, 0.5))
        True
        """
        x, y = point
        is_inside = False
        for (ax, ay), (bx, by) in zip(self.points, (*self.points[1:], self.points[0]), strict=True):
            # Each edge that a ray to the right crosses changes the side.
            if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
                is_inside = not is_inside
        return is_inside


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bounds on a box's area, as parts of the picture's."""

    least: float = 0.0
    most: float = 1.0


@dataclass(frozen=True, slots=True)
class CameraInterest:
    """What is of interest at one camera.

    Attributes:
        labels: classes; None is all.
        thresholds: by class, the confidence from which on it counts.
        sizes: by class, how large its boxes may be.
        zones: with any for a class, only what stands in one of them counts.
        masks: what stands in one of them does not.
    """

    labels: frozenset[str] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, Sizes] = field(default_factory=dict)
    zones: tuple[Area, ...] = ()
    masks: tuple[Area, ...] = ()

    def over(self, defaults: CameraInterest) -> CameraInterest:
        """What is said here, and for the rest what `defaults` say."""
        return CameraInterest(
            defaults.labels if self.labels is None else self.labels,
            {**defaults.thresholds, **self.thresholds},
            {**defaults.sizes, **self.sizes},
            self.zones or defaults.zones,
            self.masks or defaults.masks,
        )
