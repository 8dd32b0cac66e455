"""`make bench-engines`: the network alone. Is `RUNTIME=auto` right, and how far is darknet?

What `auto` takes, and INT8, stand beside every combination of runtime, lanes, threads and batch
that the libraries offer on this machine, called bare, without our conversion of bytes, and beside
the original's engine, darknet in C. Each is a process of its own, loaded once; they take turns, and
the ratios of one round count.

usage: PYTHONPATH=tests python -m benchmarks.engines [--model yolov3-tiny] [--random]
                                                     [--seconds 3] [--rounds 5] [--json F]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.clips import ClipKind, make_clip
from benchmarks.darknet import NoDarknet, library
from benchmarks.random_model import quantize_for_speed, write_random_model
from vault_ml.errors import ModelError
from vault_ml.inference.choosing import cpu_name
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.mnn import Mnn
from vault_ml.inference.opening import Opening, opening_to_json
from vault_ml.models.folders import default_cache_dir, default_model_dir
from vault_ml.models.prepare import ModelFiles, PreparedModel, prepare, resolve
from vault_ml.runtime_for import runtime_for

BATCHES = (1, 4)
AUTO, INT8, DARKNET = "auto", "int8", "darknet"
# What design and documents promise: of the best combination, and times darknet.
FLOORS = {AUTO: 4.0, INT8: 8.0}
SHARE = 0.85


class EngineProcess:
    """One candidate, loaded and waiting."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Start it, and wait until it is loaded."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engine_child", json.dumps(spec)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.is_ready = self._answer() == "ready"

    def pictures_per_s(self, seconds: float) -> float:
        """Measure for so long."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def bare_combinations(prepared: PreparedModel, cache: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every runtime with one lane of all processors, and one lane for each processor."""
    cpus = usable_cpus()
    Mnn(prepared.onnx, prepared.net_wh, cache=cache).close()  # it converts
    (converted,) = cache.glob(f"{prepared.onnx.stem}-mnn-*.mnn")
    models = {"onnxruntime": prepared.onnx, "openvino": prepared.onnx, "mnn": converted}
    for kind, model in models.items():
        for lanes, threads in sorted({(1, cpus), (cpus, 1)}):
            for batch in BATCHES:
                yield (
                    f"{kind}, {lanes} x {threads} threads, batch {batch}",
                    {
                        "kind": kind, "model": str(model), "net_wh": prepared.net_wh,
                        "lanes": lanes, "threads": threads, "batch": batch,
                    },
                )  # fmt: skip


def ours(how: Opening, model: PreparedModel) -> dict[str, Any]:
    """The product's own way."""
    return {
        "kind": "ours", "model": str(model.onnx), "net_wh": model.net_wh,
        "how": opening_to_json(replace(how, cache=None)),
    }  # fmt: skip


def candidates(files: ModelFiles, model_dir: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """All of them, by name."""
    prepared = prepare(files, cache)
    found: dict[str, dict[str, Any]] = {}
    for name, precision in ((AUTO, "fp32"), (INT8, "int8")):
        try:
            plan = runtime_for(
                prepared, runtime="auto", precision=precision, rect=False,
                model_dir=model_dir, cache_dir=cache,
            )  # fmt: skip
        except ModelError as error:
            print(f"without {name}: {error}", file=sys.stderr)
            continue
        print(f"{name}: {plan.how.engine}, {plan.reason}", file=sys.stderr)
        found[name] = ours(plan.how, plan.model)
    found.update(bare_combinations(prepared, cache))
    try:
        built = library(default_cache_dir())
    except NoDarknet as error:
        print(f"without darknet: {error}", file=sys.stderr)
    else:
        found[DARKNET] = {
            "kind": "darknet", "library": str(built), "cfg": str(files.cfg),
            "weights": str(files.weights), "net_wh": prepared.net_wh,
        }  # fmt: skip
    return found


def ratios(own: list[float], other: list[float]) -> tuple[float, float, float]:
    """Median, least and most of the rounds' ratios."""
    each = sorted(mine / theirs for mine, theirs in zip(own, other, strict=True))
    return statistics.median(each), each[0], each[-1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines")
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--random", action="store_true", help="--model is a .cfg without weights")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, model_dir, cache = words.model, default_model_dir(), default_cache_dir()
        if words.random:
            model_dir = cache = folder
            cfg = write_random_model(Path(model), folder)
            clip = make_clip(ClipKind(720, "libx264", 2), folder)
            quantize_for_speed(cfg, clip, model_dir, cache)
            model = str(cfg)
        print(f"{cpu_name()}, {usable_cpus()} processors, load {os.getloadavg()[0]:.1f}")
        rates: dict[str, list[float]] = {}
        running = {}
        for name, spec in candidates(resolve(model, model_dir), model_dir, cache).items():
            process = EngineProcess(spec)
            stack.callback(process.end)
            if process.is_ready:
                running[name] = process
            else:
                print(f"without {name}: it does not run this model", file=sys.stderr)
        for number in range(words.rounds):
            print(f"round {number + 1} of {words.rounds}", file=sys.stderr)
            for name, process in running.items():
                rates.setdefault(name, []).append(process.pictures_per_s(words.seconds))
    print_table(Path(model).stem, rates)
    if words.json:
        words.json.write_text(json.dumps({"pictures_per_s": rates}, indent=1) + "\n")


def print_table(model: str, rates: Mapping[str, list[float]]) -> None:
    """As the documents show it, and what is promised below."""
    by_speed = sorted(rates, key=lambda name: -statistics.median(rates[name]))
    print(
        f"\n{model}, the network alone\n\n| | pictures/s | times darknet |\n| --- | ---: | ---: |"
    )
    for name in by_speed:
        line = f"| {name} | {statistics.median(rates[name]):.2f} |"
        if DARKNET in rates:
            line += " {:.1f} ({:.1f}-{:.1f}) |".format(*ratios(rates[name], rates[DARKNET]))
        print(line)
    best = next(name for name in by_speed if name not in FLOORS and name != DARKNET)
    share, least, most = ratios(rates[AUTO], rates[best])
    print(
        f"\nauto does {share:.2f} ({least:.2f}-{most:.2f}) of the best combination "
        f"({best}), at least {SHARE} is wanted"
    )
    for name, floor in FLOORS.items():
        if name in rates and DARKNET in rates:
            times = ratios(rates[name], rates[DARKNET])[0]
            print(f"{name} does {times:.1f} times darknet, at least {floor:g} is wanted")


if __name__ == "__main__":
    main()
