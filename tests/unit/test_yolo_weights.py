from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from reference.darknet_weights import header, random_weights
from vault_ml.errors import ModelError
from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.weights import read_header, read_weights

CFG = (
    "[net]\nwidth=64\nheight=32\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\n"
    "[convolutional]\ngroups=2\nfilters=8\n"
    "[yolo]\nmask=0\nanchors=1,2\nclasses=3\nnum=1\n"
)
NETWORK = parse_cfg(CFG, "my.cfg")
WEIGHTS = random_weights(CFG)


@pytest.mark.parametrize("size", [0, 1, 11, 12, 15, 19])
def test_a_file_too_short_for_a_header_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match=rf"w: {size} bytes are too few for a darknet"):
        read_weights(header()[:size], "w", NETWORK)


@pytest.mark.parametrize(
    ("version", "size_bytes"),
    [
        pytest.param((0, 1), 16, id="0.1 keeps seen in 32 bits"),
        pytest.param((0, 2), 20, id="0.2 in 64"),
        pytest.param((1, 0), 20, id="1.0 in 64"),
        pytest.param((1001, 2), 16, id="transposed, by major"),
        pytest.param((0, 1001), 16, id="transposed, by minor"),
    ],
)
def test_both_header_versions_are_read(version: tuple[int, int], size_bytes: int) -> None:
    found = read_header(header(*version, revision=7, seen=123) + bytes(8), "w")

    assert (found.major, found.minor) == version
    assert (found.revision, found.seen, found.size_bytes) == (7, 123, size_bytes)


def test_seen_is_read_beyond_32_bits() -> None:
    assert read_header(header(seen=5_000_000_000), "w").seen == 5_000_000_000


def test_arrays_come_in_darknets_order() -> None:
    values = np.arange(4 + 3 * 4 + 4 * 3 * 9 + 8 + 8 * 2, dtype="<f4")

    arrays = read_weights(header() + values.tobytes(), "w", NETWORK)

    assert list(arrays) == [0, 1]
    norm = arrays[0].batch_norm
    assert norm is not None
    assert arrays[0].biases.tolist() == [0, 1, 2, 3]
    assert norm.scales.tolist() == [4, 5, 6, 7]
    assert norm.means.tolist() == [8, 9, 10, 11]
    assert norm.variances.tolist() == [12, 13, 14, 15]
    assert arrays[0].weights.shape == (4, 3, 3, 3)
    assert arrays[0].weights.ravel().tolist() == list(range(16, 124))
    assert arrays[1].batch_norm is None
    assert arrays[1].biases.tolist() == list(range(124, 132))
    assert arrays[1].weights.shape == (8, 2, 1, 1)
    assert arrays[1].weights[-1, -1, 0, 0] == values[-1]


def test_an_old_header_does_not_shift_the_weights() -> None:
    old = header(0, 1) + WEIGHTS[20:]

    np.testing.assert_array_equal(
        read_weights(old, "w", NETWORK)[1].weights, read_weights(WEIGHTS, "w", NETWORK)[1].weights
    )


def test_a_mapped_file_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(WEIGHTS)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    np.testing.assert_array_equal(
        read_weights(mapped, "w", NETWORK)[0].weights,
        read_weights(WEIGHTS, "w", NETWORK)[0].weights,
    )


@pytest.mark.parametrize(
    ("cut", "layer", "line"),
    [
        pytest.param(1, 1, 9, id="one byte, in the last layer"),
        pytest.param(len(WEIGHTS) - 20, 0, 4, id="all but the header"),
    ],
)
def test_a_cut_off_file_names_both_sizes_and_the_layer(cut: int, layer: int, line: int) -> None:
    with pytest.raises(ModelError) as caught:
        read_weights(WEIGHTS[:-cut], "w", NETWORK)

    assert (
        f"w: my.cfg needs {len(WEIGHTS)} bytes, the file has {len(WEIGHTS) - cut} and ends in "
        f"layer {layer} ([convolutional], line {line})" in str(caught.value)
    )


@pytest.mark.parametrize("extra", [1, 4, 400])
def test_bytes_that_are_left_over_are_an_error(extra: int) -> None:
    with pytest.raises(ModelError, match=rf"{extra} are left over, so the \.cfg is another"):
        read_weights(WEIGHTS + bytes(extra), "w", NETWORK)
