"""One engine in a process of its own, for `benchmarks.engines`: several cap each other's threads.

`python -m benchmarks.engine_child SPEC`: loads, says "ready", then takes a number of seconds on a
line and answers with pictures per second. SPEC is JSON: `kind`, and what that kind needs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], object]


def of_the_product(spec: dict[str, Any]) -> list[Run]:
    """As the worker runs it: bytes in, a copy out."""
    from vault_ml.inference.opening import open_runtime, opening_from_json

    width, height = spec["net_wh"]
    runtime = open_runtime(Path(spec["model"]), (width, height), opening_from_json(spec["how"]))
    noise = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), np.uint8)
    return [lambda: runtime.infer(noise)] * runtime.lanes


def of_onnxruntime(spec: dict[str, Any]) -> list[Run]:
    """One session, several runs at once in it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    session = onnxruntime.InferenceSession(
        spec["model"], options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: _floats(spec)}
    return [lambda: session.run(None, feed)] * spec["lanes"]


def of_openvino(spec: dict[str, Any]) -> list[Run]:
    """As many streams as lanes, a request for each."""
    from vault_ml.inference.openvino import import_openvino

    core = import_openvino().Core()
    model = core.read_model(spec["model"])
    floats = _floats(spec)
    model.reshape(list(floats.shape))
    compiled = core.compile_model(
        model, "CPU",
        {
            "PERFORMANCE_HINT": "THROUGHPUT" if spec["lanes"] > 1 else "LATENCY",
            "NUM_STREAMS": str(spec["lanes"]),
            "INFERENCE_NUM_THREADS": str(spec["lanes"] * spec["threads"]),
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )  # fmt: skip

    def lane() -> Run:
        request = compiled.create_infer_request()
        return lambda: request.infer({0: floats}, share_inputs=True)

    return [lane() for _ in range(spec["lanes"])]


def of_mnn(spec: dict[str, Any]) -> list[Run]:
    """A session for each lane; `model` is converted already."""
    import MNN

    floats = _floats(spec)

    def lane() -> Run:
        net = MNN.Interpreter(spec["model"])
        session = net.createSession(
            {"backend": "CPU", "numThread": spec["threads"], "precision": "high"}
        )
        source = net.getSessionInput(session)
        net.resizeTensor(source, floats.shape)
        net.resizeSession(session)
        given = MNN.Tensor(
            floats.shape, MNN.Halide_Type_Float, floats, MNN.Tensor_DimensionType_Caffe
        )

        def run() -> None:
            source.copyFrom(given)
            net.runSession(session)

        return run

    return [lane() for _ in range(spec["lanes"])]


def of_darknet(spec: dict[str, Any]) -> list[Run]:
    """The original's engine; its threads are OpenMP's."""
    from benchmarks.darknet import Darknet

    net = Darknet(Path(spec["library"]), Path(spec["cfg"]), Path(spec["weights"]))
    (image,) = _floats(spec)
    return [lambda: net.infer(image)]


KINDS: dict[str, Callable[[dict[str, Any]], list[Run]]] = {
    "ours": of_the_product,
    "onnxruntime": of_onnxruntime,
    "openvino": of_openvino,
    "mnn": of_mnn,
    "darknet": of_darknet,
}


def _floats(spec: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    width, height = spec["net_wh"]
    return np.random.default_rng(1).random((spec.get("batch", 1), 3, height, width), np.float32)


def pictures_per_s(lanes: list[Run], batch: int, seconds: float) -> float:
    """All lanes busy, each for at least one run."""
    began = time.perf_counter()

    def work(run: Run) -> int:
        done = 0
        while True:
            run()
            done += 1
            if time.perf_counter() - began >= seconds:
                return done

    with ThreadPoolExecutor(len(lanes)) as pool:
        done = sum(pool.map(work, lanes))
    return done * batch / (time.perf_counter() - began)


def main() -> None:
    spec = json.loads(sys.argv[1])
    # Libraries print to standard output, from C; the answers go where it was.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lanes = KINDS[spec["kind"]](spec)
    pictures_per_s(lanes, 1, 0.0)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        rate = pictures_per_s(lanes, spec.get("batch", 1), float(line))
        print(rate, file=answers, flush=True)


if __name__ == "__main__":
    main()
