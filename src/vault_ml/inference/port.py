"""The port to an inference runtime: a tensor in, tensors out, nothing about detection."""

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
    """One loaded model on one device. Used by one thread at a time."""

    @property
    def info(self) -> RuntimeInfo:
        """What really runs."""
        ...

    def infer(self, images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """Run the network.

        Args:
            images: (n, 3, h, w) float32 RGB in [0, 1], letterboxed at the model's size.

        Returns:
            The model's outputs in its order; the first axis of each is n. A result does not
            depend on which images shared a batch.
        """
        ...

    def close(self) -> None:
        """Release the device. Idempotent."""
        ...
