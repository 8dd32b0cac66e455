"""The port to a store that remembers which runs are finished.

An aid, not the guarantee: results carry the run id, and whoever keeps them by it sees each
recording once. The store saves the work of a redelivery, and spares consumers the second message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done for one run, all of it confirmed.

    Attributes:
        steps: every step that was in force, such as `publish ml-results`; also those that this
            recording did not want.
        result_sha256: of the result message's body.
        is_forwarded: the Vault took the order to forward the media.
        finished_at: Unix seconds.
        is_removed: the recording is gone from the Vault, too.
    """

    steps: frozenset[str]
    result_sha256: str
    is_forwarded: bool
    finished_at: float
    is_removed: bool = False


class OutcomeStore(Protocol):
    """Outcomes by run id; bounded in age and number. Any thread, any number of workers."""

    def find(self, run_id: str) -> Outcome | None:
        """The outcome of a run; None when it is not finished, or was forgotten.

        Raises:
            OutcomesUnavailable: the store is away, full or damaged.
        """
        ...

    def remember(self, run_id: str, outcome: Outcome) -> None:
        """Keep an outcome; in place of an older one of the run. Kept when this returns.

        Raises:
            OutcomesUnavailable: as `find`.
        """
        ...

    def mark_removed(self, run_id: str) -> None:
        """Note that the run's recording is gone; nothing when the run was forgotten.

        Raises:
            OutcomesUnavailable: as `find`.
        """
        ...

    def ping(self) -> None:
        """Return when the store answers.

        Raises:
            OutcomesUnavailable: it does not.
            ConfigError: it answers that we may not, or is none.
        """
        ...

    def close(self) -> None:
        """Leave. Idempotent."""
        ...
