"""`vault-ml dlq` as a person types it: the same words do the same on every broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem
from connected.rabbitmq_system import RabbitSystem
from connected.sqs_system import REGION, SqsSystem
from contract.broker_contract import CLOSE_S, JOIN_S, receive, settled
from contract.browser_contract import BrowserSystem, bodies
from e2e.stand import bare_environment
from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import DeadLetters, dead_letter_name
from vault_ml.brokers.port import Message
from vault_ml.errors import DecoderFailed, MalformedEvent

pytestmark = [pytest.mark.connected, pytest.mark.timeout(240)]


@dataclass
class Office:
    """A queue, its dead letters, and the command."""

    system: BrowserSystem
    queue: str
    kind: str
    variables: dict[str, str]
    keeps_order: bool

    @property
    def dead(self) -> str:
        return dead_letter_name(self.queue, self.kind)

    def dlq(self, *words: str) -> tuple[list[dict[str, Any]], str]:
        done = subprocess.run(
            [sys.executable, "-m", "vault_ml", "dlq", *words, "--json"],
            env={**bare_environment(), "QUEUE_SYSTEM": self.kind, "QUEUE_NAME": self.queue,
                 **self.variables},
            text=True, capture_output=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(params=["KAFKA", "SQS", "SQS FIFO", "RABBITMQ"])
def office(request: pytest.FixtureRequest) -> Office:
    make: dict[str, Callable[[], Office]] = {
        "KAFKA": lambda: kafka_office(request.getfixturevalue("kafka_system")),
        "SQS": lambda: sqs_office(request.getfixturevalue("sqs_system")),
        "SQS FIFO": lambda: sqs_office(request.getfixturevalue("sqs_fifo_system")),
        "RABBITMQ": lambda: rabbit_office(request.getfixturevalue("rabbit_system")),
    }
    return make[request.param]()


def kafka_office(system: ApacheKafkaSystem) -> Office:
    options = system.options()
    variables = {
        "KAFKA_BROKER": options.brokers,
        "KAFKA_SECURITY": options.security,
        "KAFKA_MECHANISM": options.mechanism,
        "KAFKA_USERNAME": options.username,
        "KAFKA_PASSWORD": options.password,
        "KAFKA_OPTIONS": json.dumps(dict(options.extra)) if options.extra else "",
    }
    return Office(system, system.new_queue(), "KAFKA", variables, keeps_order=True)


def sqs_office(system: SqsSystem) -> Office:
    credentials = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}
    variables = {**credentials, "SQS_ENDPOINT_URL": system.endpoint, "AWS_REGION": REGION}
    return Office(system, system.new_queue(), "SQS", variables, keeps_order=False)


def rabbit_office(system: RabbitSystem) -> Office:
    options = system.options()
    variables = {
        "RABBITMQ_HOST": options.host,
        "RABBITMQ_USERNAME": options.username,
        "RABBITMQ_PASSWORD": options.password,
        "RABBITMQ_VHOST": options.vhost,
    }
    return Office(system, system.new_queue(), "RABBITMQ", variables, keeps_order=True)


def test_the_way_of_dead_letters(office: Office) -> None:
    producer = office.system.producer()
    consumer = office.system.consumer(office.queue)
    letters = DeadLetters(producer, office.dead, queue=office.queue, host="pod-1", version="1.2")
    for number in range(6):
        event = Message(b"event %d" % number, b"camera", {"traceparent": f"00-{number}"})
        producer.publish(office.queue, event, timeout_s=JOIN_S)
        delivery = receive(consumer)
        error = DecoderFailed("it died") if number % 2 else MalformedEvent("no JSON")
        letters.send(delivery, error, "decode")
        assert settled(delivery.ack())

    rows, summary = office.dlq("list")
    assert [row["error"] for row in rows] == ["MalformedEvent", "DecoderFailed"] * 3
    assert f"6 of 6 letters in {office.dead}" in summary
    assert {row["attempts"] for row in rows} == {1}
    again, _ = office.dlq("list")
    assert [row["id"] for row in again] == [row["id"] for row in rows], "looking changes nothing"
    ((shown), _) = office.dlq("show", rows[0]["id"])
    assert shown[0]["headers"]["traceparent"] == "00-0"
    assert shown[0]["message_key"] == "camera"

    planned, _ = office.dlq("redrive", "--error", "DecoderFailed", "--dry-run")
    assert len(planned) == 3
    done, said = office.dlq("redrive", "--error", "DecoderFailed")
    assert [row["outcome"] for row in done] == ["redriven"] * 3
    assert f"3 of 3 letters sent back to {office.queue}" in said
    back = []
    for _ in range(3):
        delivery = receive(consumer)
        back.append(delivery.message.body)
        assert delivery.attempt == 1
        assert delivery.message.key == b"camera"
        assert delivery.message.headers[dead_letter.REDRIVEN] == "1"
        assert settled(delivery.ack())
    assert sorted(back) == [b"event 1", b"event 3", b"event 5"]
    consumer.close(CLOSE_S)

    left = bodies(office.system, office.dead)
    assert (left if office.keeps_order else sorted(left)) == [b"event 0", b"event 2", b"event 4"]
    dropped, _ = office.dlq("drop", "--yes", rows[2]["id"][:8])
    assert [row["outcome"] for row in dropped] == ["dropped"]
    assert sorted(bodies(office.system, office.dead)) == [b"event 0", b"event 4"]
    producer.close(CLOSE_S)
