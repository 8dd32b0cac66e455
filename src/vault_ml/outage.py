"""While a dependency is away: receiving pauses, one sentence is logged, nobody gives up.

A recording thread that meets an `UnavailableError` stays where it is, keeps its event (the broker
thread keeps the lease) and tries its step again, ever more slowly, until it works or the worker
stops. No attempt is burned: the event did nothing wrong.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vault_ml.backoff import Backoff
from vault_ml.errors import ConfigError, RetryableError, UnavailableError
from vault_ml.telemetry.log import Log

T = TypeVar("T")

_REMIND_EVERY_S = 60.0
# Two threads may word the same outage differently in turn; that is not news.
_NEWS_AT_MOST_EVERY_S = 5.0
# As often must a step fail beside a healthy dependency before it counts as the event's trouble.
_OWN_FAILURES = 4


class Stopping(Exception):
    """The worker is stopping; give the event back."""


class Outages:
    """Which dependencies are away now, and the gate that holds receiving while any is."""

    def __init__(
        self,
        *,
        backoff: Backoff,
        stop: threading.Event,
        on_pause: Callable[[], None],
        on_resume: Callable[[], None],
        log: Log,
    ) -> None:
        """Call `on_pause` when the first thread starts waiting, `on_resume` after the last."""
        self._backoff = backoff
        self._stop = stop
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._log = log
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._sentences: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._last_logged: dict[str, float] = {}

    def reasons(self) -> dict[str, str]:
        """What is away now and why: dependency -> sentence. Empty when all is well."""
        with self._lock:
            return dict(self._sentences)

    def patiently(
        self, dependency: str, step: Callable[[], T], *, probe: Callable[[], None] | None = None
    ) -> T:
        """Run `step` until it does not say that a dependency is away.

        A configuration error counts as one here: credentials that were good at start and are
        rejected now, or a topic that was deleted, are mended outside, and the events must wait.

        Args:
            dependency: a name for logs and readiness, such as `vault`.
            step: may run many times; must do no harm when repeated.
            probe: returns when the dependency is well, raises as `step` when it is not. With it, a
                step that fails again and again beside a healthy dependency is recognised as this
                event's own trouble: one recording that always answers 500 must not stop the rest.

        Raises:
            RetryableError: the dependency is well, only this step keeps failing.
            Stopping: the worker stops while this waits.
        """
        own_failures = 0
        with self._gate(dependency) as wait:
            for attempt in itertools.count(1):
                try:
                    return step()
                except (UnavailableError, ConfigError) as error:
                    asked_s = error.retry_after_s if isinstance(error, UnavailableError) else None
                    pause_s = max(asked_s or 0.0, self._backoff.wait_s(attempt))
                    own_failures = own_failures + 1 if _is_well(probe) else 0
                    if own_failures >= _OWN_FAILURES:
                        raise RetryableError(f"{error} (only this event fails so)") from error
                    wait(str(error), pause_s)
        raise AssertionError("unreachable: the loop above has no end")

    @contextmanager
    def _gate(self, dependency: str) -> Iterator[Callable[[str, float], None]]:
        is_waiting = False

        def wait(sentence: str, seconds: float) -> None:
            nonlocal is_waiting
            self._enter(dependency, sentence, is_first_try=not is_waiting)
            is_waiting = True
            if self._stop.wait(seconds):
                raise Stopping

        try:
            yield wait
        finally:
            if is_waiting:
                self._leave(dependency)

    def _enter(self, dependency: str, sentence: str, *, is_first_try: bool) -> None:
        # The calls out of here only set a flag; inside the lock, because a pause and a resume that
        # overtake each other would leave the worker paused, or receiving into an outage.
        now = time.monotonic()
        with self._lock:
            if is_first_try:
                if not self._waiting:
                    self._on_pause()
                self._waiting[dependency] = self._waiting.get(dependency, 0) + 1
                self._since.setdefault(dependency, now)
            silent_s = now - self._last_logged.get(dependency, -math.inf)
            is_news = self._sentences.get(dependency) != sentence
            self._sentences[dependency] = sentence
            if silent_s < (_NEWS_AT_MOST_EVERY_S if is_news else _REMIND_EVERY_S):
                return
            self._last_logged[dependency] = now
            away_s = now - self._since[dependency]
        self._log.warning(
            "dependency_away", dependency=dependency, reason=sentence, for_s=round(away_s, 1)
        )

    def _leave(self, dependency: str) -> None:
        with self._lock:
            self._waiting[dependency] -= 1
            if self._waiting[dependency]:
                return
            del self._waiting[dependency]
            self._sentences.pop(dependency, None)
            away_s = time.monotonic() - self._since.pop(dependency)
            self._last_logged.pop(dependency, None)
            if not self._waiting and not self._stop.is_set():
                self._on_resume()
        self._log.info("dependency_back", dependency=dependency, after_s=round(away_s, 1))


def _is_well(probe: Callable[[], None] | None) -> bool:
    if probe is None:
        return False
    try:
        probe()
    except (UnavailableError, ConfigError):
        return False
    return True
