"""Kafka-protocol brokers as systems for the contract suite."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from contract.said_log import SaidLog as SaidLog  # its home for the tests of Kafka
from vault_ml.brokers.kafka import KafkaBrowser, KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.demo.kafka_server import EmbeddedKafka

# The mock cluster wakes no waiting fetch, and a long session makes its rebalances take a minute.
MOCK_EXTRA = {
    "session.timeout.ms": "2000",
    "heartbeat.interval.ms": "200",
    "fetch.wait.max.ms": "20",
}


class MockKafkaSystem:
    """librdkafka's mock cluster: the real protocol, faults on demand, no limits on size."""

    can_go_down = True
    max_message_bytes: int | None = None

    def __init__(self, kafka: EmbeddedKafka, extra: Mapping[str, str] | None = None) -> None:
        self.kafka = kafka
        self.group = f"group-{uuid.uuid4().hex[:8]}"
        self.log = SaidLog()
        self.extra = {**MOCK_EXTRA, **(extra or {})}

    def options(self) -> KafkaOptions:
        return KafkaOptions(self.kafka.bootstrap, self.group, extra=self.extra)

    def new_queue(self, partitions: int = 1) -> str:
        name = f"queue-{uuid.uuid4().hex[:8]}"
        self.kafka.create_topic(name, partitions)
        return name

    def consumer(self, queue: str) -> KafkaConsumer:
        return KafkaConsumer(self.options(), queue, log=self.log)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self.options(), log=self.log)

    def browser(self, queue: str) -> KafkaBrowser:
        return KafkaBrowser(self.options(), queue, log=self.log, timeout_s=4.0)

    def set_down(self) -> None:
        self.kafka.set_down()

    def set_up(self) -> None:
        self.kafka.set_up()
