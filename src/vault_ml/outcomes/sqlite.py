"""Outcomes in a SQLite file: for the workers of one host, with nothing else to run.

In WAL mode a writer waits for a writer and a reader for nobody. A process that is killed loses
nothing that was remembered; a machine that loses power may lose the last ones, which costs a
repetition. The file must lie on a local disk: WAL needs memory that all its users share.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vault_ml.errors import ConfigError, OutcomesUnavailable
from vault_ml.outcomes.port import Outcome

# "vml1": tells our files from those of other programs.
_APPLICATION_ID = 0x766D6C31
_SCHEMA = 1
_BUSY_S = 2.0  # for another worker's write, which takes milliseconds
_PRUNE_EVERY = 500  # outcomes; by so many the bound on their number may be passed
_OPEN_TRIES = 5

_MAKE = """
CREATE TABLE IF NOT EXISTS outcomes (
    run_id TEXT PRIMARY KEY,
    finished_at REAL NOT NULL,
    steps TEXT NOT NULL,
    result_sha256 TEXT NOT NULL,
    is_forwarded INTEGER NOT NULL,
    is_removed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_by_age ON outcomes (finished_at);
"""
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
        self._database = self._open()

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

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(
                self._path,
                timeout=_BUSY_S,
                isolation_level=None,  # every statement is a transaction of its own
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise ConfigError(self._cannot_be_opened(error)) from error
        try:
            self._prepare(database)
        except sqlite3.Error as error:
            database.close()
            raise ConfigError(self._cannot_be_opened(error)) from error
        except ConfigError:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        for tries_left in reversed(range(_OPEN_TRIES)):
            try:
                # Who owns it is asked before anything is changed.
                self._check_owner(database)
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = NORMAL")
                database.executescript(
                    f"BEGIN IMMEDIATE; {_MAKE} PRAGMA application_id = {_APPLICATION_ID}; "
                    f"PRAGMA user_version = {_SCHEMA}; COMMIT;"
                )
            except sqlite3.OperationalError as error:
                # Another worker is doing the same; SQLite does not wait for all of it by itself.
                is_busy = error.sqlite_errorcode & 0xFF in (
                    sqlite3.SQLITE_BUSY,
                    sqlite3.SQLITE_LOCKED,
                )
                if not is_busy or not tries_left:
                    raise
                if database.in_transaction:
                    database.execute("ROLLBACK")
                time.sleep(_BUSY_S / _OPEN_TRIES)
            else:
                break
        if (said := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(said)

    def _check_owner(self, database: sqlite3.Connection) -> None:
        # One transaction: another worker may be making the file between two of the questions.
        database.execute("BEGIN")
        owner, version, tables = (
            database.execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        database.execute("COMMIT")
        if tables and (owner, version) != (_APPLICATION_ID, _SCHEMA):
            raise ConfigError(
                f"OUTCOMES: {self._path} is a database of another program, or of another version "
                "of vault-ml; name another file."
            )

    def _cannot_be_opened(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN:
            return (
                f"OUTCOMES: {self._path} cannot be opened; its folder must be there, and we must "
                "be allowed to write to it."
            )
        if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:
            return f"OUTCOMES: {self._path} cannot be written; check who owns it and its folder."
        return (
            f"OUTCOMES: {self._path} is no SQLite file, or is damaged ({error}). Move it away or "
            "delete it: what is lost is that finished work may be repeated once."
        )
