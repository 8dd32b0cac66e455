"""The contract on RabbitMQ: on quorum queues, and on classic ones that somebody made before us."""

from __future__ import annotations

import pytest

from connected.rabbitmq_system import RabbitSystem
from contract.broker_contract import (
    CLOSE_S,
    JOIN_S,
    BrokerContract,
    BrokerSystem,
    OrderContract,
    SizeContract,
)
from contract.browser_contract import BrowserContract, BrowserSystem, bodies
from vault_ml.brokers.port import Message

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


class TestRabbitQuorum(OrderContract, SizeContract, BrokerContract):
    @pytest.fixture
    def system(self, rabbit_system: RabbitSystem) -> BrokerSystem:
        return rabbit_system


class ClassicSystem(RabbitSystem):
    def new_queue(self, partitions: int = 1) -> str:
        name = self.new_name()
        self.declare(name)
        return name


class TestRabbitClassic(OrderContract, SizeContract, BrokerContract):
    @pytest.fixture
    def system(self, rabbit_system: RabbitSystem) -> BrokerSystem:
        return ClassicSystem(rabbit_system.address, rabbit_system.server)


def test_queues_that_we_make_keep_what_is_given_back_again_and_again(
    rabbit_system: RabbitSystem,
) -> None:
    """RabbitMQ 3 takes a delivery limit of -1, and drops what comes back once."""
    events, letters = rabbit_system.new_name(), rabbit_system.new_name()
    producer = rabbit_system.producer()
    producer.publish(letters, Message(b"letter"), timeout_s=JOIN_S)
    source = rabbit_system.consumer(events, dead_letter=letters, delivery_limit=0)
    assert source.receive(1.0) is None
    source.close(CLOSE_S)
    producer.publish(events, Message(b"event"), timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    for _ in range(4):
        assert bodies(rabbit_system, letters) == [b"letter"]
        assert bodies(rabbit_system, events) == [b"event"]


class TestRabbitBrowser(BrowserContract):
    @pytest.fixture
    def system(self, rabbit_system: RabbitSystem) -> BrowserSystem:
        return rabbit_system
