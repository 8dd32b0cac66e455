"""The contract on a SQLite file; what files and disks can do to it."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from contract.outcome_contract import NOW, Clock, Open, OutcomeContract, outcome
from vault_ml.errors import ConfigError, OutcomesUnavailable
from vault_ml.outcomes.port import OutcomeStore
from vault_ml.outcomes.sqlite import SqliteOutcomes


class TestSqliteOutcomes(OutcomeContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[Open]:
        opened: list[SqliteOutcomes] = []

        def open_one(**options: object) -> OutcomeStore:
            opened.append(SqliteOutcomes(tmp_path / "outcomes.db", **options))  # type: ignore[arg-type]
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()

    def test_old_outcomes_are_forgotten(self, store: OutcomeStore, clock: Clock) -> None:
        store.remember("run", outcome())
        clock.now += 3599
        assert store.find("run") is not None
        clock.now += 2
        assert store.find("run") is None
        for number in range(500):
            store.remember(f"run-{number}", outcome(clock.now))
        assert isinstance(store, SqliteOutcomes)
        (rows,) = store._run("SELECT count(*) FROM outcomes")
        assert rows[0] == 500  # type: ignore[comparison-overlap]  # a number, in truth


def opened(path: Path) -> SqliteOutcomes:
    return SqliteOutcomes(path, max_age_s=1e9, max_count=1000)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"this is not a database, but a text that is long enough" * 50, id="text"),
        pytest.param(b"SQLite format 3\x00" + b"\xff" * 5000, id="only-a-header"),
    ],
)
def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outcomes.db"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged") as raised:
        opened(path)
    assert "Move it away or delete it" in str(raised.value)
    assert path.read_bytes() == content


def test_a_damaged_database_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.db"
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA page_size = 1024")
    plain.close()
    store = opened(path)
    for number in range(500):
        store.remember(f"run-{number}", outcome())
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 1024):
        content[page * 1024 : page * 1024 + 100] = os.urandom(100)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        opened(path)


def test_damage_while_we_run_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.db"
    store = opened(path)
    store._run("PRAGMA cache_size = 1")  # so that the file is read again
    for number in range(500):
        store.remember(f"run-{number}", outcome())
    store._run("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))

    def find_all() -> None:
        for number in range(500):
            store.find(f"run-{number}")

    with pytest.raises(OutcomesUnavailable, match="damaged"):
        find_all()
    store.close()


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE outcomes (precious TEXT)")
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        opened(path)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its folder must be there"):
        opened(tmp_path / "missing" / "outcomes.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="OUTCOMES"):
        opened(tmp_path / "folder")


def test_a_lock_that_lasts_is_an_outage_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault_ml.outcomes.sqlite._BUSY_S", 0.2)
    path = tmp_path / "outcomes.db"
    store = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(OutcomesUnavailable, match="locked"):
        store.remember("run", outcome())
    assert time.monotonic() - started < 5
    assert store.find("run") is None, "reading waits for nobody"
    other.execute("ROLLBACK")
    other.close()
    store.remember("run", outcome())
    assert store.find("run") == outcome()
    store.close()


def test_a_closed_store_is_an_outage(tmp_path: Path) -> None:
    store = opened(tmp_path / "outcomes.db")
    store.close()
    with pytest.raises(OutcomesUnavailable):
        store.ping()


def test_a_full_disk_is_an_outage(tmp_path: Path) -> None:
    """In a process of its own: the limit on file sizes stands for the end of the disk."""
    program = f"""
import resource, signal
from contract.outcome_contract import outcome
from vault_ml.errors import OutcomesUnavailable
from vault_ml.outcomes.sqlite import SqliteOutcomes
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SqliteOutcomes(Path({str(tmp_path / "o.db")!r}), max_age_s=1e9, max_count=1_000_000)
store.remember("first", outcome())
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for number in range(10_000):
        store.remember(f"run-{{number}}", outcome())
except OutcomesUnavailable as error:
    print("OUTAGE", error)
assert store.find("first") == outcome()
"""
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.startswith("OUTAGE The outcome store")


CHILD = """
import sys, itertools
from pathlib import Path
from contract.outcome_contract import outcome
from vault_ml.outcomes.sqlite import SqliteOutcomes
name, path = sys.argv[1:]
store = SqliteOutcomes(Path(path), max_age_s=1e9, max_count=1_000_000)
for number in itertools.count():
    store.remember(f"{name}-{number}", outcome())
    print(number, flush=True)
"""


@contextmanager
def started(name: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that remembers one outcome after the other; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, name, str(path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def test_processes_share_a_file_and_kill_9_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.db"
    remembered: dict[str, int] = {}
    with ExitStack() as stack:
        # They make it together.
        children = {name: stack.enter_context(started(name, path)) for name in ("a", "b", "c")}
        for name, child in children.items():
            assert child.stdout is not None
            for _ in range(200):
                remembered[name] = int(child.stdout.readline())
        for name, child in children.items():
            assert child.stdout is not None
            child.kill()
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    remembered[name] = int(line)
    store = opened(path)
    for name, last in remembered.items():
        assert last >= 199
        assert all(store.find(f"{name}-{number}") == outcome() for number in range(last + 1))
    store.close()


def test_times_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    store = opened(tmp_path / "outcomes.db")
    store.remember("run", outcome(NOW + 0.123456))
    found = store.find("run")
    assert found is not None
    assert found.finished_at == NOW + 0.123456
    store.close()
