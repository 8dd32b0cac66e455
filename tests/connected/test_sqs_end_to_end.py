"""The worker as an operator runs it with SQS: a queue, a Vault, a result on the target queue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import shared_file
from connected.sqs_system import REGION, SqsSystem
from e2e.stand import WorkerUnderTest, recording_name, wait_for
from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import dead_letter_name
from vault_ml.demo.vault_server import EmbeddedVault

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(240)]

ONE_PERSON = "video/one_person_5s_768x432_10fps.mp4"


@dataclass
class SqsStand:
    """Queues, a Vault, and the variables that reach them."""

    system: SqsSystem
    vault: EmbeddedVault
    folder: Path
    queue: str
    target: str
    workers: list[WorkerUnderTest] = field(default_factory=list)

    def worker(self, **more: str) -> WorkerUnderTest:
        shared_file("models/yolo-fastest/yolo-fastest-1.1.weights")
        variables = {
            "QUEUE_SYSTEM": "SQS",
            "QUEUE_NAME": self.queue,
            "QUEUE_TARGET": self.target,
            "SQS_ENDPOINT_URL": self.system.endpoint,
            "AWS_REGION": REGION,
            **{n: text for n, text in os.environ.items() if n.startswith("AWS_") and "ID" in n},
            **{n: text for n, text in os.environ.items() if n.startswith("AWS_SECRET")},
            "VAULT_API_URL": self.vault.url,
            "VAULT_ACCESS_KEY": self.vault.account.access_key,
            "VAULT_SECRET_KEY": self.vault.account.secret_key,
            "MODEL": str(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg")),
            "LOG_FORMAT": "json",
            **more,
        }
        name = f"worker-{len(self.workers)}.log"
        self.workers.append(WorkerUnderTest(variables, self.folder / name))
        return self.workers[-1]

    def store(self, number: int, clip: str = ONE_PERSON) -> bytes:
        """Put a recording into the Vault and its event on the queue, as the Vault sends it."""
        key = recording_name(number)
        self.vault.put(key, shared_file(clip).read_bytes())
        event = self.vault.event(key)
        self.send(event)
        return event

    def send(self, body: bytes) -> None:
        url = self.system.url(self.queue)
        fifo = {"MessageGroupId": "camera", "MessageDeduplicationId": str(hash(body))}
        self.system.client().send_message(
            QueueUrl=url,
            MessageBody=body.decode(),
            **(fifo if self.system.ending else {}),  # type: ignore[arg-type]  # two texts
        )

    def taken(self, queue: str) -> Mapping[str, Any]:
        """The next message, taken out of the queue."""
        wait_for(lambda: self.system.exists(queue), 60, f"{queue} is made")
        message = self.system.take(queue, 90)
        self.system.client().delete_message(
            QueueUrl=self.system.url(queue), ReceiptHandle=message["ReceiptHandle"]
        )
        return message


@pytest.fixture(params=["", ".fifo"], ids=["standard", "fifo"])
def stand(
    request: pytest.FixtureRequest, sqs_system: SqsSystem, tmp_path: Path
) -> Iterator[SqsStand]:
    sqs_system.ending = request.param
    vault = EmbeddedVault(tmp_path / "vault", "access!@#$%12345", "secret!@#$%67890").start()
    stand = SqsStand(sqs_system, vault, tmp_path, sqs_system.new_queue(), sqs_system.new_queue())
    try:
        yield stand
    finally:
        for worker in stand.workers:
            worker.kill()
        vault.stop()


def test_an_event_becomes_a_result_and_poison_a_dead_letter(stand: SqsStand) -> None:
    worker = stand.worker(CONFIDENCE_THRESHOLD="0.3")
    event = stand.store(1)
    message = stand.taken(stand.target)
    document = json.loads(message["Body"])
    assert {name: document[name] for name in json.loads(event)} == json.loads(event)
    assert document["operation"] == "classification"
    assert document["data"]["run"]["looked_at"] >= 1
    attributes = message["MessageAttributes"]
    assert attributes["vault-ml-run-id"]["StringValue"] == document["data"]["run"]["id"]
    wait_for(lambda: stand.system.hidden(stand.queue) == 0, 20, "the event is settled")

    stand.send(b"not an event")
    letter = stand.taken(dead_letter_name(stand.queue, "SQS"))
    assert letter["Body"] == "not an event"
    assert letter["MessageAttributes"][dead_letter.STAGE]["StringValue"] == "parse"
    assert worker.stop() == 0
    assert stand.system.hidden(stand.queue) == 0
    assert not worker.lines("lease_lost")


def test_a_recording_is_removed_only_when_its_event_is_settled(stand: SqsStand) -> None:
    worker = stand.worker(REMOVE_AFTER_PROCESSED="true")
    stand.store(2)
    stand.taken(stand.target)
    wait_for(lambda: not stand.vault.keys(), 60, f"it is removed; {worker.output()[-2000:]}")
    assert stand.system.hidden(stand.queue) == 0
    assert worker.stop() == 0


def test_an_outage_of_sqs_loses_nothing_and_ends_by_itself(stand: SqsStand) -> None:
    if stand.system.gate is None:
        pytest.skip("this service is not ours to hide")
    worker = stand.worker(SQS_VISIBILITY_S="5")
    stand.store(3)
    first = stand.taken(stand.target)
    stand.system.set_down()
    wait_for(lambda: not worker.is_ready(), 60, "the worker says that it is not ready")
    stand.system.set_up()
    stand.store(4)
    second = stand.taken(stand.target)
    assert {recording_name(3), recording_name(4)} == {
        json.loads(one["Body"])["payload"]["key"] for one in (first, second)
    }
    wait_for(worker.is_ready, 60, "the worker is ready again")
    assert worker.stop() == 0


def test_a_wrong_endpoint_is_told_by_check_in_one_sentence(sqs_system: SqsSystem) -> None:
    from typer.testing import CliRunner

    from vault_ml.cli import app

    variables = {
        "QUEUE_SYSTEM": "SQS",
        "QUEUE_NAME": "q",
        "SQS_ENDPOINT_URL": "http://127.0.0.1:9",
        "VAULT_API_URL": "http://127.0.0.1:9",
        "VAULT_ACCESS_KEY": "a",
        "VAULT_SECRET_KEY": "b",
        "MODEL": "/nonexistent.cfg",
    }
    result = CliRunner().invoke(app, ["check", "--json"], env=variables)
    broker = [json.loads(line) for line in result.stdout.splitlines() if '"broker"' in line]
    assert [row["ok"] for row in broker] == [False]
    assert "SQS at http://127.0.0.1:9 cannot be reached" in broker[0]["message"]
