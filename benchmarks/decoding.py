"""`make bench-decoding`: n frames of a recording, against OpenCV reading every frame.

Ours are the worker's own decoder children, one recording per processor at a time; OpenCV decodes
one recording with as many threads as it likes. Both give pictures at the network's size. They take
turns, and the ratios of one round count.

usage: python -m benchmarks.decoding [--rounds 5] [--quick] [--json F]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

from benchmarks.clips import FPS, SECONDS, ClipKind, make_clip, wanted_clips
from vault_ml.geometry import DARKNET_PLACING, Placing
from vault_ml.inference.choosing import cpu_name
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.video.decoder_pool import DecodeLimits, DecoderPool
from vault_ml.video.sampling import Sampling

FRAMES = 5
NET_WH = (608, 608)
# Wanted times OpenCV; of exact frames only where a keyframe comes every two seconds or sooner.
FLOORS = {Sampling.EXACT: 4.0, Sampling.KEYFRAME: 20.0}
EXACT_GOP_S = 2


def per_second(threads: int, seconds: float, step: Callable[[], object]) -> float:
    """How often a second `step` is done, by so many threads."""
    began = time.perf_counter()

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            step()
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - began)


def decode(
    pool: DecoderPool, clip: Path, sampling: Sampling, net_wh: tuple[int, int],
    placing: Placing = DARKNET_PLACING, *, rect: bool = False,
) -> None:  # fmt: skip
    """One recording, in one of the children."""
    fd = os.open(clip, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with pool.decode(
            fd, frames=FRAMES, sampling=sampling, net_wh=net_wh, placing=placing, rect=rect
        ):
            pass
    finally:
        os.close(fd)


def opencv(clip: Path) -> None:
    """One recording, every frame."""
    capture = cv2.VideoCapture(str(clip))
    wanted = {round((i + 0.5) * SECONDS * FPS / FRAMES) for i in range(FRAMES)}
    index = 0
    while True:
        is_read, frame = capture.read()
        if not is_read:
            break
        if index in wanted:
            cv2.resize(frame, NET_WH)
        index += 1
    capture.release()


def measure(pool: DecoderPool, clip: Path, rounds: int) -> dict[str, list[float]]:
    """Recordings a second of each, in every round."""
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        began = time.perf_counter()
        opencv(clip)
        rates.setdefault("opencv", []).append(1 / (time.perf_counter() - began))
        seconds = 1 / rates["opencv"][-1]
        for sampling in FLOORS:
            rates.setdefault(sampling, []).append(
                per_second(usable_cpus(), seconds, lambda: decode(pool, clip, sampling, NET_WH))  # noqa: B023
            )
    return rates


def row(kind: ClipKind, rates: dict[str, list[float]]) -> str:
    """As the documents show it."""
    cells = [kind.name, f"{1000 / statistics.median(rates['opencv']):.0f}"]
    for sampling in FLOORS:
        each = sorted(o / p for o, p in zip(rates[sampling], rates["opencv"], strict=True))
        cells.append(f"{statistics.median(each):.1f} ({each[0]:.1f}-{each[-1]:.1f})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one clip: 1080p H.264, GOP 2 s")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    print(f"{cpu_name()}, {usable_cpus()} processors, load {os.getloadavg()[0]:.1f}\n")
    print("| clip | OpenCV, ms | exact, times OpenCV | keyframe, times OpenCV |")
    print("| --- | ---: | ---: | ---: |")
    with (
        tempfile.TemporaryDirectory() as folder,
        DecoderPool(usable_cpus(), DecodeLimits()) as pool,
    ):
        for kind in wanted_clips(quick=words.quick):
            print(f"making {kind.name} ...", file=sys.stderr)
            clip = make_clip(kind, Path(folder))
            measure(pool, clip, 1)
            found[kind.name] = measure(pool, clip, words.rounds)
            print(row(kind, found[kind.name]), flush=True)
    print(
        f"\nwanted: exact {FLOORS[Sampling.EXACT]:g} where a keyframe comes every {EXACT_GOP_S} s "
        f"or sooner, keyframe {FLOORS[Sampling.KEYFRAME]:g}"
    )
    if words.json:
        words.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
