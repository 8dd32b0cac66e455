"""One transactional producer, from its making to its replacement.

A transaction ends in one of three ways, and so do the methods here: it is committed; it is
aborted (`TransactionAborted`), and everything may be tried again with the same producer; or nobody
knows (`TransactionInDoubt`). Then the producer is given up: the next one has the same id, and a
broker that lets it begin has ended whatever the last one left, so that the committed offsets tell
how.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as ClientMessage

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.api_versions import ApiVersions
from vault_ml.brokers.kafka.cluster import checked_client
from vault_ml.brokers.kafka.connection import Connection
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.port import Message, Outgoing
from vault_ml.errors import ConfigError
from vault_ml.telemetry.log import Log

_T = TypeVar("_T")

_STEP_S = 10.0  # one step of a transaction; it takes milliseconds when all is well
_SLICE_S = 1.0  # of a step; librdkafka goes on where it was
_FLUSH_S = 0.1  # of waiting for confirmations; after a refusal the others never come
_ROOM_S = 5.0  # for librdkafka's queue to have room
_OVERDUE_S = 5.0  # a call that is not back so long after its time is up never comes back


def transactional_id(options: KafkaOptions) -> str:
    """A name for the transactions of one process, new for every process (docs/adr/0012)."""
    return f"{options.group}-{uuid.uuid4().hex[:12]}"


class TransactionAborted(Exception):
    """Nothing of it will ever be visible. `error` says why."""

    def __init__(self, error: KafkaError) -> None:
        """Keep the broker's word."""
        super().__init__(error.str())
        self.error = error


class TransactionInDoubt(TransactionAborted):
    """It may have been committed, or not."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that the broker did not take.

    Attributes:
        index: which of those sent.
        error: why.
    """

    index: int
    error: KafkaError


