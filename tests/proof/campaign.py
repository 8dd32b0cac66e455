"""Many jobs on several lanes: what is left to do is done, what was done is judged."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from proof.checker import Expected, Finding, check, expectations
from proof.history import History
from proof.jobs import Job
from proof.program import SRC, digest

_TESTS = Path(__file__).resolve().parents[1]
_JOB_S = 3600.0  # no job takes as long; a lane that does is given up


@dataclass
class Campaign:
    """Jobs, their histories, and the findings.

    Attributes:
        takes_older: what was done with another program counts as well.
    """

    folder: Path
    jobs: list[Job]
    takes_older: bool = False
    failures: dict[Job, str] = field(default_factory=dict)
    _known: dict[Job, History] = field(default_factory=dict)

    def history(self, job: Job) -> History | None:
        """What was seen, if it was done with this program, or if any will do."""
        path = self.folder / job.path
        if job not in self._known and path.exists():
            history = History.load(path)
            if self.takes_older or history.code == digest(job.system):
                self._known[job] = history
        return self._known.get(job)

    def left(self) -> list[Job]:
        """What has still to be done."""
        return [job for job in self.jobs if self.history(job) is None]

    def expected(self) -> dict[str, Expected]:
        """What the runs without faults say; they must agree, whatever the broker.

        Raises:
            ValueError: they do not, or one is not without fault.
        """
        agreed: dict[str, Expected] = {}
        for job in self.jobs:
            history = self.history(job) if job.kind == "reference" else None
            for key, one in expectations(history).items() if history else ():
                if agreed.setdefault(key, one) != one:
                    raise ValueError(f"the runs without faults differ in {key}")
        return agreed

    def findings(self, job: Job, expected: dict[str, Expected]) -> list[Finding] | None:
        """What is wrong in a job's history; None when there is none."""
        history = self.history(job)
        return None if history is None else check(history, expected)


def do(
    campaign: Campaign, lanes: dict[str, int], say: Callable[[Job, History | None], None]
) -> None:
    """Do what is left, on so many lanes per broker; `say` hears of each job when it is done."""
    threads = []
    for system, count in lanes.items():
        jobs = [job for job in campaign.left() if job.system == system]
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        threads += [
            threading.Thread(target=_drive, args=(campaign, system, waiting, say), daemon=True)
            for _ in range(min(count, len(jobs)))
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Lane:
    """A lane's process."""

    def __init__(self, system: str, folder: Path) -> None:
        path = os.pathsep.join((str(SRC), str(_TESTS)))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "proof", "--lane", system, "--folder", str(folder)),
            ],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.answer()

    def do(self, job: Job) -> None:
        """Raises RuntimeError when it could not be done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        self.answer()

    def answer(self) -> None:
        try:
            line = self._answers.get(timeout=_JOB_S)
        except queue.Empty:
            raise RuntimeError(f"no answer within {_JOB_S:g} s") from None
        if not line:
            raise RuntimeError(f"the lane ended with {self._process.wait()}")
        if "failed" in (content := json.loads(line)):
            raise RuntimeError(content["failed"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")


def _drive(
    campaign: Campaign,
    system: str,
    waiting: queue.SimpleQueue[Job],
    say: Callable[[Job, History | None], None],
) -> None:
    lane: _Lane | None = None
    try:
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                lane = lane or _Lane(system, campaign.folder)
                lane.do(job)
            except (RuntimeError, OSError) as error:
                campaign.failures[job] = str(error)
            say(job, campaign.history(job))
    finally:
        if lane is not None:
            lane.close()


def forget_logs(campaign: Campaign, jobs: Iterable[Job]) -> None:
    """Throw away the workers' logs of jobs in which nothing was found."""
    for job in jobs:
        shutil.rmtree(
            (campaign.folder / job.path).with_suffix("").with_suffix(".logs"), ignore_errors=True
        )


def clock(started: float) -> str:
    """Minutes and seconds since."""
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    return f"{minutes}:{seconds:02}"


def systems_of(jobs: Sequence[Job]) -> list[str]:
    """In the order in which they appear."""
    return list(dict.fromkeys(job.system for job in jobs))
