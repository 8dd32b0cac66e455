"""QUEUE_SYSTEM -> the two halves of the broker's port. Part of the composition root.

A further broker is one function here and one row of `_BROKERS`. Its library is imported by that
function only, so a worker needs the library of its own broker and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vault_ml.brokers.browsing import HoldingBrowser
from vault_ml.brokers.desk import Desk
from vault_ml.brokers.port import Browser, Consumer, Producer
from vault_ml.settings import Settings
from vault_ml.telemetry.logs import Logger

# A person waits: without a word of the broker for so long, dead letters are not read on.
_ANSWER_S = 10.0
# A request that waits a second asks all of SQS's servers; one more for the way.
_SQS_QUIET_S = 3.0
# RabbitMQ pushes what there is.
_RABBITMQ_QUIET_S = 2.0
# For publishing the result and asking the Vault to forward.
_RABBITMQ_SINKS_S = 60.0


@dataclass(frozen=True, slots=True)
class Broker:
    """The chosen broker, not connected yet.

    Attributes:
        where: names it in a sentence.
        producer: makes a producer.
        consumer: makes a consumer of QUEUE_NAME for so many recordings in flight.
        browser: makes a browser of the queue of this name.
        check: asks for what `producer` and `consumer` need beyond an answer; raises as a ping.
        is_transactional: deliveries take what is to be published with their settlement.
    """

    where: str
    producer: Callable[[], Producer]
    consumer: Callable[[int], Consumer]
    browser: Callable[[str], Browser]
    check: Callable[[], None] = lambda: None
    is_transactional: bool = False


def broker_for(chosen: Settings, log: Logger) -> Broker:
    """The broker of `chosen`, which tells `log` how it is.

    Raises:
        ConfigError: its library is not installed, or its settings do not fit together.
    """
    return _BROKERS[chosen.queue_system](chosen, log)


def dead_letter_desk(chosen: Settings, log: Logger) -> Desk:
    """The dead letters of QUEUE_NAME, on a desk. Nothing connects before it is used; close it.

    Raises:
        ConfigError: as `broker_for`.
    """
    broker = broker_for(chosen, log)
    return Desk(
        broker.browser(chosen.dead_letter_queue),
        broker.producer,
        queue=chosen.queue_name,
        dead_letter_queue=chosen.dead_letter_queue,
    )


def _kafka(chosen: Settings, log: Logger) -> Broker:
    from vault_ml.brokers.kafka import (
        KafkaBrowser,
        KafkaConsumer,
        KafkaOptions,
        KafkaProducer,
        check_transactions,
    )

    password = chosen.kafka_password
    options = KafkaOptions(
        brokers=chosen.kafka_broker or "",
        group=chosen.kafka_group,
        username=chosen.kafka_username or "",
        password=password.get_secret_value() if password else "",
        mechanism=chosen.kafka_mechanism or "",
        security=chosen.kafka_security or "",
        extra=chosen.kafka_options,
        transactions=chosen.kafka_transactions,
    )
    return Broker(
        where=f"Kafka at {options.brokers}",
        producer=lambda: KafkaProducer(options, log=log),
        # What waits here is bounded by its own defaults, not by what is in flight: a partition that
        # pauses after every third event spends its time resuming.
        consumer=lambda in_flight: KafkaConsumer(
            options, chosen.queue_name, log=log, window=max(1000, in_flight * 50)
        ),
        browser=lambda queue: KafkaBrowser(options, queue, log=log, timeout_s=_ANSWER_S),
        check=lambda: check_transactions(options, log, _ANSWER_S),
        is_transactional=options.transactions,
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
        browser=lambda queue: HoldingBrowser(
            lambda: SqsConsumer(options, queue, log=log, ahead=9),
            quiet_s=_SQS_QUIET_S,
            first_s=_ANSWER_S,
        ),
    )


def _rabbitmq(chosen: Settings, log: Logger) -> Broker:
    from vault_ml.brokers.rabbitmq import (
        BROWSE,
        RabbitConsumer,
        RabbitOptions,
        RabbitProducer,
        check_limits,
    )

    username, password = chosen.rabbitmq_username, chosen.rabbitmq_password
    options = RabbitOptions(
        chosen.rabbitmq_host or "",
        username=username or "guest",
        password=password.get_secret_value() if password else "guest",
        vhost=chosen.rabbitmq_vhost or "",
        exchange=chosen.rabbitmq_exchange or "",
        dead_letter=chosen.dead_letter_queue,
        ca_file=str(chosen.rabbitmq_ca_file or ""),
        ack_timeout_s=chosen.rabbitmq_ack_timeout_s,
        delivery_limit=chosen.rabbitmq_delivery_limit,
        management_url=chosen.rabbitmq_management_url or "",
    )
    # The work on one recording, outages aside: those are waited out, and leases renewed meanwhile.
    work_s = (
        chosen.recording_timeout_s
        + chosen.decode_timeout_s
        + chosen.detector_timeout_s
        + _RABBITMQ_SINKS_S
    )

    def consumer(in_flight: int) -> Consumer:
        limits = check_limits(options, chosen.queue_name, work_s, log=log)
        return RabbitConsumer(
            options, chosen.queue_name, log=log, prefetch=in_flight, limits=limits
        )

    letters = replace(options, dead_letter="", exchange="")
    return Broker(
        where=options.where,
        producer=lambda: RabbitProducer(
            options, log=log, by_exchange=[chosen.queue_target] if chosen.queue_target else []
        ),
        consumer=consumer,
        browser=lambda queue: HoldingBrowser(
            lambda: RabbitConsumer(letters, queue, log=log, prefetch=BROWSE),
            quiet_s=_RABBITMQ_QUIET_S,
            first_s=_ANSWER_S,
        ),
    )


# One row per broker.
_BROKERS: dict[str, Callable[[Settings, Logger], Broker]] = {
    "KAFKA": _kafka,
    "SQS": _sqs,
    "RABBITMQ": _rabbitmq,
}
