"""`make bench-start`: what an operator waits for, and what a recording costs besides the looking.

From the command to `/readyz`, from SIGTERM to the end of an idle worker, `vault-ml --help`; then,
one recording at a time, the time that the worker's own log does not give to fetching, decoding,
the network and waiting for the broker: reading the event, tracking, judging, settling. Last, the
time per frame of what is ours between decoder and network: converting and scaling before, reading
the boxes after.

usage: python -m benchmarks.start [--model yolov3-tiny] [--rounds 5] [--recordings 50] [--json F]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clips import ClipKind, make_clip
from vault_ml.demo import process_tree
from vault_ml.demo.clips import Clip, sample_clips
from vault_ml.demo.show import Show, stage
from vault_ml.detector import Detector
from vault_ml.detector_child import head_and_labels
from vault_ml.geometry import Letterbox
from vault_ml.inference.choosing import cpu_name
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.models.folders import default_cache_dir, default_model_dir
from vault_ml.models.prepare import prepare, resolve
from vault_ml.telemetry.logs import configure
from vault_ml.video.decoder_child import keep_freed_memory
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.picture import letterbox_into
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling

LIMITS = {"help_s": 0.3, "ready_s": 3.0, "end_s": 1.0, "own_ms": 5.0, "frame_ms": 3.0}
OWN_ROOMS = ("parse", "track", "judge")
SENTENCES = {
    "help_s": "vault-ml --help, s",
    "ready_s": "from the command to ready, s",
    "end_s": "from SIGTERM to the end, idle, s",
    "own_ms": "per recording besides fetching, decoding and the network, ms",
    **{f"{room}_ms": f"- of that, `{room}` in the log, ms" for room in OWN_ROOMS},
    "frame_ms": "per frame between decoder and network, and after it, ms",
}
# Rooms of the log that are not ours to shorten; publishing waits for the broker.
_OTHERS = ("fetch_s", "decode_s", "detect_s", "publish_s")


def help_s() -> float:
    """How long the help takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vault_ml", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


@contextlib.contextmanager
def standard_error_to(path: Path) -> Iterator[None]:
    """What we and our children write there goes into a file."""
    kept = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def one_life(model: str, clip: Clip, recordings: int) -> dict[str, list[float]]:
    """A worker from its start to its end, and recordings one at a time between them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        found: dict[str, list[float]] = {}
        with (
            standard_error_to(path),
            stage(
                model=model, pictures=None, log=configure("json", "WARNING"),
                variables={"LOG_FORMAT": "json", "RUNTIME": "auto"},
            ) as show,
        ):  # fmt: skip
            work(show, clip, recordings)
            began = time.perf_counter()
            show.worker.stop()
            found["end_s"] = [time.perf_counter() - began]
        lines = [json.loads(line) for line in path.read_text().splitlines() if line[:1] == "{"]
    lines = [line for line in lines if line["event"] == "recording_processed"][3:]
    found["own_ms"] = [
        1000 * (line["seconds"] - sum(line.get(room, 0.0) for room in _OTHERS)) for line in lines
    ]
    for room in OWN_ROOMS:
        found[f"{room}_ms"] = [1000 * line[f"{room}_s"] for line in lines]
    return found


def work(show: Show, clip: Clip, recordings: int) -> None:
    """One after the other, so that none waits for another."""
    key = show.upload(clip)
    for number in range(recordings):
        if number:
            show.announce(key)
        if show.next_result(60) is None:
            raise SystemExit("no result within 60 s")


def ready_s(model: str) -> float:
    """From the command to `/readyz`, on a machine where the model has been measured before."""
    with (
        tempfile.TemporaryDirectory() as folder,
        standard_error_to(Path(folder) / "log"),
        stage(
            model=model, pictures=None, log=configure("json", "WARNING"),
            variables={"RUNTIME": "auto"},
        ) as show,
    ):  # fmt: skip
        return process_tree.age_s(show.worker.pid)


class _Recorded:
    """A runtime that knows the outputs already: what is left is ours."""

    def __init__(self, real: OnnxRuntime, pixels: np.ndarray[Any, Any]) -> None:
        self.info, self.net_wh, self.lanes = real.info, real.net_wh, 1
        self._outputs = real.infer(pixels)

    def infer(self, _: np.ndarray[Any, Any]) -> Any:
        return self._outputs

    def close(self) -> None:
        pass


def frame_ms(model: str, clip: Path) -> list[float]:
    """For each of some frames of a clip, with memory kept as the decoder's process keeps it."""
    keep_freed_memory()
    prepared = prepare(resolve(model, default_model_dir()), default_cache_dir())
    runtime = OnnxRuntime(prepared.onnx, device="cpu")
    head, labels = head_and_labels(runtime.metadata, prepared.onnx)
    width, height = prepared.net_wh
    canvas = np.zeros((1, height, width, 3), np.uint8)
    spent = []
    with RecordingReader(io.BytesIO(clip.read_bytes()), DecodeLimits()) as reader:
        for picture in reader.pictures(20, Sampling.EXACT):
            began = time.perf_counter()
            letterbox = Letterbox.fit(picture.size_wh, prepared.net_wh, prepared.placing)
            letterbox_into(canvas[0], picture.rgb(), letterbox, prepared.placing.fill)
            before = time.perf_counter() - began
            recorded = _Recorded(runtime, canvas)
            detector = Detector(recorded, head, labels, prepared.net_wh, 0.5, 0.45)
            began = time.perf_counter()
            detector.detect(canvas, [letterbox])
            spent.append(1000 * (before + time.perf_counter() - began))
    return spent[2:]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start")
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recordings", type=int, default=50, help="one at a time, per round")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    print(f"{cpu_name()}, {usable_cpus()} processors, load {os.getloadavg()[0]:.1f}\n")
    found: dict[str, list[float]] = {name: [] for name in SENTENCES}
    clip = sample_clips(None)[0]
    ready_s(words.model)  # the first start measures the runtimes
    stack = ExitStack()
    large = make_clip(
        ClipKind(1080, "libx264", 2), Path(stack.enter_context(tempfile.TemporaryDirectory()))
    )
    for _ in range(words.rounds):
        found["help_s"].append(help_s())
        found["ready_s"].append(ready_s(words.model))
        for name, values in one_life(words.model, clip, words.recordings).items():
            found[name] += values
        found["frame_ms"] += frame_ms(words.model, large)
    stack.close()
    print("| | median | least to most | wanted |\n| --- | ---: | ---: | ---: |")
    for name, values in found.items():
        print(
            f"| {SENTENCES[name]} | {statistics.median(values):.2f} "
            f"| {min(values):.2f} to {max(values):.2f} "
            f"| {f'less than {LIMITS[name]:g}' if name in LIMITS else ''} |"
        )
    if words.json:
        words.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
