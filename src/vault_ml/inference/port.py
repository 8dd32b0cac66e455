"""The port to an inference runtime: pictures in, tensors out, nothing about detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What really runs, for logs and every result.

    Attributes:
        runtime: library and version, such as `onnxruntime 1.32.0`.
        device: what the runtime says it computes on: `cpu`, `cuda:0 NVIDIA L4`, ...
        precision: `fp32`, `fp16` or `int8`.
    """

    runtime: str
    device: str
    precision: str


class InferenceRuntime(Protocol):
    """One loaded model on one device. Used by up to `lanes` threads at a time."""

    @property
    def info(self) -> RuntimeInfo:
        """What really runs."""
        ...

    @property
    def net_wh(self) -> tuple[int, int]:
        """The largest input, pixels; the only one unless the model takes others."""
        ...

    @property
    def lanes(self) -> int:
        """How many threads may, and should, call `infer` at once to keep the device busy."""
        ...

    def infer(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Run the network.

        Args:
            pixels: (n, h, w, 3) uint8 RGB, letterboxed; the network sees them divided by 255. The
                size is `net_wh`, or a smaller one whose sides are multiples of `INPUT_MULTIPLE`
                where the model takes any.

        Returns:
            The model's outputs in its order, the caller's own; the first axis of each is n. A
            result does not depend on which images shared a batch.

        Raises:
            ValueError: another shape or dtype, no picture, or already closed.
            DetectorUnavailable: the runtime or its device failed.
        """
        ...

    def close(self) -> None:
        """Release the device. Idempotent."""
        ...
