"""RabbitMQ from its package, for the machine: workers reach it by a way that can be broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import httpx
import pika
from pika.exceptions import AMQPError

from connected.start_rabbitmq import Address, RabbitMQ
from proof.history import Fault
from proof.plan import Kind, Weather
from proof.queues import Raw, freeze, thaw
from proof.unreliable_way import Mode, UnreliableWay

_MODES: dict[Kind, Mode] = {"broker refuses": "refuses", "broker resets": "resets"}
_QUORUM = {"x-queue-type": "quorum"}
# RabbitMQ keeps no time of arrival. The reader sees a message some milliseconds after it came;
# that a busy machine makes a second of them is foreseen, and more when it had to connect anew.
_READER_LATE_S = 5.0
_START_S = _READ_S = 300.0  # on a machine that is busy with other things
_UNSURE_AFTER_CONNECT_S = 15.0


class RabbitSystem:
    """A node of its own, killed and started, frozen, cut off."""

    name = "rabbitmq"
    has_transactions = False
    troubles: tuple[Kind, ...] = (*_MODES, "broker killed", "broker freezes")

    def __init__(self) -> None:
        self._server = RabbitMQ()
        self._server.start(_START_S)
        self._way = UnreliableWay("rabbitmq", Weather(), to="broker")
        self._way.lead_to(int(self._server.address.host.rpartition(":")[2]))
        with _connection(self._server.address) as connection:
            product = connection._impl.server_properties["version"]
        self.version = (
            f"RabbitMQ {product} (one node, quorum queues), pika {metadata.version('pika')}"
        )

    def open(self, run: str, lease_s: float, *, is_calm: bool) -> RabbitQueues:
        return RabbitQueues(self._server.address, self._way, run)

    def begin(self, trouble: Kind) -> None:
        if trouble == "broker killed":
            self._server.kill()
        elif trouble == "broker freezes":
            freeze(self._server)
        else:
            self._way.set_mode(_MODES[trouble])

    def end(self, trouble: Kind) -> None:
        if trouble == "broker killed":
            self._server.start(_START_S)
        elif trouble == "broker freezes":
            thaw(self._server)
        else:
            self._way.set_mode("open")

    def close(self) -> None:
        self._way.close()
        self._server.close()


class RabbitQueues:
    """Three quorum queues, and a reader that takes what comes to two of them."""

    faults: Sequence[Fault] = ()

    def __init__(self, address: Address, way: UnreliableWay, run: str) -> None:
        self._address, self._way = address, way
        self._events, self._target = f"proof-{run}", f"proof-{run}-results"
        self._dead = f"proof-{run}.dlq"
        self.results: list[Raw] = []
        self.letters: list[Raw] = []
        with _connection(address) as connection:
            channel = connection.channel()
            for name in (self._target, self._dead):
                channel.queue_declare(name, durable=True, arguments=_QUORUM)
            channel.queue_declare(
                self._events,
                durable=True,
                arguments={
                    **_QUORUM,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": self._dead,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                    "x-delivery-limit": 20,
                },
            )
        self._stop = threading.Event()
        self._is_read = self._is_closing = False
        self._thread = threading.Thread(target=self._read, name="proof-reader", daemon=True)
        self._thread.start()

    @property
    def variables(self) -> Mapping[str, str]:
        return {
            "QUEUE_SYSTEM": "RABBITMQ",
            "QUEUE_NAME": self._events,
            "QUEUE_TARGET": self._target,
            "QUEUE_DEAD_LETTER": self._dead,
            "RABBITMQ_HOST": f"127.0.0.1:{self._way.port}",
            "RABBITMQ_USERNAME": self._address.username,
            "RABBITMQ_PASSWORD": self._address.password,
        }

    def send(self, bodies: Sequence[bytes]) -> None:
        with _connection(self._address) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(
                    "", self._events, body, pika.BasicProperties(delivery_mode=2), mandatory=True
                )

    def is_settled(self) -> bool:
        """By the management's count, seconds old: also of what a consumer holds."""
        url = f"{self._address.management_url}/api/queues/%2F/{self._events}"
        login = (self._address.username, self._address.password)
        try:
            answer = httpx.get(url, auth=login, timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK and answer.json().get("messages") == 0

    def finish(self) -> list[bytes]:
        self._stop.set()
        self._thread.join(_READ_S)
        if not self._is_read:
            raise RuntimeError("the results could not be read to their end")
        left: list[bytes] = []
        with _connection(self._address) as connection:
            channel = connection.channel()
            while True:
                method, _, body = channel.basic_get(self._events)
                if method is None:
                    return left
                left.append(body)  # unacknowledged, so it is not given out twice

    def close(self) -> None:
        self._is_closing = True
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._is_read and not self._is_closing:
            try:
                with _connection(self._address) as connection:
                    self._consume(connection)
            except (AMQPError, OSError):
                time.sleep(0.3)

    def _consume(self, connection: Any) -> None:
        sure_from = time.time() + _UNSURE_AFTER_CONNECT_S if self.results else 0.0
        looked_at = time.time()  # what came since may have come then, should we not have had a turn

        def take(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            headers = {name: str(value) for name, value in (properties.headers or {}).items()}
            sent_at = looked_at - _READER_LATE_S if looked_at > sure_from else None
            raw = Raw(body, headers, sent_at)
            (self.letters if method.routing_key == self._dead else self.results).append(raw)
            channel.basic_ack(method.delivery_tag)

        channel = connection.channel()
        channel.basic_qos(prefetch_count=100)
        tags = [channel.basic_consume(name, take) for name in (self._target, self._dead)]
        while not self._stop.is_set():
            looked_at = time.time()
            connection.process_data_events(0.2)
        for tag in tags:
            channel.basic_cancel(tag)  # gives back what was not taken; what follows comes after it
        for name in (self._target, self._dead):
            while True:
                method, properties, body = channel.basic_get(name)
                if method is None:
                    break
                take(channel, method, properties, body)
        self._is_read = True


def _connection(address: Address) -> Any:
    host, _, port = address.host.rpartition(":")
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host,
            int(port),
            credentials=pika.PlainCredentials(address.username, address.password),
            socket_timeout=5,
            stack_timeout=10,
            heartbeat=30,
        )
    )
