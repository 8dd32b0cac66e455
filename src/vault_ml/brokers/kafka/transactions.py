"""Settling by transactions: results become visible together with the offsets of their events.

A thread of its own runs one transaction after the other, so that polling never waits for one. Each
takes the finished prefix of every partition, publishes what its events brought, in the order of
their offsets, and commits the offsets with it. docs/adr/0012-kafka-transactions.md says why a
worker that lost its partitions without noticing cannot commit anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, KafkaError, TopicPartition

from vault_ml.brokers.kafka.attempts import METADATA_LIMIT_BYTES
from vault_ml.brokers.kafka.books import Books
from vault_ml.brokers.kafka.cluster import Cluster
from vault_ml.brokers.kafka.commits import say_attempts_not_kept
from vault_ml.brokers.kafka.connection import Connection, State
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.kafka.partition import Share
from vault_ml.brokers.kafka.refusals import NO_TOPIC, refusal
from vault_ml.brokers.kafka.transactional import (
    TransactionAborted,
    TransactionalProducer,
    TransactionInDoubt,
    transactional_id,
)
from vault_ml.brokers.port import Outgoing
from vault_ml.errors import (
    BrokerUnavailable,
    ConfigError,
    CredentialsRejected,
    PoisonError,
    VaultMLError,
)
from vault_ml.telemetry.log import Log

_EVERY_S = 0.1  # an ack waits about this long; the more events share a transaction the cheaper
_AGAIN_S = (0.05, 2.0)  # after one that failed: at first, at most
_EVENTS = 500  # in one transaction, and
_SIZE_BYTES = 8 * 1024 * 1024  # this much to publish, so that it ends long before its time is up
_LOOK_EVERY_S = 0.05
_BEGIN_S = 5.0
_TOPIC_S = 5.0
_READ_BACK_S = 5.0
_FINISH_S = 10.0  # before partitions are given back; a rebalance waits for it
_PATIENCE_S = 10.0  # of failing, until receiving stops: what is done could not be settled


_Sending = tuple[Share, int, Outgoing]  # (whose, offset of the event, what it brought)


class Transactions:
    """A `Committer`."""

    def __init__(
        self,
        options: KafkaOptions,
        queue: str,
        books: Books,
        connection: Connection,
        cluster: Cluster,
        log: Log,
    ) -> None:
        """Commit what `books` share."""
        self._options = options
        self._queue = queue
        self._books = books
        self._connection = connection
        self._cluster = cluster
        self._log = log
        self._id = transactional_id(options)
        self._asked = threading.Condition()  # guards the five below
        self._rounds_asked = 0
        self._rounds_done = 0
        self._is_closing = False
        self._trouble: VaultMLError | None = None
        self._membership: bytes | None = None

        # Only the broker thread touches these.
        self._consumer: Consumer | None = None
        self._next_look_at = 0.0

        # Only the thread touches these.
        self._producer: TransactionalProducer | None = None
        self._doubtful: Sequence[Share] = ()
        self._known_topics: set[str] = set()
        self._metadata_limit = METADATA_LIMIT_BYTES
        self._failures = 0
        self._failing_since = 0.0
        self._thread = threading.Thread(target=self._run, name="kafka-transactions", daemon=True)

    # `Committer`: the broker thread, or any.

    def accept(self, publishing: tuple[Outgoing, ...]) -> None:
        """As `Committer`: everything can be published."""

    def start(self, client: Consumer) -> None:
        """As `Committer`."""
        self._consumer = client
        self._thread.start()

    def tick(self) -> None:
        """As `Committer`; the thread looks for work by itself."""
        if (now := time.monotonic()) >= self._next_look_at:
            self._next_look_at = now + _LOOK_EVERY_S
            self._look_at_membership()

    def finish(self, numbers: Iterable[int]) -> None:
        """As `Committer`. The transaction that runs is waited for, and the one after it."""
        if self._connection.state is not State.UP or not self._books.has_to_settle(numbers):
            return
        self._look_at_membership()
        with self._asked:
            self._rounds_asked += 1
            mine = self._rounds_asked
            self._asked.notify_all()
            self._asked.wait_for(
                lambda: self._rounds_done >= mine or not self._thread.is_alive(), _FINISH_S
            )

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition] | None) -> None:
        """As `Committer`; there are no commits of the client itself."""

    def trouble(self) -> VaultMLError | None:
        """As `Committer`."""
        with self._asked:
            return None if self._trouble is None else type(self._trouble)(str(self._trouble))

    def close(self) -> None:
        """As `Committer`."""
        with self._asked:
            self._is_closing = True
            self._asked.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_FINISH_S)

    def _look_at_membership(self) -> None:
        """Note what proves to the brokers that we are in the group; None while we are not.

        On the broker thread: librdkafka 2.16 never answers another one while this polls.
        """
        assert self._consumer is not None
        metadata: bytes = self._consumer.consumer_group_metadata()
        with self._asked:
            # Brokers check nothing for those who claim to be in no group.
            self._membership = metadata if is_member(metadata) else None

    # The thread.

    def _run(self) -> None:
        try:
            while not self._is_closing:
                rounds = self._wait()
                try:
                    self._round()
                except (TransactionAborted, VaultMLError) as error:
                    if isinstance(error, TransactionInDoubt):
                        self._give_up_producer()
                    self._failed(error)
                else:
                    self._succeeded()
                with self._asked:
                    self._rounds_done = rounds
                    self._asked.notify_all()
        except BaseException as error:  # noqa: BLE001  a bug must not end the thread unheard
            self._log.error("transactions_thread_failed", exc_info=error)
            with self._asked:
                self._trouble = BrokerUnavailable("The Kafka transactions ended by a bug; see log.")
        finally:
            self._give_up_producer()
            with self._asked:
                self._asked.notify_all()

    def _wait(self) -> int:
        first_s, last_s = _AGAIN_S
        pause_s = min(last_s, first_s * 2**self._failures) if self._failures else _EVERY_S
        with self._asked:
            self._asked.wait_for(
                lambda: self._is_closing or self._rounds_asked > self._rounds_done, pause_s
            )
            return self._rounds_asked

    def _round(self) -> None:
        """Settle everything that is finished now.

        Raises:
            TransactionAborted, VaultMLError: not all of it was; to be tried again.
        """
        producer = self._ready_producer()
        producer.serve()
        while True:
            # Looked at before the books are: should a partition go to somebody else in between,
            # the brokers refuse what this says. The other way round they would not.
            with self._asked:
                membership = self._membership
            if membership is None:
                return
            shares = self._books.shares(
                self._metadata_limit, events=_EVENTS, size_bytes=_SIZE_BYTES
            )
            if not shares:
                return
            self._transact(producer, shares, membership)

    def _ready_producer(self) -> TransactionalProducer:
        if self._producer is None:
            self._producer = TransactionalProducer(
                self._options, self._id, self._connection, self._log
            )
        try:
            self._producer.begin(_BEGIN_S)
        except TransactionAborted as aborted:
            if not aborted.error.retriable():
                self._give_up_producer()
            raise
        except ConfigError:
            self._give_up_producer()
            raise
        if self._doubtful:
            self._read_back()
        return self._producer

    def _read_back(self) -> None:
        """Learn how the last transaction of the last producer ended; it has ended by now."""
        numbers = [share.partition.number for share in self._doubtful]
        committed = self._cluster.committed(self._options.group, self._queue, numbers, _READ_BACK_S)
        for share in self._doubtful:
            if committed.get(share.partition.number) == (share.end, share.text):
                self._books.confirm_share(share)
        self._doubtful = ()

    def _transact(
        self, producer: TransactionalProducer, shares: Sequence[Share], membership: bytes
    ) -> None:
        sending: list[_Sending] = [
            (share, offset, outgoing) for share in shares for offset, outgoing in share.publishing
        ]
        for _, _, (destination, _) in sending:
            self._ensure_topic(producer, destination)
        offsets = [
            TopicPartition(self._queue, share.partition.number, share.end, share.text)
            for share in shares
        ]
        try:
            refusals = producer.send([outgoing for _, _, outgoing in sending])
            if refusals:
                self._refused([(sending[one.index], one.error) for one in refusals])
                return
            producer.commit(offsets, membership)
        except TransactionInDoubt:
            self._doubtful = shares
            raise
        except TransactionAborted as aborted:
            if aborted.error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
                self._metadata_limit = 0
                say_attempts_not_kept(self._log)
            raise
        for share in shares:
            self._books.confirm_share(share)

    def _ensure_topic(self, producer: TransactionalProducer, destination: str) -> None:
        if destination not in self._known_topics:
            self._cluster.ensure_topic(destination, _TOPIC_S)
            producer.renew(destination, _TOPIC_S)
            self._known_topics.add(destination)

    def _refused(self, troubles: Sequence[tuple[_Sending, KafkaError]]) -> None:
        """What to do about messages that kept a transaction from being committed.

        Raises:
            ConfigError: a person must act.
            TransactionAborted: to be tried again.
        """
        for (share, offset, (destination, message)), error in troubles:
            self._known_topics.discard(destination)
            known = None if error.code() in NO_TOPIC else refusal(error, destination, message)
            if isinstance(known, PoisonError):
                # This event's own trouble; the rest goes on without it.
                self._books.refuse(share, offset, known)
                return
            if known is not None:
                raise known
        raise TransactionAborted(troubles[0][1])

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures = min(self._failures + 1, 10)
        trouble: VaultMLError | None = None
        if isinstance(error, VaultMLError):
            trouble = error
        elif isinstance(error, TransactionAborted):
            if error.error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                trouble = ConfigError(
                    f"Kafka does not let our user commit for the group {self._options.group!r} in "
                    "a transaction. Give it the right to Read this group."
                )
            elif now - self._failing_since > _PATIENCE_S:
                trouble = BrokerUnavailable(
                    f"Kafka at {self._options.brokers} does not complete our transactions "
                    f"({error.error.name()})."
                )
            # A rebalance does this; what is still ours is in the next one.
            self._log.info(
                "transaction_aborted",
                reason=error.error.name(),
                in_doubt=isinstance(error, TransactionInDoubt),
            )
        self._say(trouble)

    def _succeeded(self) -> None:
        self._failures = 0
        self._say(None)

    def _say(self, trouble: VaultMLError | None) -> None:
        with self._asked:
            was, self._trouble = self._trouble, trouble
        if trouble is not None and str(was) != str(trouble):
            say = self._log.error if isinstance(trouble, ConfigError) else self._log.warning
            if not isinstance(trouble, CredentialsRejected):  # the connection has said it
                say("transactions_refused", reason=str(trouble))

    def _give_up_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None


_MAGIC = b"CGMDv2:"


def is_member(metadata: bytes) -> bool:
    """True unless librdkafka's group metadata says that we are in no generation of the group.

    >>> is_member(b"CGMDv2:" + (7).to_bytes(4, "little") + b"group")
    True
    >>> is_member(b"CGMDv2:" + (-1).to_bytes(4, "little", signed=True) + b"group")
    False
    """
    if not metadata.startswith(_MAGIC):
        return True  # a form of later versions; brokers then know better
    number = metadata[len(_MAGIC) : len(_MAGIC) + 4]
    return int.from_bytes(number, "little", signed=True) >= 0
