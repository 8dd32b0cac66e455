"""`make bench`: ours against the loop that everybody writes, side by side in one run.

The plain loop, per recording: write a temporary file, load the model, read every frame with OpenCV,
run OpenCV's darknet reader on n of them. Ours: the model and the children that the worker uses,
kept warm, keyframe and exact sampling. Same clip, same network size, same threshold. Machines are
noisy: the two alternate, and ratios of medians count, not seconds.

usage: python -m benchmarks [--model yolov3-tiny] [--clip CLIP] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from vault_ml.demo.clips import sample_clips
from vault_ml.local import LocalDetection
from vault_ml.models.folders import default_cache_dir, default_model_dir
from vault_ml.models.prepare import prepare, resolve

FRAMES = 5
SECONDS = 20
FPS = 25


def make_clip(source: Path, target: Path) -> None:
    """20 s of 1080p H.264 at 25 fps, a key frame every 2 s: the street of the demo, upscaled."""
    with av.open(str(source)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(target), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.gop_size = 2 * FPS
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(SECONDS * FPS):
            picture = cv2.resize(pictures[index % len(pictures)], (1920, 1080))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def plain_loop(clip: bytes, cfg: Path, weights: Path, net_wh: tuple[int, int]) -> int:
    """What a first version looks like; returns the number of boxes."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(clip)
        file.flush()
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
        outputs = net.getUnconnectedOutLayersNames()
        capture = cv2.VideoCapture(file.name)
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = {round((i + 0.5) * total / FRAMES) for i in range(FRAMES)}
        boxes = index = 0
        while True:
            is_read, frame = capture.read()
            if not is_read:
                break
            if index in wanted:
                net.setInput(cv2.dnn.blobFromImage(frame, 1 / 255, net_wh, swapRB=True))
                for rows in net.forward(outputs):
                    scores = rows[:, 5:]
                    boxes += int(np.count_nonzero(scores.max(axis=1) > 0.5))
            index += 1
        capture.release()
    return boxes


def ours(local: LocalDetection, clip: bytes) -> int:
    """One recording from memory through decoder and detector children."""
    fd = os.memfd_create("clip")
    try:
        os.write(fd, clip)
        return sum(len(frame.detections) for frame in local.look(fd).frames)
    finally:
        os.close(fd)


def ours_overlapped(local: LocalDetection, clip: bytes, recordings: int) -> None:
    """Several recordings in flight, as the worker has them."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: ours(local, clip), range(recordings)))


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    model_dir, cache_dir = default_model_dir(), default_cache_dir()
    files = resolve(words.model, model_dir)
    model = prepare(files, cache_dir)
    if files.cfg is None or files.weights is None:
        sys.exit("the plain loop needs a darknet model (.cfg and .weights)")
    with tempfile.TemporaryDirectory() as folder:
        clip_path = words.clip or Path(folder) / "street-1080p.mp4"
        if words.clip is None:
            print("making a 20 s 1080p clip ...", file=sys.stderr)
            make_clip(sample_clips(None)[0].path, clip_path)
        clip = clip_path.read_bytes()

    cfg, weights = files.cfg, files.weights
    batch = 4
    seconds: dict[str, list[float]] = {"plain": [], "exact": [], "keyframe": []}

    def local(sampling: str) -> object:
        return LocalDetection.start(
            model=words.model, confidence_threshold=0.5, nms_threshold=0.45, frames=FRAMES,
            sampling=sampling, keep_pictures=False, model_dir=model_dir, cache_dir=cache_dir,
        )  # fmt: skip

    with local("exact") as exact, local("keyframe") as keyframe:  # type: ignore[attr-defined]
        ours(exact, clip)
        ours(keyframe, clip)
        for number in range(words.rounds):
            print(f"round {number + 1} of {words.rounds}", file=sys.stderr)
            seconds["plain"].append(timed(lambda: plain_loop(clip, cfg, weights, model.net_wh)))
            for name, one in (("exact", exact), ("keyframe", keyframe)):
                spent = timed(lambda one=one: ours_overlapped(one, clip, batch))  # type: ignore[misc]
                seconds[name].append(spent / batch)
    report(words.model, seconds, as_json=words.json)


def report(model: str, seconds: dict[str, list[float]], *, as_json: bool) -> None:
    ratios = {
        name: sorted(p / o for p, o in zip(seconds["plain"], spent, strict=True))
        for name, spent in seconds.items()
    }
    rows = {
        name: {
            "s_per_recording": round(statistics.median(spent), 3),
            "recordings_per_hour": round(3600 / statistics.median(spent)),
            "ratio_median": round(statistics.median(ratios[name]), 2),
            "ratio_min": round(ratios[name][0], 2),
            "ratio_max": round(ratios[name][-1], 2),
        }
        for name, spent in seconds.items()
    }
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors"
    if as_json:
        print(json.dumps({"model": model, "frames": FRAMES, "machine": machine, "rows": rows}))
        return
    print(f"{model}, n = {FRAMES}, 20 s 1080p H.264, {machine}")
    print(f"{'':>9} {'s/recording':>12} {'per hour':>9} {'ratio':>6}  (spread)")
    for name, row in rows.items():
        print(
            f"{name:>9} {row['s_per_recording']:>12} {row['recordings_per_hour']:>9} "
            f"{row['ratio_median']:>6}  ({row['ratio_min']}-{row['ratio_max']})"
        )


if __name__ == "__main__":
    main()
