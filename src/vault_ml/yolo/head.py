"""What networks put out -> candidate boxes in net pixels: the port, and darknet's maps behind it.

`Head` is what the detector knows of a family; `rows` has the families of other projects.

Of darknet's: a 608x608 network has 22,743 cells times anchors and 85 values in each; on a CCTV
frame a handful matter. So the gate comes first: objectness is compared as a logit, before any
exponential, and only the survivors are decoded (measured: 0.5 ms instead of 30).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vault_ml.errors import ModelError
from vault_ml.geometry import NetXyxy
from vault_ml.yolo.cfg import Network, Yolo
from vault_ml.yolo.rows import FAMILIES, Candidates
from vault_ml.yolo.shapes import infer_shapes

_EXPONENT_LIMIT = 10.0
"""A side is at most exp(10) = 22,026 anchors long. Far beyond any frame, so no box that is clipped
to the frame changes; but float32 stays finite, and so does the IoU of such a box."""

_GATE_MARGIN = 1e-4
"""The gate lets a little more through than the exact comparison that follows, because a sigmoid
and its inverse do not meet to the last bit. In logits."""


class Head(Protocol):
    """How to read what a network of one family puts out."""

    @property
    def family(self) -> str:
        """Its name in a model's metadata."""
        ...

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def is_suppressed(self) -> bool:
        """Whether the network resolves overlaps itself; else that is left to do."""
        ...

    def misfit(self, outputs: Sequence[NDArray[np.float32]], n: int) -> str | None:
        """What does not fit in the outputs for n pictures, half a sentence; None where all does."""
        ...

    def candidates(
        self,
        outputs: Sequence[NDArray[np.float32]],
        net_wh: tuple[int, int],
        threshold: float,
    ) -> Candidates:
        """Every box of one picture whose confidence is above the threshold, in a fixed order.

        Args:
            outputs: float32, as `misfit` found them fit, without the axis of pictures.
            net_wh: size of the network's input, pixels.
            threshold: what the confidence must be above.

        Raises:
            ModelError: the values cannot be what this family puts out.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How to read one head's map.

    Attributes:
        anchors: (width, height) of each anchor, net pixels.
        classes: number of classes.
        stride: net pixels per grid cell. Decoding takes the exact ratio from the map itself.
        scale_x_y: how far beyond its cell a centre may lie; 1 = not at all.
        new_coords: the map holds values in [0, 1], not logits, and sides are squared
            (Scaled-YOLOv4).
    """

    anchors: tuple[tuple[float, float], ...]
    classes: int
    stride: int
    scale_x_y: float = 1.0
    new_coords: bool = False

    @property
    def channels(self) -> int:
        """Channels of this head's map: per anchor x, y, w, h, objectness and the classes."""
        return len(self.anchors) * (5 + self.classes)


@dataclass(frozen=True, slots=True)
class DarknetHead:
    """Maps of raw logits, one per `[yolo]` layer: what `export` writes.

    Attributes:
        specs: how to read each map, in the order of the network's outputs.
    """

    family: ClassVar[str] = "darknet"
    title: ClassVar[str] = "darknet"
    is_suppressed: ClassVar[bool] = False
    specs: tuple[HeadSpec, ...]

    def __post_init__(self) -> None:
        """Raise `ModelError` where there is no map, or they disagree about the classes."""
        if not self.specs:
            raise ModelError("the model has no detection head")
        if len({spec.classes for spec in self.specs}) > 1:
            raise ModelError("the heads of the model know different numbers of classes")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.specs[0].classes

    def misfit(self, outputs: Sequence[NDArray[np.float32]], n: int) -> str | None:
        """What does not fit in the outputs for n pictures; None where all does."""
        if len(outputs) != len(self.specs):
            return (
                f"the network gave {len(outputs)} outputs where {len(self.specs)} heads are "
                "described"
            )
        for spec, output in zip(self.specs, outputs, strict=True):
            if output.ndim != 4 or output.shape[:2] != (n, spec.channels):
                return (
                    f"the network gave an output of shape {output.shape} where its head expects "
                    f"({n}, {spec.channels}, h, w)"
                )
        return None

    def candidates(
        self,
        outputs: Sequence[NDArray[np.float32]],
        net_wh: tuple[int, int],
        threshold: float,
    ) -> Candidates:
        """The boxes of one picture, one for each class above the threshold; see `candidates`."""
        return candidates(outputs, self.specs, net_wh, threshold)


def head_specs(network: Network) -> tuple[HeadSpec, ...]:
    """The heads of a network, in the order of its outputs.

    Raises:
        ModelError: the layers do not fit together.
    """
    shapes = infer_shapes(network)
    return tuple(
        HeadSpec(
            layer.anchors,
            layer.classes,
            round(network.width / shape.width),
            layer.scale_x_y,
            layer.new_coords,
        )
        for layer, shape in zip(network.layers, shapes, strict=True)
        if isinstance(layer, Yolo)
    )


