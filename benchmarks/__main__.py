"""`make bench`: ours against the loops that people write first, side by side in one run.

Three loops, per recording: the *plain* one writes a temporary file, loads the model, reads every
frame with OpenCV and runs OpenCV's own network on n of them; the *successor's* does the same with
ONNX Runtime, an inference per sampled frame, and once more with Ultralytics' `track` where
`--ultralytics` names a model for it (a .pt, .onnx or .yaml of theirs; the package must be
installed); *bare* is n runs of the network and nothing else.
Ours: the children that the worker uses, kept warm, several recordings in flight, as exact and
square (parity), as it comes (default), and with PRESET=fast. Same clip, same model, same network
size. Machines are noisy: all take turns in every round, and the ratios of one round count, not
seconds.

usage: PYTHONPATH=tests python -m benchmarks [--quick] [--model yolov3-tiny] [--random]
                                             [--clip CLIP] [--rounds 5] [--json F]
                                             [--ultralytics MODEL]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.clips import FPS, SECONDS, ClipKind, make_clip, wanted_clips
from benchmarks.loops import Peer
from benchmarks.random_model import quantize_for_speed, write_random_model
from vault_ml.demo import process_tree
from vault_ml.errors import ModelError
from vault_ml.inference.choosing import cpu_name
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.local import LocalDetection
from vault_ml.models.folders import default_cache_dir, default_model_dir
from vault_ml.models.prepare import prepare, resolve
from vault_ml.models.quantized import find_quantized

FRAMES = 5
IN_FLIGHT = 3
PEERS = ("plain", "successor", "ultralytics")
# Recordings per turn: the ends of one, where processors idle, weigh little in a queue that is full.
PER_TURN = 12
OURS: Mapping[str, Mapping[str, Any]] = {
    "parity": {"sampling": "exact"},
    "default": {"sampling": "keyframe"},
    "fast": {"sampling": "keyframe", "precision": "int8", "rect": True},
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One candidate's turn in a round, per recording."""

    wall_s: float
    cpu_s: float


def ours(local: LocalDetection, clip: bytes, recordings: int) -> None:
    """Several recordings in flight, as the worker has them."""

    def one(_: int) -> int:
        fd = os.memfd_create("clip")
        try:
            os.write(fd, clip)
            return sum(len(frame.detections) for frame in local.look(fd).frames)
        finally:
            os.close(fd)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(one, range(recordings)))


def timed(work: Callable[[], object], recordings: int, children: Callable[[], float]) -> Turn:
    """Wall and processor time per recording; `children` tells the processor time of ours."""
    cpu, wall = time.process_time() + children(), time.perf_counter()
    work()
    return Turn(
        (time.perf_counter() - wall) / recordings,
        (time.process_time() + children() - cpu) / recordings,
    )


def cpu_of_children() -> float:
    """Processor seconds of this process' living children, so far."""
    return sum(map(process_tree.cpu_s, process_tree.descendants(os.getpid())))


def peak_of_children_mb() -> float:
    """Peak memory of the living children together, MB."""
    total = 0
    for pid in process_tree.descendants(os.getpid()):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


def measure(
    model: str,
    clip: bytes,
    rounds: int,
    model_dir: Path,
    cache_dir: Path,
    ultralytics: str | None = None,
) -> dict[str, list[Turn]]:
    """Every candidate's turn in every round."""
    files = resolve(model, model_dir)
    prepared = prepare(files, cache_dir)
    names = ["parity", "default"]
    try:
        find_quantized(prepared, model_dir)
        names.append("fast")
    except ModelError as error:
        print(f"without `fast`: {error}", file=sys.stderr)
    turns: dict[str, list[Turn]] = {}
    with ExitStack() as stack:
        for name in names:
            how = dict(OURS[name])
            if prepared.family != "darknet":
                how["rect"] = False  # an export has one size; choose it when you export
            started: AbstractContextManager[LocalDetection] = LocalDetection.start(
                model=model, confidence_threshold=0.5, nms_threshold=0.45, frames=FRAMES,
                keep_pictures=False, model_dir=model_dir, cache_dir=cache_dir, may_measure=True,
                decoder_count=usable_cpus() + 1, **how,
            )  # fmt: skip
            local = stack.enter_context(started)
            ours(local, clip, IN_FLIGHT)
            print(f"{name}: {local.about()['runtime']} {local.about()['precision']}",
                  file=sys.stderr)  # fmt: skip
            turns[name] = []
            OPEN[name] = local
        peer = Peer(files, prepared, FRAMES, ultralytics)
        candidates: dict[str, tuple[Callable[[], object], int]] = {
            **{
                name: (lambda name=name: ours(OPEN[name], clip, PER_TURN), PER_TURN)  # type: ignore[misc]
                for name in names
            },
            "successor": (lambda: peer.successor(clip), 1),
            "bare": (peer.bare, 1),
        }
        if peer.has_plain:
            candidates["plain"] = (lambda: peer.plain(clip), 1)
        else:
            print("without `plain`: OpenCV's network cannot read the model", file=sys.stderr)
        if ultralytics is not None:
            candidates["ultralytics"] = (lambda: peer.ultralytics(clip), 1)
            peer.ultralytics(clip)  # its first call looks around on the machine
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for name, (work, recordings) in candidates.items():
                turns.setdefault(name, []).append(timed(work, recordings, cpu_of_children))
        PEAK["children_mb"] = peak_of_children_mb()
    return turns


