"""The contract on the broker in memory, and what it offers to tests."""

from __future__ import annotations

import itertools

import pytest

from contract.broker_contract import BrokerSystem, OrderContract
from contract.browser_contract import BrowserContract, BrowserSystem
from contract.transaction_contract import TransactionContract, TransactionSizeContract
from vault_ml.brokers.browsing import HoldingBrowser
from vault_ml.brokers.memory import MemoryBroker, MemoryConsumer, MemoryProducer
from vault_ml.brokers.port import Consumer, Message, Producer
from vault_ml.errors import BrokerUnavailable, ConfigError


class MemorySystem:
    can_go_down = True
    max_message_bytes: int | None = 1000_000

    def __init__(self) -> None:
        self.broker = MemoryBroker(max_message_bytes=self.max_message_bytes)
        self._numbers = itertools.count()

    def new_queue(self, partitions: int = 1) -> str:
        return f"queue-{next(self._numbers)}"

    def consumer(self, queue: str) -> MemoryConsumer:
        return self.broker.consumer(queue)

    def producer(self) -> MemoryProducer:
        return self.broker.producer()

    def browser(self, queue: str) -> HoldingBrowser:
        return HoldingBrowser(lambda: self.broker.consumer(queue), quiet_s=0.05)

    def set_down(self) -> None:
        self.broker.set_down()

    def set_up(self) -> None:
        self.broker.set_up()


class TestMemoryBroker(TransactionContract, TransactionSizeContract, OrderContract):
    keeps_order = True

    @pytest.fixture
    def system(self) -> BrokerSystem:
        return MemorySystem()


class TestMemoryBrowser(BrowserContract):
    @pytest.fixture
    def system(self) -> BrowserSystem:
        return MemorySystem()


def test_it_is_the_port() -> None:
    broker = MemoryBroker()
    consumer: Consumer = broker.consumer("q")
    producer: Producer = broker.producer()
    producer.publish("q", Message(b"1"), timeout_s=1)
    assert consumer.receive(0) is not None


def test_messages_are_there_to_look_at() -> None:
    broker = MemoryBroker()
    assert broker.messages("q") == []
    assert broker.unsettled("q") == []
    one, two = Message(b"1"), Message(b"2")
    broker.producer().publish("q", one, timeout_s=1)
    broker.producer().publish("q", two, timeout_s=1)
    assert broker.unsettled("q") == [one, two]
    delivery = broker.consumer("q").receive(0)
    assert delivery is not None
    delivery.ack()
    assert broker.messages("q") == [one, two]
    assert broker.unsettled("q") == [two]


def test_groups_do_not_disturb_each_other() -> None:
    broker = MemoryBroker()
    broker.producer().publish("q", Message(b"1"), timeout_s=1)
    for group in ("a", "b"):
        delivery = broker.consumer("q", group).receive(0)
        assert delivery is not None
        delivery.ack()
    assert broker.consumer("q", "a").receive(0) is None


def test_a_queue_that_is_not_declared_is_a_configuration_error() -> None:
    broker = MemoryBroker(queues=["q"])
    with pytest.raises(ConfigError, match="no queue 'other'"):
        broker.consumer("other")
    with pytest.raises(ConfigError, match="no queue 'other'"):
        broker.producer().publish("other", Message(b""), timeout_s=1)


def test_a_broker_set_down_gives_nothing() -> None:
    broker = MemoryBroker()
    broker.producer().publish("q", Message(b"1"), timeout_s=1)
    consumer = broker.consumer("q")
    broker.set_down()
    assert consumer.receive(0) is None
    with pytest.raises(BrokerUnavailable):
        consumer.ping(1)
