"""`Detections`: what was seen in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.geometry import FrameXyxy


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects of one frame as parallel arrays, sorted by falling confidence.

    Attributes:
        xyxy: (n, 4) float32, frame pixels.
        confidence: (n,) float32 in [0, 1], objectness x class probability.
        class_id: (n,) int64, index into `labels`.
        labels: the model's class names; shared by all detections of a model.
    """

    xyxy: FrameXyxy
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]
    labels: Sequence[str]

    def __post_init__(self) -> None:
        """Check the arrays once, at birth.

        Raises:
            ValueError: shapes disagree, a class has no label, or the order is not by confidence.
        """
        n = len(self.confidence)
        for name, actual, expected in (
            ("xyxy", self.xyxy.shape, (n, 4)),
            ("confidence", self.confidence.shape, (n,)),
            ("class_id", self.class_id.shape, (n,)),
        ):
            if actual != expected:
                raise ValueError(f"{name}: expected shape {expected}, got {actual}")
        if n and not 0 <= int(self.class_id.min()) <= int(self.class_id.max()) < len(self.labels):
            raise ValueError(
                f"class_id: expected 0..{len(self.labels) - 1}, "
                f"got {int(self.class_id.min())}..{int(self.class_id.max())}"
            )
        if n and bool(np.any(np.diff(self.confidence) > 0)):
            raise ValueError("confidence: expected falling order")

    def __len__(self) -> int:
        return len(self.confidence)

    @classmethod
    def none(cls, labels: Sequence[str]) -> Detections:
        """Nothing was seen. Only a frame that really was looked at may say so."""
        return cls(
            FrameXyxy(np.zeros((0, 4), np.float32)),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            labels,
        )

    def label(self, index: int) -> str:
        """Class name of object `index`."""
        return self.labels[int(self.class_id[index])]

    def where(self, keep: NDArray[np.bool_]) -> Detections:
        """The objects for which `keep`, (n,) bool, is true, in the same order."""
        return Detections(
            FrameXyxy(self.xyxy[keep]), self.confidence[keep], self.class_id[keep], self.labels
        )
