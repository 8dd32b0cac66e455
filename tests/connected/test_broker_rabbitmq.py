"""The contract on RabbitMQ: on quorum queues, and on classic ones that somebody made before us."""

from __future__ import annotations

import pytest

from connected.rabbitmq_system import RabbitSystem
from contract.broker_contract import BrokerContract, BrokerSystem
from contract.browser_contract import BrowserContract, BrowserSystem

pytestmark = pytest.mark.connected


class TestRabbitQuorum(BrokerContract):
    @pytest.fixture
    def system(self, rabbit_system: RabbitSystem) -> BrokerSystem:
        return rabbit_system


class ClassicSystem(RabbitSystem):
    def new_queue(self, partitions: int = 1) -> str:
        name = self.new_name()
        self.declare(name)
        return name


class TestRabbitClassic(BrokerContract):
    @pytest.fixture
    def system(self, rabbit_system: RabbitSystem) -> BrokerSystem:
        return ClassicSystem(rabbit_system.address, rabbit_system.server)


class TestRabbitBrowser(BrowserContract):
    @pytest.fixture
    def system(self, rabbit_system: RabbitSystem) -> BrowserSystem:
        return rabbit_system
