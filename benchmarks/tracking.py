"""`make bench-tracking`: what following objects costs per frame, beside a tracker by overlap alone.

A crowd of as many objects as asked for, walking, driving and standing, boxes that tremble and are
missed now and then, pictures of the network's size. Ours is timed as the worker runs it
(`tracking.following.follow`, colours included), the distances that the verdict asks for beside it;
the plain tracker goes by boxes alone. What counts is processor time, because machines are shared;
the candidates take turns on the same film, and a round is a new one.

usage: PYTHONPATH=tests python -m benchmarks.tracking [--objects 50] [--fps 5] [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import scipy
from numpy.typing import NDArray

from reference.plain_iou_tracker import plain_iou_ids
from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy, Letterbox
from vault_ml.tracking.appearance import descriptions
from vault_ml.tracking.boxes import boxes_of
from vault_ml.tracking.distance import travel
from vault_ml.tracking.following import follow
from vault_ml.tracking.track import Track
from vault_ml.tracking.tracker import Tracker
from vault_ml.video.frame import Frame

LABELS = ("person", "car", "truck", "dog")
FRAME_WH, NET_WH = (1920, 1080), (608, 608)
FRAMES = 60
MISSED, TREMBLE = 0.05, 0.03


def film(objects: int, fps: float, seed: int) -> tuple[list[Frame], list[Detections]]:
    """A crowd: the looked-at frames, and what a detector says of them."""
    rng = np.random.default_rng(seed)
    letterbox = Letterbox.fit(FRAME_WH, NET_WH)
    limit = np.array(FRAME_WH, np.float64)
    height = rng.uniform(40, 120, objects)
    class_id = rng.integers(0, 2, objects)
    sides = np.stack([height * np.where(class_id == 0, 0.4, 1.9), height], axis=1)
    place = rng.uniform(0.1, 0.9, (objects, 2)) * limit
    pace = np.where(rng.random(objects) < 0.4, 0.0, height)[:, None] * rng.normal(
        0, 0.8, (objects, 2)
    )
    colours = rng.integers(0, 256, (objects, 3), np.uint8)
    frames, seen = [], []
    for index in range(FRAMES):
        place = place + pace / fps
        pace = np.where((place < 0) | (place > limit), -pace, pace)
        boxes = np.concatenate([place - sides / 2, place + sides / 2], axis=1)
        boxes = boxes + rng.normal(0, TREMBLE, boxes.shape) * np.tile(sides, 2)
        shown = rng.random(objects) >= MISSED
        confidence = np.sort(rng.uniform(0.5, 1.0, int(shown.sum())))[::-1].astype(np.float32)
        xyxy = np.clip(boxes[shown], 0, np.tile(limit, 2)).astype(np.float32)
        detections = Detections(FrameXyxy(xyxy), confidence, class_id[shown], LABELS)
        pixels = _painted(letterbox.to_net(detections.xyxy), colours[shown])
        frames.append(Frame(index, index / fps, letterbox, pixels))
        seen.append(detections)
    return frames, seen


def _painted(boxes: NDArray[np.float32], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = np.full((NET_WH[1], NET_WH[0], 3), 127, np.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes.astype(int).tolist(), colours, strict=True):
        picture[y1:y2, x1:x2] = colour
    return picture


def _ms(work: Callable[[], object]) -> float:
    """Milliseconds per frame."""
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1000 / FRAMES


def _without_pictures(frames: Sequence[Frame], seen: Sequence[Detections]) -> None:
    tracker = Tracker(LABELS, FRAME_WH)
    for frame, detections, boxes in zip(frames, seen, boxes_of(seen), strict=True):
        tracker.take(frame.timestamp_s, detections, boxes)
    tracker.tracks()


def _colours_alone(frames: Sequence[Frame], seen: Sequence[Detections]) -> None:
    descriptions(
        [frame.pixels for frame in frames],
        [frame.letterbox.to_net(each.xyxy) for frame, each in zip(frames, seen, strict=True)],
    )


def _distances(tracks: Sequence[Track]) -> None:
    for track in tracks:
        travel(track)


def measure(objects: int, fps: float, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per frame of each candidate, one figure per round; they take turns."""
    found: dict[str, list[float]] = {
        "ours": [],
        "ours, boxes alone": [],
        "of ours, colours": [],
        "ways and distances": [],
        "plain IoU": [],
    }
    for round_ in range(-1, rounds):
        frames, seen = film(objects, fps, seed=max(round_, 0))
        candidates: dict[str, Callable[[], object]] = {
            "ours": partial(follow, frames, seen),
            "ours, boxes alone": partial(_without_pictures, frames, seen),
            "of ours, colours": partial(_colours_alone, frames, seen),
            "ways and distances": partial(_distances, follow(frames, seen).tracks),
            "plain IoU": partial(plain_iou_ids, seen),
        }
        for name, work in candidates.items():
            took = _ms(work)
            if round_ >= 0:  # the first warms up
                found[name].append(took)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What following objects costs per frame.")
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    found = measure(chosen.objects, chosen.fps, chosen.rounds)
    if chosen.json:
        sys.stdout.write(json.dumps(vars(chosen) | {"ms_per_frame": found}) + "\n")
        return
    print(
        f"{chosen.objects} objects, {chosen.fps:g} frames/s, {FRAMES} frames, {chosen.rounds} "
        f"rounds; Python {platform.python_version()}, numpy {np.__version__}, scipy "
        f"{scipy.__version__}, {platform.machine()}"
    )
    print(f"{'ms per frame':<20}{'median':>8}{'least':>8}{'most':>8}")
    for name, took in found.items():
        print(f"{name:<20}{statistics.median(took):>8.2f}{min(took):>8.2f}{max(took):>8.2f}")


if __name__ == "__main__":
    main()
