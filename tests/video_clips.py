"""Recordings made on the spot with FFmpeg's own encoders, small enough to make many of."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

FPS = 25


def scene(i: int, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Frame `i` of a scene in which every frame differs: a moving block over noise."""
    w, h = size_wh
    rng = np.random.default_rng(i)
    image = rng.integers(90, 130, (h, w, 3), dtype=np.uint8)
    x = (7 * i) % max(1, w - 24)
    image[h // 3 : h // 3 + 24, x : x + 24] = (250, 60, 20)
    return image


def encode(
    container: str,
    codec: str = "libx264",
    *,
    frames: int = 50,
    size_wh: tuple[int, int] = (96, 64),
    gop: int = 20,
    b_frames: int = 0,
    pixel_format: str = "yuv420p",
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
    pictures: Sequence[VideoFrame] | None = None,
    with_audio: bool = False,
    rotation: int = 0,
    colorspace: int | None = None,
    color_range: int | None = None,
) -> bytes:
    """A recording as bytes.

    Args:
        container: FFmpeg's name of the muxer.
        codec: FFmpeg's name of the encoder.
        frames: how many, unless `times` or `pictures` say so.
        times: presentation times in 1/1000 s; every 40 ms where None.
        pictures: what to encode; the scene above where None.
        rotation: display matrix, degrees counterclockwise.
    """
    options: dict[str, str] = dict(codec_options or {})
    if codec == "libx265":
        options["x265-params"] = "log-level=none:" + options.get("x265-params", "")
    if codec == "libx264":
        options.setdefault("preset", "ultrafast")
    # A real file: the muxer of MP4 opens it a second time to move the index to the front.
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=container, options=dict(container_options or {})) as out,
    ):
        stream: Any = out.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.gop_size, context.max_b_frames = gop, b_frames
        if times is not None:
            context.time_base = Fraction(1, 1000)
        if colorspace is not None:
            context.colorspace = colorspace
        if color_range is not None:
            context.color_range = color_range
        if rotation:
            stream.set_display_rotation(rotation)
        audio: Any = out.add_stream("aac", rate=8000, layout="mono") if with_audio else None
        count = len(pictures or times or range(frames))
        for i in range(count):
            frame = (
                pictures[i]
                if pictures is not None
                else VideoFrame.from_ndarray(scene(i, size_wh), format="rgb24")
            )
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
            if audio is not None:
                sound = AudioFrame.from_ndarray(
                    np.zeros((1, 320), np.float32), format="fltp", layout="mono"
                )
                sound.sample_rate, sound.pts = 8000, 320 * i
                out.mux(audio.encode(sound))
        out.mux(stream.encode(None))
        if audio is not None:
            out.mux(audio.encode(None))
        out.close()
        return Path(file.name).read_bytes()


def sound_only() -> bytes:
    """An MP4 without any video."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream: Any = out.add_stream("aac", rate=8000, layout="mono")
        for i in range(20):
            frame = AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, 1024 * i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def decode_all(recording: bytes) -> list[tuple[float, VideoFrame]]:
    """Every frame in order, as PyAV decodes a file from start to end, with its time in seconds."""
    with av.open(io.BytesIO(recording), "r") as container:
        base = container.streams.video[0].time_base
        assert base is not None
        frames = list(container.decode(video=0))
    times = [frame.pts for frame in frames if frame.pts is not None]
    return [(float((t - times[0]) * base), f) for t, f in zip(times, frames, strict=True)]
