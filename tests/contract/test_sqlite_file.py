"""Opening a SQLite file of ours, whichever memory is kept in it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vault_ml.errors import ConfigError
from vault_ml.outcomes.sqlite import SqliteOutcomes
from vault_ml.scene.sqlite import SqliteScenes

Opened = Callable[[Path], "SqliteOutcomes | SqliteScenes"]


def outcomes(path: Path) -> SqliteOutcomes:
    return SqliteOutcomes(path, max_age_s=1e9, max_count=1000)


def scenes(path: Path) -> SqliteScenes:
    return SqliteScenes(path, max_age_s=1e9)


both = pytest.mark.parametrize(
    ("opened", "variable"), [(outcomes, "OUTCOMES"), (scenes, "STATIC_MEMORY")]
)


@both
def test_a_file_that_another_makes_while_we_look_is_ours_too(
    opened: Opened, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{variable}.db"
    connect = sqlite3.connect
    others: list[threading.Thread] = []

    def another_makes_it(statement: str) -> None:
        if statement == "PRAGMA user_version" and not others:  # the second thing that is asked
            others.append(threading.Thread(target=lambda: opened(path).close()))
            others[0].start()
            others[0].join(0.5)  # it has to wait for us, or has done it

    def watched(*arguments: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        monkeypatch.setattr(sqlite3, "connect", connect)
        connection.set_trace_callback(another_makes_it)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    opened(path).close()
    others[0].join(30)
    assert not others[0].is_alive()


@both
def test_many_that_start_together_share_the_file(
    opened: Opened, variable: str, tmp_path: Path
) -> None:
    path, trouble = tmp_path / f"{variable}.db", list[BaseException]()
    together = threading.Barrier(8)

    def start() -> None:
        try:
            together.wait(30)
            opened(path).close()
        except BaseException as error:  # noqa: BLE001  told by the test's own thread
            trouble.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []


@both
def test_a_lock_while_the_file_is_made_is_waited_for(
    opened: Opened, variable: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{variable}.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE soon_gone (x)")
    ends = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    ends.start()
    opened(path).close()
    ends.join()
    other.close()


@both
def test_the_file_of_the_other_memory_is_left_alone(
    opened: Opened, variable: str, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.db"
    (scenes if opened is outcomes else outcomes)(theirs).close()
    before = theirs.read_bytes()
    with pytest.raises(ConfigError, match=f"^{variable}: .* another program"):
        opened(theirs)
    assert theirs.read_bytes() == before


@both
def test_what_is_lost_with_a_damaged_file_is_said(
    opened: Opened, variable: str, tmp_path: Path
) -> None:
    (tmp_path / "text.db").write_bytes(b"this is no database, but long enough to be one" * 50)
    with pytest.raises(ConfigError, match=f"^{variable}: .* damaged .*what is lost is that"):
        opened(tmp_path / "text.db")
    with pytest.raises(ConfigError, match=f"^{variable}: .* its folder must be there"):
        opened(tmp_path / "missing" / "file.db")
