from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from reference.darknet_weights import header, random_weights
from vault_ml.errors import ModelError
from vault_ml.yolo.cfg import Activation, parse_cfg
from vault_ml.yolo.export import BATCH_NORM_EPSILON, fold_batch_norm, to_onnx
from vault_ml.yolo.weights import BatchNorm, ConvolutionWeights, read_weights

LABELS = ("red", "green", "blue")
YOLO = "[yolo]\nmask=0\nanchors=1,2\nclasses=3\nnum=1\n"


def export(layers: str, weights: bytes | None = None) -> onnx.ModelProto:
    text = f"[net]\nwidth=8\nheight=4\n{layers}{YOLO}"
    network = parse_cfg(text, "my.cfg")
    data = random_weights(text) if weights is None else weights
    return to_onnx(network, read_weights(data, "w", network), LABELS)


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model, full_check=True)
    return list(ort.InferenceSession(model.SerializeToString()).run(None, {"images": images}))


def identity(activation: str) -> tuple[str, bytes]:
    """A convolution that passes channel n % 3 to filter n, with this activation; its weights."""
    weights = np.zeros((8, 3), "<f4")
    weights[np.arange(8), np.arange(8) % 3] = 1
    return (
        f"[convolutional]\nfilters=8\nactivation={activation}\n",
        header() + np.zeros(8, "<f4").tobytes() + weights.tobytes(),
    )


def test_the_model_says_what_goes_in_what_comes_out_and_how_to_read_it() -> None:
    model = export("[convolutional]\nfilters=8\nstride=2\nactivation=linear\n")

    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert [value.name for value in model.graph.input] == ["images"]
    assert shape == ["batch", 3, 4, 8]
    assert [value.name for value in model.graph.output] == ["head_0"]
    assert model.opset_import[0].version == 13
    assert metadata == {
        "vault_ml.heads": [
            {
                "anchors": [[1.0, 2.0]],
                "classes": 3,
                "stride": 2,
                "scale_x_y": 1.0,
                "new_coords": False,
            }
        ],
        "vault_ml.labels": ["red", "green", "blue"],
        "vault_ml.net_wh": [8, 4],
    }


def test_any_number_of_images_goes_in_at_once() -> None:
    model = export("[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n")
    images = np.random.default_rng(0).random((3, 3, 4, 8), dtype=np.float32)

    (together,) = run(model, images)
    alone = [run(model, images[i : i + 1])[0] for i in range(3)]

    assert together.shape == (3, 8, 4, 8)
    np.testing.assert_array_equal(together, np.concatenate(alone))


EXPECTED: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "linear": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}


@pytest.mark.parametrize("activation", list(Activation))
def test_activations_are_darknets(activation: Activation) -> None:
    layers, weights = identity(activation.value)
    images = np.linspace(-9, 9, 3 * 4 * 8).astype(np.float32).reshape(1, 3, 4, 8)

    (output,) = run(export(layers, weights), images)

    np.testing.assert_allclose(
        output[:, :3], EXPECTED[activation](images.astype(np.float64)), atol=2e-6
    )


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        pytest.param("size=2\nstride=2", [[5, 7], [13, 15]], id="two by two"),
        pytest.param(
            "size=2\nstride=1",
            [[5, 6, 7, 7], [9, 10, 11, 11], [13, 14, 15, 15], [13, 14, 15, 15]],
            id="odd padding hangs over right and below",
        ),
        pytest.param(
            "size=3\nstride=1",
            [[5, 6, 7, 7], [9, 10, 11, 11], [13, 14, 15, 15], [13, 14, 15, 15]],
            id="even padding lies on both sides",
        ),
        pytest.param("size=2\nstride=1\npadding=0", [[5, 6, 7], [9, 10, 11], [13, 14, 15]], id="0"),
        pytest.param("size=2\nstride=3", [[5, 7], [13, 15]], id="stride beyond the window"),
    ],
)
def test_max_pool_windows_are_darknets(section: str, expected: list[list[int]]) -> None:
    text = (
        f"[net]\nwidth=4\nheight=4\n[maxpool]\n{section}\n"
        "[convolutional]\nfilters=8\nactivation=linear\n" + YOLO
    )
    network = parse_cfg(text, "my.cfg")
    _, weights = identity("linear")
    model = to_onnx(network, read_weights(weights, "w", network), LABELS)
    images = np.broadcast_to(np.arange(16, dtype=np.float32).reshape(4, 4), (1, 3, 4, 4))

    (output,) = run(model, np.ascontiguousarray(images))

    assert output[0, 0].tolist() == expected


