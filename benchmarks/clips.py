"""Clips to measure with: the street of the demo, upscaled, as cameras encode it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2

from vault_ml.demo.clips import sample_clips

SECONDS = 20
FPS = 25


@dataclass(frozen=True, slots=True)
class ClipKind:
    """How a clip is encoded."""

    height: int
    codec: str
    gop_s: int

    @property
    def name(self) -> str:
        return f"{self.height}p-{'h264' if self.codec == 'libx264' else 'h265'}-gop{self.gop_s}s"


def wanted_clips(*, quick: bool) -> list[ClipKind]:
    """720p, 1080p and 4K; H.264 and H.265; groups of pictures of 1, 2 and 10 s."""
    if quick:
        return [ClipKind(1080, "libx264", 2)]
    return [
        ClipKind(720, "libx264", 2),
        *(ClipKind(1080, "libx264", gop_s) for gop_s in (1, 2, 10)),
        ClipKind(1080, "libx265", 2),
        ClipKind(2160, "libx264", 2),
    ]


def make_clip(kind: ClipKind, folder: Path) -> Path:
    """Encode it; returns the file."""
    size = (kind.height * 16 // 9, kind.height)
    target = folder / f"{kind.name}.mp4"
    with av.open(str(sample_clips(None)[0].path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    options = {"preset": "veryfast", "crf": "26"}
    if kind.codec == "libx265":
        options = {"preset": "superfast", "crf": "28", "x265-params": "log-level=none"}
    with av.open(str(target), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream(kind.codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = kind.gop_s * FPS
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(SECONDS * FPS):
            picture = cv2.resize(pictures[index % len(pictures)], size)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target
