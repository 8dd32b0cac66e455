from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.darknet_weights import header, random_weights
from vault_ml.errors import ModelError
from vault_ml.yolo.cfg import Activation, Convolutional, MaxPool, Upsample, parse_cfg
from vault_ml.yolo.weights import read_weights

HEAD = (
    "[convolutional]\nfilters=8\nactivation=linear\n[yolo]\nmask=0\nanchors=1,2\nclasses=3\nnum=1\n"
)

convolutions = st.builds(
    Convolutional,
    line=st.just(0),
    filters=st.integers(1, 6).map(lambda n: 6 * n),
    size=st.integers(1, 4),
    stride_x=st.integers(1, 2),
    stride_y=st.integers(1, 2),
    padding=st.integers(0, 3),
    groups=st.sampled_from([1, 3]),
    batch_normalize=st.booleans(),
    activation=st.sampled_from(list(Activation)),
)
pools = st.builds(
    MaxPool,
    line=st.just(0),
    size=st.integers(1, 4),
    stride_x=st.just(1),
    stride_y=st.just(1),
    padding=st.integers(0, 1),
)
upsamples = st.builds(Upsample, line=st.just(0), stride=st.integers(1, 2))
stacks = st.lists(st.one_of(convolutions, pools, upsamples), max_size=5)


def write(layer: Convolutional | MaxPool | Upsample) -> str:
    if isinstance(layer, Convolutional):
        return (
            f"[convolutional]\nfilters={layer.filters}\nsize={layer.size}\n"
            f"stride_x={layer.stride_x}\nstride_y={layer.stride_y}\npadding={layer.padding}\n"
            f"groups={layer.groups}\nbatch_normalize={int(layer.batch_normalize)}\n"
            f"activation={layer.activation}\n"
        )
    if isinstance(layer, MaxPool):
        return f"[maxpool]\nsize={layer.size}\nstride=1\npadding={layer.padding}\n"
    return f"[upsample]\nstride={layer.stride}\n"


def cfg(stack: list[Convolutional | MaxPool | Upsample]) -> str:
    return "[net]\nwidth=64\nheight=64\n" + "".join(map(write, stack)) + HEAD


@given(stacks)
def test_a_cfg_survives_being_written_and_read(
    stack: list[Convolutional | MaxPool | Upsample],
) -> None:
    network = parse_cfg(cfg(stack), "any.cfg")

    fields = [name for name in Convolutional.__slots__ if name != "line"]
    for actual, expected in zip(network.layers, stack, strict=False):
        assert type(actual) is type(expected)
        assert [getattr(actual, name, None) for name in fields] == [
            getattr(expected, name, None) for name in fields
        ]


@given(stacks, st.integers(0, 2**32 - 1), st.sampled_from([(0, 1), (0, 2), (2, 0), (0, 1001)]))
def test_weights_survive_being_written_and_read(
    stack: list[Convolutional | MaxPool | Upsample], seed: int, version: tuple[int, int]
) -> None:
    text = cfg(stack)
    data = header(*version) + random_weights(text, seed)[20:]

    arrays = read_weights(data, "any.weights", parse_cfg(text, "any.cfg"))

    written = b""
    for index in sorted(arrays):
        layer = arrays[index]
        norm = layer.batch_norm
        parts = [layer.biases]
        parts += [norm.scales, norm.means, norm.variances] if norm else []
        written += b"".join(part.tobytes() for part in [*parts, layer.weights])
    assert header(*version) + written == data


@given(stacks, st.data())
def test_a_file_of_any_other_length_is_refused(
    stack: list[Convolutional | MaxPool | Upsample], data: st.DataObject
) -> None:
    text = cfg(stack)
    weights = random_weights(text)
    length = data.draw(st.integers(0, len(weights) + 64).filter(lambda n: n != len(weights)))
    changed = (weights + bytes(64))[:length]

    with pytest.raises(ModelError, match=rf"\b{length}\b"):
        read_weights(changed, "any.weights", parse_cfg(text, "any.cfg"))


def problem(text: str) -> str | None:
    try:
        parse_cfg(text, "any.cfg")
    except ModelError as error:
        return str(error)
    return None


@given(st.text(alphabet=st.sampled_from("[]net=yolo \n#;0123456789,.-"), max_size=200))
def test_any_text_is_a_network_or_a_model_error(text: str) -> None:
    found = problem("[net]\nwidth=32\nheight=32\n" + text)

    assert found is None or found.startswith("any.cfg")


def test_random_weights_are_not_all_the_same() -> None:
    first, second = (np.frombuffer(random_weights(cfg([]), seed), "<f4") for seed in (0, 1))

    assert not np.array_equal(first, second)
