"""Outcomes in a SQLite file: for the workers of one host, with nothing else to run.

What a machine that loses power may lose (`stores.sqlite_file`) costs a repetition.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vault_ml.errors import OutcomesUnavailable
from vault_ml.outcomes.port import Outcome
from vault_ml.stores.sqlite_file import FileKind, open_file

_BUSY_S = 2.0  # for another worker's write, which takes milliseconds
_PRUNE_EVERY = 500  # outcomes; by so many the bound on their number may be passed

_KIND = FileKind(
    variable="OUTCOMES",
    application_id=0x766D6C31,  # "vml1"
    schema=1,
    make="""
CREATE TABLE IF NOT EXISTS outcomes (
    run_id TEXT PRIMARY KEY,
    finished_at REAL NOT NULL,
    steps TEXT NOT NULL,
    result_sha256 TEXT NOT NULL,
    is_forwarded INTEGER NOT NULL,
    is_removed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_by_age ON outcomes (finished_at)
""",
    loss="finished work may be repeated once",
)
_REMEMBER = """
INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET
    finished_at = excluded.finished_at, steps = excluded.steps,
    result_sha256 = excluded.result_sha256, is_forwarded = excluded.is_forwarded,
    is_removed = excluded.is_removed
"""
_FORGET_SURPLUS = """
DELETE FROM outcomes WHERE run_id IN
    (SELECT run_id FROM outcomes ORDER BY finished_at DESC LIMIT -1 OFFSET ?)
"""


class SqliteOutcomes:
    """See the port. One connection, guarded by a lock: an access takes a fraction of a millisecond.

    Several processes may have the same file open.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_age_s: float,
        max_count: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, made if need be.

        Args:
            path: the file; its folder must be there.
            max_age_s: older outcomes are forgotten.
            max_count: of more than these, the oldest are forgotten.
            clock: Unix seconds.

        Raises:
            ConfigError: it cannot be opened, is damaged, or belongs to another program.
        """
        self._path = path
        self._max_age_s = max_age_s
        self._max_count = max_count
        self._clock = clock
        self._lock = threading.Lock()
        self._until_prune = _PRUNE_EVERY
        self._database = open_file(path, _KIND, busy_s=_BUSY_S)

    def find(self, run_id: str) -> Outcome | None:
        """As the port says."""
        rows = self._run(
            "SELECT steps, result_sha256, is_forwarded, finished_at, is_removed FROM outcomes "
            "WHERE run_id = ? AND finished_at >= ?",
            (run_id, self._clock() - self._max_age_s),
        )
        if not rows:
            return None
        steps, result_sha256, is_forwarded, finished_at, is_removed = rows[0]
        with self._translated():  # in a damaged file anything may stand
            return Outcome(
                steps=frozenset(json.loads(steps)),
                result_sha256=result_sha256,
                is_forwarded=bool(is_forwarded),
                finished_at=float(finished_at),
                is_removed=bool(is_removed),
            )

    def remember(self, run_id: str, outcome: Outcome) -> None:
        """As the port says."""
        row = (
            run_id,
            outcome.finished_at,
            json.dumps(sorted(outcome.steps)),
            outcome.result_sha256,
            outcome.is_forwarded,
            outcome.is_removed,
        )
        self._run(_REMEMBER, row)
        self._until_prune -= 1
        if self._until_prune <= 0:
            self._until_prune = _PRUNE_EVERY
            self._prune()

    def mark_removed(self, run_id: str) -> None:
        """As the port says."""
        self._run("UPDATE outcomes SET is_removed = 1 WHERE run_id = ?", (run_id,))

    def ping(self) -> None:
        """As the port says."""
        self._run("SELECT 1 FROM outcomes LIMIT 1")

    def close(self) -> None:
        """As the port says."""
        with self._lock:
            self._database.close()

    def _run(self, statement: str, values: Sequence[object] = ()) -> list[tuple[str, ...]]:
        with self._lock, self._translated():
            return self._database.execute(statement, values).fetchall()

    def _prune(self) -> None:
        self._run("DELETE FROM outcomes WHERE finished_at < ?", (self._clock() - self._max_age_s,))
        self._run(_FORGET_SURPLUS, (self._max_count,))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise OutcomesUnavailable(
                f"The outcome store {self._path} cannot be used ({error}); is the disk full, or "
                "the file damaged? It may be deleted: finished work would be repeated once."
            ) from error
