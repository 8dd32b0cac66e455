"""Writes darknet `.weights` files with random values, for any cfg. For tests only.

The values are such that activations neither vanish nor explode through a hundred layers: variance
kept by He's rule, residual branches small.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from reference.slow_darknet import Layer, make_network

_OF_A_HEAD = 2  # biases and weights; the others are followed by a normalization


def header(major: int = 0, minor: int = 2, revision: int = 5, seen: int = 32_013_312) -> bytes:
    """As darknet writes it; 16 bytes for the old versions."""
    wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    return struct.pack("<iiiQ" if wide else "<iiii", major, minor, revision, seen)


def random_weights(cfg: str, seed: int = 0, *, sees_nothing: bool = False) -> bytes:
    """The whole file for this cfg.

    Args:
        cfg: the text.
        seed: of the values.
        sees_nothing: no box is ever confident, as on a recording without objects. Otherwise half of
            all boxes are, and sorting them out takes longer than the network.
    """
    _, _, layers = make_network(cfg)
    rng = np.random.default_rng(seed)
    parts = [header()]
    for index, layer in enumerate(layers):
        if layer.kind == "convolutional":
            before_sum = index + 1 < len(layers) and layers[index + 1].kind == "shortcut"
            gain = 0.3 if before_sum else 1.0
            arrays = _layer(layer, rng, gain)
            if sees_nothing and len(arrays) == _OF_A_HEAD:
                arrays = [arrays[0] - 6, arrays[1] * 0.1]
            parts += [values.astype("<f4").tobytes() for values in arrays]
    return b"".join(parts)


def _layer(layer: Layer, rng: np.random.Generator, gain: float) -> list[NDArray[np.float64]]:
    n, size = layer.c, layer.integer("size", 1)
    shape = (n, layer.integer("in_channels", 0) // layer.integer("groups", 1), size, size)
    slope = {"linear": 1.0, "logistic": 1.0, "tanh": 1.0}.get(
        layer.options.get("activation", "logistic"), 2.0
    )
    deviation = gain * math.sqrt(slope / math.prod(shape[1:]))
    weights = rng.standard_normal(shape, np.float32).astype(np.float64) * deviation
    biases = rng.normal(0, 0.1, n)
    if not layer.integer("batch_normalize", 0):
        return [biases, weights]
    scales, means = rng.uniform(0.8, 1.2, n), rng.normal(0, 0.1, n)
    return [biases, scales, means, rng.uniform(0.7, 1.4, n), weights]
