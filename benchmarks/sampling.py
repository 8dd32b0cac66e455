"""How many brief events are seen with so many frames: evenly spread against `adaptive`.

Recordings of 30 s are made of real photos that cross real backgrounds within 1 to 2.5 s
(`tests/brief_events.py`), so that the time of each event is known. An event counts as seen where a
looked-at frame shows three quarters of the object; with --model, where the network finds the
object there.

usage: PYTHONPATH=tests python -m benchmarks.sampling [--clips 8] [--model FILE.onnx] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brief_events import LABELS, Clip, Event, Material, found, looked_at, make_clip, truth
from vault_ml.detection import Detections
from vault_ml.detector import Detector
from vault_ml.detector_child import head_and_labels
from vault_ml.geometry import Letterbox, iou
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.models.prepare import prepare, resolve
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.picture import letterbox_into
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling

ROOT = Path(__file__).resolve().parents[1]
SIZE_WH = (320, 180)
WAYS = (
    (10, Sampling.EXACT), (10, Sampling.KEYFRAME),
    (5, Sampling.EXACT), (5, Sampling.KEYFRAME), (5, Sampling.ADAPTIVE),
)  # fmt: skip
ENCODINGS = (("crf", 20), ("crf", 100), ("cbr", 20), ("cbr", 100))

Counts = Callable[[Clip, Sequence[int]], int]


@dataclass(frozen=True)
class Row:
    encoding: str
    gop_s: float
    sampling: str
    frames: int
    looked_at: int
    seen: int
    events: int


class Network:
    """Counts an event as seen where a network finds its object."""

    def __init__(self, model: Path, cache: Path) -> None:
        self._model = prepare(resolve(str(model), model.parent), cache)
        runtime = OnnxRuntime(self._model.onnx, device="cpu")
        head, labels = head_and_labels(runtime.metadata, self._model.onnx)
        self._detector = Detector(runtime, head, labels, self._model.net_wh, 0.3, 0.45)

    def found(self, clip: Clip, numbers: Sequence[int]) -> int:
        wanted = {n for n in numbers if any(n in event.boxes for event in clip.events)}
        seen: set[int] = set()
        with RecordingReader(io.BytesIO(clip.recording), DecodeLimits()) as reader:
            for picture in reader.pictures(10_000, Sampling.EXACT):
                if picture.number in wanted:
                    seen |= self._events_in(clip, picture.number, picture.rgb())
        return len(seen)

    def _events_in(self, clip: Clip, number: int, rgb: NDArray[np.uint8]) -> set[int]:
        letterbox = Letterbox.fit((rgb.shape[1], rgb.shape[0]), self._model.net_wh,
                                  self._model.placing)  # fmt: skip
        pixels = np.zeros((1, letterbox.net_wh[1], letterbox.net_wh[0], 3), np.uint8)
        letterbox_into(pixels[0], rgb, letterbox, self._model.placing.fill)
        (detections,) = self._detector.detect(pixels, [letterbox])
        return {
            at for at, event in enumerate(clip.events) if self._is_there(event, number, detections)
        }

    @staticmethod
    def _is_there(event: Event, number: int, detections: Detections) -> bool:
        overlaps = iou(detections.xyxy, truth(event, number))
        return any(
            detections.label(i) in LABELS and overlaps[i].max(initial=0) > 0.4
            for i in range(len(overlaps))
        )


def measure(material: Material, clips: int, counts: Counts) -> list[Row]:
    rows = []
    for control, gop in ENCODINGS:
        made = [
            make_clip(material, seed, events=1 + seed % 3, gop=gop, control=control)
            for seed in range(clips)
        ]
        for frames, sampling in WAYS:
            chosen = [looked_at(clip.recording, frames, sampling) for clip in made]
            rows.append(
                Row(
                    control, gop / 10, str(sampling), frames,
                    sum(map(len, chosen)),
                    sum(counts(clip, numbers) for clip, numbers in zip(made, chosen, strict=True)),
                    sum(len(clip.events) for clip in made),
                )
            )  # fmt: skip
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _line(row: Row) -> str:
    return (
        f"| {row.encoding} | {row.gop_s:g} s | {row.sampling} | {row.frames} | {row.looked_at} | "
        f"{row.seen} of {row.events} | {row.seen / row.events:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8, help="recordings per encoding")
    parser.add_argument("--model", type=Path, help="a network that must find the object")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    material = Material.read(words.shared, SIZE_WH)
    counts: Counts = found
    if words.model is not None:
        counts = Network(words.model, Path.home() / ".cache/vault-ml").found
    rows = measure(material, words.clips, counts)
    if words.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| bits | keyframe every | sampling | n | frames looked at | events seen | recall |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(map(_line, rows)))


if __name__ == "__main__":
    main()
