"""Which brokers there are, and why one cannot be started here."""

from __future__ import annotations

from proof.queues import System

NAMES = ("kafka", "sqs", "rabbitmq")
MOCK = "kafka-mock"


def why_not(name: str) -> str | None:
    """Why it cannot be started here, or None."""
    if name == "kafka":
        from connected import start_kafka

        return start_kafka.why_not()
    if name == "sqs":
        from connected import start_ministack

        return start_ministack.why_not()
    if name == "rabbitmq":
        from connected import start_rabbitmq

        return start_rabbitmq.why_not()
    return None


def start(name: str) -> System:
    """Start it."""
    if name == "kafka":
        from proof.kafka_queues import ApacheKafkaSystem

        return ApacheKafkaSystem()
    if name == MOCK:
        from proof.kafka_queues import MockKafkaSystem

        return MockKafkaSystem()
    if name == "sqs":
        from proof.sqs_queues import SqsSystem

        return SqsSystem()
    if name == "rabbitmq":
        from proof.rabbit_queues import RabbitSystem

        return RabbitSystem()
    raise ValueError(f"there is no broker {name!r}; there are {', '.join((*NAMES, MOCK))}")
