"""Typed layers and arrays -> an ONNX model.

Opset 13: the newest that every runtime we serve reads without conversion. Batch normalisation is
folded into the convolution before it. The outputs are the maps that the `[yolo]` layers receive,
before any sigmoid, so that decoding can gate on logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vault_ml.yolo.cfg import (
    Activation,
    Convolutional,
    Dropout,
    MaxPool,
    Network,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)
from vault_ml.yolo.head import DarknetHead, head_specs, heads_to_json
from vault_ml.yolo.metadata import (
    EXPORT_VERSION,
    METADATA_HEADS,
    METADATA_LABELS,
    METADATA_NET_WH,
)
from vault_ml.yolo.shapes import Shape, infer_shapes, input_shape
from vault_ml.yolo.weights import ConvolutionWeights

BATCH_NORM_EPSILON = 1e-6
"""Added to the variance. Darknet's CPU and CUDA paths differ from each other; this lies between
them and is what OpenCV's reader of the same files does
(docs/adr/0003-letterbox-and-batch-norm.md)."""

_OPSET = 13
_IR_VERSION = 8


def fold_batch_norm(
    arrays: ConvolutionWeights,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and biases of a convolution that does its own normalisation.

    Args:
        arrays: as they stand in the file.

    Returns:
        (filters, channels / groups, size, size) and (filters,) float32.

    Source: darknet `src/blas.c` normalize_cpu, `src/batchnorm_layer.c`; computed in float64.
    """
    norm = arrays.batch_norm
    if norm is None:
        return arrays.weights, arrays.biases
    # A damaged file may hold a negative variance: NaN then, which the caller looks for.
    with np.errstate(invalid="ignore"):
        deviation = np.sqrt(norm.variances.astype(np.float64) + BATCH_NORM_EPSILON)
    factor = norm.scales / deviation
    weights = arrays.weights * factor[:, None, None, None]
    biases = arrays.biases - norm.means * factor
    return weights.astype(np.float32), biases.astype(np.float32)


def to_onnx(
    network: Network, arrays: Mapping[int, ConvolutionWeights], labels: Sequence[str]
) -> onnx.ModelProto:
    """Write the network as an ONNX model.

    Args:
        network: the parsed cfg.
        arrays: of each convolution, by layer number (`weights.read_weights`).
        labels: class names, as many as the heads have classes.

    Returns:
        A model with the input `images`, (batch, 3, h, w) float32 RGB in [0, 1], and one output per
        head, `head_0` and so on, (batch, anchors * (5 + classes), grid h, grid w) float32. Its
        metadata say how to read them: `vault_ml.heads`, `vault_ml.labels`, `vault_ml.net_wh`, JSON.

    Raises:
        ModelError: the layers do not fit together, or the labels do not fit the classes, or the
            weights hold values that are not numbers.
    """
    classes = network.heads[0].classes
    if len(labels) != classes:
        raise network.fault(
            network.heads[0], f"classes={classes}, but there are {len(labels)} class names"
        )
    graph = _Graph(network)
    for index in range(len(network.layers)):
        graph.add(index, arrays)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            network.name,
            [_value("images", Shape(network.channels, network.height, network.width))],
            graph.outputs,
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="vault-ml",
        producer_version=str(EXPORT_VERSION),
    )
    model.ir_version = _IR_VERSION
    helper.set_model_props(
        model,
        {
            METADATA_HEADS: heads_to_json(DarknetHead(head_specs(network))),
            METADATA_LABELS: json.dumps(list(labels)),
            METADATA_NET_WH: json.dumps(list(network.net_wh)),
        },
    )
    return model


def _value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    dimensions: list[str | int | None] = ["batch", shape.channels, shape.height, shape.width]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dimensions)


