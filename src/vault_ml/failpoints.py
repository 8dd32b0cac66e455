"""Named places in the delivery order where a test may kill the worker or hold it up.

The proof (`make proof`) arms them through `VAULT_ML_FAILPOINTS`, such as
`publish.before=kill@3,settle.after=sleep:2@10`: at the third recording that reaches the place
before publishing, the process ends as by `kill -9`; at the tenth that was acknowledged, its thread
sleeps two seconds. Without the variable a place costs one look at an empty table.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from vault_ml.errors import ConfigError

# Every place, in the order of the delivery contract; the numbers are those of `worker.py`.
NAMES = (
    "receive.after",  # 1
    "parse.after",  # 2
    "fetch.after",  # 3
    "decode.after",  # 4
    "detect.after",  # 5
    "judge.after",  # 6
    "publish.before",  # 7
    "publish.after",
    "forward_media.before",  # 8
    "forward_media.after",
    "forward_metadata.before",
    "forward_metadata.after",
    "forward_hub.before",
    "forward_hub.after",
    "forward_detections.before",
    "forward_detections.after",
    "settle.before",  # 10
    "settle.after",  # acknowledged, the broker has not confirmed it yet
    "settled",  # the broker has confirmed it
    "remove.before",  # 11
    "remove.after",
    # Beside the way of a recording that goes well:
    "retry.before",
    "retry.after",
    "dead_letter.before",
    "dead_letter.after",  # written, not acknowledged yet
)


@dataclass(frozen=True, slots=True)
class _Action:
    """What happens at the `at`-th reach of a place: the end, or a sleep."""

    at: int
    sleep_s: float | None


class Failpoints:
    """The places of one process and how often each was reached. Any thread."""

    def __init__(self) -> None:
        """Begin inert."""
        self._armed: Mapping[str, tuple[_Action, ...]] = {}
        self._reached: dict[str, int] = {}
        self._lock = threading.Lock()

    def arm(self, text: str) -> None:
        """Read `name=action@n,...`; an empty text disarms.

        Raises:
            ConfigError: there is no such place or action.
        """
        armed: dict[str, tuple[_Action, ...]] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, action = _read(entry)
            armed[name] = (*armed.get(name, ()), action)
        with self._lock:
            self._armed, self._reached = armed, {}

    def reach(self, name: str) -> None:
        """Pass the place `name`; does not return where the process is to end here."""
        if self._armed:
            self._pass(name)

    def _pass(self, name: str) -> None:
        actions = self._armed.get(name)
        if actions is None:
            return
        with self._lock:
            count = self._reached[name] = self._reached.get(name, 0) + 1
        for action in actions:
            if action.at != count:
                continue
            # Whoever armed it wants to know that it was reached; a log may never be flushed.
            os.write(2, f"failpoint {name}@{count}\n".encode())
            if action.sleep_s is None:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # a signal to ourselves may take a moment
            time.sleep(action.sleep_s or 0.0)


def _read(entry: str) -> tuple[str, _Action]:
    name, _, rest = entry.partition("=")
    kind, _, at = rest.partition("@")
    verb, _, seconds = kind.partition(":")
    try:
        if name not in NAMES or int(at) < 1:
            raise ValueError(name)
        if verb == "kill" and not seconds:
            return name, _Action(int(at), None)
        if verb == "sleep" and float(seconds) >= 0:
            return name, _Action(int(at), float(seconds))
        raise ValueError(verb)
    except ValueError as error:
        raise ConfigError(
            f"VAULT_ML_FAILPOINTS: {entry!r} is not name=kill@n or name=sleep:seconds@n with one "
            f"of these names: {', '.join(NAMES)}. It is for tests; unset it."
        ) from error


_process = Failpoints()
arm = _process.arm
reach = _process.reach
