"""Every format that is served, made on the spot, looked at in the jail, and checked.

`PYTHONPATH=tests python -m formats.matrix` writes docs/reference/formats.md from what came out;
the tests hold each of its cells to what comes out now.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import video_clips as clips
from byte_sources import CountingSource, decode_ranged
from conftest import shared_file
from vault_ml.video.decoder_pool import DecoderPool, Sampling

DOCUMENT = Path(__file__).parents[2] / "docs/reference/formats.md"
YES, NO = "yes", "–"
SIZE_WH = (160, 120)

# FFmpeg's names of muxer and options, and of encoder, pixel format and options.
CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    "MP4": ("mp4", {"movflags": "faststart"}),
    "fragmented MP4": ("mp4", clips.FRAGMENTED),
    "MOV": ("mov", {}),
    "MKV": ("matroska", {}),
    "AVI": ("avi", {}),
    "MPEG-TS": ("mpegts", {}),
}
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "H.264": ("libx264", "yuv420p", clips.X264),
    "H.265, 8 bit": ("libx265", "yuv420p", {}),
    "H.265, 10 bit": ("libx265", "yuv420p10le", {}),
    "AV1": ("libsvtav1", "yuv420p", {"preset": "12"}),
    "MJPEG": ("mjpeg", "yuvj420p", {}),
    "MPEG-4": ("mpeg4", "yuv420p", {}),
}


def encoded(codec: str, container: str, **options: Any) -> bytes | None:
    """A clip, or None where FFmpeg cannot write the codec into the container."""
    encoder, pixel_format, codec_options = CODECS[codec]
    muxer, container_options = CONTAINERS[container]
    chosen: dict[str, Any] = {
        "frames": 24, "gop": 8, "size_wh": SIZE_WH, "pixel_format": pixel_format,
        "codec_options": codec_options, "container_options": container_options,
    }  # fmt: skip
    try:
        data = clips.encode(muxer, encoder, **(chosen | options))
    except (av.error.FFmpegError, ValueError):
        return None
    with av.open(io.BytesIO(data), "r") as written:  # some muxers write what nobody reads
        # PyAV's types do not say that a stream without a decoder has no context.
        contexts: list[object] = [stream.codec_context for stream in written.streams.video]
        return data if any(context is not None for context in contexts) else None


def check(
    pool: DecoderPool, data: bytes, *, frames: int = 5, least: int | None = None, turns: int = 0
) -> None:
    """Look at a clip in both ways; what is seen is what decoding all of it shows.

    Args:
        pool: what looks.
        data: the clip.
        frames: how many to look at.
        least: how many there must be, where spans may share one; `frames` where None.
        turns: by how many quarters, counterclockwise, pictures are turned upright.

    Raises:
        AssertionError: it is not.
    """
    everything = {round(at, 5): frame for at, frame in clips.decode_all(data)}
    for sampling in Sampling:
        with decode_ranged(
            pool, CountingSource(data), frames=frames, sampling=sampling, keep_pictures=True
        ) as seen:
            # Of pictures that show the same, adaptive looks at one.
            enough = 1 if sampling is Sampling.ADAPTIVE else least or frames
            assert len(seen.frames) >= enough, f"{sampling}: {len(seen.frames)} frames"
            assert not seen.partial
            for frame in seen.frames:
                truth = everything[round(frame.timestamp_s, 5)]
                upright = np.rot90(truth.to_ndarray(format="rgb24", interpolation="BICUBIC"), turns)
                np.testing.assert_array_equal(seen.picture(frame.index), upright)


def _variable_rate(pool: DecoderPool) -> None:
    times = [3000 + 40 * i + (i % 3) * 11 + (700 if i > 12 else 0) for i in range(24)]
    check(pool, clips.encode("mp4", times=times, gop=8, b_frames=2), frames=4, least=3)


def _b_frames(pool: DecoderPool) -> None:
    for codec in ("libx264", "libx265", "mpeg4"):
        for container in ("mp4", "matroska", "mpegts"):
            if (codec, container) != ("mpeg4", "mpegts"):
                check(pool, clips.encode(container, codec, frames=24, gop=8, b_frames=2))


def _rotation(pool: DecoderPool) -> None:
    for degrees in (90, 180, 270):
        check(pool, clips.encode("mp4", frames=24, gop=8, rotation=degrees), turns=degrees // 90)


def _odd_sizes(pool: DecoderPool) -> None:
    check(pool, clips.encode("mp4", frames=24, gop=8, size_wh=(98, 66)))
    check(pool, clips.encode("avi", "mjpeg", frames=24, size_wh=(97, 65), pixel_format="yuvj420p"))
    check(pool, clips.encode("mp4", "mpeg4", frames=24, gop=8, size_wh=(97, 65)))


def _four_k(pool: DecoderPool) -> None:
    for codec in ("libx264", "libx265"):
        options = {"preset": "ultrafast"}
        data = clips.encode(
            "mp4", codec, frames=3, gop=2, size_wh=(3840, 2160), codec_options=options
        )
        check(pool, data, frames=2)


def _colours(pool: DecoderPool) -> None:
    for matrix, tag in (((0.299, 0.114), 6), ((0.2126, 0.0722), 1)):
        for full in (False, True):
            for rgb in ((200, 40, 30), (30, 60, 220)):
                data = clips.encode(
                    "mp4", size_wh=(64, 64), pictures=[clips.solid(rgb, *matrix, full=full)] * 3,
                    colorspace=tag, color_range=2 if full else 1, codec_options={"qp": "0"},
                )  # fmt: skip
                with decode_ranged(
                    pool, CountingSource(data), frames=1, keep_pictures=True
                ) as seen:
                    mean = seen.picture(0).reshape(-1, 3).mean(axis=0)
                assert np.abs(mean - rgb).max() <= 2.5, f"{mean} for {rgb}, {tag}, {full}"


def _sound(pool: DecoderPool) -> None:
    for container in ("mp4", "mov", "matroska", "mpegts"):
        check(pool, clips.encode(container, frames=24, gop=8, with_audio=True))


def _interlaced(pool: DecoderPool) -> None:
    options = {"x264-params": "tff=1"}
    for container in ("mp4", "mpegts"):
        check(pool, clips.encode(container, frames=24, gop=8, codec_options=options))


def _open_groups(pool: DecoderPool) -> None:
    options = {"x264-params": "open-gop=1:keyint=8:scenecut=0"}
    check(pool, clips.encode("mp4", frames=24, b_frames=2, codec_options=options))


def _real(pool: DecoderPool) -> None:
    for name in ("vtest_6s_768x576_10fps", "one_person_5s_768x432_10fps",
                 "empty_scene_3s_768x432_10fps"):  # fmt: skip
        check(pool, shared_file(f"video/{name}.mp4").read_bytes())


def _photos(pool: DecoderPool) -> None:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(cv2.resize(coarse, (98, 66), interpolation=cv2.INTER_CUBIC))
    for name in ("JPEG", "PNG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        image.save(buffer, name, **({"quality": 95} if name == "JPEG" else {}))
        with decode_ranged(pool, CountingSource(buffer.getvalue()), keep_pictures=True) as seen:
            assert len(seen.frames) == 1
            difference = np.abs(seen.picture(0).astype(int) - _as_opencv_reads(buffer.getvalue()))
        assert difference.mean() < 1, f"{name}: {difference.mean()}"


def _as_opencv_reads(data: bytes) -> NDArray[np.uint8]:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.asarray(bgr[..., ::-1], np.uint8)


TRAITS: dict[str, tuple[str, Callable[[DecoderPool], None]]] = {
    "variable frame rate": ("times come from the pictures, not a claimed rate", _variable_rate),
    "B-frames": ("H.264, H.265, MPEG-4", _b_frames),
    "open groups of pictures": ("H.264", _open_groups),
    "interlaced": ("H.264; both fields in one picture, as they were sent", _interlaced),
    "rotation": ("90, 180 and 270 degrees; pictures come upright", _rotation),
    "odd sizes": ("97 x 65 and the like", _odd_sizes),
    "4K": ("3840 x 2160; up to 67 megapixels", _four_k),
    "colours": ("BT.601 and BT.709, limited and full range, each as tagged", _colours),
    "sound": ("is passed over", _sound),
    "real cameras": ("three clips of fixed views, as they were published", _real),
    "photos": ("JPEG, PNG, WebP, BMP: one frame", _photos),
}  # fmt: skip


def combinations() -> list[tuple[str, str]]:
    """Every codec with every container."""
    return [(codec, container) for codec in CODECS for container in CONTAINERS]


def outcome(pool: DecoderPool, codec: str, container: str) -> str:
    """The cell of the table for a codec in a container."""
    data = encoded(codec, container)
    if data is None:
        return NO
    check(pool, data, frames=3)
    return YES


def render(outcomes: dict[tuple[str, str], str]) -> str:
    """The document."""
    lines = [
        "# Formats",
        "",
        "<!-- Written by tests/formats/matrix.py from what it decoded. -->",
        "",
        "Each cell is a clip that the tests make with FFmpeg's own encoders and look at in the",
        "[jail](../explanation/jail.md), fetched in ranges; every picture is compared with a full",
        f"decode, pixel by pixel. `{NO}` means that FFmpeg cannot write that combination; it is",
        "not tested.",
        "",
        f"| | {' | '.join(CONTAINERS)} |",
        f"| --- |{' --- |' * len(CONTAINERS)}",
    ]
    lines += [
        f"| {codec} | {' | '.join(outcomes[codec, container] for container in CONTAINERS)} |"
        for codec in CODECS
    ]
    lines += ["", "| also | |", "| --- | --- |"]
    lines += [f"| {name} | {what} |" for name, (what, _) in TRAITS.items()]
    lines += [
        "",
        "From MP4, fragmented MP4 and MOV only the index and the pictures that are decoded are",
        "fetched, wherever the index stands; the other containers, and photos, are fetched whole.",
        "Anything else is refused with a sentence that names it, and goes to the dead letters.",
        "",
    ]
    return "\n".join(lines)


def documented() -> dict[tuple[str, str], str]:
    """The cells as the document has them."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| ")
    ]
    names = next(row for row in rows if row[1:] == list(CONTAINERS))[1:]
    return {
        (row[0], name): cell
        for row in rows
        if row[0] in CODECS
        for name, cell in zip(names, row[1:], strict=True)
    }


def main() -> None:
    """Decode everything and write the document."""
    with DecoderPool(1) as pool:
        outcomes = {pair: outcome(pool, *pair) for pair in combinations()}
        for _, verify in TRAITS.values():
            verify(pool)
    DOCUMENT.write_text(render(outcomes))


if __name__ == "__main__":
    main()
