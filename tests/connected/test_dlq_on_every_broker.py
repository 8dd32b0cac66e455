"""`vault-ml dlq` as a person types it: the same words do the same on every broker."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from connected.offices import EVERY_BROKER, Office, office_of
from contract.broker_contract import CLOSE_S, JOIN_S, receive, settled
from contract.browser_contract import bodies
from e2e.stand import bare_environment
from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.port import Message
from vault_ml.errors import DecoderFailed, MalformedEvent

pytestmark = [pytest.mark.connected, pytest.mark.timeout(500)]


def dlq(office: Office, *words: str) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "vault_ml", "dlq", *words, "--json"],
        env={**bare_environment(), "QUEUE_SYSTEM": office.kind, "QUEUE_NAME": office.queue,
             **office.variables},
        text=True, capture_output=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(params=EVERY_BROKER)
def office(request: pytest.FixtureRequest) -> Office:
    return office_of(request.param, request)


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

    rows, summary = dlq(office, "list")
    assert [row["error"] for row in rows] == ["MalformedEvent", "DecoderFailed"] * 3
    assert f"6 of 6 letters in {office.dead}" in summary
    assert {row["attempts"] for row in rows} == {1}
    again, _ = dlq(office, "list")
    assert [row["id"] for row in again] == [row["id"] for row in rows], "looking changes nothing"
    ((shown), _) = dlq(office, "show", rows[0]["id"])
    assert shown[0]["headers"]["traceparent"] == "00-0"
    assert shown[0]["message_key"] == "camera"

    planned, _ = dlq(office, "redrive", "--error", "DecoderFailed", "--dry-run")
    assert len(planned) == 3
    done, said = dlq(office, "redrive", "--error", "DecoderFailed")
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
    dropped, _ = dlq(office, "drop", "--yes", rows[2]["id"][:8])
    assert [row["outcome"] for row in dropped] == ["dropped"]
    assert sorted(bodies(office.system, office.dead)) == [b"event 0", b"event 4"]
    producer.close(CLOSE_S)
