"""The workers of one run: `vault-ml run` as subprocesses that die and are started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from proof.history import Fault

_KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "XDG_CACHE_HOME",
         "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")  # fmt: skip
_REACHED = "failpoint "
_HOPELESS = 5  # so many bad ends in one run are no accident


class WorkerProcess:
    """One start of one worker."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        log: Path,
        failpoint: str,
        processor: int,
    ) -> None:
        machine = {name: os.environ[name] for name in _KEPT if name in os.environ}
        armed = {"VAULT_ML_FAILPOINTS": failpoint} if failpoint else {}
        self.log = log
        self.failpoint = failpoint
        self.is_told_to_stop = False
        self.is_killed = False
        self.is_frozen = False
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env={**machine, **variables, **armed},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        # One processor for a worker and its children: with two, each has a thread that spins while
        # it waits for the next frame, and a dozen of those take the machine from all the others.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(self.process.pid, {processor})

    def kill(self) -> None:
        """Kill -9."""
        self.is_killed = True
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM: drain and leave."""
        self.is_told_to_stop = True
        self.process.terminate()

    def freeze(self) -> None:
        """Stop it where it is."""
        self.is_frozen = True
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.is_frozen = False
        self.process.send_signal(signal.SIGCONT)

    def is_usual(self) -> bool:
        """True while it runs and nothing is being done to it."""
        return (
            self.process.poll() is None
            and not self.is_told_to_stop
            and not self.is_killed
            and not self.is_frozen
        )

    def reached(self) -> list[str]:
        """The failpoints it says it has reached."""
        return [
            line.removeprefix(_REACHED).partition("@")[0]
            for line in self.log.read_text(errors="replace").splitlines()
            if line.startswith(_REACHED)
        ]


class Workers:
    """A number of workers that is kept up: who dies is started again."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        failpoints: Sequence[str],
    ) -> None:
        """Nothing runs before `keep`.

        Args:
            command: what Python is to run, such as `-m vault_ml run`.
            variables: the environment beside the machine's own.
            folder: for logs.
            failpoints: for each start in turn; later starts are armed with nothing.
        """
        self._command = command
        self._variables = variables
        self._folder = folder
        self._failpoints = list(failpoints)
        self._running: list[WorkerProcess] = []
        self.all: list[WorkerProcess] = []
        self.faults: list[Fault] = []
        self._exits: list[int] = []

    def keep(self, count: int) -> None:
        """Notice who has ended, and start as many as are missing."""
        for worker in list(self._running):
            if worker.process.poll() is not None:
                self._running.remove(worker)
                self._notice_end(worker)
        if sum(code != 0 for code in self._exits) >= _HOPELESS:
            last = self.all[-1].log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the workers end by themselves, again and again:\n{last}")
        while len(self._running) < count:
            self._start()

    def pids(self) -> list[int]:
        """Of those that run."""
        return [worker.process.pid for worker in self._running]

    def usual(self) -> list[WorkerProcess]:
        """Those that something may be done to, oldest first."""
        return [worker for worker in self._running if worker.is_usual()]

    def stop_all(self, timeout_s: float) -> list[int]:
        """Tell all to stop; the exit codes, also of those that ended badly before.

        Who does not end in time is killed: -9.
        """
        for worker in self._running:
            if worker.is_frozen:
                worker.thaw()
            if not worker.is_told_to_stop:  # a second signal would end it at once
                worker.stop()
        deadline = time.monotonic() + timeout_s
        for worker in self._running:
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._notice_end(worker)
        self._running.clear()
        return self._exits

    def kill_all(self) -> None:
        """End what still runs, without a word."""
        for worker in self._running:
            worker.process.kill()
            worker.process.wait()
        self._running.clear()

    def _start(self) -> None:
        failpoint = self._failpoints.pop(0) if self._failpoints else ""
        log = self._folder / f"worker-{len(self.all):02}.log"
        processors = sorted(os.sched_getaffinity(0))
        processor = processors[(os.getpid() + len(self.all)) % len(processors)]
        worker = WorkerProcess(self._command, self._variables, log, failpoint, processor)
        self._running.append(worker)
        self.all.append(worker)

    def _notice_end(self, worker: WorkerProcess) -> None:
        code = worker.process.returncode
        reached = worker.reached()
        if code == -signal.SIGKILL and reached and not worker.is_killed:
            self.faults.append(Fault(time.time(), f"failpoint {reached[-1]}"))
        elif worker.is_killed:
            pass  # noted when it was done
        elif code == -signal.SIGTERM and not worker.log.stat().st_size:
            pass  # told to stop before it could listen
        else:
            self._exits.append(code)
