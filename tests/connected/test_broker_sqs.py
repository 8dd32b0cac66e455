"""The contract on SQS, standard and FIFO queues."""

from __future__ import annotations

import pytest

from connected.sqs_system import SqsSystem
from contract.broker_contract import BrokerContract, BrokerSystem

pytestmark = pytest.mark.connected


class TestSqs(BrokerContract):
    keeps_order = False
    close_burns = 1

    @pytest.fixture
    def system(self, sqs_system: SqsSystem) -> BrokerSystem:
        return sqs_system


class TestSqsFifo(BrokerContract):
    close_burns = 1

    @pytest.fixture
    def system(self, sqs_fifo_system: SqsSystem) -> BrokerSystem:
        return sqs_fifo_system
