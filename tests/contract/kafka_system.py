"""Kafka-protocol brokers as systems for the contract suite."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.demo.kafka_server import EmbeddedKafka


class SaidLog:
    """A logger that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def events(self, *names: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.said if event in names]


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

    def set_down(self) -> None:
        self.kafka.set_down()

    def set_up(self) -> None:
        self.kafka.set_up()