class _Graph:
    """Nodes as they come, and which tensor each layer's output is."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes = infer_shapes(network)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._tensors: list[str] = []

    def add(self, index: int, arrays: Mapping[int, ConvolutionWeights]) -> None:
        """Add layer `index`; those before it are there."""
        layer = self.network.layers[index]
        before = self._tensors[index - 1] if index else "images"
        if isinstance(layer, Convolutional):
            tensor = self._convolution(index, layer, before, arrays[index])
        elif isinstance(layer, MaxPool):
            tensor = self._max_pool(index, layer, before)
        elif isinstance(layer, Upsample):
            tensor = self._upsample(index, layer, before)
        elif isinstance(layer, Shortcut):
            tensor = self._shortcut(index, layer, before)
        elif isinstance(layer, Route):
            tensor = self._route(index, layer)
        elif isinstance(layer, Dropout):
            tensor = before
        else:
            tensor = self._head(index, layer, before)
        self._tensors.append(tensor)

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}_{operator}", **attributes)
        )
        return output

    def _constant(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _convolution(
        self, index: int, layer: Convolutional, before: str, arrays: ConvolutionWeights
    ) -> str:
        weights, biases = fold_batch_norm(arrays)
        if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
            raise self.network.fault(
                layer,
                "the weights of this layer are not numbers; the .weights file is damaged or "
                "another model's",
            )
        name = f"layer_{index}"
        output = self._node(
            "Conv",
            [
                before,
                self._constant(f"{name}.weight", weights),
                self._constant(f"{name}.bias", biases),
            ],
            f"{name}.linear",
            kernel_shape=[layer.size, layer.size],
            strides=[layer.stride_y, layer.stride_x],
            pads=[layer.padding] * 4,
            group=layer.groups,
        )
        return self._activation(layer.activation, output, name)

    def _activation(self, activation: Activation, tensor: str, name: str) -> str:
        match activation:
            case Activation.LINEAR:
                return tensor
            case Activation.LEAKY:
                return self._node("LeakyRelu", [tensor], name, alpha=0.1)
            case Activation.RELU:
                return self._node("Relu", [tensor], name)
            case Activation.RELU6:
                low = self._constant(f"{name}.low", np.array(0, np.float32))
                high = self._constant(f"{name}.high", np.array(6, np.float32))
                return self._node("Clip", [tensor, low, high], name)
            case Activation.LOGISTIC:
                return self._node("Sigmoid", [tensor], name)
            case Activation.TANH:
                return self._node("Tanh", [tensor], name)
            case Activation.SWISH:
                return self._node(
                    "Mul", [tensor, self._node("Sigmoid", [tensor], f"{name}.gate")], name
                )
            case Activation.MISH:
                soft = self._node("Softplus", [tensor], f"{name}.soft")
                return self._node("Mul", [tensor, self._node("Tanh", [soft], f"{name}.gate")], name)
            case _:
                assert_never(activation)

    def _max_pool(self, index: int, layer: MaxPool, before: str) -> str:
        """Darknet's window begins at -(padding // 2) and may hang over on the right and below."""
        source = input_shape(self.network, self.shapes, index)
        after = self.shapes[index]
        first = layer.padding // 2

        def last(size: int, count: int, stride: int) -> int:
            return max(0, (count - 1) * stride + layer.size - first - size)

        return self._node(
            "MaxPool",
            [before],
            f"layer_{index}",
            kernel_shape=[layer.size, layer.size],
            strides=[layer.stride_y, layer.stride_x],
            pads=[
                first,
                first,
                last(source.height, after.height, layer.stride_y),
                last(source.width, after.width, layer.stride_x),
            ],
        )

    def _upsample(self, index: int, layer: Upsample, before: str) -> str:
        name = f"layer_{index}"
        scales = np.array([1, 1, layer.stride, layer.stride], np.float32)
        return self._node(
            "Resize",
            [before, "", self._constant(f"{name}.scales", scales)],
            name,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _shortcut(self, index: int, layer: Shortcut, before: str) -> str:
        """Where the numbers of channels differ, only those that both have are added.

        Source: darknet `src/blas.c` shortcut_cpu.
        """
        name = f"layer_{index}"
        source = self._tensors[layer.source]
        have = self.shapes[layer.source].channels
        want = self.shapes[index].channels
        if have > want:
            source = self._channels(source, 0, want, f"{name}.cut")
        elif have < want:
            pads = np.array([0, 0, 0, 0, 0, want - have, 0, 0], np.int64)
            source = self._node(
                "Pad", [source, self._constant(f"{name}.pads", pads)], f"{name}.padded"
            )
        output = self._node("Add", [before, source], f"{name}.linear")
        return self._activation(layer.activation, output, name)

    def _route(self, index: int, layer: Route) -> str:
        name = f"layer_{index}"
        parts = []
        for number, source in enumerate(layer.sources):
            tensor = self._tensors[source]
            if layer.groups > 1:
                size = self.shapes[source].channels // layer.groups
                start = size * layer.group_id
                tensor = self._channels(tensor, start, start + size, f"{name}.part_{number}")
            parts.append(tensor)
        return parts[0] if len(parts) == 1 else self._node("Concat", parts, name, axis=1)

    def _channels(self, tensor: str, start: int, end: int, name: str) -> str:
        return self._node(
            "Slice",
            [
                tensor,
                self._constant(f"{name}.start", np.array([start], np.int64)),
                self._constant(f"{name}.end", np.array([end], np.int64)),
                self._constant(f"{name}.axis", np.array([1], np.int64)),
            ],
            name,
        )

    def _head(self, index: int, _layer: Yolo, before: str) -> str:
        name = self._node("Identity", [before], f"head_{len(self.outputs)}")
        self.outputs.append(_value(name, self.shapes[index]))
        return name
