"""The Kafka producer: every publish waits for the broker's confirmation."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as ClientMessage

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.cluster import Cluster, checked_client
from vault_ml.brokers.kafka.connection import Connection
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.kafka.refusals import NO_TOPIC, refusal
from vault_ml.brokers.port import Message
from vault_ml.errors import BrokerUnavailable
from vault_ml.telemetry.log import Log

_ANY_PARTITION = -1  # librdkafka chooses: by the key, else at random
_POLL_S = 0.1
_SLICE_S = 0.2  # of waiting; between slices a refused login is noticed


class KafkaProducer:
    """Sends with acks of all replicas, idempotently, keyed messages in order.

    A destination that does not exist is made when the broker lets us.
    """

    def __init__(self, options: KafkaOptions, *, log: Log) -> None:
        """Start; connecting happens in the background.

        Raises:
            ConfigError: librdkafka does not take the options.
        """
        self._options = options
        self._connection = Connection(options, log, "producer")
        self._cluster = Cluster(options, self._connection, log)
        self._lock = threading.Lock()  # guards the two below
        self._known: set[str] = set()
        self._client = self._new_client()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-producer", daemon=True)
        self._thread.start()

    def publish(
        self,
        destination: str,
        message: Message,
        *,
        timeout_s: float,
        partition: int = _ANY_PARTITION,
    ) -> None:
        """As the port says; to one `partition`, or to the one that the key falls to."""
        deadline = time.monotonic() + timeout_s
        self._ensure_topic(destination, deadline)
        error = self._send(destination, partition, message, deadline)
        if error is not None and error.code() in NO_TOPIC:
            # It was there when we looked, and was removed since.
            self._forget(destination)
            self._ensure_topic(destination, deadline)
            error = self._send(destination, partition, message, deadline)
        if error is not None:
            self._forget(destination)
            raise self._translated(error, destination, message)
        self._connection.came_up()

    def ping(self, timeout_s: float) -> None:
        """As the port says."""
        self._cluster.ping(timeout_s)

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        if self._is_closing.is_set():
            return
        deadline = time.monotonic() + timeout_s
        with self._lock:
            client = self._client
        client.flush(timeout_s)
        self._is_closing.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) + _POLL_S)
        client.purge()

    def _ensure_topic(self, destination: str, deadline: float) -> None:
        if destination in self._known:
            return
        self._cluster.ensure_topic(destination, max(0.0, deadline - time.monotonic()))
        with self._lock:
            client = self._client
        try:
            # What the client itself remembers of the topic, such as a refusal, is renewed by this.
            client.list_topics(destination, timeout=max(0.01, deadline - time.monotonic()))
        except KafkaException as error:
            raise self._connection.unavailable() from error
        with self._lock:
            self._known.add(destination)

    def _forget(self, destination: str) -> None:
        with self._lock:
            self._known.discard(destination)

    def _send(
        self, destination: str, partition: int, message: Message, deadline: float
    ) -> KafkaError | None:
        """Send and wait; returns the broker's error, or None when it is confirmed.

        Raises:
            BrokerUnavailable: neither came in time.
            CredentialsRejected: the login was refused meanwhile.
        """
        reported: Future[KafkaError | None] = Future()

        def on_delivery(error: KafkaError | None, _message: ClientMessage) -> None:
            reported.set_result(error)

        if self._is_closing.is_set():
            raise BrokerUnavailable("The Kafka producer is closed.")
        with self._lock:
            client = self._client
        try:
            client.produce(
                destination,
                value=message.body,
                key=message.key,
                partition=partition,
                headers=[(name, value.encode()) for name, value in message.headers.items()],
                on_delivery=on_delivery,
            )
        except BufferError as error:
            raise self._connection.unavailable() from error
        except KafkaException as error:
            refused: KafkaError = error.args[0]
            return refused
        while True:
            left = deadline - time.monotonic()
            try:
                return reported.result(max(0.0, min(left, _SLICE_S)))
            except FutureTimeout:
                if rejected := self._connection.refusal():
                    raise rejected from None
                if left <= 0:
                    raise self._connection.unavailable() from None

    def _translated(self, error: KafkaError, destination: str, message: Message) -> Exception:
        if (known := refusal(error, destination, message)) is not None:
            return known
        if error.fatal() or error.code() == codes.FATAL:
            self._replace_client()
        return BrokerUnavailable(
            f"Kafka at {self._options.brokers} did not confirm a message to {destination!r} "
            f"({error.name()})."
        )

    def _new_client(self) -> Producer:
        config = {**self._options.producer(), "error_cb": self._connection.on_error}
        return checked_client(Producer, config, self._connection)

    def _replace_client(self) -> None:
        """An idempotent producer that lost its sequence sends nothing more; take a new one."""
        with self._lock:
            self._client.purge()
            self._client = self._new_client()

    def _serve(self) -> None:
        while not self._is_closing.is_set():
            with self._lock:
                client = self._client
            try:
                client.poll(_POLL_S)
            except KafkaException:
                # A client that cannot go on says so here, too; whoever publishes replaces it.
                self._is_closing.wait(_POLL_S)
            self._cluster.serve()
