"""Settling without transactions: the finished prefix is committed, now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from vault_ml.brokers.kafka.attempts import METADATA_LIMIT_BYTES
from vault_ml.brokers.kafka.books import Books
from vault_ml.brokers.kafka.connection import Connection, State
from vault_ml.brokers.port import Outgoing, refuse_publishing
from vault_ml.errors import VaultMLError
from vault_ml.telemetry.log import Log

_COMMIT_EVERY_S = 0.2  # an ack waits this long at most; more often would burden the coordinator
_COMMIT_AGAIN_S = 1.0  # after a refused one
_COMMIT_LOST_S = 30.0  # librdkafka answers every commit; should it not, we go on all the same


class Committer(Protocol):
    """How what is finished becomes settled. Without a word on it, on the broker thread."""

    def accept(self, publishing: tuple[Outgoing, ...]) -> None:
        """Say before an ack whether this can be published with it, and that an ack follows.

        Any thread.

        Raises:
            TypeError: it cannot.
        """
        ...

    def start(self, client: Consumer) -> None:
        """Begin; `client` has just been made."""
        ...

    def tick(self) -> None:
        """Settle what can be settled, without waiting for it."""
        ...

    def finish(self, numbers: Iterable[int]) -> None:
        """Settle what is finished of these partitions, which will be taken from us. May wait."""
        ...

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition] | None) -> None:
        """Hear of a commit of the client."""
        ...

    def trouble(self) -> VaultMLError | None:
        """What a person must know: nothing can be settled, and why. Any thread."""
        ...

    def close(self) -> None:
        """End it, after the client was closed."""
        ...


class PlainCommits:
    """Commits of the consumer itself, one at a time."""

    def __init__(self, queue: str, books: Books, connection: Connection, log: Log) -> None:
        """Commit what `books` offer."""
        self._queue = queue
        self._books = books
        self._connection = connection
        self._log = log
        self._client: Consumer | None = None
        self._sent_at: float | None = None
        self._next_at = 0.0
        self._metadata_limit = METADATA_LIMIT_BYTES

    def accept(self, publishing: tuple[Outgoing, ...]) -> None:
        """As `Committer`."""
        refuse_publishing(publishing)

    def start(self, client: Consumer) -> None:
        """As `Committer`."""
        self._client = client

    def tick(self) -> None:
        """As `Committer`."""
        now = time.monotonic()
        if self._client is None or now < self._next_at:
            return
        if self._sent_at is not None and now < self._sent_at + _COMMIT_LOST_S:
            return
        if offers := self._offers():
            self._sent_at = now
            self._next_at = now + _COMMIT_EVERY_S
            self._client.commit(offsets=offers, asynchronous=True)

    def finish(self, numbers: Iterable[int]) -> None:
        """As `Committer`."""
        offers = self._offers(numbers)
        # A broker that is away would only hold up the rebalance, or our leave.
        if offers and self._client is not None and self._connection.state is State.UP:
            try:
                self.on_commit(None, self._client.commit(offsets=offers, asynchronous=False))
            except KafkaException as error:
                self._log.info("commit_refused", reason=error.args[0].name())

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition] | None) -> None:
        """As `Committer`."""
        self._sent_at = None
        refused: KafkaError | None = error
        for one in partitions or []:
            refused = one.error or refused
            if one.error is None and error is None:
                self._books.confirm(one.partition, one.offset)
        if refused is not None:
            self._next_at = time.monotonic() + _COMMIT_AGAIN_S
            if refused.code() == KafkaError.OFFSET_METADATA_TOO_LARGE and self._metadata_limit:
                self._metadata_limit = 0
                say_attempts_not_kept(self._log)

    def trouble(self) -> VaultMLError | None:
        """As `Committer`; the connection says what there is to say."""
        return None

    def close(self) -> None:
        """As `Committer`."""

    def _offers(self, numbers: Iterable[int] | None = None) -> list[TopicPartition]:
        return [
            TopicPartition(self._queue, *offer)
            for offer in self._books.offers(self._metadata_limit, numbers)
        ]


def say_attempts_not_kept(log: Log) -> None:
    """Once, when the broker takes no text with a commit."""
    log.warning(
        "attempts_not_kept",
        reason="The broker takes no text with a commit (offset.metadata.max.bytes), "
        "so attempts are counted anew after a restart.",
    )
