"""ONNX detectors as other projects export them, small enough to reason about.

64x48 pixels, three classes. One box stands at a known place; how sure the network is of class 0, 1
and 2 is the mean of the first, second and third channel of its input. So a picture in one colour
tells which channel came first and how it was scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NET_WH = (64, 48)
POINTS = 8 * 6 + 4 * 3 + 2 * 1
BOX = (24.0, 18.0, 40.0, 30.0)
"""Where the box stands: xyxy, net pixels."""
LABELS = ("cat", "dog", "bird")
NAMES = {"names": str(dict(enumerate(LABELS))), "stride": "32", "task": "detect"}

Sides = tuple[int | str, int | str]


def write_model(
    path: Path,
    family: str,
    *,
    metadata: Mapping[str, str] | None = None,
    batch: int | str = "batch",
    sides: Sides = (NET_WH[1], NET_WH[0]),
    half: bool = False,
) -> Path:
    """Write a model of `yolov8`, `yolov5`, `yolox`, `yolox-decoded` or `end2end`."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes, constants, shape = _GRAPHS[family](np.float16 if half else np.float32)
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3]), *nodes],
        family,
        [helper.make_tensor_value_info("images", kind, [batch, 3, *sides])],
        [helper.make_tensor_value_info("output0", kind, [batch, *shape])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    given = {} if family.startswith("yolox") else NAMES
    helper.set_model_props(model, dict(given if metadata is None else metadata))
    onnx.save(model, path)
    return path


_Graph = tuple[list[Any], dict[str, NDArray[Any]], Sequence[int]]


def _columns(dtype: type) -> _Graph:
    """(n, 4 + 3, points): the box is the sixth column."""
    x1, y1, x2, y2 = BOX
    boxes: NDArray[Any] = np.zeros((1, 4, POINTS), dtype)
    boxes[0, :, 5] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    where: NDArray[Any] = np.zeros((1, 1, POINTS), dtype)
    where[0, 0, 5] = 1
    nodes = [
        helper.make_node("Reshape", ["mean", "column"], ["sure"]),
        helper.make_node("Mul", ["sure", "where"], ["scores"]),
        helper.make_node("ReduceSum", ["scores", "axes"], ["one"], keepdims=1),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["output0"], axis=1),
    ]
    constants: dict[str, NDArray[Any]] = {
        "column": np.array([0, 3, 1], np.int64),
        "axes": np.array([1], np.int64),
        "zero": np.array(0, dtype),
        "boxes": boxes,
        "where": where,
    }
    return nodes, constants, (7, POINTS)


def _rows(boxes: NDArray[Any], row: int, scale: float, *, exponential: bool = False) -> _Graph:
    """(n, rows, 5 + 3), where `boxes` is (1, rows, 4); objectness is 1 in `row`."""
    count, dtype = boxes.shape[1], boxes.dtype.type
    where: NDArray[Any] = np.zeros((1, count, 1), dtype)
    where[0, row] = 1
    nodes = [
        helper.make_node("Reshape", ["mean", "line"], ["sure"]),
        helper.make_node("Mul", ["sure", "scale"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "where"], ["scores"]),
        helper.make_node("ReduceSum", ["scores", "axes"], ["one"], keepdims=1),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "where"], ["objectness"]),
        helper.make_node("Add", ["nothing", "logs" if exponential else "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "objectness", "scores"], ["output0"], axis=2),
    ]
    if exponential:
        nodes.insert(0, helper.make_node("Exp", ["boxes"], ["logs"]))
    constants: dict[str, NDArray[Any]] = {
        "line": np.array([0, 1, 3], np.int64),
        "axes": np.array([2], np.int64),
        "zero": np.array(0, dtype),
        "scale": np.array(scale, dtype),
        "boxes": boxes,
        "where": where,
    }
    return nodes, constants, (count, 8)


def _around(count: int, row: int, dtype: type) -> NDArray[Any]:
    x1, y1, x2, y2 = BOX
    boxes: NDArray[Any] = np.zeros((1, count, 4), dtype)
    boxes[0, row] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    return boxes


def _yolox(dtype: type) -> _Graph:
    """The box from the cell (2, 1) of the grid of stride 16."""
    boxes: NDArray[Any] = np.zeros((1, POINTS, 4), dtype)
    row = 48 + 1 * 4 + 2
    boxes[0, row] = 0, 0.5, np.log(1.0), np.log(12 / 16)
    return _rows(boxes, row, 1 / 255)


def _end_to_end(dtype: type) -> _Graph:
    """(n, 300, 6): the box is the first row, of class 1, as sure as the first channel is full."""
    template: NDArray[Any] = np.zeros((1, 300, 6), dtype)
    template[0, 0] = (*BOX, 0, 1)
    where: NDArray[Any] = np.zeros((1, 300, 6), dtype)
    where[0, 0, 4] = 1
    nodes = [
        helper.make_node("Slice", ["mean", "start", "end", "channels"], ["first"]),
        helper.make_node("Reshape", ["first", "point"], ["sure"]),
        helper.make_node("Mul", ["sure", "where"], ["scores"]),
        helper.make_node("Add", ["scores", "template"], ["output0"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "start": np.array([0], np.int64),
        "end": np.array([1], np.int64),
        "channels": np.array([1], np.int64),
        "point": np.array([0, 1, 1], np.int64),
        "where": where,
        "template": template,
    }
    return nodes, constants, (300, 6)


_GRAPHS = {
    "yolov8": _columns,
    "yolov5": lambda dtype: _rows(_around(3 * POINTS, 9, dtype), 9, 1),
    "yolox": _yolox,
    "yolox-decoded": lambda dtype: _rows(
        np.log(np.maximum(_around(POINTS, 9, dtype), dtype(1e-3))), 9, 1 / 255, exponential=True
    ),
    "end2end": _end_to_end,
}
