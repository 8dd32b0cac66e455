"""From a decoded picture to RGB as a person sees it, and into the network's input.

Colours: swscale follows the picture's own tags (BT.601, BT.709, BT.2020; limited or full range).
Untagged video is taken as BT.601, limited range, as OpenCV and ffmpeg do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from vault_ml.geometry import DARKNET_PLACING, Letterbox
from vault_ml.video.adaptive import Why

# Photos: bilinear chroma at full resolution is nearest to what libjpeg does (mean difference to
# OpenCV's reader 0.25 grey levels on darknet's dog.jpg, against 0.8 without the flags).
STILL = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Video: what OpenCV's VideoCapture asks for, equal to it pixel by pixel, and four times faster.
MOVING = Interpolation.BICUBIC
# Of 1080p, a cell is 30 pixels wide: about as large as what a network still recognises there.
_CELLS = 64
# Formats that are scaled plane by plane: 8 bits, half the colour in both directions.
_THREE_PLANES = frozenset({"yuv420p", "yuvj420p"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded frame, not yet converted.

    Attributes:
        timestamp_s: presentation time, seconds since the first frame of the recording.
        number: which picture of the recording it is, from 0, in order of presentation.
        frame: FFmpeg's picture, in the codec's own pixel format and orientation.
        interpolation: how chroma is brought to full resolution.
        why: what spoke for it, where frames are chosen by what happens.
    """

    timestamp_s: float
    number: int
    frame: VideoFrame
    interpolation: Interpolation
    why: Why | None = None
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Size as a person sees it, after rotation, pixels."""
        width, height = self.frame.width, self.frame.height
        return (height, width) if self._quarter_turns() % 2 else (width, height)

    def rgb(self) -> NDArray[np.uint8]:
        """The whole picture: (h, w, 3) uint8 RGB, turned upright.

        Raises:
            av.error.FFmpegError: swscale does not know the pixel format.
            MemoryError: no room.
        """
        converted = self._reformatter.reformat(
            self.frame, format="rgb24", interpolation=self.interpolation, threads=1
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(converted, self._quarter_turns()), dtype=np.uint8)

    def rgb_at(self, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        """The picture at another size, both sides positive: (h, w, 3) uint8 RGB, turned upright.

        Not `rgb` scaled, but near it (half a grey level in the mean), and faster where the picture
        is large: the three planes are scaled as they are, and colours made at the new size.

        Raises:
            av.error.FFmpegError: swscale does not know the pixel format.
            MemoryError: no room.
        """
        if self.frame.format.name not in _THREE_PLANES or any(side % 2 for side in size_wh):
            return scaled(self.rgb(), size_wh)
        turns = self._quarter_turns()
        width, height = size_wh[::-1] if turns % 2 else size_wh
        half_wh = (width // 2, height // 2)
        planes = [
            scaled(_pixels(plane), wh)
            for plane, wh in zip(
                self.frame.planes, ((width, height), half_wh, half_wh), strict=True
            )
        ]
        packed = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, width)
        small = VideoFrame.from_ndarray(packed, format=self.frame.format.name)
        small.colorspace, small.color_range = self.frame.colorspace, self.frame.color_range
        converted = VideoReformatter().reformat(
            small, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        )
        return np.ascontiguousarray(np.rot90(converted.to_ndarray(), turns), dtype=np.uint8)

    def cells(self) -> NDArray[np.float32]:
        """Mean brightness of each cell: (h, w) float32, the longer side 64, not turned.

        Raises:
            av.error.FFmpegError: swscale does not know the pixel format.
        """
        scale = _CELLS / max(self.frame.width, self.frame.height)
        width, height = (
            max(1, round(side * scale)) for side in (self.frame.width, self.frame.height)
        )
        grey = VideoReformatter().reformat(
            self.frame, width, height, "gray", interpolation=Interpolation.AREA, threads=1
        )
        return grey.to_ndarray().astype(np.float32)

    def _quarter_turns(self) -> int:
        # Counterclockwise. Cameras turn by right angles; a mirrored display matrix is not undone.
        return round(self.frame.rotation / 90) % 4


def letterbox_into(
    canvas: NDArray[np.uint8],
    rgb: NDArray[np.uint8],
    letterbox: Letterbox,
    fill: int = DARKNET_PLACING.fill,
) -> None:
    """Scale `rgb`, (h, w, 3) uint8, into `canvas`, (net_h, net_w, 3) uint8, with bars of `fill`.

    Bilinear, as darknet and every port of it scale; another kernel moves borderline boxes.
    """
    (inner_w, inner_h), (x, y) = letterbox.inner_wh, letterbox.offset_xy
    canvas[:] = fill
    canvas[y : y + inner_h, x : x + inner_w] = scaled(rgb, letterbox.inner_wh)


def scaled(pixels: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """`pixels`, (h, w) or (h, w, 3) uint8, at another size; bilinear, as in `letterbox_into`."""
    resized = cv2.resize(pixels, size_wh, interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """(h, w) uint8, a view: lines are longer in memory."""
    lines: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    return lines.reshape(-1, plane.line_size)[: plane.height, : plane.width]
