"""The Kafka consumer: one thread that owns the client, and deliveries settled by offset.

Kafka knows no acknowledgement of one message, only how far a group has come in a partition. So
the broker thread commits the finished prefix, `ack`'s future is done when a commit has passed the
message, and `retry` keeps the message here and hands it out again when it is due. With
transactions, a thread of theirs commits.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
    libversion,
)
from confluent_kafka import Message as ClientMessage

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.attempts import Attempt
from vault_ml.brokers.kafka.books import Books
from vault_ml.brokers.kafka.cluster import Cluster, checked_client, may_not_sentence
from vault_ml.brokers.kafka.commits import Committer, PlainCommits
from vault_ml.brokers.kafka.connection import Connection, weakness_of
from vault_ml.brokers.kafka.delivery import Held, KafkaDelivery, to_message
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.kafka.partition import Settling
from vault_ml.brokers.kafka.transactions import Transactions, is_member
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected
from vault_ml.telemetry.log import Log

_POLL_S = 0.05  # how long a commit, a due retry or a close may wait for the thread
_OFFSETS_S = 5.0  # to read the group's commits of partitions just assigned
_BEGIN_S = 0.5  # to ask where a partition begins, per try; the others wait meanwhile
_BEGIN_AGAIN_S = 1.0
_TOPIC_S = 0.7  # to find or make the topic, per try; a close waits for a try
_TOPIC_AGAIN_S = 2.0
# A cooperative rebalance hands partitions over in a second round; who has none after it has none.
_IDLE_S = 5.0


class KafkaConsumer:
    """One member of a consumer group, on one topic.

    The topic is made when it does not exist and the broker lets us. A new group begins with the
    oldest message.
    """

    def __init__(
        self,
        options: KafkaOptions,
        queue: str,
        *,
        log: Log,
        prefetch: int = 500,
        window: int = 1000,
    ) -> None:
        """Start the broker thread; connecting happens there.

        Args:
            options: how to reach the cluster.
            queue: the topic.
            log: told every change of state once.
            prefetch: messages waiting here to be received; when as many wait (or 8 MB of them),
                partitions pause. Resuming takes librdkafka up to a second, so the half that still
                waits then should last longer.
            window: received messages of one partition that no commit has passed; when as many
                are open, this partition pauses. It bounds memory, and what a crash repeats.

        Raises:
            ConfigError: librdkafka does not take the options.
        """
        self._queue = queue
        self._group = options.group
        self._log = log
        self._connection = Connection(options, log, "consumer")
        self._cluster = Cluster(options, self._connection, log)
        self._books = Books(queue, prefetch=prefetch, window=window)
        self._committer = self._make_committer(options)
        self._changed = self._books.changed  # guards everything down to the blank line
        self._failure: ConfigError | None = None
        self._crash: BaseException | None = None
        self._is_paused = False
        self._is_closing = False

        # Only the broker thread touches these.
        self._paused_numbers: set[int] = set()
        self._unread: set[int] = set()  # partitions whose commits' texts we have not read
        self._astray: dict[int, None] = {}  # partitions that librdkafka knows no beginning of
        self._begin_again_at = 0.0
        self._begun: dict[int, int] = {}  # where we had them begin
        self._look_again_at: float | None = None  # for a topic that was removed
        self._idle_since: float | None = None  # a member of the group, and no partition is ours
        self._is_idle_said = False
        self._lag: int | None = None
        self._client = checked_client(
            Consumer,
            {
                **options.consumer(),
                "error_cb": self._connection.on_error,
                "stats_cb": self._on_stats,
                "on_commit": self._committer.on_commit,
            },
            self._connection,
        )
        if weakness := weakness_of(tuple(map(int, libversion()[0].split("-")[0].split(".")))):
            log.warning("kafka_client_weak", reason=weakness)
        self._committer.start(self._client)
        self._thread = threading.Thread(target=self._run, name="kafka-consumer", daemon=True)
        self._thread.start()

    # The port: any thread.

    def receive(self, timeout_s: float) -> KafkaDelivery | None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self._raise_trouble()
                if self._is_closing:
                    return None
                if not self._is_paused and (received := self._books.next()):
                    return KafkaDelivery(*received, self)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, 0.5))  # a refused login wakes nobody

    def pause(self) -> None:
        """As the port says."""
        with self._changed:
            self._is_paused = True

    def resume(self) -> None:
        """As the port says."""
        with self._changed:
            self._is_paused = False
            self._changed.notify_all()

    def ping(self, timeout_s: float) -> None:
        """As the port says."""
        self._cluster.ping(timeout_s)

    def lag(self) -> int | None:
        """As the port says: what is not committed of our partitions, a second old."""
        return self._lag

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        with self._changed:
            is_first, self._is_closing = not self._is_closing, True
            self._changed.notify_all()
        # Who has waited in vain once does not wait again: what is left of the grace is not ours.
        self._thread.join(timeout_s if is_first else 0.0)
        if not is_first:
            return
        if self._thread.is_alive():
            self._log.warning(
                "broker_left_waiting",
                reason=f"Kafka did not take our leave within {timeout_s:g} s; "
                "what is not committed will be delivered again.",
            )
            self._books.drop(self._books.numbers())

    # What deliveries ask for: any thread.

    def finish(self, held: Held, settling: Settling) -> bool:
        """For `KafkaDelivery.ack`; False when the partition was taken from us."""
        self._committer.accept(settling.publishing)
        return self._books.finish(held, settling)

    def put_back(self, held: Held, attempt: Attempt, after_s: float) -> None:
        """For `KafkaDelivery.retry`."""
        self._books.put_back(held, attempt, after_s)

    def _make_committer(self, options: KafkaOptions) -> Committer:
        if options.transactions:
            return Transactions(
                options, self._queue, self._books, self._connection, self._cluster, self._log
            )
        return PlainCommits(self._queue, self._books, self._connection, self._log)

    def _raise_trouble(self) -> None:
        if self._crash is not None:
            raise RuntimeError("the Kafka broker thread died") from self._crash
        if refusal := self._connection.refusal():
            raise refusal
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))  # a fresh one for every thread
        if (trouble := self._committer.trouble()) is not None:
            raise trouble

    # The broker thread.

    def _run(self) -> None:
        try:
            if self._subscribe():
                while not self._is_closing:
                    self._step()
        except BaseException as error:  # noqa: BLE001  a bug must not end the thread unheard
            self._crash = error
            self._log.error("broker_thread_failed", exc_info=error)
        finally:
            self._leave()

    def _subscribe(self) -> bool:
        while not self._is_closing:
            self._client.poll(0)  # serves its callbacks, lest they pile up
            try:
                self._cluster.ensure_topic(self._queue, _TOPIC_S)
            except BrokerUnavailable:
                continue
            except CredentialsRejected:
                self._wait(_TOPIC_AGAIN_S)
            except ConfigError as error:
                self._fail(error)
                self._wait(_TOPIC_AGAIN_S)
            else:
                self._client.subscribe(
                    [self._queue],
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                )
                return True
        return False

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, seconds)

    def _step(self) -> None:
        message = self._client.poll(_POLL_S)
        self._cluster.serve()
        if message is not None:
            if error := message.error():
                self._on_error(error, message.partition())
            else:
                self._take(message)
        self._look_for_beginnings()
        self._look_for_removed_topic()
        self._look_for_idleness()
        self._books.emit_due()
        self._pause_what_is_full()
        self._committer.tick()

    def _take(self, message: ClientMessage) -> None:
        number, offset = message.partition(), message.offset()
        assert number is not None
        assert offset is not None
        self._failure = None
        if self._books.goes_back(number, offset):
            self._log.warning(
                "partition_restarted",
                partition=number,
                offset=offset,
                reason="The topic was cut off or made anew; what is there is read again.",
            )
            self._books.open(number)
        elif number in self._unread:
            self._unread.discard(number)
            self._books.open(number, self._committed_metadata(number))
        self._books.take(number, offset, to_message(message))

    def _pause_what_is_full(self) -> None:
        wanted = self._books.to_pause(everything=self._is_paused)
        if pause := wanted - self._paused_numbers:
            self._client.pause([TopicPartition(self._queue, number) for number in sorted(pause)])
        if resume := self._paused_numbers - wanted:
            self._client.resume([TopicPartition(self._queue, number) for number in sorted(resume)])
        self._paused_numbers = wanted

    def _on_assign(self, _client: Consumer, assigned: list[TopicPartition]) -> None:
        self._failure = None
        self._connection.came_up()
        numbers = [one.partition for one in assigned]
        self._drop(numbers)  # should one be ours still
        for number in numbers:
            self._books.open(number)
            self._unread.add(number)
        if assigned:
            self._is_idle_said = False
            self._log.info("partitions_assigned", partitions=numbers)

    def _committed_metadata(self, number: int) -> str | None:
        """The text of the last commit of a partition.

        To be asked once its first message is here: before, the last owner's transactions may keep
        the broker from answering.
        """
        for _ in range(2):
            try:
                (answer,) = self._client.committed(
                    [TopicPartition(self._queue, number)], timeout=_OFFSETS_S
                )
            except KafkaException:
                continue
            if answer.error is None:
                text: str | None = answer.metadata
                return text
        self._log.warning(
            "attempts_not_read",
            partition=number,
            reason="Kafka did not tell our commit in time; attempts are counted anew.",
        )
        return None

    def _on_revoke(self, _client: Consumer, revoked: list[TopicPartition]) -> None:
        numbers = [one.partition for one in revoked]
        self._committer.finish(numbers)
        self._drop(numbers)

    def _on_lost(self, _client: Consumer, lost: list[TopicPartition]) -> None:
        self._drop([one.partition for one in lost])

    def _drop(self, numbers: list[int]) -> None:
        self._books.drop(numbers)
        # librdkafka remembers a pause beyond the assignment: should the partition come back to us,
        # nothing of it would ever be fetched.
        if paused := self._paused_numbers.intersection(numbers):
            self._client.resume([TopicPartition(self._queue, number) for number in paused])
        self._paused_numbers.difference_update(numbers)
        self._unread.difference_update(numbers)
        for number in numbers:
            self._astray.pop(number, None)
            self._begun.pop(number, None)

    def _look_for_beginnings(self) -> None:
        """Begin partitions that librdkafka does not know where to begin.

        Nothing is committed, or what was committed is no longer there. Or neither: when a group is
        shared out anew while a commit waits for the end of a transaction, librdkafka (2.11) takes
        that for no commit, and would read everything again.
        """
        if time.monotonic() < self._begin_again_at:
            return
        for number in list(self._astray):
            offset = self._beginning(number)
            del self._astray[number]
            if offset is None:
                self._astray[number] = None  # behind the others
                self._begin_again_at = time.monotonic() + _BEGIN_AGAIN_S
                return
            self._begun[number] = offset
            self._begin(TopicPartition(self._queue, number, offset))

    def _beginning(self, number: int) -> int | None:
        """Where to begin; None while that is not known, such as during a transaction."""
        place = TopicPartition(self._queue, number)
        try:
            (committed,) = self._client.committed([place], timeout=_BEGIN_S)
            if committed.error is not None:
                return None
            offset: int = committed.offset
            if offset < 0:
                return int(OFFSET_BEGINNING)
            oldest, end = self._client.get_watermark_offsets(place, timeout=_BEGIN_S)
        except KafkaException:
            return None
        return offset if oldest <= offset <= end else int(OFFSET_BEGINNING)

    def _begin(self, place: TopicPartition) -> None:
        """Read a partition of ours from `place` on. librdkafka does not seek in one that errs."""
        try:
            self._client.incremental_unassign([place])
            self._client.incremental_assign([place])
        except KafkaException as exception:
            if exception.args[0].code() != codes.STATE:
                raise
            # The group shares out eagerly: such an assignment is only taken as a whole.
            places = self._client.position(self._client.assignment())
            for one in places:
                if one.partition == place.partition or one.offset < 0:  # nothing of it came yet
                    one.offset = self._begun.get(one.partition, OFFSET_STORED)
            self._client.assign(places)

    def _on_error(self, error: KafkaError, number: int | None) -> None:
        code = error.code()
        if code == codes.PARTITION_EOF:
            return
        if code == codes.AUTO_OFFSET_RESET:
            if number is not None and number in self._books.numbers():
                self._astray[number] = None
            return
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._fail(ConfigError(may_not_sentence(self._queue)))
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._fail(
                ConfigError(
                    f"Kafka does not let our user join the consumer group {self._group!r}. "
                    "Give it the right to Read this group, or change KAFKA_GROUP."
                )
            )
        elif code == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
            self._fail(
                ConfigError(
                    f"The consumer group {self._group!r} has members that share out partitions in "
                    "another way than ours (cooperative-sticky). Stop them all before starting "
                    "this, choose another KAFKA_GROUP, or set "
                    "KAFKA_OPTIONS=partition.assignment.strategy=range,roundrobin here."
                )
            )
        elif code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            # Made at the start, but not now: whoever removed it may want it otherwise.
            self._look_again_at = time.monotonic() + _TOPIC_AGAIN_S
            self._fail(
                ConfigError(
                    f"The Kafka topic {self._queue!r} was removed while we read it. "
                    "Make it again, or change QUEUE_NAME."
                )
            )
        elif error.fatal():
            self._fail(ConfigError(f"Kafka put us out of the group: {error.str()}."))
        else:
            self._connection.on_error(error)

    def _look_for_removed_topic(self) -> None:
        if self._look_again_at is None or time.monotonic() < self._look_again_at:
            return
        self._look_again_at = time.monotonic() + _TOPIC_AGAIN_S
        with contextlib.suppress(BrokerUnavailable, CredentialsRejected):
            if self._cluster.has_topic(self._queue, _TOPIC_S):
                self._look_again_at = None
                self._failure = None

    def _look_for_idleness(self) -> None:
        """Say that this worker has nothing to do, when the group is larger than the topic."""
        if self._is_idle_said:
            return
        if self._books.numbers() or not is_member(self._client.consumer_group_metadata()):
            self._idle_since = None
            return
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if now - self._idle_since >= _IDLE_S:
            self._is_idle_said = True
            self._log.warning(
                "no_partition_left",
                queue=self._queue,
                group=self._group,
                reason=f"The group {self._group!r} has more members than the topic "
                f"{self._queue!r} has partitions, so this worker has nothing to do until another "
                "one leaves. Give the topic more partitions, or run fewer workers.",
            )

    def _fail(self, error: ConfigError) -> None:
        with self._changed:
            is_news = self._failure is None or str(self._failure) != str(error)
            self._failure = error
            self._changed.notify_all()
        if is_news:
            self._log.error("queue_refused", queue=self._queue, reason=str(error))

    def _on_stats(self, text: str) -> None:
        stats = json.loads(text)
        if any(is_up(broker) for broker in stats.get("brokers", {}).values()):
            self._connection.came_up()
        partitions = stats.get("topics", {}).get(self._queue, {}).get("partitions", {})
        ours = self._books.numbers()
        positions = self._books.positions()
        lags = [
            lag
            for number in ours
            if (lag := lag_of(partitions.get(str(number), {}), positions.get(number))) is not None
        ]
        self._lag = sum(lags) if lags else None

    def _leave(self) -> None:
        try:
            self._client.close()  # revokes, so the finished prefix is committed on the way
        except KafkaException as error:
            self._log.warning("broker_left_badly", reason=error.args[0].name())
        self._paused_numbers.clear()  # a closed client takes no wishes
        self._committer.close()
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._drop(self._books.numbers())


def lag_of(entry: dict[str, Any], position: int | None) -> int | None:
    """Messages of one partition that are not finished, by its statistics; None if unknown.

    librdkafka's own figure ends at the last commit of the consumer, and knows of none that a
    transaction brought, so it counts only until something came.

    >>> lag_of({"hi_offset": 12, "consumer_lag": -1}, 9), lag_of({"consumer_lag": 4}, None)
    (3, 4)
    """
    end, known = entry.get("hi_offset", -1), entry.get("consumer_lag", -1)
    if position is not None and end >= 0:
        return max(0, int(end) - position)
    return int(known) if known >= 0 else None


def is_up(broker: dict[str, Any]) -> bool:
    """True for a broker that the statistics call connected and logged in."""
    return broker.get("state") == "UP" and broker.get("nodeid", -1) >= 0
