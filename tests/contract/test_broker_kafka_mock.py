"""The contract on librdkafka's mock cluster, over a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.broker_contract import BrokerContract, BrokerSystem, OrderContract
from contract.kafka_system import MockKafkaSystem
from vault_ml.demo.kafka_server import EmbeddedKafka


@pytest.fixture(scope="module")
def embedded_kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


class TestMockKafka(OrderContract, BrokerContract):
    @pytest.fixture
    def system(self, embedded_kafka: EmbeddedKafka) -> BrokerSystem:
        return MockKafkaSystem(embedded_kafka)
