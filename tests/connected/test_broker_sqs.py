"""The contract on SQS, standard and FIFO queues."""

from __future__ import annotations

import pytest

from connected.sqs_system import SqsSystem
from contract.broker_contract import BrokerContract, BrokerSystem, OrderContract, SizeContract
from contract.browser_contract import BrowserContract, BrowserSystem

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


class TestSqs(SizeContract, BrokerContract):
    close_burns = 1

    @pytest.fixture
    def system(self, sqs_system: SqsSystem) -> BrokerSystem:
        return sqs_system


class TestSqsFifo(OrderContract, SizeContract, BrokerContract):
    close_burns = 1

    @pytest.fixture
    def system(self, sqs_fifo_system: SqsSystem) -> BrokerSystem:
        return sqs_fifo_system


class TestSqsBrowser(BrowserContract):
    keeps_order = False

    @pytest.fixture
    def system(self, sqs_system: SqsSystem) -> BrowserSystem:
        return sqs_system


class TestSqsFifoBrowser(BrowserContract):
    keeps_order = False  # a dead letter is alone in its group

    @pytest.fixture
    def system(self, sqs_fifo_system: SqsSystem) -> BrowserSystem:
        return sqs_fifo_system
