"""`Frame`: one decoded picture with its time, letterboxed at the network's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.geometry import Letterbox


@dataclass(frozen=True, slots=True)
class Frame:
    """One looked-at frame of a recording.

    Attributes:
        index: 0-based position among the looked-at frames of its recording.
        timestamp_s: presentation time, seconds since the first frame of the recording.
        letterbox: where the original frame lies inside `pixels`.
        pixels: (h, w, 3) uint8 RGB at the size of the letterbox' input. May be a view of memory
            shared with other processes: valid until the recording it belongs to is closed.
        number: which picture of the recording it is, from 0, in order of presentation.
        why: what spoke for it, where frames are chosen by what happens (`adaptive.Why`).
    """

    index: int
    timestamp_s: float
    letterbox: Letterbox
    pixels: NDArray[np.uint8]
    number: int = 0
    why: str | None = None

    @property
    def size_wh(self) -> tuple[int, int]:
        """Size of the original frame as a person sees it (after rotation), pixels."""
        return self.letterbox.frame_wh
