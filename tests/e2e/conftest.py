"""One embedded Kafka for all end-to-end tests; queues of its own for each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import shared_file
from e2e.stand import FAST_GROUP, Stand, make_stand
from vault_ml.brokers.kafka import KafkaOptions
from vault_ml.demo.kafka_server import EmbeddedKafka


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as server:
        yield server


@pytest.fixture
def stand(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Stand]:
    queue = f"ml-queue-{uuid.uuid4().hex[:8]}"
    for topic in (queue, f"{queue}-results", f"{queue}.dlq"):
        kafka.create_topic(topic)

    def options_for(group: str) -> KafkaOptions:
        return KafkaOptions(kafka.bootstrap, group, extra=FAST_GROUP)

    with make_stand(options_for, tmp_path, queue) as made:
        yield made


@pytest.fixture
def small_model() -> str:
    """Real weights, small: these tests are about the way, not about accuracy."""
    shared_file("models/yolo-fastest/yolo-fastest-1.1.weights")
    return str(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg"))


@pytest.fixture
def tiny_model() -> str:
    """YOLOv3-tiny, the released weights and the cfg as published."""
    shared_file("models/yolov3-tiny/yolov3-tiny.weights")
    return str(shared_file("models/yolov3-tiny/yolov3-tiny.cfg"))
