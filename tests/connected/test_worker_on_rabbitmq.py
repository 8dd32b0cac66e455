"""The worker as the Kerberos Hub deploys it: hub-ml.yaml's variables, RabbitMQ, a Vault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import pytest

from conftest import shared_file
from connected.rabbitmq_system import RabbitSystem
from e2e.stand import WorkerUnderTest, recording_name, wait_for
from vault_ml.brokers import dead_letter
from vault_ml.demo.vault_server import EmbeddedVault

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(500)]

ONE_PERSON = "video/one_person_5s_768x432_10fps.mp4"


@dataclass
class RabbitStand:
    """Queues, a Vault, and the variables that reach them."""

    system: RabbitSystem
    vault: EmbeddedVault
    folder: Path
    queue: str
    target: str
    workers: list[WorkerUnderTest] = field(default_factory=list)

    def worker(self, **more: str) -> WorkerUnderTest:
        shared_file("models/yolo-fastest/yolo-fastest-1.1.weights")
        address = self.system.address
        # hub-ml.yaml; it sets the variables of both brokers.
        variables = {
            "QUEUE_SYSTEM": "RABBITMQ",
            "QUEUE_NAME": self.queue,
            "QUEUE_TARGET": self.target,
            "KAFKA_BROKER": "kafka1.yourdomain.com:9094",
            "KAFKA_GROUP": "mygroup",
            "KAFKA_USERNAME": "yourusername",
            "KAFKA_PASSWORD": "yourpassword",
            "KAFKA_MECHANISM": "PLAIN",
            "KAFKA_SECURITY": "SASL_PLAINTEXT",
            "RABBITMQ_HOST": address.host,
            "RABBITMQ_EXCHANGE": "",
            "RABBITMQ_USERNAME": address.username,
            "RABBITMQ_PASSWORD": address.password,
            "VAULT_API_URL": self.vault.url,
            "VAULT_ACCESS_KEY": self.vault.account.access_key,
            "VAULT_SECRET_KEY": self.vault.account.secret_key,
            "FORWARDING_MEDIA": "false",
            "FORWARDING_METADATA": "false",
            "FORWARDING_OBJECT_THRESHOLD": "10",
            "REMOVE_AFTER_PROCESSED": "false",
            "NUMBER_OF_PREDICTIONS": "10",
            "MOVE_DISTANCE": "100",
            "MODEL": str(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg")),
            "LOG_FORMAT": "json",
            **({"RABBITMQ_VHOST": address.vhost} if address.vhost else {}),
            **more,
        }
        name = f"worker-{len(self.workers)}.log"
        self.workers.append(WorkerUnderTest(variables, self.folder / name))
        return self.workers[-1]

    def store(self, number: int) -> bytes:
        """Put a recording into the Vault and its event on the queue, as the Vault sends it."""
        key = recording_name(number)
        self.vault.put(key, shared_file(ONE_PERSON).read_bytes())
        event = self.vault.event(key)
        self.send(event)
        return event

    def send(self, body: bytes) -> None:
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        with self.system.connect() as connection:
            connection.channel().basic_publish("", self.queue, body, properties)

    def take(self, queue: str) -> list[tuple[Any, bytes]]:
        """What is in the queue now, taken out of it: (properties, body)."""
        taken = []
        with self.system.connect() as connection:
            channel = connection.channel()
            while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
                taken.append((got[1], got[2]))
        return taken


@pytest.fixture
def stand(rabbit_system: RabbitSystem, tmp_path: Path) -> Iterator[RabbitStand]:
    vault = EmbeddedVault(tmp_path / "vault", "access!@#$%12345", "secret!@#$%67890").start()
    suffix = rabbit_system.new_name()
    queue, target = f"kcloud-classify-queue-{suffix}.fifo", f"kcloud-analysis-queue-{suffix}"
    for name in (queue, target):  # as the Hub makes them
        rabbit_system.declare(name, {"x-queue-type": "quorum"})
    stand = RabbitStand(rabbit_system, vault, tmp_path, queue, target)
    try:
        yield stand
    finally:
        for worker in stand.workers:
            worker.kill()
        vault.stop()


def test_the_variables_of_hub_ml_give_a_result_and_poison_a_dead_letter(
    stand: RabbitStand,
) -> None:
    worker = stand.worker(CONFIDENCE_THRESHOLD="0.3")
    event = stand.store(1)
    wait_for(lambda: stand.system.waiting_in(stand.target) == 1, 90, f"result; {worker.output()}")
    ((properties, body),) = stand.take(stand.target)
    document = json.loads(body)
    assert {name: document[name] for name in json.loads(event)} == json.loads(event)
    assert document["operation"] == "classification"
    assert document["data"]["run"]["looked_at"] >= 1
    assert properties.headers["vault-ml-run-id"] == document["data"]["run"]["id"]
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)

    stand.send(b"not an event")
    dead = f"{stand.queue}.dlq"
    wait_for(lambda: bool(worker.lines("delivery_dead_lettered")), 60, worker.output())
    ((properties, body),) = stand.take(dead)
    assert body == b"not an event"
    assert properties.headers[dead_letter.STAGE] == "parse"
    assert worker.stop() == 0
    assert stand.take(stand.queue) == []
    assert "Traceback" not in worker.output()


def test_kill_9_loses_nothing_and_removes_nothing_too_early(stand: RabbitStand) -> None:
    worker = stand.worker(REMOVE_AFTER_PROCESSED="true", WORKER_CONCURRENCY="3")
    worker.wait_ready()
    events = [json.loads(stand.store(10 + n)) for n in range(12)]
    keys = {event["payload"]["key"] for event in events}
    seen: set[str] = set()
    while len(seen) < len(keys):
        wait_for(lambda: stand.system.waiting_in(stand.target) >= 2, 90, worker.output())
        worker.kill()
        kept = {key for key in keys if stand.vault.has(key)}
        for _, body in stand.take(stand.target):
            seen.add(json.loads(body)["payload"]["key"])
        assert kept | seen == keys, "a recording was removed before its result was there"
        if len(seen) < len(keys) - 2:
            worker = stand.worker(REMOVE_AFTER_PROCESSED="true", WORKER_CONCURRENCY="3")
        else:
            break
    last = stand.worker(REMOVE_AFTER_PROCESSED="true")
    wait_for(lambda: not stand.vault.keys(), 90, f"all are removed; {last.output()}")
    for _, body in stand.take(stand.target):
        seen.add(json.loads(body)["payload"]["key"])
    assert seen == keys
    assert last.stop() == 0
    assert stand.take(stand.queue) == []


def test_a_restart_of_rabbitmq_loses_nothing_and_ends_by_itself(
    own_rabbit_system: RabbitSystem, stand: RabbitStand
) -> None:
    worker = stand.worker()
    stand.store(30)
    wait_for(lambda: stand.system.waiting_in(stand.target) == 1, 90, worker.output())
    stand.system.set_down()
    wait_for(lambda: not worker.is_ready(), 60, "the worker says that it is not ready")
    stand.system.set_up()
    stand.store(31)
    wait_for(lambda: stand.system.waiting_in(stand.target) == 2, 60, worker.output())
    keys = {json.loads(body)["payload"]["key"] for _, body in stand.take(stand.target)}
    assert keys == {recording_name(30), recording_name(31)}
    wait_for(worker.is_ready, 60, "the worker is ready again")
    assert worker.stop() == 0
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize(
    ("more", "variable"),
    [
        ({"RABBITMQ_ACK_TIMEOUT_S": "300"}, "RABBITMQ_ACK_TIMEOUT_S"),
        ({"RABBITMQ_PASSWORD": "wrong-canary"}, "RABBITMQ_PASSWORD"),
        ({"RABBITMQ_VHOST": "no-such"}, "RABBITMQ_VHOST"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_exit_2(
    stand: RabbitStand, more: dict[str, str], variable: str
) -> None:
    worker = stand.worker(**more)
    assert worker.process.wait(60) == 2
    *_, last = worker.output().splitlines()
    assert last.startswith("vault-ml: ")
    assert variable in last
    assert "Traceback" not in worker.output()
    assert worker.output().count(variable) <= 2  # once in the log, once as the last words
    assert "wrong-canary" not in worker.output()
