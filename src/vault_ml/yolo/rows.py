"""Heads that put out one row, or one column, per box, as the ONNX exports of other projects do.

What they have in common with darknet's maps (`head.DarknetHead`) is the port `head.Head`; how they
differ stands in each class. As with darknet, a box is a candidate for each class above the
threshold (taking only its most probable class costs YOLOX-nano 5 points of AP50).

Sources, facts only: the papers and READMEs of YOLOX (arXiv 2107.08430, `demo/ONNXRuntime`),
YOLOv10 (arXiv 2405.14458), and what Ultralytics' documentation says of its exports' outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vault_ml.errors import ModelError
from vault_ml.geometry import NetXyxy

Candidates = tuple[NetXyxy, NDArray[np.float32], NDArray[np.int64]]
"""xyxy (n, 4) float32, net pixels, not clipped; confidence (n,) float32; class id (n,) int64."""

YOLOX_STRIDES = (8, 16, 32)

_EXPONENT_LIMIT = 10.0
"""As for darknet's heads: exp(10) strides are beyond any frame, and finite."""

_SLACK = 1e-3
"""How far beyond [0, 1] a half-precision sigmoid may come to lie."""


def grid_points(net_wh: tuple[int, int], strides: Sequence[int] = YOLOX_STRIDES) -> int:
    """How many cells the grids of `strides` have in an input of `net_wh`.

    >>> grid_points((640, 640))
    8400
    """
    w, h = net_wh
    return sum((w // stride) * (h // stride) for stride in strides)


@dataclass(frozen=True, slots=True)
class Yolov8Head:
    """(n, 4 + classes, points): centre and size in net pixels, then a probability per class.

    What YOLOv5u, YOLOv8, YOLOv9, YOLO11, YOLO12 and, without their end-to-end branch, YOLOv10 and
    YOLO26 put out.
    """

    family: ClassVar[str] = "yolov8"
    title: ClassVar[str] = "YOLOv5u, YOLOv8, YOLO11 and their kin"
    is_suppressed: ClassVar[bool] = False
    classes: int

    def misfit(self, outputs: Sequence[NDArray[np.float32]], n: int) -> str | None:
        """What does not fit in the outputs for n pictures; None where all does."""
        return _misfit(outputs, n, (4 + self.classes, None))

    def candidates(
        self,
        outputs: Sequence[NDArray[np.float32]],
        net_wh: tuple[int, int],  # noqa: ARG002  boxes are in net pixels already
        threshold: float,
    ) -> Candidates:
        """The boxes of one picture; see `head.Head`."""
        (values,) = outputs
        scores = values[4:]
        _check_probabilities(scores)
        point, class_id = np.nonzero(threshold < scores.T)
        return _around(values[:4, point].T), scores[class_id, point], class_id.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Yolov5Head:
    """(n, points, 5 + classes): centre and size in net pixels, objectness, class probabilities.

    What the first YOLOv5 and YOLOv7 put out, and YOLOX where its export decodes the boxes.
    """

    family: ClassVar[str] = "yolov5"
    title: ClassVar[str] = "YOLOv5 and YOLOv7"
    is_suppressed: ClassVar[bool] = False
    classes: int

    def misfit(self, outputs: Sequence[NDArray[np.float32]], n: int) -> str | None:
        """What does not fit in the outputs for n pictures; None where all does."""
        return _misfit(outputs, n, (None, 5 + self.classes))

    def candidates(
        self,
        outputs: Sequence[NDArray[np.float32]],
        net_wh: tuple[int, int],  # noqa: ARG002  boxes are in net pixels already
        threshold: float,
    ) -> Candidates:
        """The boxes of one picture; see `head.Head`."""
        (values,) = outputs
        point, confidence, class_id = _objects(values, threshold)
        return _around(values[point, :4]), confidence, class_id


@dataclass(frozen=True, slots=True)
class YoloxHead:
    """(n, cells, 5 + classes): offset in the cell, logarithm of the size, objectness, classes.

    The rows are the cells of the grids of stride 8, 16 and 32, each row by row. Offsets and sizes
    are in strides; the probabilities are probabilities already.
    """

    family: ClassVar[str] = "yolox"
    title: ClassVar[str] = "YOLOX"
    is_suppressed: ClassVar[bool] = False
    classes: int

    def misfit(self, outputs: Sequence[NDArray[np.float32]], n: int) -> str | None:
        """What does not fit in the outputs for n pictures; None where all does."""
        return _misfit(outputs, n, (None, 5 + self.classes))

    def candidates(
        self,
        outputs: Sequence[NDArray[np.float32]],
        net_wh: tuple[int, int],
        threshold: float,
    ) -> Candidates:
        """The boxes of one picture; see `head.Head`.

        Raises:
            ModelError: the number of rows is not that of the grids' cells.

        Source: YOLOX `yolox/utils/demo_utils.py` demo_postprocess.
        """
        (values,) = outputs
        if len(values) != grid_points(net_wh):
            raise ModelError(
                f"the network gave {len(values)} rows where the grids of a {net_wh[0]}x{net_wh[1]} "
                f"input have {grid_points(net_wh)} cells: it is no YOLOX head of strides 8, 16, 32"
            )
        point, confidence, class_id = _objects(values, threshold)
        cell, stride = _grid(net_wh)
        cell, stride = cell[point], stride[point, None]
        centre = (values[point, :2] + cell) * stride
        sides = np.exp(np.minimum(values[point, 2:4], np.float32(_EXPONENT_LIMIT))) * stride
        return _around(np.concatenate([centre, sides], axis=1)), confidence, class_id


@dataclass(frozen=True, slots=True)
class EndToEndHead:
    """(n, most, 6): corners in net pixels, confidence, class; overlaps are resolved already.

    What YOLOv10 and YOLO26 put out, and other exports of Ultralytics with `nms=True`. Rows that
    are not needed have the confidence 0.
    """

    family: ClassVar[str] = "end2end"
    title: ClassVar[str] = "end to end (YOLOv10, YOLO26, or exported with NMS)"
    is_suppressed: ClassVar[bool] = True
    classes: int

    def misfit(self, outputs: Sequence[NDArray[np.float32]], n: int) -> str | None:
        """What does not fit in the outputs for n pictures; None where all does."""
        return _misfit(outputs, n, (None, 6))

    def candidates(
        self,
        outputs: Sequence[NDArray[np.float32]],
        net_wh: tuple[int, int],  # noqa: ARG002  boxes are in net pixels already
        threshold: float,
    ) -> Candidates:
        """The boxes of one picture; see `head.Head`.

        Raises:
            ModelError: a class that has no label.
        """
        (values,) = outputs
        scores = values[:, 4]
        _check_probabilities(scores)
        chosen = values[scores > threshold]
        class_id = np.rint(chosen[:, 5]).astype(np.int64)
        beyond = class_id[(class_id < 0) | (class_id >= self.classes)]
        if len(beyond):
            raise ModelError(
                f"the network named class {beyond[0]}, but there are {self.classes} labels; use "
                "the list of names that belongs to the model"
            )
        return NetXyxy(np.ascontiguousarray(chosen[:, :4])), chosen[:, 4], class_id


RowsHead = Yolov8Head | Yolov5Head | YoloxHead | EndToEndHead
"""A head that puts out rows."""

FAMILIES: dict[str, type[RowsHead]] = {
    kind.family: kind for kind in (Yolov8Head, Yolov5Head, YoloxHead, EndToEndHead)
}


def _misfit(
    outputs: Sequence[NDArray[np.float32]], n: int, expected: tuple[int | None, int | None]
) -> str | None:
    if len(outputs) != 1:
        return f"the network gave {len(outputs)} outputs where its head has one"
    shape = outputs[0].shape
    fits = len(shape) == 3 and all(
        side is None or side == got for side, got in zip((n, *expected), shape, strict=True)
    )
    if fits:
        return None
    wanted = ", ".join("any" if side is None else str(side) for side in (n, *expected))
    return f"the network gave an output of shape {shape} where its head expects ({wanted})"


def _objects(
    rows: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Which rows are objects, how sure that is, and of which class; a row may be of several."""
    _check_probabilities(rows[:, 4])
    # Objectness bounds the confidence: most rows are done after one comparison.
    (sure,) = np.nonzero(rows[:, 4] > threshold)
    classes = rows[sure, 5:]
    _check_probabilities(classes)
    confidence = rows[sure, 4:5] * classes
    row, class_id = np.nonzero(confidence > threshold)
    return sure[row], confidence[row, class_id], class_id.astype(np.int64)


def _grid(net_wh: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row of each cell, (cells, 2), and its stride, (cells,)."""
    w, h = net_wh
    cells, strides = [], []
    for stride in YOLOX_STRIDES:
        row, column = np.divmod(np.arange((w // stride) * (h // stride)), w // stride)
        cells.append(np.stack([column, row], axis=1).astype(np.float32))
        strides.append(np.full(len(row), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)


def _around(centre_and_sides: NDArray[np.float32]) -> NetXyxy:
    """(n, 4) cxcywh -> (n, 4) xyxy."""
    centre, half = centre_and_sides[:, :2], centre_and_sides[:, 2:] / 2
    return NetXyxy(np.concatenate([centre - half, centre + half], axis=1))


def _check_probabilities(values: NDArray[np.float32]) -> None:
    """Raise `ModelError` where what should be probabilities are logits, or something else."""
    lowest, highest = float(values.min(initial=0)), float(values.max(initial=0))
    if lowest < -_SLACK or highest > 1 + _SLACK:
        raise ModelError(
            f"the network gave values from {lowest:.3g} to {highest:.3g} where its head has "
            "probabilities; export the model so that its last layer is a sigmoid"
        )
