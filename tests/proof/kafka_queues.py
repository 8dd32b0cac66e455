"""Apache Kafka from its jars, and librdkafka's mock cluster, for the machine."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Message as ClientMessage
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connected.start_kafka import VERSION, ApacheKafka
from proof.history import Fault
from proof.plan import Kind
from proof.queues import Raw, freeze, thaw
from vault_ml.brokers.kafka import LIBRDKAFKA_VERSION
from vault_ml.demo.kafka_server import EmbeddedKafka

_QUIET = logging.Logger("quiet")  # noqa: LOG001
PARTITIONS = 4
_ANSWER_S = 5.0
_START_S = _READ_S = 300.0  # on a machine that is busy with other things


class ApacheKafkaSystem:
    """A node of its own, killed and started as the seed says."""

    name = "kafka"
    has_transactions = True
    troubles: tuple[Kind, ...] = ("broker killed", "broker freezes")

    def __init__(self) -> None:
        self._server = ApacheKafka()
        self._server.start(_START_S)
        self.version = f"Apache Kafka {VERSION} (KRaft, one node), librdkafka {LIBRDKAFKA_VERSION}"

    def open(self, run: str, lease_s: float, *, is_calm: bool) -> KafkaQueues:
        def make(names: Sequence[str]) -> None:
            admin = AdminClient(_client(bootstrap), logger=_QUIET)
            topics = [NewTopic(name, PARTITIONS, 1) for name in names]
            for made in admin.create_topics(topics).values():
                made.result(30)

        bootstrap = self._server.address().bootstrap
        return KafkaQueues(bootstrap, run, lease_s, make)

    def begin(self, trouble: Kind) -> None:
        if trouble == "broker freezes":
            freeze(self._server)
        else:
            self._server.kill()

    def end(self, trouble: Kind) -> None:
        if trouble == "broker freezes":
            thaw(self._server)
        else:
            self._server.start(_START_S)

    def close(self) -> None:
        self._server.close()


class MockKafkaSystem:
    """librdkafka's mock cluster: the protocol without the broker, for quick runs."""

    name = "kafka-mock"
    has_transactions = False
    troubles: tuple[Kind, ...] = ("broker refuses",)

    def __init__(self) -> None:
        self._server = EmbeddedKafka()
        self.version = f"librdkafka {LIBRDKAFKA_VERSION} mock cluster"

    def open(self, run: str, lease_s: float, *, is_calm: bool) -> KafkaQueues:
        def make(names: Sequence[str]) -> None:
            for name in names:
                self._server.create_topic(name, PARTITIONS)

        return KafkaQueues(self._server.bootstrap, run, min(lease_s, 2.0), make)

    def begin(self, trouble: Kind) -> None:
        self._server.set_down()

    def end(self, trouble: Kind) -> None:
        self._server.set_up()

    def close(self) -> None:
        self._server.close()