class TransactionalProducer:
    """For one thread."""

    def __init__(
        self, options: KafkaOptions, transactional_id: str, connection: Connection, log: Log
    ) -> None:
        """Make it; `begin` connects.

        Raises:
            ConfigError: librdkafka does not take the options.
        """
        self._options = options
        self._id = transactional_id
        self._log = log
        self._versions = ApiVersions()
        logger = connection.librdkafka_logger()
        logger.addHandler(self._versions)
        config = options.transactional_producer(transactional_id)
        self._client = checked_client(
            Producer, {**config, "error_cb": connection.on_error}, connection, logger
        )
        self._is_begun = False

    def begin(self, timeout_s: float) -> None:
        """Get our number from the broker, which ends what an earlier producer of our id left.

        Raises:
            ConfigError: the brokers are too old, or we may not.
            TransactionAborted: no answer in time; call it again, or make a new producer if the
                error is fatal.
        """
        if self._is_begun:
            return
        try:
            self._patiently(self._client.init_transactions, timeout_s)
            self._client.poll(0.1)  # brings the log
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if sentence := refusal_sentence(error, self._options, self._id):
                raise ConfigError(sentence) from exception
            raise TransactionAborted(error) from exception
        if not self._versions.fences_consumers:
            raise ConfigError(too_old_sentence(self._options))
        self._is_begun = True
        if not self._versions.fences_delayed:
            self._log.warning(
                "transactions_not_airtight",
                reason=f"Kafka at {self._options.brokers} is older than 4.0: when messages are "
                "delayed on their way, it may show a result twice or not together with its "
                "offset (KIP-890). The run id still tells repeats apart.",
            )

    def send(self, messages: Sequence[Outgoing]) -> list[Refusal]:
        """Open a transaction and send; returns the first troubles, of single messages, if any.

        Raises:
            TransactionAborted, TransactionInDoubt: as the classes say.
        """
        refusals: list[Refusal] = []
        is_confirmed = self._step(lambda: self._send(messages, refusals))
        if refusals or not is_confirmed:
            self.abort()
        if not is_confirmed and not refusals:
            raise TransactionAborted(KafkaError(codes.TIMED_OUT))
        return refusals

    def _send(self, messages: Sequence[Outgoing], refusals: list[Refusal]) -> bool:
        self._client.begin_transaction()
        for index, (destination, message) in enumerate(messages):
            if error := self._produce(destination, message, index, refusals):
                refusals.append(Refusal(index, error))
                return False
        deadline = time.monotonic() + _STEP_S
        while self._client.flush(_FLUSH_S):
            if refusals or time.monotonic() > deadline:
                return False
        return not refusals

    def commit(self, offsets: list[TopicPartition], group_metadata: object) -> None:
        """Add the offsets to the transaction and commit it.

        Raises:
            TransactionAborted, TransactionInDoubt: as the classes say.
        """
        self._step(
            lambda: self._patiently(
                lambda left_s: self._send_offsets(offsets, group_metadata, left_s)
            )
        )
        self._step(lambda: self._patiently(self._client.commit_transaction))

    def abort(self) -> None:
        """End the transaction; nothing of it will be visible.

        Raises:
            TransactionInDoubt: the broker did not say so; a new producer will.
        """
        try:
            self._patiently(self._client.abort_transaction)
        except KafkaException as exception:
            raise TransactionInDoubt(exception.args[0]) from exception

    def renew(self, topic: str, timeout_s: float) -> None:
        """Forget what librdkafka remembers of a topic, such as a refusal.

        Raises:
            TransactionAborted: no answer in time; nothing was begun.
        """
        try:
            self._client.list_topics(topic, timeout=timeout_s)
        except KafkaException as exception:
            raise TransactionAborted(exception.args[0]) from exception

    def serve(self) -> None:
        """Take what librdkafka has to say. To be called now and then, lest it piles up.

        Raises:
            TransactionInDoubt: the producer was fenced, or cannot go on for another reason.
        """
        try:
            self._client.poll(0)
        except KafkaException as exception:
            raise TransactionInDoubt(exception.args[0]) from exception

    def close(self) -> None:
        """Give it up; what it left open is ended by its successor, or by the broker."""
        self._client.purge()
        with contextlib.suppress(KafkaException):  # it says once more why it cannot go on
            self._client.poll(0)

    def _produce(
        self, destination: str, message: Message, index: int, refusals: list[Refusal]
    ) -> KafkaError | None:
        def on_delivery(error: KafkaError | None, _message: ClientMessage) -> None:
            if error is not None:
                refusals.append(Refusal(index, error))

        deadline = time.monotonic() + _ROOM_S
        while True:
            try:
                self._client.produce(
                    destination,
                    value=message.body,
                    key=message.key,
                    headers=[(name, value.encode()) for name, value in message.headers.items()],
                    on_delivery=on_delivery,
                )
            except BufferError:
                if time.monotonic() > deadline:
                    return KafkaError(codes.QUEUE_FULL)
                self._client.poll(0.05)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                return error
            else:
                return None

    def _send_offsets(
        self, offsets: list[TopicPartition], group_metadata: object, timeout_s: float
    ) -> None:
        """Add the offsets to the transaction; raises as librdkafka, and in time.

        This one call of librdkafka (2.11, 2.16) looks at no clock while it waits for the broker
        that coordinates the group, and may wait for ever when that broker was missing in a list of
        brokers for a moment (issues 5456 and 5511 there). So it is waited for from outside. Should
        it come back after all, a newer producer of our id has long fenced it off.

        Raises:
            TransactionInDoubt: it did not come back; only a new producer can go on.
        """
        send = self._client.send_offsets_to_transaction
        answer: Future[None] = Future()

        def ask() -> None:
            try:
                send(offsets, group_metadata, timeout_s)
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                answer.set_exception(error)
            else:
                answer.set_result(None)

        threading.Thread(target=ask, name="kafka-transaction-offsets", daemon=True).start()
        try:
            answer.result(timeout_s + _OVERDUE_S)
        except FutureTimeout:
            raise TransactionInDoubt(KafkaError(codes.TIMED_OUT)) from None

    def _step(self, step: Callable[[], _T]) -> _T:
        try:
            return step()
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if not error.txn_requires_abort():
                raise TransactionInDoubt(error) from exception
            self.abort()
            raise TransactionAborted(error) from exception

    def _patiently(self, call: Callable[[float], object], timeout_s: float = _STEP_S) -> None:
        """Repeat what may be repeated; a call goes on where it was."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                call(max(0.05, min(_SLICE_S, deadline - time.monotonic())))
            except KafkaException as exception:
                if not exception.args[0].retriable() or time.monotonic() >= deadline:
                    raise
            else:
                return


def too_old_sentence(options: KafkaOptions) -> str:
    """For brokers whose transactions do not fence consumers."""
    return (
        f"Kafka at {options.brokers} is too old for KAFKA_TRANSACTIONS=true, which needs "
        "Kafka 2.5 or newer. Unset it: results are then published before their events are "
        "settled, and a repeat carries the same run id."
    )


def refusal_sentence(error: KafkaError, options: KafkaOptions, transactional_id: str) -> str:
    """What a person must change, empty when waiting may help."""
    code = error.code()
    if code in (codes.UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
        return too_old_sentence(options)
    if code in (
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    ):
        prefix = transactional_id.rpartition("-")[0]
        return (
            "Kafka does not let our user make transactions. Give it the rights to Describe and to "
            f"Write transactional ids that begin with {prefix!r}-, or unset KAFKA_TRANSACTIONS."
        )
    if code == KafkaError.INVALID_TRANSACTION_TIMEOUT:
        return (
            "Kafka allows no transaction as long as ours; lower transaction.timeout.ms in "
            "KAFKA_OPTIONS, or raise transaction.max.timeout.ms of the brokers."
        )
    return ""


def check_transactions(options: KafkaOptions, log: Log, timeout_s: float) -> None:
    """Find out at start whether the brokers give us the transactions we want, if we want any.

    Raises:
        ConfigError: they do not.
    """
    if not options.transactions:
        return
    connection = Connection(options, log, "transactions")
    producer = TransactionalProducer(options, transactional_id(options), connection, log)
    try:
        producer.begin(timeout_s)
    except TransactionAborted as aborted:
        raise connection.refusal() or connection.unavailable() from aborted
    finally:
        producer.close()
