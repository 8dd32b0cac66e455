"""SIGHUP: a worker begins again with what its files say by then, and never with what is wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from conftest import shared_file
from e2e.stand import Stand, WorkerUnderTest, recording_name, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EVERYWHERE = """\
cameras:
  highway4:
    masks:
      - name: everything
        points: [[0, 0], [1, 0], [1, 1], [0, 1]]
"""


def hang_up(worker: WorkerUnderTest) -> None:
    os.kill(worker.process.pid, signal.SIGHUP)


def starts(worker: WorkerUnderTest) -> int:
    return len(worker.lines("detector_started"))


def test_zones_and_keys_are_exchanged_and_no_event_is_lost(
    stand: Stand, small_model: str, tmp_path: Path
) -> None:
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")
    zones, key_file = tmp_path / "zones.yaml", tmp_path / "secret"
    zones.write_text("{}\n")
    secret = stand.vault.account.secret_key
    key_file.write_text(secret)
    worker = stand.worker(
        MODEL=small_model,
        CONFIDENCE_THRESHOLD="0.3",
        ZONES=str(zones),
        VAULT_SECRET_KEY="",
        VAULT_SECRET_KEY_FILE=str(key_file),
    )
    clip = shared_file("video/one_person_5s_768x432_10fps.mp4").read_bytes()

    def work(number: int) -> dict[str, Any]:
        key = stand.store(recording_name(number), clip)
        wait_for(lambda: key in results.keys(), 120, f"a result; {worker.output()}")  # noqa: SIM118
        (found,) = (each for each in results.documents() if each["payload"]["key"] == key)
        return found

    before = work(1)
    assert before["data"]["run"]["count"] >= 1

    # What is wrong is said, and changes nothing.
    zones.write_text("cameras: 5\n")
    hang_up(worker)
    wait_for(lambda: len(worker.lines("reload_refused")) == 1, 60, worker.output())
    zones.write_text(EVERYWHERE)
    key_file.write_text("another-secret-canary")
    stand.secrets.add("another-secret-canary")
    hang_up(worker)
    wait_for(lambda: len(worker.lines("reload_refused")) == 2, 60, worker.output())
    about_zones, about_keys = (str(each["reason"]) for each in worker.lines("reload_refused"))
    assert "zones.yaml, line 1" in about_zones
    assert "VAULT_SECRET_KEY" in about_keys
    assert work(2)["data"]["run"]["count"] == before["data"]["run"]["count"]
    assert starts(worker) == 1

    # What is right is taken over, in the same process, and what comes meanwhile is not lost.
    key_file.write_text(secret)
    waiting = {stand.store(recording_name(number), clip) for number in range(3, 9)}
    hang_up(worker)
    wait_for(lambda: starts(worker) == 2, 120, f"it begins again; {worker.output()}")
    wait_for(lambda: waiting <= results.keys(), 120, worker.output())
    assert work(9)["data"]["run"]["count"] == 0
    assert letters.messages == []
    assert worker.stop() == 0
    assert len(worker.lines("worker_reloading")) == 1
    assert "Traceback" not in worker.output()


def test_an_end_during_a_reload_is_an_end(stand: Stand, small_model: str) -> None:
    worker = stand.worker(MODEL=small_model)
    worker.wait_ready()
    hang_up(worker)
    wait_for(lambda: bool(worker.lines("worker_draining")), 60, worker.output())
    assert worker.stop(60) == 0, worker.output()
    assert not worker.lines("worker_reloading")