class KafkaQueues:
    """Three topics of four partitions, and a reader that belongs to no group."""

    faults: Sequence[Fault] = ()

    def __init__(
        self,
        bootstrap: str,
        run: str,
        lease_s: float,
        make: Callable[[Sequence[str]], None],
    ) -> None:
        self._events, self._target = f"proof-{run}", f"proof-{run}-results"
        self._dead = f"proof-{run}.dlq"
        self._group = f"proof-{run}-workers"
        self._bootstrap = bootstrap
        self._lease_s = lease_s
        self.results: list[Raw] = []
        self.letters: list[Raw] = []
        make((self._events, self._target, self._dead))
        # Only asked how far the workers' group has come; it never joins.
        # For it the end of a topic is the end of what was written, committed or not.
        self._looker = self._consumer(self._group, **{"isolation.level": "read_uncommitted"})
        self._reader = self._consumer(
            f"proof-{run}-reader",
            # The end of a transaction takes an offset of its own, and is no message.
            **{"isolation.level": "read_committed", "enable.partition.eof": True},
        )
        self._reader.assign(
            [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic in (self._target, self._dead)
                for number in range(PARTITIONS)
            ]
        )
        self._read_to: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="proof-reader", daemon=True)
        self._thread.start()

    @property
    def variables(self) -> Mapping[str, str]:
        options = {
            "session.timeout.ms": str(round(self._lease_s * 1000)),
            "heartbeat.interval.ms": str(round(self._lease_s * 1000 / 5)),
            "fetch.wait.max.ms": "50",
        }
        return {
            "QUEUE_SYSTEM": "KAFKA",
            "QUEUE_NAME": self._events,
            "QUEUE_TARGET": self._target,
            "QUEUE_DEAD_LETTER": self._dead,
            "KAFKA_BROKER": self._bootstrap,
            "KAFKA_GROUP": self._group,
            "KAFKA_OPTIONS": ",".join(f"{name}={value}" for name, value in options.items()),
        }

    def send(self, bodies: Sequence[bytes]) -> None:
        failures: list[Any] = []

        def heard(error: Any, _message: ClientMessage) -> None:
            if error is not None:
                failures.append(error)

        producer = Producer({**_client(self._bootstrap), "acks": "all"}, logger=_QUIET)
        for number, body in enumerate(bodies):
            producer.produce(self._events, body, partition=number % PARTITIONS, on_delivery=heard)
        if producer.flush(60) or failures:
            raise RuntimeError(f"events were not sent: {failures[:1]}")

    def is_settled(self) -> bool:
        try:
            return all(low >= high for _, low, high in self._left())
        except KafkaException:
            return False

    def finish(self) -> list[bytes]:
        ends = {
            (topic, number): self._end(topic, number)
            for topic in (self._target, self._dead)
            for number in range(PARTITIONS)
        }
        # A transaction of a dead worker hides what comes after it, until the broker ends it.
        deadline = time.monotonic() + _READ_S
        while any(self._read_to.get(where, 0) < end for where, end in ends.items()):
            if time.monotonic() > deadline:
                raise RuntimeError("the results could not be read to their end")
            time.sleep(0.02)
        return [
            body for number, low, high in self._left() for body in self._bodies(number, low, high)
        ]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()
        self._looker.close()

    # --- looking ---------------------------------------------------------------------------------

    def _left(self) -> list[tuple[int, int, int]]:
        """For each partition of the events: from where to where the group must still go."""
        wanted = [TopicPartition(self._events, number) for number in range(PARTITIONS)]
        committed = self._looker.committed(wanted, timeout=_ANSWER_S)
        return [
            (one.partition, max(0, one.offset), self._end(self._events, one.partition))
            for one in committed
        ]

    def _end(self, topic: str, number: int) -> int:
        # Asked anew each time, not from what the client remembers.
        answer = self._looker.get_watermark_offsets(
            TopicPartition(topic, number), timeout=_ANSWER_S, cached=False
        )
        if answer is None:
            raise KafkaException(f"no answer about {topic}")
        end: int = answer[1]
        return end

    def _bodies(self, number: int, low: int, high: int) -> list[bytes]:
        if low >= high:
            return []
        reader = self._consumer("proof-backlog")
        reader.assign([TopicPartition(self._events, number, low)])
        bodies = []
        try:
            while True:
                message = reader.poll(60)
                if message is None or message.error():
                    raise RuntimeError("what is left of the events could not be read")
                bodies.append(message.value() or b"")
                if (message.offset() or 0) + 1 >= high:
                    return bodies
        finally:
            reader.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            message = self._reader.poll(0.1)
            if message is None:
                continue
            where = (str(message.topic()), message.partition() or 0)
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF:
                    self._read_to[where] = message.offset() or 0
                continue
            kind, millis = message.timestamp()
            raw = Raw(message.value() or b"", _headers(message), millis / 1000 if kind else None)
            (self.letters if message.topic() == self._dead else self.results).append(raw)
            self._read_to[where] = (message.offset() or 0) + 1

    def _consumer(self, group: str, **more: Any) -> Consumer:
        return Consumer(
            {
                **_client(self._bootstrap),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                **more,
            },
            logger=_QUIET,
        )


def _client(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "error_cb": lambda _error: None,
        "reconnect.backoff.max.ms": 1000,
    }


def _headers(message: ClientMessage) -> dict[str, str]:
    pairs: Any = message.headers() or []
    headers = {}
    for name, value in pairs:
        with contextlib.suppress(UnicodeDecodeError, AttributeError):
            headers[name] = value.decode()
    return headers
