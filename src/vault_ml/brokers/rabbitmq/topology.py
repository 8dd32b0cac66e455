"""Queues: there as they are, or made by us as they should be.

Straight-line code on a short connection of its own, so that a question that the broker answers by
closing the channel disturbs nobody.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pika
from pika import exceptions

from vault_ml.brokers.rabbitmq.limits import default_delivery_limit
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.status import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    translated,
)
from vault_ml.errors import BrokerUnavailable, ConfigError
from vault_ml.telemetry.log import Log

# RabbitMQ 4's own default, taken also where the broker (3.x) would have none: an event that kills
# its worker again and again ends in the dead-letter queue.
DELIVERY_LIMIT = 20
# For RabbitMQ 4. Older ones have no limit of their own, and take this as one that every message
# which is given back has passed: 3.10 drops it at its first return.
_NO_LIMIT = -1


class Topology:
    """Looks for queues and makes what is missing. Methods may be called from any thread."""

    def __init__(self, options: RabbitOptions, log: Log) -> None:
        """Connects only when asked."""
        self._options = options
        self._log = log

    def ensure_source(self, queue: str) -> bool:
        """Return when the queue of events exists; True when it was made now, with dead-lettering.

        Raises:
            ConfigError: it does not exist and cannot be made, or is not for us.
            BrokerUnavailable: no answer.
        """
        with self._connected() as connection:
            if self._exists(connection, queue):
                return False
            # Without a place for dead letters nothing may be given up, or it would be dropped.
            arguments: dict[str, Any] = {"x-delivery-limit": _NO_LIMIT}
            limit = self._options.delivery_limit
            if self._options.dead_letter:
                # First where dead letters go, or the first one would be dropped.
                self._ensure(connection, self._options.dead_letter)
                arguments = {
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": self._options.dead_letter,
                    # The broker keeps a letter until the other queue has confirmed it.
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                    "x-delivery-limit": DELIVERY_LIMIT if limit is None else limit or _NO_LIMIT,
                }
            self._make(connection, queue, arguments)
            return True

    def ensure_target(self, queue: str, exchange: str) -> None:
        """Return when the queue exists and `exchange` hands it what is addressed to it.

        Raises:
            ConfigError, BrokerUnavailable: as `ensure_source`; also without such an exchange.
        """
        with self._connected() as connection:
            self._ensure(connection, queue)
            if exchange:
                self._bind(connection, queue, exchange)

    def _ensure(self, connection: Any, queue: str) -> None:
        if not self._exists(connection, queue):
            # Looking through dead letters delivers them, and must not use them up.
            self._make(connection, queue, {"x-delivery-limit": _NO_LIMIT})

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        options = self._options
        nodes = [options.parameters(address) for address in options.addresses]
        connection = None
        try:
            connection = pika.BlockingConnection(nodes)
            yield connection
        except (exceptions.AMQPError, OSError) as error:
            raise translated(error, options) from error
        finally:
            if connection is not None and connection.is_open:
                connection.close()

    def _exists(self, connection: Any, queue: str) -> bool:
        channel = connection.channel()
        try:
            channel.queue_declare(queue, passive=True)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                if "no queue" in error.reply_text:
                    return False
                raise BrokerUnavailable(  # such as: its node is down
                    f"The queue {queue!r} exists, but RabbitMQ cannot reach it for now."
                ) from error
            raise ConfigError(_not_for_us(queue, error.reply_code)) from error
        except exceptions.ShortStringTooLong as error:
            raise ConfigError(f"{queue[:40]!r}... is too long for the name of a queue.") from error
        channel.close()
        return True

    def _make(self, connection: Any, queue: str, arguments: dict[str, Any]) -> None:
        arguments = {"x-queue-type": "quorum", **arguments}
        if arguments.get("x-delivery-limit") == _NO_LIMIT and not _has_limit(connection):
            del arguments["x-delivery-limit"]
        channel = connection.channel()
        try:
            channel.queue_declare(queue, durable=True, arguments=arguments)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise ConfigError(
                    f"The queue {queue!r} does not exist and RabbitMQ does not let us make it "
                    f"({error.reply_code}). Make it, or give our user the permission to configure "
                    "it."
                ) from error
            if self._exists(connection, queue):
                return  # somebody was faster, in another way
            raise ConfigError(
                f"The queue {queue!r} does not exist, and RabbitMQ makes no quorum queue as we "
                "need it; is it older than 3.10? Make the queue yourself."
            ) from error
        self._log.info("queue_created", queue=queue, **_words(arguments))
        channel.close()

    def _bind(self, connection: Any, queue: str, exchange: str) -> None:
        channel = connection.channel()
        try:
            channel.queue_bind(queue, exchange, routing_key=queue)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                raise ConfigError(
                    f"RabbitMQ has no exchange {exchange!r}; make it, or unset RABBITMQ_EXCHANGE "
                    "to publish to the queue directly."
                ) from error
            raise ConfigError(
                f"The exchange {exchange!r} routes nothing to the queue {queue!r}, and RabbitMQ "
                f"does not let us bind them ({error.reply_code}). Bind them with the queue's name "
                "as routing key."
            ) from error
        channel.close()


def _has_limit(connection: Any) -> bool:
    """Whether this RabbitMQ limits the deliveries of a message where nobody says otherwise."""
    properties = connection._impl.server_properties or {}  # noqa: SLF001  pika shows it nowhere else
    return not math.isinf(default_delivery_limit(str(properties.get("version", ""))))


def _not_for_us(queue: str, code: int) -> str:
    if code == RESOURCE_LOCKED:
        return f"The queue {queue!r} belongs to another connection alone (it is exclusive)."
    if code == ACCESS_REFUSED:
        return may_not_sentence(queue)
    return f"RabbitMQ does not let us look at the queue {queue!r} ({code})."


def may_not_sentence(queue: str) -> str:
    """For a queue that the broker keeps from us."""
    return (
        f"RabbitMQ does not let our user use the queue {queue!r}. Give it the permission to read "
        "QUEUE_NAME, and to write to amq.default (or RABBITMQ_EXCHANGE)."
    )


def _words(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("x-").replace("-", "_"): value for name, value in arguments.items()}