OPEN: dict[str, LocalDetection] = {}
PEAK: dict[str, float] = {}


def rows_of(turns: Mapping[str, Sequence[Turn]]) -> dict[str, dict[str, float]]:
    """Per candidate: medians, and the ratios of the rounds to the plain loop."""
    rows = {}
    for name, own in turns.items():
        wall = statistics.median(turn.wall_s for turn in own)
        row = {
            "s_per_recording": round(wall, 3),
            "recordings_per_hour": round(3600 / wall),
            "cpu_s": round(statistics.median(turn.cpu_s for turn in own), 3),
        }
        for peer in [name for name in PEERS if name in turns]:
            ratios = sorted(p.wall_s / o.wall_s for p, o in zip(turns[peer], own, strict=True))
            row |= {
                f"x_{peer}": round(statistics.median(ratios), 2),
                f"x_{peer}_min": round(ratios[0], 2),
                f"x_{peer}_max": round(ratios[-1], 2),
            }
        rows[name] = row
    return rows


def print_table(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """As the documents show it."""
    print(f"\n{title}\n")
    peers = [peer for peer in PEERS if peer in rows]
    print("| | s/recording | per hour | CPU s |", *(f"x {peer} (spread) |" for peer in peers))
    print("| --- | ---: | ---: | ---: |", *("---: |" for _ in peers))
    for name, row in rows.items():
        ratios = [
            f"{row[f'x_{peer}']} ({row[f'x_{peer}_min']}-{row[f'x_{peer}_max']}) |"
            for peer in peers
        ]
        spent = f"{row['s_per_recording']} | {row['recordings_per_hour']} | {row['cpu_s']} |"
        print(f"| {name} | {spent}", *ratios)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--random", action="store_true", help="--model is a .cfg without weights")
    parser.add_argument("--clip", type=Path, action="append")
    parser.add_argument("--ultralytics", help="a model of theirs, for their own loop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one clip: 1080p H.264, GOP 2 s")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model-dir", type=Path, default=default_model_dir())
    words = parser.parse_args()
    if words.ultralytics and find_spec("ultralytics") is None:
        parser.error("--ultralytics needs their package; run: pip install ultralytics")
    machine = {
        "cpu": cpu_name(), "processors": usable_cpus(), "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }  # fmt: skip
    print(f"{machine['cpu']}, {machine['processors']} processors, load {machine['load']:.1f}")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        clips: list[Path] = words.clip or []
        kinds: list[ClipKind] = [] if clips else wanted_clips(quick=words.quick)
        for kind in kinds:
            print(f"making {kind.name} ...", file=sys.stderr)
            clips.append(make_clip(kind, Path(folder)))
        model, model_dir, cache_dir = words.model, words.model_dir, default_cache_dir()
        if words.random:
            model_dir = cache_dir = Path(folder)
            cfg = write_random_model(Path(model), model_dir)
            quantize_for_speed(cfg, clips[0], model_dir, cache_dir)
            model = str(cfg)
        for clip in clips:
            turns = measure(
                model, clip.read_bytes(), words.rounds, model_dir, cache_dir, words.ultralytics
            )
            rows = rows_of(turns)
            name = Path(model).stem + (" (random weights)" if words.random else "")
            title = f"{name}, n = {FRAMES}, {clip.stem}, {SECONDS} s at {FPS}/s"
            print_table(title, rows)
            found.append({"clip": clip.stem, "rows": rows, **PEAK})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if words.json:
        words.json.write_text(
            json.dumps(
                {"name": name, "frames": FRAMES, "rounds": words.rounds,
                 "machine": machine, "parent_peak_mb": round(peak), "clips": found},
                indent=1,
            ) + "\n"
        )  # fmt: skip


if __name__ == "__main__":
    main()
