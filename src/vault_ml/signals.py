"""What signals ask of the worker: to leave, to leave at once, to begin again with other settings.

SIGTERM and SIGINT drain and end; the second one ends at once. SIGHUP looks at the settings anew:
keys, zones, models and whatever else is in files may have changed. Are they right, the worker
drains and begins from scratch in the same process; otherwise it goes on as it is and says what is
wrong. Nothing is exchanged while work is under way, so no result is made by half of each.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from vault_ml.errors import VaultMLError
from vault_ml.telemetry.log import Log

# Held back while one program makes way for the next, lest one be lost between the two.
_OURS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Signals:
    """Hears them, and sets the worker's stop event."""

    def __init__(self, stop: threading.Event, try_settings: Callable[[], None], log: Log) -> None:
        """Call `listen` to begin.

        Args:
            stop: set when the worker is to drain.
            try_settings: raises a `VaultMLError` where the worker could not begin with what is
                set now. Called on a thread of its own.
            log: is told.
        """
        self._stop = stop
        self._try_settings = try_settings
        self._log = log
        self._looks_again = threading.Lock()
        self._begins_again = False

    @property
    def begins_again(self) -> bool:
        """True when the drain is not the end."""
        return self._begins_again

    def listen(self) -> None:
        """Hear signals from now on. Only on the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        # Under a terminal it means that the terminal is gone, and so are those who look at us.
        if not sys.stdin or not sys.stdin.isatty():
            signal.signal(signal.SIGHUP, self._on_hangup)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)

    def _on_end(self, number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set() and not self._begins_again:
            os._exit(128 + number)  # the second one: at once, children follow by themselves
        self._begins_again = False
        self._stop.set()
        self._log.info("signal_received", signal=signal.Signals(number).name)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=self._look_again, name="reload", daemon=True).start()

    def _look_again(self) -> None:
        if self._stop.is_set() or not self._looks_again.acquire(blocking=False):
            return
        try:
            self._log.info("signal_received", signal="SIGHUP")
            self._try_settings()
        except VaultMLError as error:
            self._log.error("reload_refused", reason=f"The worker goes on as it is: {error}")
        else:
            if not self._stop.is_set():
                self._begins_again = True
                self._stop.set()
        finally:
            self._looks_again.release()


def begin_again() -> NoReturn:
    """Replace this program by a new start of itself: same process, arguments and environment."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  no shell is wanted
