"""kill -9 around the outcome: the redelivered event publishes no second result.

The places are failpoints of the worker; the processes, the broker and the file are real.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from conftest import shared_file
from e2e.stand import Stand, recording_name, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ONE_PERSON = "video/one_person_5s_768x432_10fps.mp4"


def remembered(path: Path) -> int:
    database = sqlite3.connect(path)
    try:
        return int(database.execute("SELECT count(*) FROM outcomes").fetchone()[0])
    finally:
        database.close()


def metric(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@pytest.mark.parametrize(
    ("place", "results", "duplicates"),
    [
        pytest.param("settle.before", 1, 1, id="remembered-and-not-settled"),
        pytest.param("publish.after", 2, 0, id="published-and-not-remembered"),
    ],
)
def test_what_is_killed_is_repeated_only_when_it_was_not_finished(
    stand: Stand, small_model: str, tmp_path: Path, place: str, results: int, duplicates: int
) -> None:
    path = tmp_path / "outcomes.db"
    variables = {
        "MODEL": small_model,
        "OUTCOMES": f"sqlite:{path}",
        "LOG_FORMAT": "json",
        "WORKER_CONCURRENCY": "1",
        "REMOVE_AFTER_PROCESSED": "true",
        "KAFKA_OPTIONS": "session.timeout.ms=6000",
    }
    target = stand.reader(stand.target)
    key = stand.store(recording_name(1), shared_file(ONE_PERSON).read_bytes())
    first = stand.worker("first", VAULT_ML_FAILPOINTS=f"{place}=kill@1", **variables)
    wait_for(lambda: first.process.poll() is not None, 90, f"the kill; {first.output()}")
    assert f"failpoint {place}@1" in first.output()
    assert remembered(path) == duplicates
    assert stand.vault.has(key), "nothing is removed before the event is settled"

    second = stand.worker("second", **variables)
    wait_for(lambda: not stand.vault.has(key), 90, f"the removal; {second.output()}")
    wait_for(lambda: len(target.messages) == results, 20, "the results")
    wait_for(lambda: metric(second.metrics(), "vault_ml_removed_total") == 1, 20, second.output())
    assert metric(second.metrics(), "vault_ml_duplicates_total") == duplicates
    assert len(second.lines("duplicate_skipped")) == duplicates
    assert second.stop() == 0

    # Once more, by hand: all is done, and the recording is gone.
    third = stand.worker("third", **variables)
    stand.send(stand.events[key])
    wait_for(lambda: bool(third.lines("duplicate_skipped")), 90, third.output())
    assert third.stop() == 0
    assert len(target.messages) == results
    assert len({message.body for message in target.messages}) == 1, "repeats are identical"
    assert third.lines("delivery_retried") == third.lines("removal_failed") == []


def test_a_damaged_file_is_one_sentence_and_exit_2(
    stand: Stand, small_model: str, tmp_path: Path
) -> None:
    path = tmp_path / "outcomes.db"
    path.write_bytes(b"not a database" * 1000)
    worker = stand.worker(MODEL=small_model, OUTCOMES=f"sqlite:{path}")
    assert worker.process.wait(60) == 2
    last = worker.output().splitlines()[-1]
    assert last.startswith(f"vault-ml: OUTCOMES: {path} is no SQLite file, or is damaged")
    assert "Traceback" not in worker.output()


def test_a_redis_that_is_away_holds_nothing_up(stand: Stand, small_model: str) -> None:
    pytest.importorskip("redis")
    results = stand.reader(stand.target)
    key = stand.store(recording_name(2), shared_file(ONE_PERSON).read_bytes())
    worker = stand.worker(
        MODEL=small_model, OUTCOMES="redis://127.0.0.1:9/0", OUTCOMES_PASSWORD="canary-p",
        LOG_FORMAT="json",
    )  # fmt: skip
    wait_for(lambda: results.keys() == {key}, 90, f"a result; {worker.output()}")
    assert worker.is_ready()
    assert metric(worker.metrics(), "vault_ml_outcome_failures_total") >= 1
    assert worker.lines("outcomes_away")
    assert "canary" not in worker.output()
    assert worker.stop() == 0
