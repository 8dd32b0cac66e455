"""QUEUE_SYSTEM -> the two halves of the broker's port. Part of the composition root.

A further broker is one function here and one row of `_BROKERS`. Its library is imported by that
function only, so a worker needs the library of its own broker and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vault_ml.brokers.port import Consumer, Producer
from vault_ml.settings import Settings
from vault_ml.telemetry.logs import Logger


@dataclass(frozen=True, slots=True)
class Broker:
    """The chosen broker, not connected yet.

    Attributes:
        where: names it in a sentence.
        producer: makes a producer.
        consumer: makes a consumer of QUEUE_NAME for so many recordings in flight.
    """

    where: str
    producer: Callable[[], Producer]
    consumer: Callable[[int], Consumer]


def broker_for(chosen: Settings, log: Logger) -> Broker:
    """The broker of `chosen`, which tells `log` how it is.

    Raises:
        ConfigError: its library is not installed, or its settings do not fit together.
    """
    return _BROKERS[chosen.queue_system](chosen, log)


def _kafka(chosen: Settings, log: Logger) -> Broker:
    from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions, KafkaProducer

    password = chosen.kafka_password
    options = KafkaOptions(
        brokers=chosen.kafka_broker or "",
        group=chosen.kafka_group,
        username=chosen.kafka_username or "",
        password=password.get_secret_value() if password else "",
        mechanism=chosen.kafka_mechanism or "",
        security=chosen.kafka_security or "",
        extra=chosen.kafka_options,
    )
    return Broker(
        where=f"Kafka at {options.brokers}",
        producer=lambda: KafkaProducer(options, log=log),
        consumer=lambda in_flight: KafkaConsumer(
            options,
            chosen.queue_name,
            log=log,
            prefetch=in_flight,
            window=max(1000, in_flight * 50),
        ),
    )


def _sqs(chosen: Settings, log: Logger) -> Broker:
    from vault_ml.brokers.sqs import SqsConsumer, SqsOptions, SqsProducer

    options = SqsOptions(
        endpoint_url=chosen.sqs_endpoint_url or "",
        region=chosen.aws_region or "",
        visibility_s=chosen.sqs_visibility_s,
    )
    return Broker(
        where=options.where,
        producer=lambda: SqsProducer(options, chosen.queue_name, log=log),
        # It fetches nothing ahead, so it need not know how much is in flight.
        consumer=lambda _in_flight: SqsConsumer(
            options, chosen.queue_name, log=log, max_attempts=chosen.retry_max_attempts
        ),
    )


# One row per broker. RabbitMQ's goes here.
_BROKERS: dict[str, Callable[[Settings, Logger], Broker]] = {
    "KAFKA": _kafka,
    "SQS": _sqs,
}
