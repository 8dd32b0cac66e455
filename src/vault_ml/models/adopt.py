"""An ONNX detector of another project -> the same network under our port.

A runtime gives every model RGB from 0 to 1 in float32 and gets float32 back. What a family wants
instead (YOLOX: BGR from 0 to 255; a half-precision export: float16) is put in front of its graph
as a few nodes. So runtimes, batches and quantization know no families, and neither does the way
of a frame: only how it lies in the input differs, which `Placing` says.

Sides that the exporter left open are fixed. How to read the output goes into the metadata, where
our own models have it as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vault_ml.errors import ModelError
from vault_ml.geometry import Placing
from vault_ml.yolo.head import Head, heads_to_json
from vault_ml.yolo.labels import COCO
from vault_ml.yolo.metadata import (
    METADATA_BATCH,
    METADATA_HEADS,
    METADATA_LABELS,
    METADATA_NET_WH,
    METADATA_PLACING,
)
from vault_ml.yolo.recognise import (
    Interface,
    Recognised,
    Tensor,
    input_size,
    names_of,
    recognise,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

ADOPTION_VERSION = 1
"""Counts the changes of this file that change what a model computes; part of the digest."""

_PREFIX = "vault_ml_"


@dataclass(frozen=True, slots=True)
class Adopted:
    """How a model of another project is used.

    Attributes:
        head: how to read its output.
        placing: how frames lie in its input.
        net_wh: size of its input, pixels.
        labels: class names.
        takes: what it wants in its input, for people.
        notes: sentences for the log.
    """

    head: Head
    placing: Placing
    net_wh: tuple[int, int]
    labels: tuple[str, ...]
    takes: str
    notes: tuple[str, ...]


def load(path: Path) -> ModelProto:
    """Read an ONNX file, with the weights that lie beside it where it has such.

    Raises:
        ModelError: it cannot be read, or is no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types

    try:
        model = onnx.load(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path.name} is not an ONNX model; it is damaged, or something else: export it again"
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path.name} is not an ONNX model: it computes nothing; export it again")
    return model


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Its `metadata_props`."""
    return {entry.key: entry.value for entry in model.metadata_props}


def adopt(model: ModelProto, name: str, labels: tuple[str, ...] | None) -> Adopted:
    """Recognise `model` and bring it under our port. It is changed in place.

    Args:
        model: as `load` read it.
        name: of the file, for messages.
        labels: class names of a file; None for those in the metadata, or COCO's.

    Raises:
        ModelError: it cannot be used; says what was seen and what would be accepted.
    """
    try:
        return _adopt(model, labels)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _adopt(model: ModelProto, labels: tuple[str, ...] | None) -> Adopted:
    interface = _interface(model)
    net_wh = input_size(interface)
    batch = _fix_sides(_only_input(model.graph), net_wh)
    _infer_shapes(model)
    interface = _interface(model)
    known = labels if labels is not None else names_of(interface.metadata)
    found = recognise(interface, net_wh, known)
    names, notes = _named(found.head, known)
    (given,) = interface.inputs
    _put_in_front(model, found, given.dtype == "float16")
    _give_floats(model)
    adopted = Adopted(found.head, found.placing, net_wh, names, _takes(found, given), notes)
    _describe(model, adopted, batch)
    return adopted


def _named(head: Head, known: tuple[str, ...] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels, and what is to be said about them."""
    if known is not None:
        return known, ()
    if head.classes != len(COCO):
        raise ModelError(
            f"it has {head.classes} classes, and nothing says what they are called; put their "
            "names beside it, in a file of the same name that ends in .names, one a line, or name "
            "such a file in MODEL_LABELS"
        )
    note = "the model has 80 classes and no names: they are taken for COCO's, in their order"
    return COCO, (note,)


def _takes(found: Recognised, given: Tensor) -> str:
    order = "BGR" if found.is_bgr else "RGB"
    place = "in the middle" if found.placing.is_centred else "top left"
    return (
        f"{order} from 0 to {found.scale:g}, {given.dtype}, the frame {place} "
        f"between bars of {found.placing.fill}"
    )


def _only_input(graph: GraphProto) -> ValueInfoProto:
    weights = {tensor.name for tensor in graph.initializer}
    given: ValueInfoProto
    (given,) = (value for value in graph.input if value.name not in weights)
    return given


