"""Clips to measure with: the street of the demo, upscaled, as cameras encode it.

Upscaled pictures are smooth, and cheaper to decode than what a sensor gives. So noise is laid over
them, and the rate of bits is that of cameras: 4 Mbit/s for H.264 at 1080p. Keyframes are moved by
half their distance, or the middles of five even parts would fall on keyframes just so.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from vault_ml.demo.clips import sample_clips

SECONDS = 20
FPS = 25
# Bits a second at 1080p, by codec; other sizes in proportion to their side.
_BITS = {"libx264": 4_000_000, "libx265": 2_500_000}
_NOISE_SIGMA = 3.0  # grey levels
_NOISES = 7


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
    # Keyframes on the clock and no B-frames, as most cameras have it.
    options = {"preset": "veryfast", "sc_threshold": "0", "bf": "0", "forced-idr": "1"}
    if kind.codec == "libx265":
        options = {
            "preset": "superfast",
            "forced-idr": "1",
            "x265-params": f"log-level=none:bframes=0:scenecut=0:keyint={kind.gop_s * FPS}",
        }
    rng = np.random.default_rng(1)
    # Few fields of noise, each shifted anew for every picture: to make one a picture takes long.
    noises = [
        rng.normal(0, _NOISE_SIGMA, (*size[::-1], 1)).astype(np.int16) for _ in range(_NOISES)
    ]
    with av.open(str(target), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream(kind.codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = kind.gop_s * FPS
        stream.codec_context.bit_rate = _BITS[kind.codec] * kind.height // 1080
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(SECONDS * FPS):
            picture = cv2.resize(pictures[index % len(pictures)], size)
            noise = np.roll(noises[index % _NOISES], int(rng.integers(size[0])), axis=1)
            noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            frame.pts = index
            if index == kind.gop_s * FPS // 2:
                frame.pict_type = PictureType.I
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target
