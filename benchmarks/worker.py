"""`make bench-worker`: how much of what the processors could do the worker does.

Three turns in every round: decoders alone, on all processors; the network alone, with as many runs
side by side as its runtime wants; the worker, with all around it: queue, Vault, results. The bound
is what the first two allow if nothing else cost anything: 1 / (1/decoded + frames/inferred). Broker
and Vault run in this process, on the processors that the worker would have to itself elsewhere:
what they take is measured, and taken off the bound. Both shares are reported.

usage: PYTHONPATH=tests python -m benchmarks.worker [--model yolov3-tiny] [--random] [--clip CLIP]
                                                    [--seconds 20] [--rounds 5] [--json F]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.clips import ClipKind, make_clip
from benchmarks.decoding import FRAMES, decode, per_second
from benchmarks.random_model import write_random_model
from vault_ml.demo.bench import Work
from vault_ml.demo.clips import Clip
from vault_ml.demo.show import stage
from vault_ml.inference.choosing import cpu_name
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.opening import first_wh, open_runtime
from vault_ml.inference.port import InferenceRuntime
from vault_ml.models.folders import default_cache_dir, default_model_dir
from vault_ml.models.prepare import prepare, resolve
from vault_ml.runtime_for import RuntimePlan, runtime_for
from vault_ml.telemetry.logs import configure
from vault_ml.video.decoder_pool import DecodeLimits, DecoderPool
from vault_ml.video.sampling import Sampling

FLOOR = 0.9
_LEAST_RESULTS = 12


def inferred_per_s(runtime: InferenceRuntime, plan: RuntimePlan, seconds: float) -> float:
    """Frames a second, with the network alone."""
    width, height = first_wh(runtime.net_wh, rect=plan.rect)
    noise = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), np.uint8)
    per_second(runtime.lanes, 0.5, lambda: runtime.infer(noise))  # lanes are made when first wanted
    return per_second(runtime.lanes, seconds, lambda: runtime.infer(noise))


def worked_per_s(work: Work, seconds: float) -> tuple[float, float]:
    """Recordings a second that the worker does, and the processors that broker and Vault took.

    The recordings in flight take turns on the network and end nearly together: results come in
    bursts. So the rate is the slope of a line through them, and does not depend on where in a burst
    the time was up. The worker is idle afterwards.
    """
    work.warm_up()
    began, own_s = time.perf_counter(), time.process_time()
    came_at: list[float] = []
    while not came_at or came_at[-1] < seconds or len(came_at) < _LEAST_RESULTS:
        work.next()
        came_at.append(time.perf_counter() - began)
    taken = (time.process_time() - own_s) / came_at[-1]
    work.rest()
    slope, _ = np.polyfit(came_at, np.arange(len(came_at)), 1)
    return float(slope), taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("--model", default="yolov3-tiny")
    parser.add_argument("--random", action="store_true", help="--model is a .cfg without weights")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clip = words.clip or make_clip(ClipKind(1080, "libx264", 2), folder)
        model, model_dir, cache_dir = words.model, default_model_dir(), default_cache_dir()
        if words.random:
            model_dir = cache_dir = folder
            model = str(write_random_model(Path(model), folder))
        plan = runtime_for(
            prepare(resolve(model, model_dir), cache_dir),
            runtime="auto", precision="fp32", rect=False, model_dir=model_dir, cache_dir=cache_dir,
        )  # fmt: skip
        print(f"{cpu_name()}, {usable_cpus()} processors, load {os.getloadavg()[0]:.1f}; "
              f"{plan.reason}", file=sys.stderr)  # fmt: skip
        pool = stack.enter_context(DecoderPool(usable_cpus(), DecodeLimits()))
        runtime = open_runtime(plan.model.onnx, plan.model.net_wh, plan.how)
        stack.callback(runtime.close)
        show = stack.enter_context(
            stage(
                model=model, pictures=None, log=configure("auto", "WARNING"),
                variables={
                    "LOG_LEVEL": "WARNING", "MODEL_DIR": str(model_dir),
                    "CACHE_DIR": str(cache_dir), "RUNTIME": plan.how.engine,
                },
            )
        )  # fmt: skip
        work = Work(show, [Clip("street", clip)])
        work.rest()
        rows = []
        for number in range(words.rounds):
            decoded = per_second(
                usable_cpus(), words.seconds,
                lambda: decode(
                    pool, clip, Sampling.KEYFRAME, plan.model.net_wh, plan.model.placing,
                    rect=plan.rect,
                ),
            )  # fmt: skip
            inferred = inferred_per_s(runtime, plan, words.seconds)
            worked, taken = worked_per_s(work, words.seconds)
            bound = 1 / (1 / decoded + FRAMES / inferred)
            left = 1 - taken / usable_cpus()
            rows.append({
                "decoded_per_s": round(decoded, 3), "inferred_frames_per_s": round(inferred, 3),
                "bound_per_s": round(bound, 3), "worked_per_s": round(worked, 3),
                "share_of_all": round(worked / bound, 3), "stand_cpus": round(taken, 3),
                "share": round(worked / bound / left, 3),
            })  # fmt: skip
            print(f"round {number + 1}: {rows[-1]}", file=sys.stderr)
    shares = sorted(row["share"] for row in rows)
    median = statistics.median(shares)
    of_all = statistics.median(row["share_of_all"] for row in rows)
    print(
        f"{Path(model).stem}, n = {FRAMES}, {clip.stem}: the worker does {median:.2f} "
        f"({shares[0]:.2f} to {shares[-1]:.2f}) of the bound, at least {FLOOR} is wanted "
        f"({of_all:.2f} where what broker and Vault take counts as lost)"
    )
    if words.json:
        words.json.write_text(json.dumps({"share": median, "rounds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