def _interface(model: ModelProto) -> Interface:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    return Interface(
        tuple(_tensor(value) for value in graph.input if value.name not in weights),
        tuple(_tensor(value) for value in graph.output),
        metadata_of(model),
        any(node.op_type == "Exp" for node in graph.node),
    )


def _tensor(value: ValueInfoProto) -> Tensor:
    from onnx import TensorProto

    declared = value.type.tensor_type
    # FLOAT and FLOAT16 have numpy's words; of the others only that they are others matters.
    words: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    dtype = words.get(declared.elem_type) or _word(declared.elem_type)
    shape = tuple(
        side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None
        for side in declared.shape.dim
    )
    return Tensor(value.name[:60], dtype, shape)


def _word(elem_type: int) -> str:
    from onnx import TensorProto

    try:
        return str(TensorProto.DataType.Name(elem_type)).lower()
    except ValueError:
        return "unknown"


def _fix_sides(given: ValueInfoProto, net_wh: tuple[int, int]) -> int | None:
    """Declare the input's size; how many pictures it takes at once, None for any number."""
    sides = given.type.tensor_type.shape.dim
    for side, value in zip(sides[1:], (3, net_wh[1], net_wh[0]), strict=True):
        side.Clear()
        side.dim_value = value
    return sides[0].dim_value if sides[0].HasField("dim_value") else None


def _infer_shapes(model: ModelProto) -> None:
    """Work out the outputs' sides that now follow from the input's."""
    import onnx

    if all(None not in _tensor(value).shape[1:] for value in model.graph.output):
        return
    graph = model.graph
    del graph.value_info[:]
    for value in graph.output:
        for side in value.type.tensor_type.shape.dim:
            if not side.HasField("dim_value"):
                side.Clear()  # a name of the exporter's would stand against a number
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return  # the declared shapes must do
    for value, found in zip(graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(found)


def _put_in_front(model: ModelProto, found: Recognised, is_half: bool) -> None:
    """Nodes that turn our input into the model's."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    given = _only_input(graph)
    steps: list[tuple[str, str | None, dict[str, Any]]] = []
    if found.scale != 1:
        scale = np.array(found.scale, np.float32)
        graph.initializer.append(numpy_helper.from_array(scale, f"{_PREFIX}scale"))
        steps.append(("Mul", "scale", {}))
    if found.is_bgr:
        order = np.array([2, 1, 0], np.int64)
        graph.initializer.append(numpy_helper.from_array(order, f"{_PREFIX}order"))
        steps.append(("Gather", "order", {"axis": 1}))
    if is_half:
        steps.append(("Cast", None, {"to": TensorProto.FLOAT16}))
    if not steps:
        return
    inner, tensor = given.name, f"{_PREFIX}images"
    nodes = []
    for number, (kind, constant, attributes) in enumerate(steps):
        inputs = [tensor] + ([] if constant is None else [f"{_PREFIX}{constant}"])
        tensor = inner if number == len(steps) - 1 else f"{_PREFIX}step_{number}"
        nodes.append(helper.make_node(kind, inputs, [tensor], f"{_PREFIX}{kind}", **attributes))
    given.name = f"{_PREFIX}images"
    given.type.tensor_type.elem_type = TensorProto.FLOAT
    _prepend(graph, nodes)


def _prepend(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])


def _give_floats(model: ModelProto) -> None:
    """Have outputs of half precision come out as float32."""
    from onnx import TensorProto, helper

    graph = model.graph
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            inner = value.name
            value.name = f"{_PREFIX}{re.sub(r'[^0-9A-Za-z_]', '_', inner)}"
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            cast = helper.make_node("Cast", [inner], [value.name], to=TensorProto.FLOAT)
            graph.node.append(cast)


def _describe(model: ModelProto, adopted: Adopted, batch: int | None) -> None:
    ours = {
        METADATA_HEADS: heads_to_json(adopted.head),
        METADATA_LABELS: json.dumps(list(adopted.labels)),
        METADATA_NET_WH: json.dumps(list(adopted.net_wh)),
        METADATA_PLACING: json.dumps(asdict(adopted.placing)),
    }
    if batch is not None:
        ours[METADATA_BATCH] = str(batch)
    for key, value in ours.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
