"""What stands at each camera, in a SQLite file: for the workers of one host.

A camera is looked up and written in one transaction, so two recordings of it that are judged at the
same time report an object once. The file must lie on a local disk (`stores.sqlite_file` says why).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vault_ml.errors import SceneUnavailable
from vault_ml.stores.sqlite_file import FileKind, open_file

_BUSY_S = 5.0  # for another worker's write, which takes milliseconds
_PRUNE_EVERY = 200  # recordings

_KIND = FileKind(
    variable="STATIC_MEMORY",
    application_id=0x766D7331,  # "vms1"
    schema=0,
    make="""
CREATE TABLE IF NOT EXISTS scenes (
    camera TEXT PRIMARY KEY, seen_at REAL NOT NULL, standing TEXT NOT NULL
) WITHOUT ROWID
""",
    loss="what stands is reported again",
)
_WRITE = """
INSERT INTO scenes VALUES (?, ?, ?) ON CONFLICT (camera) DO UPDATE SET
    seen_at = excluded.seen_at, standing = excluded.standing
"""
_FORGET_SURPLUS = """
DELETE FROM scenes WHERE camera IN
    (SELECT camera FROM scenes ORDER BY seen_at DESC LIMIT -1 OFFSET ?)
"""


class SqliteScenes:
    """See the port. One connection, guarded by a lock; several processes may open the same file."""

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
        self._database = open_file(path, _KIND, busy_s=_BUSY_S)

    def change(self, camera: str, change: Callable[[str | None], str]) -> None:
        """As the port says."""
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
                raise self._unavailable(error) from error
            finally:
                with suppress(sqlite3.Error):
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")

    def ping(self) -> None:
        """As the port says."""
        with self._lock:
            try:
                self._database.execute("SELECT 1 FROM scenes LIMIT 1")
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def close(self) -> None:
        """As the port says."""
        with self._lock:
            self._database.close()

    def _prune(self) -> None:
        self._until_prune -= 1
        if self._until_prune <= 0:
            self._until_prune = _PRUNE_EVERY
            oldest = self._clock() - self._max_age_s
            self._database.execute("DELETE FROM scenes WHERE seen_at < ?", (oldest,))
            self._database.execute(_FORGET_SURPLUS, (self._max_cameras,))

    def _unavailable(self, error: sqlite3.Error) -> SceneUnavailable:
        return SceneUnavailable(
            f"What stood at the cameras, in {self._path}, cannot be used ({error}); is the "
            "disk full, or the file damaged?"
        )
