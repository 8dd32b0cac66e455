"""One job of a campaign: a seed, a run without faults, or a planted bug; and the lane that does it.

A lane is a process with a broker of its own. It reads jobs, one a line, carries them out and
answers with one line each; the histories lie in files.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from proof import machine, material, planted, program, systems
from proof.history import History
from proof.plan import Plan, draw, fault_free
from proof.queues import System

# A stuck planted bug need not be waited for as long as a stuck seed.
_PLANTED = machine.Limits(quiet_s=20.0, settle_s=10.0)
_PLANTED_EVENTS = 16
_REFERENCE_POISON = 6


@dataclass(frozen=True)
class Job:
    """What a lane is to do.

    Attributes:
        kind: `seed`, `reference`, `planted`, or `control`: a planted bug's plan without the bug.
        name: the seed's number, the bug's name, or nothing.
        events: how many good ones.
    """

    system: str
    kind: Literal["seed", "reference", "planted", "control"]
    name: str
    events: int

    @property
    def path(self) -> Path:
        """Where its history lies below the folder of histories."""
        name = f"{self.kind}-{self.name.replace(' ', '-')}" if self.name else self.kind
        return Path(self.system) / f"{name}-{self.events}.json.gz"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.system, self.kind, self.name)))


def seed_jobs(system: str, numbers: Iterable[int], events: int) -> list[Job]:
    """The run without faults, and every seed."""
    seeds = [Job(system, "seed", f"{number:03}", events) for number in numbers]
    return [Job(system, "reference", "", events), *seeds]


def planted_jobs(system: str, names: tuple[str, ...], *, controls: bool) -> list[Job]:
    """The planted bugs that this broker can have, and their plans without them."""
    fitting = [
        name
        for name in names
        if not planted.BUGS[name].systems or system in planted.BUGS[name].systems
    ]
    kinds: list[Literal["planted", "control"]] = ["planted", "control"] if controls else ["planted"]
    return [Job(system, kind, name, _PLANTED_EVENTS) for name in fitting for kind in kinds]


def plan_of(job: Job, system: System) -> Plan:
    """What is done to the system."""
    if job.kind == "reference":
        return fault_free(_REFERENCE_POISON)
    if job.kind == "seed":
        return draw(
            int(job.name),
            job.events,
            system.troubles,
            has_transactions=system.has_transactions,
        )
    return planted.BUGS[job.name].plan


def carry_out(job: Job, system: System, folder: Path, model: Path) -> History:
    """Do it and save the history, with the workers' logs beside it."""
    code, commit = program.digest(job.system), program.commit()
    plan = plan_of(job, system)
    messages = [*material.good(job.events), *material.poison(plan.poison)]
    path = folder / job.path
    logs = path.with_suffix("").with_suffix(".logs")
    shutil.rmtree(logs, ignore_errors=True)
    is_quick = job.kind in {"planted", "control"}
    history = machine.run(
        system,
        plan,
        messages,
        model,
        command=planted.command(job.name) if job.kind == "planted" else machine.RUN,
        limits=_PLANTED if is_quick else None,
        keep_logs=logs,
    )
    if program.digest(job.system) != code:
        raise RuntimeError("the program was changed while it was proved")
    history.code, history.commit = code, commit
    history.save(path)
    return history


def lane(name: str, folder: Path) -> None:
    """Start the broker, and do what standard input says, line by line."""
    started = time.monotonic()
    system = systems.start(name)
    _answer({"ready": system.version, "took_s": round(time.monotonic() - started, 1)})
    try:
        with tempfile.TemporaryDirectory(prefix="vault-ml-proof-model-") as work:
            model = material.write_detector(Path(work))
            for line in sys.stdin:
                job = Job(**json.loads(line))
                try:
                    carry_out(job, system, folder, model)
                except Exception:  # noqa: BLE001  # the campaign goes on with the next job
                    _answer({"failed": traceback.format_exc()})
                else:
                    _answer({"done": asdict(job)})
    finally:
        system.close()


def _answer(content: dict[str, object]) -> None:
    print(json.dumps(content), flush=True)
