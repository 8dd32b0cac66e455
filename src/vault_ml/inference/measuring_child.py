"""Measures one runtime on one model: `python -m vault_ml.inference.measuring_child`.

A process of its own, because several configurations of threads in one process slow each other
down, and because what a library leaves behind goes with it. No credentials come here.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vault_ml.child import ChildGone, connect
from vault_ml.errors import VaultMLError
from vault_ml.inference.opening import first_wh, open_runtime, opening_from_json
from vault_ml.inference.port import InferenceRuntime

_ANSWER_S = 10.0
# The fastest of several bursts: other processes can only make a burst slower.
_BURSTS = 3


def main() -> int:
    """Measure what the parent asks for, and answer once."""
    channel, _ = connect()
    with contextlib.suppress(ChildGone):
        message, _ = channel.receive(timeout_s=_ANSWER_S)
        channel.send(measured(message), timeout_s=_ANSWER_S)
    return 0


def measured(message: Mapping[str, Any]) -> dict[str, Any]:
    """The answer: what runs and how fast, or why not."""
    how = opening_from_json(message["how"])
    width, height = message["net_wh"]
    try:
        runtime = open_runtime(Path(message["model"]), (width, height), how)
        wh = first_wh((width, height), rect=how.rect)
        rate = pictures_per_s(runtime, wh, float(message["seconds"]))
    except VaultMLError as error:
        return {"refused": str(error)}
    return {
        "runtime": runtime.info.runtime,
        "device": runtime.info.device,
        "pictures_per_s": rate,
    }


def pictures_per_s(runtime: InferenceRuntime, wh: tuple[int, int], seconds: float) -> float:
    """How many pictures of this size it looks at per second, all lanes busy."""
    noise = np.random.default_rng(1).integers(0, 256, (1, wh[1], wh[0], 3), dtype=np.uint8)
    _burst(runtime, noise, 0.0)  # each lane's first run pays for memory
    return max(_burst(runtime, noise, seconds / _BURSTS) for _ in range(_BURSTS))


def _burst(runtime: InferenceRuntime, picture: np.ndarray[Any, Any], seconds: float) -> float:
    """One burst: every lane looks at pictures until the time is over, at least at one."""
    counts = [0] * runtime.lanes
    failures: list[VaultMLError] = []
    started = time.perf_counter()

    def lane(number: int) -> None:
        try:
            while True:
                runtime.infer(picture)
                counts[number] += 1
                if time.perf_counter() - started >= seconds:
                    return
        except VaultMLError as error:
            failures.append(error)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(runtime.lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
