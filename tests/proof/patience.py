"""How long nothing may happen: by a clock that stands still while processes cannot run.

A machine with twenty other jobs makes everything slow, and slow is not stuck. The kernel counts for
every thread how long it stood in line for a processor (`/proc/PID/task/TID/schedstat`); while the
workers stand in line, no patience is used up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# To ask the kernel about a hundred threads costs time that the workers should have.
_LOOK_EVERY_S = 0.4


class Patience:
    """What is left of it, in seconds in which the watched processes could run.

    Where the kernel counts nothing, it is a plain clock.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin full.

        Args:
            pids: the processes to be watched now; their children count as well.
            clock: seconds, for tests.
        """
        self._pids = pids
        self._clock = clock
        self._looked_at = clock()
        self._waited: dict[str, int] = {}
        self.used_s = 0.0

    def renew(self) -> None:
        """Something happened: it is full again."""
        self.look()
        self.used_s = 0.0

    def look(self) -> float:
        """How much is used up; to be called at least every second."""
        now = self._clock()
        if now - self._looked_at < _LOOK_EVERY_S:
            return self.used_s
        passed_s = now - self._looked_at
        self._looked_at = now
        before, self._waited = self._waited, waiting_ns(self._pids())
        longest_ns = max((ns - before.get(who, 0) for who, ns in self._waited.items()), default=0)
        self.used_s += max(0.0, passed_s - longest_ns / 1e9)
        return self.used_s


def waiting_ns(pids: Iterable[int]) -> dict[str, int]:
    """For each thread of these processes and of their descendants: its time in line so far."""
    waited: dict[str, int] = {}
    for pid in with_descendants(pids):
        for thread in _entries(Path(f"/proc/{pid}/task")):
            with contextlib.suppress(OSError, ValueError, IndexError):
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return waited


def with_descendants(pids: Iterable[int]) -> list[int]:
    """These processes, and whom they started."""
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for thread in _entries(Path(f"/proc/{pid}/task")):
            with contextlib.suppress(OSError):
                waiting += map(int, (thread / "children").read_text().split())
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
