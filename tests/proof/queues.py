"""What the machine needs of a broker: queues for one run, a look at them, and trouble on demand.

Read with the brokers' own clients and not with ours: the checker must not see through the eyes of
what it checks.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proof.history import Fault
from proof.plan import Kind


@dataclass(frozen=True)
class Raw:
    """A message as it stood on a queue.

    Attributes:
        sent_at: Unix seconds by the broker's record; None where it keeps none.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sent_at: float | None = None


class Queues(Protocol):
    """The three queues of one run."""

    @property
    def variables(self) -> Mapping[str, str]:
        """How a worker reaches them."""
        ...

    @property
    def results(self) -> Sequence[Raw]:
        """What was read of the target so far; grows by itself."""
        ...

    @property
    def letters(self) -> Sequence[Raw]:
        """What was read of the dead-letter queue so far; grows by itself."""
        ...

    @property
    def faults(self) -> Sequence[Fault]:
        """What the way to the broker did by itself during this run."""
        ...

    def send(self, bodies: Sequence[bytes]) -> None:
        """Put events on the queue; returns when the broker has them all."""
        ...

    def is_settled(self) -> bool:
        """True when the broker has nothing left to deliver, now or later."""
        ...

    def finish(self) -> list[bytes]:
        """Read target and dead letters to their end, then what is left of the events.

        The workers have stopped.
        """
        ...

    def close(self) -> None:
        """Let go of them."""
        ...


class System(Protocol):
    """One broker, running."""

    @property
    def name(self) -> str:
        """As in `checker.AT_LEAST_ONCE`: `kafka`, `kafka-mock`, `sqs` or `rabbitmq`."""
        ...

    @property
    def version(self) -> str:
        """For the report."""
        ...

    @property
    def troubles(self) -> Sequence[Kind]:
        """What can be done to it."""
        ...

    @property
    def has_transactions(self) -> bool:
        """Whether a result can become visible together with the settlement of its event."""
        ...

    def open(self, run: str, lease_s: float, *, is_calm: bool) -> Queues:
        """Queues of their own for one run; with `is_calm` nothing is done to the way there."""
        ...

    def begin(self, trouble: Kind) -> None:
        """Do it."""
        ...

    def end(self, trouble: Kind) -> None:
        """Mend it; returns when the broker answers again."""
        ...

    def close(self) -> None:
        """Stop the broker."""
        ...


class Server(Protocol):
    """A broker's process."""

    _process: subprocess.Popen[bytes] | None


def freeze(server: Server) -> None:
    """Stop it and its children where they are."""
    _signal(server, signal.SIGSTOP)


def thaw(server: Server) -> None:
    """Let it go on."""
    _signal(server, signal.SIGCONT)


def _signal(server: Server, number: signal.Signals) -> None:
    if server._process is None:
        return
    pid = server._process.pid
    if os.getpgid(pid) == pid:
        os.killpg(pid, number)
    else:
        os.kill(pid, number)
