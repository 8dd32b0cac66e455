"""Looking through topics of Apache Kafka itself; a compacted one keeps its letters."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connected.apache_kafka_system import QUIET, ApacheKafkaSystem
from contract.broker_contract import CLOSE_S, JOIN_S, settled
from contract.browser_contract import BrowserContract, BrowserSystem, bodies, browsing
from vault_ml.brokers.port import Message

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


class TestApacheKafkaBrowser(BrowserContract):
    @pytest.fixture
    def system(self, kafka_system: ApacheKafkaSystem) -> BrowserSystem:
        return kafka_system


def test_a_compacted_topic_takes_marks_too(kafka_system: ApacheKafkaSystem) -> None:
    queue = f"vault-ml-test-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(kafka_system.options().connection(), logger=QUIET)
    topic = NewTopic(queue, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([topic])[queue].result(20)
    producer = kafka_system.producer()
    for number in range(3):
        message = Message(b"%d" % number, b"camera-%d" % number)
        producer.publish(queue, message, timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    with browsing(kafka_system, queue) as found:
        assert settled(found[1].ack())
    assert bodies(kafka_system, queue) == [b"0", b"2"]
