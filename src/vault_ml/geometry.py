"""Boxes and the letterbox: the arithmetic between frame pixels and network pixels.

`xyxy` (x_min, y_min, x_max, y_max) is the only box format between rooms. Two coordinate frames
exist, and the type checker keeps them apart: *frame* pixels (the original picture, origin top
left) and *net* pixels (the letterboxed input of the network).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

import numpy as np
from numpy.typing import NDArray

FrameXyxy = NewType("FrameXyxy", NDArray[np.float32])
"""(n, 4) float32, xyxy, pixels of the original frame."""
NetXyxy = NewType("NetXyxy", NDArray[np.float32])
"""(n, 4) float32, xyxy, pixels of the letterboxed network input."""

# Two boxes of different classes that overlap more than this are one object that the network could
# not decide on: a car that is also a truck. Distinct objects practically never overlap that much.
SAME_OBJECT_IOU = 0.8

INPUT_MULTIPLE = 32
"""A rectangular input has sides that are multiples of this: the largest stride of YOLO's heads."""


@dataclass(frozen=True, slots=True)
class Placing:
    """How a family of networks wants frames to lie in its input: what it was trained with.

    Attributes:
        fill: grey of the bars, uint8.
        is_centred: bars on both sides; else the frame lies top left.
        is_rounded: sides of the scaled frame are rounded to the nearest pixel, not down.
    """

    fill: int
    is_centred: bool
    is_rounded: bool


DARKNET_PLACING = Placing(fill=127, is_centred=True, is_rounded=False)
"""Darknet fills with 0.5, in the middle; `letterbox_image` in `src/image.c`."""


def input_wh(frame_wh: tuple[int, int], net_wh: tuple[int, int], *, rect: bool) -> tuple[int, int]:
    """The size of the network's input for a frame.

    Square (the parity default): always `net_wh`. Rectangular: the frame is scaled as for the
    square, and the bars are cut down to what fills the sides up to a multiple of `INPUT_MULTIPLE`.

    >>> input_wh((1920, 1080), (608, 608), rect=True)
    (608, 352)

    Raises:
        ValueError: a size is not positive.
    """
    if not rect:
        return net_wh
    inner_w, inner_h = Letterbox.fit(frame_wh, net_wh).inner_wh
    return _filled_up(inner_w, net_wh[0]), _filled_up(inner_h, net_wh[1])


def _filled_up(side: int, most: int) -> int:
    return min(most, -(-side // INPUT_MULTIPLE) * INPUT_MULTIPLE)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a frame lies inside the network's input: aspect ratio kept, centred, bars around it.

    Attributes:
        frame_wh: size of the original frame, pixels.
        net_wh: size of the network input, pixels.
        inner_wh: size of the scaled frame inside the input, integer pixels.
        offset_xy: where its top left corner is pasted, integer pixels.
    """

    frame_wh: tuple[int, int]
    net_wh: tuple[int, int]
    inner_wh: tuple[int, int]
    offset_xy: tuple[int, int]

    @classmethod
    def fit(
        cls,
        frame_wh: tuple[int, int],
        net_wh: tuple[int, int],
        placing: Placing = DARKNET_PLACING,
    ) -> Letterbox:
        """Place a frame of `frame_wh` in an input of `net_wh`.

        >>> Letterbox.fit((704, 576), (608, 608))
        Letterbox(frame_wh=(704, 576), net_wh=(608, 608), inner_wh=(608, 497), offset_xy=(0, 55))

        Raises:
            ValueError: a size is not positive.

        Source: darknet `src/image.c` letterbox_image (truncates the new size and the offset). One
        ratio in floating point serves both sides, where darknet divides whole numbers: at 416 a
        720 pixel side becomes 415, not 416 (docs/adr/0003-letterbox-and-batch-norm.md).
        """
        frame_w, frame_h = frame_wh
        net_w, net_h = net_wh
        if min(frame_w, frame_h, net_w, net_h) <= 0:
            raise ValueError(f"sizes must be positive, got frame {frame_wh} and network {net_wh}")
        scale = min(net_w / frame_w, net_h / frame_h)
        half = 0.5 if placing.is_rounded else 0.0
        inner_w, inner_h = (max(1, int(side * scale + half)) for side in frame_wh)
        free_w, free_h = net_w - inner_w, net_h - inner_h
        offset_xy = (free_w // 2, free_h // 2) if placing.is_centred else (0, 0)
        return cls(frame_wh, net_wh, (inner_w, inner_h), offset_xy)

    def to_net(self, boxes: FrameXyxy) -> NetXyxy:
        """Frame pixels -> net pixels.

        Args:
            boxes: (n, 4) float32, xyxy, frame pixels.

        Returns:
            (n, 4) float32, xyxy, net pixels.
        """
        scale, offset = self._scale_and_offset()
        return NetXyxy(boxes * scale + offset)

    def to_frame(self, boxes: NetXyxy) -> FrameXyxy:
        """Net pixels -> frame pixels, clipped to the frame.

        The inverse uses the integer offset at which the frame was really pasted. Darknet's
        `correct_yolo_boxes` uses the real-valued one, up to half a net pixel away
        (docs/adr/0003-letterbox-and-batch-norm.md).

        Args:
            boxes: (n, 4) float32, xyxy, net pixels.

        Returns:
            (n, 4) float32, xyxy, frame pixels, inside the frame.
        """
        scale, offset = self._scale_and_offset()
        frame_w, frame_h = self.frame_wh
        limit = np.array([frame_w, frame_h, frame_w, frame_h], dtype=np.float32)
        return FrameXyxy(np.clip((boxes - offset) / scale, 0, limit).astype(np.float32, copy=False))

    def _scale_and_offset(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale_x = self.inner_wh[0] / self.frame_wh[0]
        scale_y = self.inner_wh[1] / self.frame_wh[1]
        x, y = self.offset_xy
        return (
            np.array([scale_x, scale_y, scale_x, scale_y], dtype=np.float32),
            np.array([x, y, x, y], dtype=np.float32),
        )


def area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area of each box.

    Args:
        boxes: (n, 4) float32, xyxy, any one coordinate frame.

    Returns:
        (n,) float32; 0 for a box that is turned inside out.
    """
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pairwise intersection over union of two sets of boxes.

    Args:
        a: (n, 4) float32, xyxy.
        b: (m, 4) float32, xyxy, same coordinate frame as `a`.

    Returns:
        (n, m) float32 in [0, 1]; 0 where a box has no area. Empty input gives an empty matrix.

    Raises:
        ValueError: the last axis is not 4.

    Source: darknet `src/box.c` box_iou, vectorised.
    """
    for name, boxes in (("a", a), ("b", b)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name}: expected shape (n, 4), got {boxes.shape}")
    # One axis after the other: numpy is slow over a last axis of two.
    wide = np.minimum(a[:, 2, None], b[:, 2]) - np.maximum(a[:, 0, None], b[:, 0])
    high = np.minimum(a[:, 3, None], b[:, 3]) - np.maximum(a[:, 1, None], b[:, 1])
    overlap = np.maximum(wide, 0) * np.maximum(high, 0)
    union = area(a)[:, None] + area(b) - overlap
    ratio = np.zeros(overlap.shape, dtype=np.float32)
    np.divide(overlap, union, out=ratio, where=union > 0, casting="same_kind")
    return ratio
