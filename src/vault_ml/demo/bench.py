"""How much one worker does on this machine: the demo's stage, with always more to do.

Clips lie in the embedded Vault and are announced again and again; results are counted on the
target topic. The worker is the ordinary one, with what the environment says about model, frames
and precision. Broker and Vault are on the same machine: they take a share, small beside the
network's, and the way to them is shorter than yours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vault_ml.demo import process_tree
from vault_ml.demo.clips import Clip
from vault_ml.demo.show import Seen, Show
from vault_ml.errors import UnavailableError
from vault_ml.inference.cpu_quota import usable_cpus

# Which settings of the environment are about looking; queues, addresses and keys are the stage's.
_LOOKS = (
    "MODEL", "MODEL_LABELS", "MODEL_DIR", "CACHE_DIR", "MODEL_CORRECTIONS", "PRESET", "PRECISION",
    "INPUT_SHAPE", "RUNTIME", "NUMBER_OF_PREDICTIONS", "FRAME_SAMPLING", "CLASSIFICATION_FPS",
    "CONFIDENCE_THRESHOLD", "NMS_THRESHOLD", "FETCH", "MOVE_DISTANCE", "WORKER_CONCURRENCY",
    "DECODE_MEMORY_BYTES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
)  # fmt: skip
_RESULT_S = 300.0
_PARTS = 5


@dataclass(frozen=True, slots=True)
class Bench:
    """What was measured of one worker.

    Attributes:
        recordings_per_s: with nothing to wait for.
        slowest_per_s: in the slowest fifth of the time.
        fastest_per_s: in the fastest fifth.
        recordings: how many were counted.
        seconds: in what time.
        cpus: processors it may use.
        busy_cpus: processors that its processes kept busy, on average.
        peak_memory_bytes: of all its processes together, the highest of many looks.
        recording_s: mean length of the recordings, seconds.
        run: of one result: model, runtime, device, precision, sampling, frames looked at.
    """

    recordings_per_s: float
    slowest_per_s: float
    fastest_per_s: float
    recordings: int
    seconds: float
    cpus: int
    busy_cpus: float
    peak_memory_bytes: int
    recording_s: float
    run: dict[str, Any]

    def cameras(self, head_room: float) -> int:
        """Cameras that record such clips one after the other, with part of the capacity free."""
        return int(self.recordings_per_s * (1 - head_room) * self.recording_s)


def looking(environ: Mapping[str, str]) -> dict[str, str]:
    """What the worker is measured with; the fastest runtime where none is set."""
    given = {name: environ[name] for name in _LOOKS if environ.get(name, "").strip()}
    return {"RUNTIME": "auto", **given}


def measure(
    show: Show, clips: Sequence[Clip], *, seconds: float, tell: Callable[[float], None]
) -> Bench:
    """Keep the worker busy for a while, and count.

    Args:
        show: the running stage.
        clips: to announce in turn.
        seconds: how long, after a warm-up; longer until each fifth has seen a result.
        tell: called with the seconds that have passed.

    Raises:
        UnavailableError: the worker gives no results.
        VaultMLError: the worker ended.
    """
    work = Work(show, clips)
    work.warm_up()
    began_at, cpu_before = time.monotonic(), work.cpu_s()
    peak, lengths, came_at = 0, [], [0.0]
    passed, least_s = 0.0, seconds
    while passed < least_s:
        seen = work.next()
        passed = time.monotonic() - began_at
        came_at.append(passed)
        lengths.append(float(seen.document["data"]["run"]["recording"]["seconds_covered"] or 0))
        peak = max(peak, work.memory_bytes())
        tell(min(passed, seconds))
        if passed >= least_s and min(_per_part(came_at)) == 0:
            least_s = 2 * passed
    count, run = len(came_at) - 1, seen.document["data"]["run"]
    rates = [part * _PARTS / passed for part in _per_part(came_at)]
    return Bench(
        recordings_per_s=count / passed,
        slowest_per_s=min(rates),
        fastest_per_s=max(rates),
        recordings=count,
        seconds=passed,
        cpus=usable_cpus(),
        busy_cpus=(work.cpu_s() - cpu_before) / passed,
        peak_memory_bytes=peak,
        recording_s=sum(lengths) / len(lengths),
        run={
            "model": run["model"]["name"],
            **{name: run[name] for name in ("runtime", "device", "precision", "sampling")},
            "looked_at": run["looked_at"],
        },
    )


def _per_part(came_at: Sequence[float]) -> list[int]:
    """Results in each fifth of the time up to the last of them."""
    end = came_at[-1]
    parts = [0] * _PARTS
    for at in came_at[1:]:
        parts[min(_PARTS - 1, int(at / end * _PARTS))] += 1
    return parts


class Work:
    """Announces ahead of the worker, and takes results."""

    def __init__(self, show: Show, clips: Sequence[Clip]) -> None:
        """Upload the clips."""
        self._show = show
        self._keys = [show.upload(clip) for clip in clips]
        self._announced = len(self._keys)
        self._taken = 0
        self._ahead = 8 * usable_cpus() + 8

    def warm_up(self) -> None:
        """Until every decoder and every lane of the network has run: nothing is loaded then."""
        for _ in range(2 * usable_cpus() + 2):
            self.next()

    def next(self) -> Seen:
        """The next result; more than the worker can have in flight is announced before."""
        while self._announced - self._taken < self._ahead:
            self._show.announce(self._keys[self._announced % len(self._keys)])
            self._announced += 1
        return self._take()

    def rest(self) -> None:
        """Take what is announced and not taken yet; the worker is idle then."""
        while self._taken < self._announced:
            self._take()

    def _take(self) -> Seen:
        seen = self._show.next_result(_RESULT_S)
        if seen is None:
            raise UnavailableError(
                f"no result came within {_RESULT_S:g} s; the worker's log above says why"
            )
        self._taken += 1
        return seen

    def cpu_s(self) -> float:
        """Processor seconds of the worker and its children so far."""
        return sum(map(process_tree.cpu_s, self._pids()))

    def memory_bytes(self) -> int:
        """Memory of the worker and its children."""
        return sum(map(process_tree.memory_bytes, self._pids()))

    def _pids(self) -> list[int]:
        pid = self._show.worker.pid
        return [pid, *process_tree.descendants(pid)]
