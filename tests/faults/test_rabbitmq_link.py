"""What becomes of the thread that owns a connection to RabbitMQ when pika fails without a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest

from connected.rabbitmq_system import RabbitSystem
from connected.start_rabbitmq import Address
from contract.broker_contract import CLOSE_S, wait_for
from vault_ml.backoff import Backoff
from vault_ml.brokers.port import Message
from vault_ml.brokers.rabbitmq import RabbitProducer, link
from vault_ml.errors import BrokerUnavailable


class FailsInTheLoop:
    """In place of a connection: an error on its I/O loop, of which no callback is told."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.made = 0

    def __call__(self, *_: object, custom_ioloop: Any, **__: object) -> None:
        def fail() -> None:
            raise self.error

        self.made += 1
        custom_ioloop.add_callback_threadsafe(fail)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> FailsInTheLoop:
    # As pika says it of a peer that reset the connection in the moment it was made.
    failing = FailsInTheLoop(ValueError("Expected connected socket, but getpeername() failed"))
    monkeypatch.setattr(pika, "SelectConnection", failing)
    monkeypatch.setattr(link, "_RECONNECT", Backoff(0.01, 0.01))
    return failing


@pytest.fixture
def producer(failing: FailsInTheLoop) -> Iterator[RabbitProducer]:
    producer = RabbitSystem(Address("127.0.0.1:9"), None).producer()
    yield producer
    producer.close(CLOSE_S)


def test_a_connection_reset_as_it_is_made_is_made_again(
    failing: FailsInTheLoop, producer: RabbitProducer
) -> None:
    wait_for(lambda: failing.made > 3, "it is tried again and again")
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        producer.publish("queue", Message(b"1"), timeout_s=0.5)


def test_a_bug_on_the_thread_is_heard_by_whoever_publishes(
    failing: FailsInTheLoop, producer: RabbitProducer
) -> None:
    failing.error = ZeroDivisionError("a bug")
    with pytest.raises(RuntimeError, match="producer thread died"):
        producer.publish("queue", Message(b"1"), timeout_s=30)
