"""The RabbitMQ producer: every publish waits for the broker's confirmation."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from pika import exceptions

from vault_ml.brokers.port import Message
from vault_ml.brokers.rabbitmq.link import Link
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.status import (
    ACCESS_REFUSED,
    NOT_FOUND,
    Status,
    size_limit_in,
)
from vault_ml.brokers.rabbitmq.topology import Topology, may_not_sentence
from vault_ml.brokers.rabbitmq.wire import check_headers, to_wire
from vault_ml.errors import BrokerUnavailable, ConfigError, MessageTooLarge, VaultMLError
from vault_ml.telemetry.log import Log

_SLICE_S = 0.2  # of waiting; between slices a refused login is noticed
_LONGEST_NAME_BYTES = 255  # a short string of AMQP
_TRIES = 3  # of a message whose channel was closed because of another one


class Unroutable(Exception):  # an outcome of `send`; `publish` makes the queue and tries again
    """RabbitMQ has no queue for this message."""


@dataclass(slots=True, eq=False)
class _Sending:
    exchange: str
    destination: str
    body: bytes
    properties: Any
    confirmed: Future[None] = field(default_factory=Future)
    tries: int = 0
    is_returned: bool = False


class RabbitProducer:
    """Sends persistent messages, mandatory and with publisher confirms.

    A destination that does not exist is made when the broker lets us.
    """

    def __init__(
        self, options: RabbitOptions, *, log: Log, by_exchange: Collection[str] = ()
    ) -> None:
        """Start; connecting happens in the background.

        Args:
            options: how to reach the broker.
            log: told every change of state once.
            by_exchange: destinations that are published to the exchange of `options`; all others
                go straight to their queue.
        """
        self._options = options
        self._by_exchange = frozenset(by_exchange)
        self._status = Status(options, log, "producer")
        self._topology = Topology(options, log)
        self._lock = threading.Lock()  # guards the four below
        self._outbox: deque[_Sending] = deque()
        self._in_flight: dict[int, _Sending] = {}
        self._max_bytes: int | None = None
        self._is_closing = False

        # Only the link's thread touches these.
        self._channel: Any = None
        self._next_tag = 1
        self._is_blocked = False
        self._link = Link(
            options,
            self._status,
            log,
            name="rabbitmq-producer",
            prepare=lambda: None,
            on_up=self._on_up,
            on_down=self._on_down,
            on_tick=lambda: None,
            on_end=self._on_down,
        )
        self._link.start()

    # The port: any thread.

    def publish(self, destination: str, message: Message, *, timeout_s: float) -> None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        exchange = self._options.exchange if destination in self._by_exchange else ""
        try:
            self._publish(exchange, destination, message, deadline)
        except Unroutable:
            self._topology.ensure_target(destination, exchange)
            try:
                self._publish(exchange, destination, message, deadline)
            except Unroutable as error:
                raise ConfigError(
                    f"RabbitMQ routes no message to the queue {destination!r} though it exists; "
                    f"bind it to the exchange {exchange!r} with its name as routing key."
                ) from error

    def ping(self, timeout_s: float) -> None:
        """As the port says."""
        self._link.ping(timeout_s)

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._is_closing = True
            waiting = [one.confirmed for one in (*self._outbox, *self._in_flight.values())]
        for future in waiting:
            try:
                future.exception(max(0.0, deadline - time.monotonic()))
            except FutureTimeout:
                break
        self._link.stop()
        self._link.join(max(0.5, deadline - time.monotonic()))

    # For the consumer, which sends copies: any thread, does not wait.

    def send(self, exchange: str, destination: str, body: bytes, properties: Any) -> Future[None]:
        """Send soon.

        Returns:
            A future that is done when the broker has confirmed, or fails with a `VaultMLError` or
            `Unroutable`. While there is no connection it stays open; see `withdraw`.
        """
        return self._send(_Sending(exchange, destination, body, properties)).confirmed

    def withdraw(self, confirmed: Future[None]) -> None:
        """Fail what `send` returned, and do not send it any more; too late when it was sent."""
        with self._lock:
            unsent = [one for one in self._outbox if one.confirmed is confirmed]
            for sending in unsent:
                self._outbox.remove(sending)
        for sending in unsent:
            sending.confirmed.set_exception(self._not_confirmed(sending.destination))

    def _send(self, sending: _Sending) -> _Sending:
        sending.confirmed.set_running_or_notify_cancel()
        with self._lock:
            is_closing = self._is_closing
            if not is_closing:
                self._outbox.append(sending)
        if is_closing:
            sending.confirmed.set_exception(BrokerUnavailable("The RabbitMQ producer is closed."))
        else:
            self._link.call(self._send_waiting)
        return sending

    def _publish(self, exchange: str, destination: str, message: Message, deadline: float) -> None:
        properties = to_wire(message)
        sending = self._send(_Sending(exchange, destination, message.body, properties))
        while True:
            left = deadline - time.monotonic()
            try:
                sending.confirmed.result(max(0.0, min(left, _SLICE_S)))
            except FutureTimeout:
                if self._link.crash is not None:
                    raise RuntimeError("the RabbitMQ producer thread died") from self._link.crash
                if refusal := self._status.refusal():
                    self._abandon(sending)
                    raise refusal from None
                if left <= 0:
                    self._abandon(sending)
                    raise self._not_confirmed(destination) from None
            else:
                return

    def _abandon(self, sending: _Sending) -> None:
        """Nobody waits for it any more; unless it was sent already, it must not be sent later."""
        with self._lock:
            if sending in self._outbox:
                self._outbox.remove(sending)

    def _not_confirmed(self, destination: str) -> BrokerUnavailable:
        if not self._status.is_up or self._is_blocked:
            return self._status.unavailable()
        return BrokerUnavailable(
            f"{self._options.where} did not confirm a message to {destination!r} in time; the "
            "queue may be without a leader, or the broker short of memory or disk space."
        )

    # The link's thread.

    def _on_up(self, connection: Any) -> None:
        self._is_blocked = False
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        with self._lock:
            self._max_bytes = None  # may have been raised
        self._open_channel(connection)

    def _open_channel(self, connection: Any) -> None:
        self._channel = None
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)

        def confirming(_frame: Any) -> None:
            self._channel, self._next_tag = channel, 1
            self._send_waiting()

        channel.confirm_delivery(self._confirmed, confirming)

    def _set_blocked(self, is_blocked: bool) -> None:
        self._is_blocked = is_blocked
        self._status.blocked(is_blocked)
        self._send_waiting()

    def _send_waiting(self) -> None:
        channel = self._channel
        while channel is not None and channel.is_open and not self._is_blocked:
            with self._lock:
                if not self._outbox:
                    return
                sending = self._outbox.popleft()
                limit = self._max_bytes
            if (refusal := self._refusal_of(sending, channel, limit)) is not None:
                sending.confirmed.set_exception(refusal)
                continue
            tag, self._next_tag = self._next_tag, self._next_tag + 1
            sending.tries += 1
            with self._lock:
                self._in_flight[tag] = sending
            channel.basic_publish(
                sending.exchange,
                sending.destination,
                sending.body,
                sending.properties,
                mandatory=True,
            )

    def _refusal_of(self, sending: _Sending, channel: Any, limit: int | None) -> Exception | None:
        """Why the broker would close the channel or the connection on it, as far as we know."""
        size = len(sending.body)
        if limit is not None and size > limit:
            return _too_large(size, limit)
        try:
            check_headers(sending.properties, channel.connection.params.frame_max)
        except MessageTooLarge as error:
            return error
        except exceptions.AMQPError:
            return MessageTooLarge("RabbitMQ cannot carry the headers of this message.")
        if len(sending.destination.encode()) > _LONGEST_NAME_BYTES:
            return ConfigError(f"{sending.destination[:40]!r}... is too long for a queue's name.")
        return None

    def _returned(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        # The broker sends this before the confirmation of the same message.
        with self._lock:
            for sending in self._in_flight.values():
                if sending.properties.message_id == properties.message_id:
                    sending.is_returned = True

    def _confirmed(self, frame: Any) -> None:
        is_ack = frame.method.NAME == "Basic.Ack"
        tag, is_multiple = frame.method.delivery_tag, frame.method.multiple
        with self._lock:
            tags = [one for one in self._in_flight if one == tag or (is_multiple and one < tag)]
            done = [self._in_flight.pop(one) for one in tags]
        for sending in done:
            if not is_ack:
                sending.confirmed.set_exception(
                    BrokerUnavailable(
                        f"RabbitMQ refused to take a message for {sending.destination!r}: the "
                        "queue is full, or without a leader."
                    )
                )
            elif sending.is_returned:
                sending.confirmed.set_exception(Unroutable())
            else:
                sending.confirmed.set_result(None)

    def _channel_closed(self, channel: Any, reason: BaseException) -> None:
        self._channel = None
        with self._lock:
            sent = list(self._in_flight.values())
            self._in_flight.clear()
            self._max_bytes = size_limit_in(reason) or self._max_bytes
            limit = self._max_bytes
        again: list[_Sending] = []
        for sending in sent:
            if (error := self._told(sending, reason, limit)) is not None:
                sending.confirmed.set_exception(error)
            else:
                again.append(sending)
        with self._lock:
            self._outbox.extendleft(reversed(again))
        if isinstance(reason, exceptions.ChannelClosedByBroker) and channel.connection.is_open:
            self._open_channel(channel.connection)

    def _told(
        self, sending: _Sending, reason: BaseException, limit: int | None
    ) -> VaultMLError | None:
        """What a closed channel means for a message that was not confirmed; None: send it again."""
        if not isinstance(reason, exceptions.ChannelClosedByBroker):
            return self._not_confirmed(sending.destination)
        size = len(sending.body)
        if limit is not None and size > limit:
            return _too_large(size, limit)
        names_exchange = f"exchange '{sending.exchange}'" in reason.reply_text
        if reason.reply_code == NOT_FOUND and names_exchange:
            return ConfigError(
                f"RabbitMQ has no exchange {sending.exchange!r}; make it, or unset "
                "RABBITMQ_EXCHANGE to publish to the queue directly."
            )
        if reason.reply_code == ACCESS_REFUSED and (names_exchange or not sending.exchange):
            return ConfigError(may_not_sentence(sending.destination))
        if sending.tries >= _TRIES:
            return BrokerUnavailable(
                f"RabbitMQ closed the channel over a message to {sending.destination!r} "
                f"({reason.reply_code})."
            )
        return None

    def _on_down(self) -> None:
        self._channel = None
        with self._lock:
            sent = list(self._in_flight.values())
            self._in_flight.clear()
            if self._is_closing:
                sent += self._outbox
                self._outbox.clear()
        for sending in sent:
            sending.confirmed.set_exception(self._not_confirmed(sending.destination))


def _too_large(size: int, limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"RabbitMQ refuses a message of {size} bytes; its limit is {limit} (max_message_size)."
    )