def test_upsample_repeats_every_value() -> None:
    layers, weights = identity("linear")
    images = np.random.default_rng(0).random((1, 3, 4, 8), dtype=np.float32)

    (output,) = run(export(layers + "[upsample]\nstride=2\n", weights), images)

    np.testing.assert_array_equal(output[:, :3], images.repeat(2, axis=2).repeat(2, axis=3))


def test_route_concatenates_and_takes_groups() -> None:
    layers, weights = identity("linear")
    more = "[route]\nlayers=0\ngroups=2\ngroup_id=1\n[route]\nlayers=-1,-1\n"
    images = np.random.default_rng(0).random((1, 3, 4, 8), dtype=np.float32)

    (output,) = run(export(layers + more, weights), images)

    channels = [n % 3 for n in range(8)][4:] * 2
    np.testing.assert_array_equal(output, images[:, channels])


@pytest.mark.parametrize(("source", "common"), [(4, 4), (8, 8), (12, 8)])
def test_shortcut_adds_only_the_channels_that_both_have(source: int, common: int) -> None:
    layers = (
        f"[convolutional]\nfilters={source}\nactivation=linear\n[route]\nlayers=0\n"
        "[convolutional]\nfilters=8\nactivation=linear\n[shortcut]\nfrom=0\nactivation=relu\n"
    )
    first = np.zeros((source, 3), "<f4")
    first[:, 0] = np.arange(source)
    second = np.zeros((8, source), "<f4")
    weights = header() + b"".join(
        values.tobytes()
        for values in (np.zeros(source, "<f4"), first, np.full(8, -2, "<f4"), second)
    )

    (output,) = run(export(layers, weights), np.ones((1, 3, 4, 8), np.float32))

    added = [float(n) if n < common else 0.0 for n in range(8)]
    assert output[0, :, 0, 0].tolist() == [max(0.0, value - 2) for value in added]


def test_dropout_and_a_plain_route_cost_nothing() -> None:
    layers, weights = identity("linear")

    model = export(layers + "[dropout]\n[route]\nlayers=-1\n", weights)

    assert [node.op_type for node in model.graph.node] == ["Conv", "Identity"]


def test_groups_and_two_strides_reach_the_convolution() -> None:
    model = export(
        "[convolutional]\nfilters=6\nactivation=linear\n"
        "[convolutional]\nfilters=8\ngroups=2\nsize=3\nstride_x=2\nstride_y=1\npad=1\n"
    )

    (output,) = run(model, np.ones((1, 3, 4, 8), np.float32))

    assert output.shape == (1, 8, 4, 4)


def test_batch_norm_is_folded_into_the_convolution() -> None:
    rng = np.random.default_rng(0)
    norm = BatchNorm(*(rng.uniform(0.5, 2, 4).astype(np.float32) for _ in range(3)))
    arrays = ConvolutionWeights(
        rng.normal(size=4).astype(np.float32),
        rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        norm,
    )
    x = rng.normal(size=3)

    weights, biases = fold_batch_norm(arrays)

    plain = arrays.weights[:, :, 0, 0] @ x
    deviation = np.sqrt(norm.variances + BATCH_NORM_EPSILON)
    expected = (plain - norm.means) / deviation * norm.scales + arrays.biases
    np.testing.assert_allclose(weights[:, :, 0, 0] @ x + biases, expected, rtol=1e-5)
    assert weights.dtype == biases.dtype == np.float32


def test_a_variance_of_zero_does_not_divide_by_zero() -> None:
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    arrays = ConvolutionWeights(zero, np.ones((1, 1, 1, 1), np.float32), BatchNorm(one, zero, zero))

    assert fold_batch_norm(arrays)[0].item() == pytest.approx(1000, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "infinity"])
@pytest.mark.parametrize("position", [0, 8], ids=["bias", "weight"])
def test_weights_that_are_not_numbers_are_refused(value: float, position: int) -> None:
    values = np.ones(8 + 24, "<f4")
    values[position] = value

    with pytest.raises(
        ModelError, match=r"my\.cfg, line 4, \[convolutional\]: the weights of this"
    ):
        export("[convolutional]\nfilters=8\n", header() + values.tobytes())


def test_a_negative_variance_is_refused() -> None:
    values = np.ones(4 * 8 + 24, "<f4")
    values[3 * 8] = -1

    with pytest.raises(ModelError, match="the weights of this layer are not numbers"):
        export("[convolutional]\nfilters=8\nbatch_normalize=1\n", header() + values.tobytes())


def test_labels_that_do_not_fit_the_classes_are_refused() -> None:
    layers, weights = identity("linear")
    network = parse_cfg(f"[net]\nwidth=8\nheight=4\n{layers}{YOLO}", "my.cfg")

    with pytest.raises(ModelError, match="classes=3, but there are 1 class names"):
        to_onnx(network, read_weights(weights, "w", network), ("red",))
