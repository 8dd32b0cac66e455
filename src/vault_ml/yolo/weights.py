"""Darknet's `.weights` bytes -> arrays per convolution.

The file is a header and then float32 values, layer after layer, without names or sizes: only the
`.cfg` says how many belong where. So a wrong pair shows only in the total, and the total is
checked: a file that is too short or too long is an error, never a shifted network.

Source: darknet `src/parser.c` load_weights_upto, load_convolutional_weights.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from vault_ml.errors import ModelError
from vault_ml.yolo.cfg import Convolutional, Network
from vault_ml.yolo.shapes import infer_shapes, input_shape

_VERSION = struct.Struct("<iii")


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """How the file introduces itself.

    Attributes:
        major: format version.
        minor: format version.
        revision: format version.
        seen: how many pictures the network was trained on.
        size_bytes: 16 or 20; older formats keep `seen` in 32 bits, newer ones in 64.
    """

    major: int
    minor: int
    revision: int
    seen: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch normalisation of one convolution, each (filters,) float32."""

    scales: NDArray[np.float32]
    means: NDArray[np.float32]
    variances: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ConvolutionWeights:
    """Arrays of one convolution.

    Attributes:
        biases: (filters,) float32.
        weights: (filters, channels / groups, size, size) float32.
        batch_norm: where the cfg says batch_normalize=1.
    """

    biases: NDArray[np.float32]
    weights: NDArray[np.float32]
    batch_norm: BatchNorm | None


def read_header(data: bytes | mmap, name: str) -> WeightsHeader:
    """Read the first 16 or 20 bytes.

    `seen` has 64 bits when major * 10 + minor >= 2, unless a version number is above 1000, which
    marks transposed fully connected layers and keeps the old, short header.

    Raises:
        ModelError: too short to hold a header.
    """
    if len(data) < _VERSION.size:
        raise ModelError(f"{name}: {len(data)} bytes are too few for a darknet .weights header")
    major, minor, revision = _VERSION.unpack_from(data)
    wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    seen = struct.Struct("<Q" if wide else "<i")
    size_bytes = _VERSION.size + seen.size
    if len(data) < size_bytes:
        raise ModelError(f"{name}: {len(data)} bytes are too few for a darknet .weights header")
    return WeightsHeader(
        major, minor, revision, seen.unpack_from(data, _VERSION.size)[0], size_bytes
    )


def read_weights(data: bytes | mmap, name: str, network: Network) -> dict[int, ConvolutionWeights]:
    """Cut the file into arrays.

    Args:
        data: the whole file, read or mapped. The arrays are views of it.
        name: the file's name, for messages.
        network: the cfg that belongs to it.

    Returns:
        Arrays of each convolution, by layer number.

    Raises:
        ModelError: the file is shorter or longer than the cfg says, or the cfg's layers do not fit
            together; the message has both sizes and, where it is cut off, the layer.
    """
    offset = read_header(data, name).size_bytes
    shapes = infer_shapes(network)
    arrays: dict[int, ConvolutionWeights] = {}
    cut_off_in: int | None = None
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Convolutional):
            continue
        channels = input_shape(network, shapes, index).channels // layer.groups
        end = offset + 4 * _count(layer, channels)
        if end <= len(data):
            values = np.frombuffer(data, np.dtype("<f4"), (end - offset) // 4, offset)
            arrays[index] = _split(layer, channels, values)
        elif cut_off_in is None:
            cut_off_in = index
        offset = end
    if cut_off_in is not None:
        layer = network.layers[cut_off_in]
        raise ModelError(
            f"{name}: {network.name} needs {offset} bytes, the file has {len(data)} and ends in "
            f"layer {cut_off_in} ([{layer.section}], line {layer.line}); it is cut off, or the "
            ".cfg is another model's. Fetch the file again"
        )
    if offset != len(data):
        raise ModelError(
            f"{name}: {network.name} needs {offset} bytes, the file has {len(data)}: "
            f"{len(data) - offset} are left over, so the .cfg is another model's"
        )
    return arrays


def _count(layer: Convolutional, channels: int) -> int:
    vectors = 4 if layer.batch_normalize else 1
    return layer.filters * (vectors + channels * layer.size * layer.size)


def _split(layer: Convolutional, channels: int, values: NDArray[np.float32]) -> ConvolutionWeights:
    """Biases; if normalised: scales, means, variances; then weights."""
    n = layer.filters
    batch_norm = None
    start = n
    if layer.batch_normalize:
        batch_norm = BatchNorm(values[n : 2 * n], values[2 * n : 3 * n], values[3 * n : 4 * n])
        start = 4 * n
    return ConvolutionWeights(
        values[:n],
        values[start:].reshape(n, channels, layer.size, layer.size),
        batch_norm,
    )
