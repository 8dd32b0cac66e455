"""Ten minutes without broker or Vault, in short: nothing lost, memory flat, work goes on.

Short by settings, and still three times the longest of the leases (6 s) and backoffs (8 s) here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from conftest import shared_file
from connected.offices import Door, Office, door_of, office_of
from contract.broker_contract import CLOSE_S, JOIN_S, settled
from contract.browser_contract import bodies
from e2e.stand import WorkerUnderTest, recording_name, wait_for
from vault_ml.brokers.port import Consumer, Message
from vault_ml.demo.vault_server import EmbeddedVault

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(400)]

OUTAGE_S = 25.0
RESUMES_WITHIN_S = 10.0
FLAT_BYTES = 6 * 1024 * 1024
SHORT_LEASES = {
    "SQS_VISIBILITY_S": "5",
    "RETRY_BACKOFF_S": "0.5",
    "RETRY_BACKOFF_MAX_S": "5",
}


@dataclass
class Site:
    """A worker between a broker and a Vault that may both go away."""

    office: Office
    door: Door
    vault: EmbeddedVault
    folder: Path
    target: str
    keys: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    _reader: Consumer | None = None
    _worker: WorkerUnderTest | None = None

    def worker(self) -> WorkerUnderTest:
        shared_file("models/yolo-fastest/yolo-fastest-1.1.weights")
        account = self.vault.account
        self._worker = WorkerUnderTest(
            {
                "QUEUE_SYSTEM": self.office.kind,
                "QUEUE_NAME": self.office.queue,
                "QUEUE_TARGET": self.target,
                "VAULT_API_URL": self.vault.url,
                "VAULT_ACCESS_KEY": account.access_key,
                "VAULT_SECRET_KEY": account.secret_key,
                "MODEL": str(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg")),
                "NUMBER_OF_PREDICTIONS": "1",
                "LOG_FORMAT": "json",
                **SHORT_LEASES,
                **self.office.variables,
            },
            self.folder / "worker.log",
        )
        return self._worker

    def store(self, count: int) -> None:
        clip = shared_file("video/one_person_5s_768x432_10fps.mp4").read_bytes()
        producer = self.office.system.producer()
        for _ in range(count):
            key = recording_name(len(self.keys))
            self.vault.put(key, clip)
            self.keys.add(key)
            producer.publish(self.office.queue, Message(self.vault.event(key)), timeout_s=JOIN_S)
        producer.close(CLOSE_S)

    def has_every_result(self) -> bool:
        if self._reader is None:
            self._reader = self.office.system.consumer(self.target)
        while self.seen != self.keys:
            if (delivery := self._reader.receive(1.0)) is None:
                return False
            self.seen.add(json.loads(delivery.message.body)["payload"]["key"])
            settled(delivery.ack())
        return True

    def stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close(CLOSE_S)
            self._reader = None

    def close(self) -> None:
        self.stop_reading()
        if self._worker is not None:
            self._worker.kill()
        self.door.close()
        self.vault.stop()


@pytest.fixture(params=["KAFKA", "SQS", "RABBITMQ"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    office = office_of(request.param, request)
    if office.kind == "KAFKA":
        office.system.extra = {"session.timeout.ms": "6000"}  # type: ignore[attr-defined]
        office.variables["KAFKA_OPTIONS"] = json.dumps(office.system.options().extra)  # type: ignore[attr-defined]
    door = door_of(office)
    vault = EmbeddedVault(tmp_path / "vault", "access!@#$%12345", "secret!@#$%67890").start()
    site = Site(office, door, vault, tmp_path, office.system.new_queue())
    yield site
    site.close()


def test_nothing_is_lost_and_memory_stays_flat_while_they_are_away(site: Site) -> None:
    worker = site.worker()
    worker.wait_ready()
    site.store(3)
    wait_for(site.has_every_result, 90, f"the first results; {worker.output()[-3000:]}")

    # The Vault: what is received meanwhile waits in hand.
    site.vault.stop()
    site.store(6)
    sit_out(worker)
    site.vault.start()
    resumes(site, worker)

    # The broker: what is in hand cannot be settled, and nothing is received.
    site.stop_reading()
    site.store(6)
    site.door.shut()
    sit_out(worker)
    site.door.open()
    back_at = time.time()
    site.store(1)  # all else may have been done before
    resumes(site, worker, back_at)

    assert worker.stop() == 0
    site.stop_reading()
    assert bodies(site.office.system, site.office.dead) == []
    assert "Traceback" not in worker.output()


def sit_out(worker: WorkerUnderTest) -> None:
    """Watch a worker from whom something is taken away."""
    until = time.monotonic() + OUTAGE_S
    wait_for(lambda: not worker.is_ready(), 60, "the worker says that it is not ready")
    said = len(worker.output())
    sizes = []
    while time.monotonic() < until:
        sizes.append(memory_bytes(worker))
        assert worker.process.poll() is None
        time.sleep(0.5)
    early, late = sizes[: len(sizes) // 3], sizes[-len(sizes) // 3 :]
    assert max(late) - max(early) < FLAT_BYTES, "it grows while it waits"
    assert len(worker.output()) - said < 20_000, "it cannot stop talking"
    assert not worker.is_ready()


def resumes(site: Site, worker: WorkerUnderTest, back_at: float | None = None) -> None:
    """Work goes on by itself, soon, and everything that was sent has a result."""
    back_at = back_at or time.time()
    wait_for(site.has_every_result, 120, f"all results; {worker.output()[-3000:]}")
    wait_for(worker.is_ready, 60, "the worker is ready again")
    times = [
        datetime.fromisoformat(line["timestamp"]).timestamp()
        for line in worker.lines("recording_processed")
    ]
    first = min(at for at in times if at > back_at)
    assert first - back_at < RESUMES_WITHIN_S, worker.output()[-3000:]


def memory_bytes(worker: WorkerUnderTest) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (line,) = (row for row in status.splitlines() if row.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
