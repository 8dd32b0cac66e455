"""What the jail of the decoders costs a recording.

The same recording is looked at in three ways, alternating in one run: in the jail as the worker
does it (a process of its own, all walls, answers checked); in such a process without the walls; and
in this process, with nothing between. Machines are noisy, so the ways take turns, and processor
time is what counts: how long one waits for a processor says nothing about the jail. Wall clock is
told as well, as the difference of the fastest turns.

usage: PYTHONPATH=tests python -m jail_cost CLIP... [--rounds 40] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2

from vault_ml.geometry import Letterbox
from vault_ml.video import decoder_pool
from vault_ml.video.decoder_pool import DecoderPool, Sampling
from vault_ml.video.files import RecordingFile
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.picture import letterbox_into
from vault_ml.video.reader import RecordingReader
from vault_ml.video.shared_frames import SharedFrames

FRAMES = 5
NET_WH = (416, 416)

# The real decoder, which stays outside of the walls.
_OUTSIDE = """
from vault_ml.video import decoder_child
from vault_ml.video.jail import Jail
decoder_child.confine = lambda _: Jail(seccomp=False, landlock=0)
decoder_child.main()
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What looking at one recording took, milliseconds.

    Attributes:
        plain_ms: processor time in this process; median.
        jail_ms: processor time of the child in the jail and of its parent; median.
        added_ms: what the jail adds, process and walls; median of the differences within turns.
        walls_ms: what the walls add to a process of its own; likewise.
        added_wall_ms: by the wall clock: the fastest turn in the jail less the fastest without.
    """

    plain_ms: float
    jail_ms: float
    added_ms: float
    walls_ms: float
    added_wall_ms: float


def plain(fd: int) -> int:
    """What the decoder child does, with nothing around it; how many frames it saw."""
    with (
        SharedFrames.create(FRAMES, NET_WH) as shared,
        RecordingReader(RecordingFile(fd), DecodeLimits()) as reader,
    ):
        seen = 0
        for picture in reader.pictures(FRAMES, Sampling.KEYFRAME):
            letterbox = Letterbox.fit(picture.size_wh, NET_WH)
            letterbox_into(shared.pixels[seen], picture.rgb(), letterbox)
            seen += 1
        return seen


def in_pool(pool: DecoderPool, fd: int) -> int:
    """The same by a child of `pool`."""
    with pool.decode(fd, frames=FRAMES, sampling=Sampling.KEYFRAME, net_wh=NET_WH) as seen:
        return len(seen.frames)


@contextlib.contextmanager
def pool_outside() -> Iterator[DecoderPool]:
    """A pool whose child has no walls around it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "decoder_outside.py").write_text(_OUTSIDE)
        path = os.pathsep.join([folder, *sys.path])
        with (
            mock.patch.object(decoder_pool, "_MODULE", "decoder_outside"),
            mock.patch.dict(os.environ, {"PYTHONPATH": path}),
            DecoderPool(1) as pool,
        ):
            yield pool


def measure(recording: bytes, rounds: int) -> Cost:
    """Look at `recording` in the three ways, `rounds` times each, in turn.

    Raises:
        RuntimeError: this machine gives no walls.
    """
    fd, threads = os.memfd_create("recording"), cv2.getNumThreads()
    cv2.setNumThreads(1)  # as in the children
    try:
        os.write(fd, recording)
        with DecoderPool(1) as jailed, pool_outside() as outside:
            if jailed.jail is None or not jailed.jail.is_tight:
                raise RuntimeError("this kernel or container gives no filter on system calls")
            ways: list[tuple[Callable[[], int], int | None]] = [
                (lambda: plain(fd), None),
                (lambda: in_pool(outside, fd), _pid(outside)),
                (lambda: in_pool(jailed, fd), _pid(jailed)),
            ]
            assert len({way() for way, _ in ways}) == 1  # warm, and all see the same
            turns = [[_timed_ms(way, child) for way, child in ways] for _ in range(rounds)]
            assert (_pid(outside), _pid(jailed)) == (ways[1][1], ways[2][1])  # none was replaced
    finally:
        cv2.setNumThreads(threads)
        os.close(fd)
    return Cost(
        plain_ms=statistics.median(a.processor for a, _, _ in turns),
        jail_ms=statistics.median(c.processor for _, _, c in turns),
        added_ms=statistics.median(c.processor - a.processor for a, _, c in turns),
        walls_ms=statistics.median(c.processor - b.processor for _, b, c in turns),
        added_wall_ms=min(c.wall for _, _, c in turns) - min(a.wall for a, _, _ in turns),
    )


class _Time(NamedTuple):
    processor: float
    wall: float


def _timed_ms(work: Callable[[], object], child: int | None) -> _Time:
    began, used = time.perf_counter(), _processor_s(child)
    work()
    return _Time(1000 * (_processor_s(child) - used), 1000 * (time.perf_counter() - began))


def _processor_s(child: int | None) -> float:
    """Of this thread and of a child, which has one: seconds on a processor so far."""
    if child is None:
        return time.thread_time()
    return time.thread_time() + int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9


def _pid(pool: DecoderPool) -> int:
    (worker,) = pool._workers
    return worker.child.pid


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m jail_cost")
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    for clip in words.clips:
        cost = measure(clip.read_bytes(), words.rounds)
        if words.json:
            print(json.dumps({"clip": clip.name, "rounds": words.rounds, **asdict(cost)}))
        else:
            print(
                f"{clip.name}, {words.rounds} rounds: {cost.plain_ms:.1f} ms of a processor plain, "
                f"{cost.jail_ms:.1f} ms in the jail; it adds {cost.added_ms:+.1f} ms "
                f"(the walls alone {cost.walls_ms:+.1f} ms), by the wall clock at best "
                f"{cost.added_wall_ms:+.1f} ms"
            )


if __name__ == "__main__":
    main()
