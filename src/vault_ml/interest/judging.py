"""`Interest`: for each detection, why it is of no interest, or that it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vault_ml.detection import Detections
from vault_ml.interest.areas import CameraInterest, Point


@dataclass(frozen=True, slots=True)
class Interest:
    """What is of interest, for every camera.

    Attributes:
        allowed: classes of interest at any camera (ALLOWED_LABELS); None is all.
        defaults: for cameras, and for what a camera's own part does not say.
        cameras: by name.
    """

    allowed: frozenset[str] | None = None
    defaults: CameraInterest = field(default_factory=CameraInterest)
    cameras: Mapping[str, CameraInterest] = field(default_factory=dict)

    def at(self, camera: str | None) -> CameraInterest:
        """What is of interest at a camera, whether or not it has a part of its own."""
        own = self.cameras.get(camera) if camera is not None else None
        return self.defaults if own is None else own.over(self.defaults)

    def reasons(
        self, camera: str | None, seen: Detections, frame_wh: tuple[int, int]
    ) -> list[str | None]:
        """For each detection why it is of no interest; None where it is.

        Args:
            camera: the camera's name.
            seen: the objects of one frame, frame pixels.
            frame_wh: its size.
        """
        here = self.at(camera)
        sides, confidences = seen.xyxy.tolist(), seen.confidence.tolist()
        return [
            self._reason(here, seen.label(index), confidence, box, frame_wh)
            for index, (confidence, box) in enumerate(zip(confidences, sides, strict=True))
        ]

    def _reason(
        self,
        here: CameraInterest,
        label: str,
        confidence: float,
        xyxy: list[float],
        frame_wh: tuple[int, int],
    ) -> str | None:
        if self.allowed is not None and label not in self.allowed:
            return f"{label} is not among the allowed labels"
        if here.labels is not None and label not in here.labels:
            return f"{label} is not among the labels of this camera"
        if confidence < here.thresholds.get(label, 0.0):
            return f"confidence {confidence:.2f} is below {here.thresholds[label]:g} for {label}"
        x1, y1, x2, y2 = xyxy
        width, height = frame_wh
        if label in here.sizes:
            part, sizes = (x2 - x1) * (y2 - y1) / (width * height), here.sizes[label]
            if not sizes.least <= part <= sizes.most:
                return f"{part:.2%} of the picture is no size of a {label} here"
        # Where it stands: the middle of its lower edge.
        return _place_reason(here, label, ((x1 + x2) / 2 / width, y2 / height))


def _place_reason(here: CameraInterest, label: str, foot: Point) -> str | None:
    # The edge of the picture belongs to it.
    at = (min(max(foot[0], 1e-6), 1 - 1e-6), min(max(foot[1], 1e-6), 1 - 1e-6))
    for mask in here.masks:
        if mask.concerns(label) and mask.holds(at):
            return f"stands in the mask {mask.name}"
    zones = [zone for zone in here.zones if zone.concerns(label)]
    if here.zones and not any(zone.holds(at) for zone in zones):
        if not zones:
            return f"no zone of this camera is for {label}"
        return "stands outside " + ", ".join(zone.name for zone in zones)
    return None
