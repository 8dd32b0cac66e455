"""Which family an ONNX detector of another project belongs to, from what the file says of itself.

Shapes first: a 640x640 input has 8,400 cells on the grids of stride 8, 16 and 32, so an output
with an axis of 8,400 has a row per cell, and one of 25,200 a row per cell and anchor. Where an
axis was left open, the metadata that Ultralytics' exporter writes must tell. What stays open is
refused: a wrong guess would be boxes in the wrong place.

Nothing is executed: `names` is a literal, and parsed as one, up to a limit.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vault_ml.errors import ModelError
from vault_ml.geometry import Placing
from vault_ml.yolo.head import Head
from vault_ml.yolo.labels import COCO
from vault_ml.yolo.rows import EndToEndHead, Yolov5Head, Yolov8Head, YoloxHead, grid_points

ULTRALYTICS_PLACING = Placing(fill=114, is_centred=True, is_rounded=True)
YOLOX_PLACING = Placing(fill=114, is_centred=False, is_rounded=False)

_FLOATS = ("float32", "float16")
_MOST_NAMES_CHARACTERS = 256 * 1024
"""The 1,203 classes of LVIS take 25,000 characters."""
_MOST_CLASSES = 10_000
_SIDES = range(32, 8193)
_MOST_END_TO_END = 1000
"""Rows of an end-to-end output; Ultralytics writes 300."""
# Networks for large pictures have one grid more, those for small objects one finer.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))

ACCEPTED = (
    "Accepted are one input of float32 or float16 (n, 3, height, width), and one output: "
    "(n, 4 + classes, points) of YOLOv5u, YOLOv8 or YOLO11, (n, 300, 6) end to end of YOLOv10 or "
    "YOLO26, (n, points, 5 + classes) of YOLOX or YOLOv5. Export it for detection, with a fixed "
    "size"
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as the file declares it.

    Attributes:
        name: its name.
        dtype: numpy's word for its type.
        shape: its sides; None for one that is open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """As messages show it."""
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.dtype} ({sides})"


@dataclass(frozen=True, slots=True)
class Interface:
    """What an ONNX file says of itself.

    Attributes:
        inputs: those that must be given.
        outputs: all.
        metadata: its `metadata_props`.
        has_exponential: whether it computes `Exp` anywhere: a YOLOX export that does has decoded
            its boxes itself.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    has_exponential: bool

    def __str__(self) -> str:
        """As messages show it."""
        inputs, outputs = (", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"input {inputs or 'none'}; output {outputs or 'none'}"


@dataclass(frozen=True, slots=True)
class Recognised:
    """How to use a model of another project.

    Attributes:
        head: how to read its output.
        placing: how frames lie in its input.
        is_bgr: it takes blue, green, red; else red, green, blue.
        scale: what a channel at full light is in its input: 1 or 255.
    """

    head: Head
    placing: Placing
    is_bgr: bool
    scale: float


def input_size(interface: Interface) -> tuple[int, int]:
    """Width and height of the input: as declared, else as the metadata's `imgsz` says.

    Raises:
        ModelError: this takes no pictures, or nothing tells their size.
    """
    if len(interface.inputs) != 1:
        raise _unknown(interface, f"it has {len(interface.inputs)} inputs")
    (tensor,) = interface.inputs
    if tensor.dtype not in _FLOATS:
        raise _unknown(interface, f"its input is {tensor.dtype}")
    if len(tensor.shape) != 4 or tensor.shape[1] not in (3, None):
        raise _unknown(interface, "its input is no picture of three channels")
    height, width = tensor.shape[2:]
    if height is None or width is None:
        height, width = _imgsz(interface)
    if height not in _SIDES or width not in _SIDES:
        raise _unknown(interface, f"its input is {width}x{height} pixels")
    return width, height


def recognise(
    interface: Interface, net_wh: tuple[int, int], labels: Sequence[str] | None
) -> Recognised:
    """Tell the family.

    Args:
        interface: with the shapes that the outputs have at `net_wh`.
        net_wh: what `input_size` said.
        labels: class names where they are known: they tell families apart that shapes do not.

    Raises:
        ModelError: the task is another, or the output is none that is known.
    """
    task = interface.metadata.get("task", "detect")
    if task != "detect":
        raise _unknown(interface, f"it was exported for the task {task[:40]!r}")
    if len(interface.outputs) != 1:
        raise _unknown(interface, f"it has {len(interface.outputs)} outputs")
    (output,) = interface.outputs
    if output.dtype not in _FLOATS or len(output.shape) != 3:
        raise _unknown(interface, "its output is no list of boxes")
    head = _head(interface, output.shape, net_wh, labels)
    if head is None:
        raise _unknown(
            interface, f"its output fits no known head of a {net_wh[0]}x{net_wh[1]} input"
        )
    if labels is not None and len(labels) != head.classes:
        raise ModelError(
            f"{len(labels)} names are given, but the model has {head.classes} classes; use the "
            "list that belongs to it"
        )
    if _is_yolox(interface, output.shape, net_wh):
        return Recognised(head, YOLOX_PLACING, is_bgr=True, scale=255.0)
    return Recognised(head, ULTRALYTICS_PLACING, is_bgr=False, scale=1.0)


def names_of(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names that Ultralytics' exporter writes: a Python literal, `{0: 'person', ...}`.

    Returns:
        In class order; None where there are none.

    Raises:
        ModelError: they are there, and not to be understood.
    """
    text = metadata.get("names")
    if text is None:
        return None
    if len(text) > _MOST_NAMES_CHARACTERS:
        raise ModelError(f"the model's metadata `names` has {len(text)} characters, too many")
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ModelError("the model's metadata `names` is no literal of names") from error
    if isinstance(found, list | tuple):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not 0 < len(found) <= _MOST_CLASSES:
        raise ModelError("the model's metadata `names` is no list of names")
    if set(found) != set(range(len(found))):
        raise ModelError("the model's metadata `names` does not number its classes from 0")
    return tuple(" ".join(str(found[each]).split()) or str(each) for each in range(len(found)))


def _head(
    interface: Interface,
    shape: tuple[int | None, ...],
    net_wh: tuple[int, int],
    labels: Sequence[str] | None,
) -> Head | None:
    _, first, second = shape
    cells = {grid_points(net_wh, strides) for strides in _STRIDES}
    if _is_yolox(interface, shape, net_wh) and second is not None:
        kind = Yolov5Head if interface.has_exponential else YoloxHead
        return kind(second - 5)
    if first in {3 * each for each in cells} and second is not None and second > 5:
        return Yolov5Head(second - 5)
    is_far = first is not None and first > 4 and first not in cells
    if is_far and second in cells and first is not None:
        return Yolov8Head(first - 4)
    if second == 6 and _is_end_to_end(interface, first):
        return EndToEndHead(len(COCO) if labels is None else len(labels))
    if second is None and labels is not None and first == 4 + len(labels):
        return Yolov8Head(len(labels))
    return None


def _is_yolox(interface: Interface, shape: tuple[int | None, ...], net_wh: tuple[int, int]) -> bool:
    """A row per cell is YOLOX: nobody else writes points first without anchors."""
    _, first, second = shape
    return (
        first == grid_points(net_wh)
        and second is not None
        and second > 5
        and "stride" not in interface.metadata
    )


def _is_end_to_end(interface: Interface, rows: int | None) -> bool:
    says_so = interface.metadata.get("end2end", "").lower() == "true"
    return says_so if rows is None else 0 < rows <= _MOST_END_TO_END


def _imgsz(interface: Interface) -> tuple[int, int]:
    """Height and width of `imgsz`, a literal such as `[640, 640]`."""
    text = interface.metadata.get("imgsz", "")
    try:
        found = ast.literal_eval(text[:100])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        found = None
    match found:
        case [int(height), int(width)]:
            return height, width
        case int(side):
            return side, side
    raise _unknown(interface, "nothing says how large its input is")


def _unknown(interface: Interface, why: str) -> ModelError:
    return ModelError(f"this ONNX model cannot be used: {why}. Seen: {interface}. {ACCEPTED}")
