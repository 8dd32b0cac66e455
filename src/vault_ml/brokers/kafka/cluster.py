"""Questions to the cluster: does it answer, does a topic exist, and if not, make it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.connection import Connection
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.errors import BrokerUnavailable, ConfigError
from vault_ml.telemetry.log import Log

_Client = TypeVar("_Client")

_SLICE_S = 0.5  # of waiting; between slices a refused login is noticed
_PAUSE_S = 0.05


class Cluster:
    """A client of its own, so that a question never races with the closing of another client.

    Methods may be called from any thread.
    """

    def __init__(self, options: KafkaOptions, connection: Connection, log: Log) -> None:
        """Connect lazily; what is learnt on the way goes to `connection`."""
        self._connection = connection
        self._brokers = options.brokers
        self._log = log
        self._config = {**options.connection(), "error_cb": connection.on_error}
        self._admin = self._new_admin()

    def serve(self) -> None:
        """Take what librdkafka has to say. To be called now and then, lest it piles up."""
        self._admin.poll(0)

    def ping(self, timeout_s: float) -> None:
        """As the port's `ping`."""
        self._metadata(None, time.monotonic() + timeout_s)

    def has_topic(self, name: str, timeout_s: float) -> bool:
        """True when the topic exists and is for us; makes nothing.

        Raises:
            BrokerUnavailable: no answer in time.
        """
        topic = self._metadata(name, time.monotonic() + timeout_s)
        return topic is not None and topic.error is None and bool(topic.partitions)

    def ensure_topic(self, name: str, timeout_s: float) -> None:
        """Return when the topic exists, made by us if need be.

        Raises:
            ConfigError: it does not exist and cannot be made, or is not for us.
            BrokerUnavailable: no answer in time.
        """
        deadline = time.monotonic() + timeout_s
        created = False
        while (topic := self._metadata(name, deadline)) is not None:
            error = topic.error.code() if topic.error is not None else None
            if error is None and topic.partitions:
                return
            if error == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise ConfigError(may_not_sentence(name))
            if error == KafkaError.TOPIC_EXCEPTION:
                raise ConfigError(f"{name!r} cannot be the name of a Kafka topic.")
            if error == KafkaError.UNKNOWN_TOPIC_OR_PART and not created:
                self._create(name, deadline)
                created = True
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"The Kafka topic {name!r} has no leader yet.")
            time.sleep(_PAUSE_S)  # made, or being led; known everywhere in a moment

    def committed(
        self, group: str, topic: str, numbers: Sequence[int], timeout_s: float
    ) -> dict[int, tuple[int, str]]:
        """What a group has committed, as partition -> (offset, text), once no transaction is open.

        Raises:
            BrokerUnavailable: no answer in time.
        """
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in numbers])
        # A client that knows the group's coordinator never asks for another one (librdkafka 2.16),
        # and this is asked after trouble with brokers.
        admin = self._new_admin()
        future = admin.list_consumer_group_offsets(
            [asked], require_stable=True, request_timeout=timeout_s
        )[group]
        try:
            answer = future.result(timeout_s + _SLICE_S)
        except (KafkaException, TimeoutError) as error:
            raise self._connection.unavailable() from error
        return {
            one.partition: (one.offset, one.metadata or "")
            for one in answer.topic_partitions
            if one.error is None
        }

    def _new_admin(self) -> AdminClient:
        return checked_client(AdminClient, self._config, self._connection)

    def _metadata(self, topic: str | None, deadline: float) -> TopicMetadata | None:
        while True:
            left = deadline - time.monotonic()
            try:
                timeout = max(0.01, min(_SLICE_S, left))
                if topic is None:
                    self._admin.list_topics(timeout=timeout)
                    answer = None
                else:
                    answer = self._admin.list_topics(topic, timeout=timeout).topics[topic]
            except KafkaException:
                self.serve()  # says why
                if refusal := self._connection.refusal():
                    raise refusal from None
                if time.monotonic() >= deadline:
                    raise self._connection.unavailable() from None
                time.sleep(min(_PAUSE_S, max(0.0, left)))
            else:
                self._connection.came_up()
                return answer

    def _create(self, name: str, deadline: float) -> None:
        left = max(0.1, deadline - time.monotonic())
        future = self._admin.create_topics([NewTopic(name)], request_timeout=left)[name]
        try:
            future.result(timeout=left + _SLICE_S)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                return  # somebody was faster
            if code in (codes.TIMED_OUT, codes.TRANSPORT, KafkaError.REQUEST_TIMED_OUT):
                raise self._connection.unavailable() from error
            raise ConfigError(
                f"The Kafka topic {name!r} does not exist and the broker does not let us make it "
                f"({error.args[0].name()}). Create it, or let our user create topics."
            ) from error
        except TimeoutError as error:
            raise self._connection.unavailable() from error
        self._log.info("topic_created", topic=name, brokers=self._brokers)


def may_not_sentence(topic: str) -> str:
    """For a topic that the broker keeps from us."""
    return (
        f"Kafka does not let our user use the topic {topic!r}. Give it the rights to Describe and "
        "to Read (QUEUE_NAME) or Write (QUEUE_TARGET, QUEUE_DEAD_LETTER)."
    )


def checked_client(
    kind: type[_Client],
    config: dict[str, Any],
    connection: Connection,
    logger: logging.Logger | None = None,
) -> _Client:
    """Make a librdkafka client, which tells `logger`, or `connection` when there is none.

    Raises:
        ConfigError: librdkafka does not take the configuration; it names the option.
    """
    try:
        return kind(config, logger=logger or connection.librdkafka_logger())  # type: ignore[call-arg]  # all three take it
    except KafkaException as error:
        raise ConfigError(_not_taken_sentence(error.args[0].str())) from error


_NO_MECHANISM = re.compile(r"No provider for SASL mechanism (\S+):.*Current build options: (.*)")


def _not_taken_sentence(text: str) -> str:
    """For a configuration that librdkafka does not take; `text` is its own reason.

    >>> _not_taken_sentence(
    ...     "Failed to create producer: No provider for SASL mechanism GSSAPI: recompile "
    ...     "librdkafka with libsasl2. Current build options: PLAIN SASL_SCRAM OAUTHBEARER"
    ... )[:75]
    'KAFKA_MECHANISM=GSSAPI is not in the librdkafka that confluent-kafka brings'
    """
    if found := _NO_MECHANISM.search(text):
        there = found[2].replace("SASL_SCRAM", "SCRAM-SHA-256 SCRAM-SHA-512").split()
        return (
            f"KAFKA_MECHANISM={found[1]} is not in the librdkafka that confluent-kafka brings "
            f"here; it has {', '.join(there)}. Use one of them, or build confluent-kafka on a "
            "librdkafka that has it (for GSSAPI: with libsasl2)."
        )
    return (
        f"Kafka cannot be configured like this: {text}. "
        "Check the KAFKA_ variables, KAFKA_OPTIONS among them."
    )
