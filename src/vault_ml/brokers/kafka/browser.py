"""Looking through a Kafka topic of dead letters, and taking single letters out of it.

Kafka has no such thing: a topic is a log, and a group's commit is one number per partition. So the
topic itself says which of its letters are settled. `ack` appends a *mark* to the letter's own
partition: an empty message whose header names the letter's offset and content. Whoever reads the
topic to its end knows what is left, without a consumer group, and so without commits that Kafka
forgets after a week, without rebalances, and with no harm from two people doing it at once. The
letter's bytes stay until the topic's retention ends; its mark, being younger, outlives it.

See docs/adr/0011-dead-letters-on-kafka.md.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ClientMessage

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.cluster import Cluster, checked_client, may_not_sentence
from vault_ml.brokers.kafka.connection import Connection
from vault_ml.brokers.kafka.delivery import to_message
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.kafka.producer import KafkaProducer
from vault_ml.brokers.letter import letter_id
from vault_ml.brokers.port import Message, Outgoing, refuse_publishing
from vault_ml.errors import BrokerUnavailable, ConfigError
from vault_ml.telemetry.log import Log

SETTLED = "vault-ml-settled"  # header of a mark: `<partition>@<offset> <id of the letter>`

_POLL_S = 0.2
_MARKS_AT_ONCE = 8  # each waits for the broker's confirmation


class KafkaBrowser:
    """Reads a topic from its beginning to the end it had when the reading began.

    Attributes:
        topic: its name.
    """

    def __init__(
        self, options: KafkaOptions, topic: str, *, log: Log, timeout_s: float = 30.0
    ) -> None:
        """Connect lazily.

        Args:
            options: how to reach the cluster. The group is named to the broker, and not joined.
            topic: of dead letters; one that does not exist has none.
            log: told about the connection.
            timeout_s: without a word of the broker for so long, reading fails.
        """
        self._options = options
        self.topic = topic
        self._timeout_s = timeout_s
        self._log = log
        self._connection = Connection(options, log, "browser")
        self._cluster = Cluster(options, self._connection, log)
        self._producer: KafkaProducer | None = None
        self._pool = ThreadPoolExecutor(_MARKS_AT_ONCE, thread_name_prefix="kafka-marks")
        self._is_closed = False

    def deliveries(self) -> Generator[LetterDelivery]:
        """As the port says; by partition, and in each in order."""
        self._cluster.ping(self._timeout_s)  # notices a refused login, which the client does not
        # Twice: a mark stands behind its letter, and a topic may be larger than our memory.
        ends: dict[int, int] = {}
        settled = {mark for one in self._read(ends) if (mark := _mark(one)) is not None}
        if not ends:
            return
        for one in self._read(ends):
            if _mark(one) is not None:
                continue
            message, place = to_message(one), _place(one)
            if f"{place} {letter_id(message)}" not in settled:
                yield LetterDelivery(self, message, place, one.partition() or 0, _written_at(one))

    def settle(self, delivery: LetterDelivery) -> Future[None]:
        """For `LetterDelivery.ack`: append the mark."""
        producer = self._producer = self._producer or KafkaProducer(self._options, log=self._log)
        mark = f"{delivery.place} {letter_id(delivery.message)}"
        return self._pool.submit(
            producer.publish,
            self.topic,
            # The key is for compacted topics: one of its own, so that no letter gives way to it.
            Message(b"", f"{SETTLED} {mark}".encode(), {SETTLED: mark}),
            timeout_s=self._timeout_s,
            partition=delivery.partition,
        )

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        if self._is_closed:
            return
        self._is_closed = True
        self._pool.shutdown()
        if self._producer is not None:
            self._producer.close(timeout_s)

    def _read(self, ends: dict[int, int]) -> Iterator[ClientMessage]:
        """Everything up to `ends`, which are found out and noted when they are not known yet."""
        config = {
            **self._options.consumer(),
            "enable.partition.eof": True,
            "queued.min.messages": 1000,
            "max.partition.fetch.bytes": 1_048_576,
            "statistics.interval.ms": 0,
            "error_cb": self._connection.on_error,
        }
        client = checked_client(Consumer, config, self._connection)
        try:
            if not ends:
                ends |= self._ends(client)
            yield from self._up_to(client, ends)
        finally:
            client.close()

    def _ends(self, client: Consumer) -> dict[int, int]:
        """The offset behind the last message, by partition."""
        ends = {}
        try:
            topic = client.list_topics(self.topic, timeout=self._timeout_s).topics[self.topic]
            if topic.error is not None:
                if topic.error.code() in _NO_TOPIC:
                    return {}
                raise self._translated(topic.error)
            for number in topic.partitions:
                place = TopicPartition(self.topic, number)
                low_high = client.get_watermark_offsets(place, timeout=self._timeout_s)
                if low_high is None:
                    raise self._connection.unavailable()
                ends[number] = low_high[1]
        except KafkaException as error:
            raise self._translated(error.args[0]) from error
        return ends

    def _up_to(self, client: Consumer, ends: dict[int, int]) -> Iterator[ClientMessage]:
        unread = {number for number, end in ends.items() if end > 0}
        client.assign([TopicPartition(self.topic, n, OFFSET_BEGINNING) for n in sorted(unread)])
        heard_at = time.monotonic()
        while unread:
            message = client.poll(_POLL_S)
            if message is None:
                if refusal := self._connection.refusal():
                    raise refusal
                if time.monotonic() - heard_at > self._timeout_s:
                    raise self._connection.unavailable()
                continue
            number = message.partition() or 0
            if (error := message.error()) is not None:
                if error.code() == codes.PARTITION_EOF:
                    heard_at = time.monotonic()
                    unread.discard(number)
                elif not error.retriable() and error.code() not in _PASSING:
                    raise self._translated(error)
                continue
            heard_at = time.monotonic()
            offset = message.offset() or 0
            if offset >= ends[number] - 1:
                unread.discard(number)
            if offset < ends[number]:
                yield message

    def _translated(self, error: KafkaError) -> Exception:
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return ConfigError(may_not_sentence(self.topic))
        if refusal := self._connection.refusal():
            return refusal
        return BrokerUnavailable(
            f"Kafka at {self._options.brokers} does not let us read {self.topic!r} "
            f"({error.name()})."
        )


_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, codes.UNKNOWN_TOPIC}

# Said to nobody in particular, and of no account to a reader who joins no group.
_PASSING = {
    codes.ALL_BROKERS_DOWN,
    codes.TRANSPORT,
    codes.TIMED_OUT,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}


class LetterDelivery:
    """One letter; see the port's `Delivery`."""

    def __init__(
        self,
        browser: KafkaBrowser,
        message: Message,
        place: str,
        partition: int,
        written_at: float,
    ) -> None:
        """Hold what lies at `place`, `<partition>@<offset>`."""
        self._browser = browser
        self._is_settled = False
        self.message = message
        self.place = place
        self.partition = partition
        self.attempt = 1
        self.first_received_at = written_at
        number, _, offset = place.partition("@")
        self.id = f"{browser.topic}[{number}]@{offset}"

    def ack(self, publishing: Sequence[Outgoing] = ()) -> Future[None]:
        """As the port says; fails as a publish does when the mark cannot be written."""
        refuse_publishing(publishing)
        self._settle_once()
        return self._browser.settle(self)

    def retry(self, after_s: float, *, burn_attempt: bool = True) -> None:  # noqa: ARG002  it stays where it is
        """Leave it where it is."""
        self._settle_once()

    def _settle_once(self) -> None:
        if self._is_settled:
            raise RuntimeError(f"{self.id} is settled already")
        self._is_settled = True


def _place(message: ClientMessage) -> str:
    return f"{message.partition()}@{message.offset()}"


def _written_at(message: ClientMessage) -> float:
    millis: int = message.timestamp()[1]
    return max(0.0, millis / 1000)


def _mark(message: ClientMessage) -> str | None:
    """The letter that this message settles; None for a letter."""
    if message.value():
        return None
    return to_message(message).headers.get(SETTLED)
