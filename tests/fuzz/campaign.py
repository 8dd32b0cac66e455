"""Thousands of damaged recordings, through the pool, in the jail.

`PYTHONPATH=tests python -m fuzz.campaign --count 10000` damages clips of every format, and trees of
boxes made up on the spot, and holds the worker's side to this: nothing dies or hangs but a decoder,
no limit is exceeded, and whatever fails does so for a documented reason.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import video_clips as clips
from byte_sources import CountingSource, decode_ranged
from fuzz.mutations import mutated
from open_files import open_files, opened_since
from vault_ml.errors import DecoderFailed, RecordingTooLarge, UndecodableRecording
from vault_ml.video.decoder_pool import DecodedRecording, DecodeLimits, DecoderPool, Sampling
from vault_ml.video.signature import read_signed_parts
from vault_ml.video.source import max_reads

LIMITS = DecodeLimits(
    max_pixels=2048 * 2048, max_duration_s=600, max_seconds=20, max_memory_bytes=512 * 1024**2
)
# Beyond what a decoder may take: starting another in its place, on a busy machine.
_PATIENCE_S = LIMITS.max_seconds + 60
_NET_WH = (64, 64)
_RECIPES = (
    "h264 in mp4, index first", "h264 with B-frames, fragmented", "h264 with B-frames in mkv",
    "h264 with B-frames in ts", "h264 in avi", "h265 in mp4", "h265, 10 bit, fragmented",
    "mpeg4 with B-frames in mp4", "mpeg4 in avi", "mjpeg in avi", "mjpeg in mkv", "av1 in mp4",
    "with sound", "irregular times from 3 s on",
)  # fmt: skip
# The sentences of the two kinds of refusal, and of the retry, by what they have in common.
_REASONS = {
    UndecodableRecording: (
        "is empty", "cannot be opened", "holds no video", "video codec is", "no frame of",
        "boxes are nested", "edit list", "decoder crashed twice",
    ),
    RecordingTooLarge: (
        "pixels, the limit is", "lasts", "needs more memory", "fragments, the limit",
        "announces more pictures",
    ),
    DecoderFailed: ("was killed by", "exited with", "had not finished within"),
}  # fmt: skip


_TREE_KINDS = tuple(
    kind.encode()
    for kind in [
        "moov",
        "trak",
        "mdia",
        "minf",
        "stbl",
        "moof",
        "traf",
        "mdat",
        "stsz",
        "stts",
        "ctts",
        "trun",
        "sidx",
        "hdlr",
        "free",
    ]
)


class Broken(AssertionError):
    """The worker's side did not hold; the damaged recording is kept beside the message."""


def campaign(
    count: int, seed: int, keep: Path | None = None, tell: Callable[[str], None] = lambda _: None
) -> Counter[str]:
    """Look at `count` damaged recordings; how many ended how.

    Raises:
        Broken: something happened that must not.
    """
    originals = [*(clips.encode_recipe(name) for name in _RECIPES), *_photos()]
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    before = open_files()
    with DecoderPool(1, LIMITS) as pool:
        running = opened_since(before)
        for number in range(count):
            data = _box_tree(rng) if rng.random() < 0.15 else mutated(rng.choice(originals), rng)
            try:
                _check_signature(data)
                outcomes[_outcome(pool, data, rng)] += 1
            except Broken as broken:
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{number}").write_bytes(data)
                raise Broken(f"seed {seed}, number {number}: {broken}") from broken
            if number % 500 == 499:
                tell(f"{number + 1}: {dict(outcomes)}")
        with decode_ranged(pool, CountingSource(originals[0]), net_wh=_NET_WH) as recording:
            if len(recording.frames) != 5:
                raise Broken("the pool does not work any more")
        del recording
        # A decoder that died was replaced: not the same descriptors, but no more of them.
        if len(now := opened_since(before)) > len(running):
            raise Broken(f"more is open than {running}: {now}")
    if left := opened_since(before):
        raise Broken(f"left open: {left}")
    return outcomes


def _photos() -> list[bytes]:
    photos = []
    for name in ("JPEG", "PNG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(clips.scene(1, (96, 64))).save(buffer, name)
        photos.append(buffer.getvalue())
    return photos


def _check_signature(data: bytes) -> None:
    """What `vault-ml verify` reads, it reads in its own process: nothing but a reason may come."""
    try:
        read_signed_parts(lambda at, size: data[at : at + size], len(data))
    except (UndecodableRecording, RecordingTooLarge):
        pass
    except Exception as error:
        raise Broken(f"verify: {type(error).__name__}: {error}") from error


def _outcome(pool: DecoderPool, data: bytes, rng: random.Random) -> str:
    sampling, source = rng.choice(list(Sampling)), CountingSource(data)
    began = time.monotonic()
    try:
        if rng.random() < 0.5:
            seen = decode_ranged(pool, source, sampling=sampling, net_wh=_NET_WH)
        else:
            seen = _decode_whole(pool, data, sampling)
    except (UndecodableRecording, RecordingTooLarge, DecoderFailed) as error:
        if not any(words in str(error) for words in _REASONS[type(error)]):
            raise Broken(f"a reason that is not documented: {error}") from error
        outcome = type(error).__name__
    except Exception as error:
        raise Broken(f"{type(error).__name__}: {error}") from error
    else:
        with seen:
            _check(seen)
        outcome = "partial" if seen.partial else "looked at"
    if time.monotonic() - began > _PATIENCE_S:
        raise Broken(f"it took {time.monotonic() - began:.0f} s")
    if source.bytes_read > len(data) or len(source.reads) > max_reads(len(data)):
        raise Broken("more was fetched than there is")
    return outcome


def _check(seen: DecodedRecording) -> None:
    times = [frame.timestamp_s for frame in seen.frames]
    if not 1 <= len(times) <= 5 or times != sorted(set(times)) or times[0] < 0:
        raise Broken(f"frames at {times}")
    if any(w * h > LIMITS.max_pixels for w, h in (frame.size_wh for frame in seen.frames)):
        raise Broken("a picture exceeds the limit")
    if seen.duration_s is None or seen.duration_s > LIMITS.max_duration_s:
        raise Broken(f"a duration of {seen.duration_s} s")


def _decode_whole(pool: DecoderPool, data: bytes, sampling: Sampling) -> DecodedRecording:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, data)
        return pool.decode(fd, frames=5, sampling=sampling, net_wh=_NET_WH)
    finally:
        os.close(fd)


def _box_tree(rng: random.Random) -> bytes:
    """Boxes of known kinds nested at will, some with sizes that lie."""

    def box(depth: int) -> bytes:
        kind = rng.choice(_TREE_KINDS)
        inside = rng.randrange(4) if depth < 14 else 0
        body = b"".join(box(depth + 1) for _ in range(inside)) or rng.randbytes(rng.randrange(60))
        size = 8 + len(body)
        if rng.random() < 0.1:
            size = rng.choice((0, 1, 7, size + 1, 2 * size, 0x7FFFFFFF, 0xFFFFFFFF))
        return struct.pack(">I4s", size, kind) + body

    start = struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512)
    return start + b"".join(box(0) for _ in range(rng.randrange(1, 5)))


def main() -> int:
    """Run a campaign and tell how it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=None, help="where a failing one is written")
    chosen = parser.parse_args()
    began = time.monotonic()
    try:
        outcomes = campaign(chosen.count, chosen.seed, chosen.keep, print)
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    print(f"{chosen.count} in {time.monotonic() - began:.0f} s: {dict(outcomes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
