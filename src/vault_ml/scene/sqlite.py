"""What stands at each camera, in a SQLite file: for the workers of one host.

A camera is looked up and written in one transaction, so two recordings of it that are judged at the
same time report an object once. The file must lie on a local disk (`outcomes.sqlite` says why).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vault_ml.errors import ConfigError, SceneUnavailable

# "vms1": tells our files from those of other programs.
_APPLICATION_ID = 0x766D7331
_BUSY_S = 5.0  # for another worker's write, which takes milliseconds
_PRUNE_EVERY = 200  # recordings

_MAKE = """
CREATE TABLE IF NOT EXISTS scenes (
    camera TEXT PRIMARY KEY, seen_at REAL NOT NULL, standing TEXT NOT NULL
) WITHOUT ROWID
"""
_WRITE = """
INSERT INTO scenes VALUES (?, ?, ?) ON CONFLICT (camera) DO UPDATE SET
    seen_at = excluded.seen_at, standing = excluded.standing
"""
_FORGET_SURPLUS = """
DELETE FROM scenes WHERE camera IN
    (SELECT camera FROM scenes ORDER BY seen_at DESC LIMIT -1 OFFSET ?)
"""


class SqliteScenes:
    """One connection, guarded by a lock. Several processes may have the same file open."""

    def __init__(
        self,
        path: Path,
        *,
        max_age_s: float,
        max_cameras: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, made if need be.

        Args:
            path: the file; its folder must be there.
            max_age_s: cameras of which nothing came for longer are forgotten.
            max_cameras: of more than these, the oldest are forgotten.
            clock: Unix seconds.

        Raises:
            ConfigError: it cannot be opened, is damaged, or belongs to another program.
        """
        self._path = path
        self._max_age_s = max_age_s
        self._max_cameras = max_cameras
        self._clock = clock
        self._lock = threading.Lock()
        self._until_prune = _PRUNE_EVERY
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            owner = database.execute("PRAGMA application_id").fetchone()[0]
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and owner != _APPLICATION_ID:
                raise ConfigError(
                    f"STATIC_MEMORY: {path} is a database of another program; name another file."
                )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            database.execute(_MAKE)
        except (sqlite3.Error, ConfigError) as error:
            if database is not None:
                database.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"STATIC_MEMORY: {path} cannot be used ({error}). Is its folder there, may we "
                "write to it, is the file ours? It may be deleted: what stands is reported again."
            ) from error
        self._database = database

    def change(self, camera: str, change: Callable[[str | None], str]) -> None:
        """Replace what is remembered of a camera by what `change` makes of it, in one step.

        Raises:
            SceneUnavailable: the file cannot be read or written now.
        """
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                row = self._database.execute(
                    "SELECT standing FROM scenes WHERE camera = ? AND seen_at >= ?",
                    (camera, self._clock() - self._max_age_s),
                ).fetchone()
                text = change(None if row is None else str(row[0]))
                self._database.execute(_WRITE, (camera, self._clock(), text))
                self._database.execute("COMMIT")
                self._prune()
            except sqlite3.Error as error:
                raise SceneUnavailable(
                    f"What stood at the cameras, in {self._path}, cannot be used ({error}); is the "
                    "disk full, or the file damaged?"
                ) from error
            finally:
                with suppress(sqlite3.Error):
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._database.close()

    def _prune(self) -> None:
        self._until_prune -= 1
        if self._until_prune <= 0:
            self._until_prune = _PRUNE_EVERY
            oldest = self._clock() - self._max_age_s
            self._database.execute("DELETE FROM scenes WHERE seen_at < ?", (oldest,))
            self._database.execute(_FORGET_SURPLUS, (self._max_cameras,))