def heads_to_json(head: Head) -> str:
    """As the ONNX model carries it, in its metadata `vault_ml.heads`."""
    if isinstance(head, DarknetHead):
        return json.dumps([asdict(spec) for spec in head.specs])
    return json.dumps({"family": head.family, "classes": head.classes})


def heads_from_json(text: str) -> Head:
    """The inverse of `heads_to_json`.

    Raises:
        ValueError: not what `heads_to_json` writes.
        ModelError: darknet's, and of no map.
    """
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            return FAMILIES[found["family"]](int(found["classes"]))
        specs = tuple(
            HeadSpec(
                tuple((float(w), float(h)) for w, h in head["anchors"]),
                int(head["classes"]),
                int(head["stride"]),
                float(head["scale_x_y"]),
                bool(head["new_coords"]),
            )
            for head in found
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("these are not the heads of a model that vault-ml converted") from error
    return DarknetHead(specs)


def candidates(
    maps: Sequence[NDArray[np.float32]],
    heads: Sequence[HeadSpec],
    net_wh: tuple[int, int],
    confidence_threshold: float,
) -> Candidates:
    """Every box and class whose confidence is above the threshold, of one image.

    One box may give several candidates, one for each class above the threshold, as in darknet. The
    order is fixed: by head, anchor, row, column, class.

    Args:
        maps: one per head, (anchors * (5 + classes), grid h, grid w) float32, as the network puts
            them out, before any sigmoid.
        heads: how to read them, same order.
        net_wh: size of the network's input, pixels.
        confidence_threshold: objectness times class probability must be above this.

    Returns:
        xyxy (n, 4) float32, net pixels, not clipped; confidence (n,) float32 in [0, 1];
        class id (n,) int64.

    Raises:
        ValueError: a map has another shape than its head, or holds NaN: then the network could not
            look, which must not read as "nothing seen".

    Source: darknet `src/yolo_layer.c` get_yolo_box, get_yolo_detections; scale_x_y and new_coords
    from the same functions of the AlexeyAB fork.
    """
    if len(maps) != len(heads):
        raise ValueError(f"expected {len(heads)} maps, one per head, got {len(maps)}")
    parts = [
        _decode(values, head, net_wh, confidence_threshold)
        for values, head in zip(maps, heads, strict=True)
    ]
    boxes = [part[0] for part in parts]
    confidence = [part[1] for part in parts]
    class_id = [part[2] for part in parts]
    return (
        NetXyxy(np.concatenate([np.zeros((0, 4), np.float32), *boxes])),
        np.concatenate([np.zeros(0, np.float32), *confidence]),
        np.concatenate([np.zeros(0, np.int64), *class_id]),
    )


def _decode(
    values: NDArray[np.float32], head: HeadSpec, net_wh: tuple[int, int], threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    if values.ndim != 3 or values.shape[0] != head.channels:
        raise ValueError(f"map: expected shape ({head.channels}, h, w), got {values.shape}")
    grid_h, grid_w = values.shape[1:]
    cells = values.reshape(len(head.anchors), 5 + head.classes, grid_h, grid_w)
    objectness = cells[:, 4]
    if np.isnan(objectness).any():
        raise ValueError("the network's output holds NaN; it could not look at this frame")
    gate = threshold if head.new_coords else _logit(threshold)
    anchor, row, column = np.nonzero(objectness > gate - _GATE_MARGIN)
    # (survivors, 5 + classes): few, so a copy is cheap and what follows is plain.
    chosen = cells[anchor, :, row, column]
    unit = chosen if head.new_coords else _sigmoid(chosen)
    confidence = unit[:, 4:5] * unit[:, 5:]
    if np.isnan(confidence).any() or np.isnan(chosen[:, :4]).any():
        raise ValueError("the network's output holds NaN; it could not look at this frame")
    box, class_id = np.nonzero(confidence > threshold)

    centre = unit[:, :2] * np.float32(head.scale_x_y) - np.float32(0.5 * (head.scale_x_y - 1))
    centre += np.stack([column, row], axis=1).astype(np.float32)
    centre *= np.array([net_wh[0] / grid_w, net_wh[1] / grid_h], np.float32)
    if head.new_coords:
        sides = np.square(chosen[:, 2:4] * 2)
    else:
        sides = np.exp(np.minimum(chosen[:, 2:4], np.float32(_EXPONENT_LIMIT)))
    sides *= np.array(head.anchors, np.float32)[anchor]
    xyxy = np.concatenate([centre - sides / 2, centre + sides / 2], axis=1)
    return xyxy[box], confidence[box, class_id], class_id.astype(np.int64)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp overflows to infinity for very negative logits; 1 / (1 + inf) is the 0 that is meant.
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    if probability >= 1:
        return math.inf
    return math.log(probability / (1 - probability))
