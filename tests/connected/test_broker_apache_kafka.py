"""The contract on Apache Kafka itself, as the original's example logs in: SASL_PLAINTEXT, PLAIN."""

from __future__ import annotations

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem
from contract.broker_contract import BrokerContract, BrokerSystem, OrderContract, SizeContract
from contract.transaction_contract import (
    TransactionContract,
    TransactionOrderContract,
    TransactionSizeContract,
)

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

# A member that was away for too long is let in again after one session: within the tests' patience.
SESSION = {"session.timeout.ms": "12000"}


class TestApacheKafka(OrderContract, SizeContract, BrokerContract):
    @pytest.fixture
    def system(self, kafka_system: ApacheKafkaSystem) -> BrokerSystem:
        kafka_system.extra = SESSION
        return kafka_system


class TestApacheKafkaWithTransactions(
    TransactionOrderContract, TransactionSizeContract, TransactionContract
):
    """The same and more, when everything is settled by transactions."""

    @pytest.fixture
    def system(self, kafka_system: ApacheKafkaSystem) -> BrokerSystem:
        kafka_system.extra = SESSION
        kafka_system.transactions = True
        return kafka_system
