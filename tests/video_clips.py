"""Recordings made on the spot with FFmpeg's own encoders, small enough to make many of."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

FPS = 25

X264 = {"x264-params": "scenecut=0:b-adapt=0"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
RECIPES: dict[str, dict[str, Any]] = {
    "h264 in mp4": {"container": "mp4", "codec_options": X264},
    "h264 in mp4, index first": {
        "container": "mp4", "container_options": {"movflags": "faststart"},
    },
    "h264 with B-frames in mp4": {"container": "mp4", "b_frames": 2, "codec_options": X264},
    "h264 with B-frames in mov": {"container": "mov", "b_frames": 2, "codec_options": X264},
    "h264 with B-frames in mkv": {"container": "matroska", "b_frames": 2, "codec_options": X264},
    "h264 with B-frames in ts": {"container": "mpegts", "b_frames": 2, "codec_options": X264},
    "h264 with B-frames, fragmented": {
        "container": "mp4", "b_frames": 2, "codec_options": X264, "container_options": FRAGMENTED,
    },
    "h264, one keyframe": {"container": "mp4", "gop": 600, "b_frames": 2},
    "h264, nothing but keyframes": {"container": "mp4", "gop": 1},
    "h264, open groups": {
        "container": "mp4", "b_frames": 2,
        "codec_options": {"x264-params": "open-gop=1:keyint=20:scenecut=0"},
    },
    "h264, intra refresh in mp4": {
        "container": "mp4", "codec_options": {"x264-params": "intra-refresh=1:keyint=20"},
    },
    "h264, intra refresh in ts": {
        "container": "mpegts", "codec_options": {"x264-params": "intra-refresh=1:keyint=20"},
    },
    "h264, interlaced in ts": {
        "container": "mpegts", "b_frames": 2, "codec_options": {"x264-params": "tff=1"},
    },
    "h264 in avi": {"container": "avi", "codec_options": X264},
    "h265 in mp4": {"container": "mp4", "codec": "libx265"},
    "h265, open groups in mp4": {
        "container": "mp4", "codec": "libx265",
        "codec_options": {"x265-params": "open-gop=1:bframes=3:keyint=20"},
    },
    "h265, open groups in ts": {
        "container": "mpegts", "codec": "libx265",
        "codec_options": {"x265-params": "open-gop=1:bframes=3:keyint=20"},
    },
    "h265, 10 bit, fragmented": {
        "container": "mp4", "codec": "libx265", "pixel_format": "yuv420p10le",
        "container_options": FRAGMENTED,
    },
    "mpeg4 in avi": {"container": "avi", "codec": "mpeg4", "gop": 12},
    "mpeg4 with B-frames in avi": {"container": "avi", "codec": "mpeg4", "b_frames": 2},
    "mpeg4 with B-frames in mp4": {"container": "mp4", "codec": "mpeg4", "b_frames": 2},
    "mpeg4 in ts": {"container": "mpegts", "codec": "mpeg4"},
    "mjpeg in avi": {"container": "avi", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "mjpeg in mkv": {"container": "matroska", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "av1 in mp4": {
        "container": "mp4", "codec": "libsvtav1", "codec_options": {"preset": "12"}, "frames": 20,
    },
    "odd size": {"container": "mp4", "size_wh": (98, 66), "b_frames": 1},
    "with sound": {"container": "mp4", "with_audio": True, "b_frames": 2, "codec_options": X264},
    "irregular times from 3 s on": {
        "container": "mp4", "b_frames": 2,
        "times": [3000 + 40 * i + (i % 3) * 11 + (700 if i > 30 else 0) for i in range(50)],
    },
}  # fmt: skip


def scene(i: int, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Frame `i` of a scene in which every frame differs: a moving block over noise."""
    w, h = size_wh
    rng = np.random.default_rng(i)
    image = rng.integers(90, 130, (h, w, 3), dtype=np.uint8)
    x = (7 * i) % max(1, w - 24)
    image[h // 3 : h // 3 + 24, x : x + 24] = (250, 60, 20)
    return image


def solid(rgb: tuple[int, int, int], kr: float, kb: float, *, full: bool) -> VideoFrame:
    """A frame of one colour, converted by the definition of the matrix, not by swscale."""
    r, g, b = (value / 255 for value in rgb)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    chroma = ((b - luma) / (2 * (1 - kb)), (r - luma) / (2 * (1 - kr)))
    if full:
        y, u, v = 255 * luma, *(128 + 255 * c for c in chroma)
    else:
        y, u, v = 16 + 219 * luma, *(128 + 224 * c for c in chroma)
    planes = np.empty((96, 64), np.uint8)
    planes[:64] = round(y)
    planes[64:80] = round(min(u, 255))
    planes[80:] = round(min(v, 255))
    return VideoFrame.from_ndarray(planes, format="yuv420p")


@contextmanager
def own_priority() -> Iterator[None]:
    """Leave this thread's scheduling as it was.

    SVT-AV1, when it may, makes the thread that starts it a real-time one of the highest priority.
    Every process that the tests start would inherit that and let no other run.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@own_priority()
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


def remux(recording: bytes, options: Mapping[str, str], container: str = "mp4") -> bytes:
    """The video of `recording` in another arrangement, its pictures as they are."""
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(io.BytesIO(recording), "r") as source,
        av.open(file.name, "w", format=container, options=dict(options)) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
        out.close()
        return Path(file.name).read_bytes()


@functools.cache
def camera_recording() -> bytes:
    """20 s of 1080p at 10 Mbit/s, a keyframe every 2 s, index first: a street and a moving car."""
    rng = np.random.default_rng(7)
    street = rng.integers(60, 160, (270, 480), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    noise = [rng.integers(0, 12, (1080, 1920), dtype=np.uint8) for _ in range(4)]
    options = {"preset": "ultrafast", "b": "10M", "maxrate": "10M", "bufsize": "10M"}
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        stream: Any = out.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.gop_size = 50
        planes = np.full((1620, 1920), 128, np.uint8)
        for i in range(500):
            planes[:1080] = street + noise[i % 4]
            planes[400:600, 3 * i : 3 * i + 300] = 90
            out.mux(stream.encode(VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(stream.encode(None))
        out.close()
        return Path(file.name).read_bytes()


@functools.cache
def encode_recipe(name: str) -> bytes:
    """One of `RECIPES`, once per process; skips where this FFmpeg lacks the encoder."""
    recipe = RECIPES[name]
    if recipe.get("codec") not in {None, *av.codecs_available}:
        pytest.skip(f"this FFmpeg has no encoder {recipe['codec']}")
    return encode(**recipe)


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
