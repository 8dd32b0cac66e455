"""A dead letter keeps the event whole and says why."""

from __future__ import annotations

from datetime import datetime

import pytest

from vault_ml.brokers.dead_letter import DeadLetters, dead_letter_name
from vault_ml.brokers.memory import MemoryBroker, MemoryDelivery
from vault_ml.brokers.port import Message
from vault_ml.errors import BrokerUnavailable, MessageTooLarge, UndecodableRecording


def dead(broker: MemoryBroker) -> DeadLetters:
    return DeadLetters(broker.producer(), "q.dlq", queue="q", host="pod-1", version="1.2")


def deliver(broker: MemoryBroker, message: Message) -> MemoryDelivery:
    broker.producer().publish("q", message, timeout_s=1)
    delivery = broker.consumer("q").receive(0)
    assert delivery is not None
    return delivery


@pytest.mark.parametrize(
    ("queue", "system", "expected"),
    [
        ("ml-queue", "KAFKA", "ml-queue.dlq"),
        ("ml-queue", "RABBITMQ", "ml-queue.dlq"),
        ("ml-queue", "SQS", "ml-queue-dlq"),
        ("classify.fifo", "sqs", "classify-dlq.fifo"),
        ("classify.fifo", "KAFKA", "classify.fifo.dlq"),
    ],
)
def test_the_default_name_fits_the_broker(queue: str, system: str, expected: str) -> None:
    assert dead_letter_name(queue, system) == expected


def test_an_empty_event_is_kept_too() -> None:
    broker = MemoryBroker()
    dead(broker).send(deliver(broker, Message(b"")), UndecodableRecording(), "decode")
    (letter,) = broker.messages("q.dlq")
    assert (letter.body, letter.key) == (b"", None)
    assert letter.headers["vault-ml-reason"] == "No frame of this recording can be decoded."
    assert letter.headers["vault-ml-error-class"] == "UndecodableRecording"
    first = datetime.fromisoformat(letter.headers["vault-ml-first-received-at"])
    assert first.utcoffset() is not None


def test_the_text_of_a_bug_is_not_written_down() -> None:
    broker = MemoryBroker()
    error = ValueError("https://vault/?X-Amz-Signature=canary")
    dead(broker).send(deliver(broker, Message(b"{}")), error, "fetch")
    (letter,) = broker.messages("q.dlq")
    assert "canary" not in str(letter.headers)
    assert letter.headers["vault-ml-reason"].startswith("Unexpected ValueError")


def test_a_reason_is_one_line_of_bounded_length() -> None:
    broker = MemoryBroker()
    error = UndecodableRecording("first\nsecond \ud800 " + "x" * 5000)
    dead(broker).send(deliver(broker, Message(b"{}")), error, "decode")
    reason = broker.messages("q.dlq")[0].headers["vault-ml-reason"]
    assert reason.startswith("first second ? xxx")
    assert len(reason) <= 1000


def test_headers_of_an_earlier_death_are_replaced() -> None:
    broker = MemoryBroker()
    headers = {"vault-ml-reason": "old", "vault-ml-something": "old", "trace": "kept"}
    dead(broker).send(deliver(broker, Message(b"{}", None, headers)), UndecodableRecording(), "x")
    (letter,) = broker.messages("q.dlq")
    assert "old" not in letter.headers.values()
    assert letter.headers["trace"] == "kept"


def test_what_cannot_be_written_raises() -> None:
    broker = MemoryBroker()
    delivery = deliver(broker, Message(b"{}"))
    broker.set_down()
    with pytest.raises(BrokerUnavailable):
        dead(broker).send(delivery, UndecodableRecording(), "decode")


class SmallProducer:
    """A broker that counts headers too, as the real ones do."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sent: list[Message] = []

    def publish(self, destination: str, message: Message, *, timeout_s: float) -> None:
        headers = sum(len(name) + len(text) for name, text in message.headers.items())
        if len(message.body) + headers > self.limit:
            raise MessageTooLarge
        self.sent.append(message)

    def ping(self, timeout_s: float) -> None: ...

    def close(self, timeout_s: float) -> None: ...


def test_a_letter_that_only_its_headers_make_too_large_loses_headers() -> None:
    delivery = deliver(MemoryBroker(), Message(b"x" * 1000, None, {"big": "y" * 400}))
    producer = SmallProducer(1500)
    letters = DeadLetters(producer, "q.dlq", queue="q", host="pod-1", version="1.2")
    letters.send(delivery, UndecodableRecording(), "decode")
    (letter,) = producer.sent
    assert letter.body == delivery.message.body
    assert set(letter.headers) == {
        "vault-ml-reason", "vault-ml-stage", "vault-ml-error-class", "vault-ml-attempts",
        "vault-ml-first-received-at", "vault-ml-dead-lettered-at",
    }  # fmt: skip


def test_a_letter_that_is_too_large_by_itself_raises() -> None:
    delivery = deliver(MemoryBroker(), Message(b"x" * 1000))
    letters = DeadLetters(SmallProducer(1000), "q.dlq", queue="q", host="pod-1", version="1.2")
    with pytest.raises(MessageTooLarge):
        letters.send(delivery, UndecodableRecording(), "decode")
