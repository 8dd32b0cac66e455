"""Finished runs, as the worker asks for them: a store that is away costs a repetition, no more.

The result of a repetition carries the same run id, so going on without the store is safe, and
holding recordings up for it would not be (docs/adr/0010-outcome-store.md).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vault_ml.errors import OutcomesUnavailable
from vault_ml.outcomes.port import Outcome, OutcomeStore
from vault_ml.telemetry.log import Log

T = TypeVar("T")

# After a failure the store is left alone for so long: each try may take seconds of a recording.
_LEAVE_ALONE_S = 5.0


class FinishedRuns:
    """Which runs are finished. Methods may be called from any thread, and raise nothing."""

    def __init__(
        self,
        store: OutcomeStore | None,
        steps: frozenset[str],
        *,
        on_failure: Callable[[], None],
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Ask `store`.

        Args:
            store: None remembers nothing.
            steps: what has to be done for a run here, such as `publish ml-results`. A run for
                which less was done is not finished.
            on_failure: called each time the store was of no help.
            log: told when it goes away and comes back.
            clock: Unix seconds.
        """
        self._store = store
        self._steps = steps
        self._on_failure = on_failure
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._try_again_at = 0.0

    def outcome_of(self, run_id: str) -> Outcome | None:
        """The outcome of a run for which all that is in force here was done; else None."""
        outcome = self._ask(lambda store: store.find(run_id))
        return outcome if outcome is not None and outcome.steps >= self._steps else None

    def finish(self, run_id: str, result: bytes, *, is_forwarded: bool) -> None:
        """Remember that all is done and confirmed, so it may be settled."""
        outcome = Outcome(
            steps=self._steps,
            result_sha256=hashlib.sha256(result).hexdigest(),
            is_forwarded=is_forwarded,
            finished_at=self._clock(),
        )
        self._ask(lambda store: store.remember(run_id, outcome))

    def removed(self, run_id: str) -> None:
        """Remember that the recording is gone from the Vault."""
        self._ask(lambda store: store.mark_removed(run_id))

    def _ask(self, question: Callable[[OutcomeStore], T]) -> T | None:
        if self._store is None:
            return None
        if time.monotonic() < self._try_again_at:
            self._on_failure()
            return None
        try:
            answer = question(self._store)
        except OutcomesUnavailable as error:
            self._went_away(error)
            self._on_failure()
            return None
        except Exception as error:  # noqa: BLE001  a bug of a store must not cost a recording
            self._log.error("bug", stage="outcomes", exc_info=error)
            self._on_failure()
            return None
        self._came_back()
        return answer

    def _went_away(self, error: OutcomesUnavailable) -> None:
        now = time.monotonic()
        with self._lock:
            self._try_again_at = now + _LEAVE_ALONE_S
            is_news = self._away_since is None
            self._away_since = now if self._away_since is None else self._away_since
        if is_news:
            self._log.warning(
                "outcomes_away",
                reason=f"{error} Work goes on; what is delivered again meanwhile is done again, "
                "and its result carries the same run id.",
            )

    def _came_back(self) -> None:
        if self._away_since is None:
            return
        with self._lock:
            since, self._away_since = self._away_since, None
        if since is not None:
            self._log.info("outcomes_back", after_s=round(time.monotonic() - since, 1))
