"""A SQLite file of ours: opened, made by whoever comes first, and refused when it is another's.

In WAL mode a writer waits for a writer and a reader for nobody. A process that is killed loses
nothing that was written; a machine that loses power may lose the last of it. The file must lie on a
local disk: WAL needs memory that all its users share.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from vault_ml.errors import ConfigError

_OPEN_TRIES = 5


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a memory keeps in a file, and how it speaks of it.

    Attributes:
        variable: the setting that names the file.
        application_id: tells our files from those of other programs, and of other memories.
        schema: number of the tables' version.
        make: SQL that makes the tables where they are not there.
        loss: what is lost with the file, such as `finished work may be repeated once`.
    """

    variable: str
    application_id: int
    schema: int
    make: str
    loss: str


def open_file(path: Path, kind: FileKind, *, busy_s: float) -> sqlite3.Connection:
    """Open the file, made if need be; every statement is a transaction of its own.

    Any thread may use the connection, one at a time. Several processes may open the same file, and
    make it, at the same time.

    Args:
        path: the file; its folder must be there.
        kind: whose it must be.
        busy_s: how long to wait for another's write, seconds.

    Raises:
        ConfigError: it cannot be opened, is damaged, or belongs to another program.
    """
    database: sqlite3.Connection | None = None
    try:
        database = sqlite3.connect(
            path, timeout=busy_s, isolation_level=None, check_same_thread=False
        )
        _prepare(database, path, kind, busy_s)
    except (sqlite3.Error, ConfigError) as error:
        if database is not None:
            database.close()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(_cannot_be_opened(path, kind, error)) from error
    return database


def _prepare(database: sqlite3.Connection, path: Path, kind: FileKind, busy_s: float) -> None:
    for tries_left in reversed(range(_OPEN_TRIES)):
        try:
            # Whose it is, is asked before anything is changed.
            _check_owner(database, path, kind)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(
                f"BEGIN IMMEDIATE; {kind.make}; PRAGMA application_id = {kind.application_id}; "
                f"PRAGMA user_version = {kind.schema}; COMMIT;"
            )
        except sqlite3.OperationalError as error:
            # Another worker is doing the same; SQLite does not wait for all of it by itself.
            is_busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not is_busy or not tries_left:
                raise
            if database.in_transaction:
                database.execute("ROLLBACK")
            time.sleep(busy_s / _OPEN_TRIES)
        else:
            break
    if (said := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(said)


def _check_owner(database: sqlite3.Connection, path: Path, kind: FileKind) -> None:
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
    if tables and (owner, version) != (kind.application_id, kind.schema):
        raise ConfigError(
            f"{kind.variable}: {path} is a database of another program, or of another version "
            "of vault-ml; name another file."
        )


def _cannot_be_opened(path: Path, kind: FileKind, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return (
            f"{kind.variable}: {path} cannot be opened; its folder must be there, and we must "
            "be allowed to write to it."
        )
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:
        return f"{kind.variable}: {path} cannot be written; check who owns it and its folder."
    return (
        f"{kind.variable}: {path} is no SQLite file, or is damaged ({error}). Move it away or "
        f"delete it: what is lost is that {kind.loss}."
    )
