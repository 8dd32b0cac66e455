"""The RabbitMQ consumer: one thread that owns the connection, and deliveries settled by ack.

What AMQP does not have is made here. It confirms no acknowledgement, so after each batch of them
the queue is asked something on the same channel; when the answer comes, the broker has taken what
stood before it. It knows no delay, so what is to be tried later is kept in hand. It counts no
attempts, so a try that counts is sent to the end of the queue as a copy that carries the count,
and the original is acknowledged once the broker has confirmed the copy. It does not extend a
lease, so one that grows old is given back and taken again. See docs/howto/rabbitmq.md.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from pika import exceptions

from vault_ml.brokers.port import SettlementLost
from vault_ml.brokers.rabbitmq.delivery import RabbitDelivery
from vault_ml.brokers.rabbitmq.leases import Held, Leases, Phase
from vault_ml.brokers.rabbitmq.limits import Limits, default_delivery_limit
from vault_ml.brokers.rabbitmq.link import Link
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.prefetch import Prefetch
from vault_ml.brokers.rabbitmq.producer import RabbitProducer
from vault_ml.brokers.rabbitmq.status import (
    ACCESS_REFUSED,
    NOT_FOUND,
    RESOURCE_LOCKED,
    Status,
    ack_timeout_in,
)
from vault_ml.brokers.rabbitmq.topology import Topology, may_not_sentence
from vault_ml.brokers.rabbitmq.wire import copy_to_wire, from_wire
from vault_ml.errors import ConfigError
from vault_ml.telemetry.log import Log

_WAKE_S = 0.5  # how long a refused login may wait to be noticed by a waiting `receive`
_COPY_S = 5.0  # for the broker to confirm a copy; then the original goes on being kept in hand
_COPY_AGAIN_S = 10.0  # after one was refused
_ORPHANS_S = 30.0  # for what was in hand to be delivered again after the connection is back
_COUNT_EVERY_S = 5.0  # how many wait in the queue; beside that, with every settlement
_AGAIN_S = 2.0  # before the next try after the broker refused the queue
_MOST_PREFETCH = 65_535  # AMQP's
_SPARE_DELIVERIES = 5  # of the broker's limit, left for connections that break


class RabbitConsumer:
    """One of the competing consumers of a queue.

    The queue is used as it is; one that does not exist is made when the broker lets us: durable,
    quorum, with dead-lettering.
    """

    def __init__(
        self,
        options: RabbitOptions,
        queue: str,
        *,
        log: Log,
        prefetch: int = 100,
        limits: Limits | None = None,
        producer: RabbitProducer | None = None,
    ) -> None:
        """Start the broker thread; connecting happens there.

        Args:
            options: how to reach the broker.
            queue: its name.
            log: told every change of state once.
            prefetch: messages in our hands at once, beside those that wait for their next try.
            limits: how long and how often the broker lets us have a message.
            producer: sends the copies; None makes one for this consumer. Close it afterwards.
        """
        self._options = options
        self._queue = queue
        self._log = log
        self._limits = limits or Limits()
        self._status = Status(options, log, "consumer")
        self._topology = Topology(options, log)
        self._owns_producer = producer is None
        self._producer = producer or RabbitProducer(options, log=log)
        self._changed = threading.Condition()  # guards everything down to the blank line
        self._leases = Leases(queue)
        self._to_ack: list[tuple[int, Held | None]] = []  # delivery tag, whom it settles
        self._copies: dict[Held, tuple[Future[None], float]] = {}  # until when we wait for it
        self._old_tags: dict[Held, int] = {}  # of what is in hand and gets a copy as new lease
        self._failure: ConfigError | None = None
        self._is_paused = False
        self._is_closing = False

        # Only the link's thread touches these.
        self._channel: Any = None
        self._prefetch = Prefetch(prefetch)
        self._acked: list[Held] = []  # the broker was told
        self._asked: list[Held] = []  # and asked something behind it
        self._is_queue_there = False
        self._is_queue_made_by_us = False
        self._is_consuming = False
        self._count_at = 0.0  # when to ask how many are in the queue
        self._in_queue: int | None = None
        self._said_uncounted = False
        self._link = Link(
            options,
            self._status,
            log,
            name="rabbitmq-consumer",
            prepare=self._prepare,
            on_up=self._on_up,
            on_down=self._on_down,
            on_tick=self._on_tick,
            on_end=self._on_end,
        )
        self._link.start()

    # The port: any thread.

    def receive(self, timeout_s: float) -> RabbitDelivery | None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self._raise_trouble()
                if self._is_closing:
                    return None
                now = time.monotonic()
                due: float | None = None
                if not self._is_paused:
                    if (held := self._leases.receive(now)) is not None:
                        return RabbitDelivery(held, self)
                    due = self._leases.next_due()
                if now >= deadline:
                    return None
                wake = min(deadline, now + _WAKE_S, *([] if due is None else [due]))
                self._changed.wait(max(0.0, wake - now))

    def pause(self) -> None:
        """As the port says."""
        with self._changed:
            self._is_paused = True

    def resume(self) -> None:
        """As the port says."""
        with self._changed:
            self._is_paused = False
            self._changed.notify_all()

    def lag(self) -> int | None:
        """As the port says: what waits in the queue, and what is in our own hands."""
        in_queue = self._in_queue
        with self._changed:
            return None if in_queue is None else in_queue + len(self._leases)

    def ping(self, timeout_s: float) -> None:
        """As the port says."""
        self._link.ping(timeout_s)

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            is_first, self._is_closing = not self._is_closing, True
            uncounted = [one for one in self._leases.leased() if not one.is_counted_by_broker]
            self._changed.notify_all()
        if is_first:
            for held in uncounted:
                if held.phase is Phase.WAITING:
                    self._send_copy(held)
            # While there is a connection, its thread leaves when all is settled.
            if not self._link.call(self._leave_when_settled):
                self._link.stop()
        if not self._link.join(deadline - time.monotonic()):
            self._link.stop()
            if not self._link.join(0.2):
                self._log.warning(
                    "broker_left_waiting",
                    reason=f"RabbitMQ did not take our leave within {timeout_s:g} s; what is not "
                    "acknowledged will be delivered again.",
                )
                self._on_end()
        if self._owns_producer:
            self._producer.close(max(0.5, deadline - time.monotonic()))

    # What deliveries ask for: any thread.

    def finish(self, held: Held, future: Future[None]) -> bool:
        """For `RabbitDelivery.ack`; False when the message is somebody else's by now."""
        with self._changed:
            if held.is_gone:
                return False
            held.settled = future
            self._leases.finish(held)
            if held.tag is not None:
                self._to_ack.append((held.tag, held))
            elif self._channel is not None and held.give_up_at is None:
                held.give_up_at = time.monotonic() + _ORPHANS_S
        self._link.call(self._settle)
        return True

    def put_back(self, held: Held, after_s: float, *, burn_attempt: bool) -> None:
        """For `RabbitDelivery.retry`."""
        with self._changed:
            if held.is_gone:
                return
            held.attempt += 1 if burn_attempt else 0
            self._leases.wait(held, time.monotonic() + max(0.0, after_s))
            self._changed.notify_all()
            is_leased = held.tag is not None
        if burn_attempt and is_leased:
            self._send_copy(held)
        self._link.call(self._make_room)

    def _raise_trouble(self) -> None:
        if self._link.crash is not None:
            raise RuntimeError("the RabbitMQ broker thread died") from self._link.crash
        if refusal := self._status.refusal():
            raise refusal
        if self._failure is not None:
            raise ConfigError(str(self._failure))  # a fresh one for every thread

    # A copy that carries the count: any thread.

    def _send_copy(self, held: Held) -> None:
        """Send what waits, or is in hand, to the end of the queue, with its count."""
        now, wall = time.monotonic(), time.time()
        with self._changed:
            is_in_hand = held.phase is Phase.IN_HAND
            wait_s = held.due - now if held.phase is Phase.WAITING else 0.0
            properties = copy_to_wire(
                held.arrival,
                attempt=held.attempt,
                first_received_at=held.first_received_at,
                not_before=wall + wait_s if wait_s > 0 else 0.0,
            )
            if is_in_hand and held.tag is not None:
                # An orphan before the copy is sent, so that the copy finds it.
                self._old_tags[held] = held.tag
                self._leases.lose(held)
            else:
                self._leases.move(held)
        confirmed = self._producer.send("", self._queue, held.message.body, properties)
        with self._changed:
            self._copies[held] = (confirmed, now + _COPY_S)
        confirmed.add_done_callback(lambda future: self._copy_answered(held, future))

    def _copy_answered(self, held: Held, confirmed: Future[None]) -> None:
        error = confirmed.exception()
        with self._changed:
            self._copies.pop(held, None)
            old_tag = self._old_tags.pop(held, None)
            if error is not None:
                held.renew_after = time.monotonic() + _COPY_AGAIN_S
            is_waiting = held.phase in (Phase.MOVING, Phase.WAITING)
            if old_tag is not None:
                if error is None or held.tag is not None:
                    self._to_ack.append((old_tag, None))  # the copy stands for it
                else:
                    self._leases.restore(held, old_tag)
            elif error is None and is_waiting and not held.is_gone:
                self._leases.finish(held)  # the copy stands for it
                if held.tag is not None:
                    self._to_ack.append((held.tag, held))
            elif held.phase is Phase.MOVING:
                self._leases.wait(held, held.due)
            self._changed.notify_all()
        self._link.call(self._settle)
        if error is not None and not self._said_uncounted:
            self._said_uncounted = True
            self._log.warning(
                "attempts_not_kept",
                queue=self._queue,
                reason="RabbitMQ did not take the copy of an event that is to be tried again, so "
                f"its attempts are counted anew after a crash ({str(error) or 'no queue'}).",
            )

    # The link's thread.

    def _prepare(self) -> None:
        if not self._is_queue_there:
            self._is_queue_made_by_us = self._topology.ensure_source(self._queue)
            self._is_queue_there = True

    def _on_up(self, connection: Any) -> None:
        self._take_limit(str(connection.server_properties.get("version", "")))
        connection.channel(on_open_callback=self._channel_opened)

    def _take_limit(self, version: str) -> None:
        if self._limits.delivery_limit is not None:
            return
        limit = default_delivery_limit(version)
        self._limits = replace(self._limits, delivery_limit=limit)
        if limit < math.inf and not self._is_queue_made_by_us:
            self._log.warning(
                "dead_letters_unchecked",
                queue=self._queue,
                reason=f"RabbitMQ {version} gives up on an event after {limit:g} deliveries, and "
                "drops it when its queue has no dead-letter exchange. Set RABBITMQ_MANAGEMENT_URL "
                "to have this checked at start, or RABBITMQ_DELIVERY_LIMIT if you know better.",
            )

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(lambda _frame: self._link.reconnect())
        self._channel = channel
        self._is_consuming = False
        self._prefetch.reset()
        self._make_room()

    def _make_room(self) -> None:
        """Have as many consumers on the channel as the waiting messages ask for."""
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        with self._changed:
            waiting = self._leases.waiting
        if (more := self._prefetch.grow(waiting)) is not None:
            tag, count = more
            channel.basic_qos(prefetch_count=min(count, _MOST_PREFETCH))
            channel.basic_consume(
                self._queue, self._on_message, consumer_tag=tag, callback=self._consuming
            )
        elif (tag_over := self._prefetch.shrink(waiting)) is not None:
            channel.basic_cancel(tag_over)

    def _consuming(self, _frame: Any) -> None:
        with self._changed:
            self._failure = None
            if not self._is_consuming:
                self._leases.wait_for_orphans(time.monotonic() + _ORPHANS_S)
        self._is_consuming = True

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        arrival = from_wire(body, properties)
        with self._changed:
            held = self._leases.arrive(arrival, method.delivery_tag, time.monotonic(), time.time())
            if held.phase is Phase.DONE:
                self._to_ack.append((method.delivery_tag, held))
            is_uncounted = held.phase is Phase.WAITING and not held.is_counted_by_broker
            self._changed.notify_all()
        if is_uncounted:
            self._send_copy(held)
        if held.phase is Phase.DONE:
            self._settle()
        elif held.phase is Phase.WAITING:
            self._make_room()

    def _settle(self) -> None:
        """Acknowledge what is done, and ask the queue something behind it."""
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        with self._changed:
            batch, self._to_ack = self._to_ack, []
        for tag, held in batch:
            channel.basic_ack(tag)
            if held is not None:
                self._acked.append(held)
        if self._acked and not self._asked:
            self._asked, self._acked = self._acked, []
            channel.queue_declare(self._queue, passive=True, callback=self._answered)

    def _count(self, now: float) -> None:
        """Ask how many wait in the queue, now and then."""
        channel = self._channel
        if channel is None or not channel.is_open or not self._is_consuming or now < self._count_at:
            return
        self._count_at = now + _COUNT_EVERY_S
        channel.queue_declare(self._queue, passive=True, callback=self._counted)

    def _counted(self, frame: Any) -> None:
        self._in_queue = frame.method.message_count

    def _answered(self, frame: Any) -> None:
        self._counted(frame)
        asked, self._asked = self._asked, []
        with self._changed:
            for held in asked:
                self._leases.forget(held)
        for held in asked:
            if held.settled is not None:
                held.settled.set_result(None)
        self._settle()

    def _on_tick(self) -> None:
        now = time.monotonic()
        with self._changed:
            late = [future for future, until in self._copies.values() if until <= now]
            lost = self._leases.given_up(now)
        for future in late:
            self._producer.withdraw(future)
        self._say_lost(lost)
        with self._changed:
            for held, (_, until) in self._copies.items():
                if until <= now and held.phase is Phase.MOVING:
                    self._leases.wait(held, held.due)  # kept in hand, uncounted for now
            self._changed.notify_all()
        self._renew(now)
        self._count(now)
        self._make_room()
        self._settle()
        if self._is_closing:
            self._leave_when_settled()

    def _renew(self, now: float) -> None:
        """Give back what the broker would take from us soon; it comes again with a new lease."""
        with self._changed:
            old = [
                held
                for held in self._leases.leased()
                if held not in self._copies
                and held.renew_after <= now
                and now - held.leased_at
                > {
                    Phase.READY: self._limits.hold_until_s,
                    Phase.WAITING: self._limits.hold_until_s,
                    Phase.IN_HAND: self._limits.work_until_s,
                }.get(held.phase, math.inf)
            ]
        for held in old:
            self._give_back(held, now)
        if old:
            self._log.info("leases_renewed", queue=self._queue, events=len(old))

    def _give_back(self, held: Held, now: float) -> None:
        count, limit = held.arrival.delivery_count, self._limits.delivery_limit or math.inf
        is_counted = held.phase is not Phase.WAITING or held.is_counted_by_broker
        if is_counted and (count is None or count + _SPARE_DELIVERIES < limit):
            with self._changed:
                tag = held.tag
                self._leases.lose(held)  # an orphan first, so that it finds itself again
                if held.phase is Phase.WAITING:
                    held.give_up_at = now + _ORPHANS_S
            if tag is not None:
                self._channel.basic_nack(tag, requeue=True)
        else:
            # Another delivery would come too near to the limit. A copy begins to count anew.
            self._send_copy(held)

    def _channel_closed(self, _channel: Any, reason: BaseException) -> None:
        self._channel = None
        if not isinstance(reason, exceptions.ChannelClosedByBroker):
            return  # with the connection
        pause_s = 0.0
        if (timeout_s := ack_timeout_in(reason)) is not None:
            self._limits = replace(self._limits, ack_timeout_s=timeout_s)
            self._log.warning(
                "ack_timeout_met",
                queue=self._queue,
                reason=f"RabbitMQ took events back that were not acknowledged in {timeout_s:g} s; "
                "this is heeded from now on. Set RABBITMQ_ACK_TIMEOUT_S to it, or raise the "
                "broker's consumer_timeout.",
            )
        elif reason.reply_code == NOT_FOUND:
            self._is_queue_there = False
        else:
            self._fail(ConfigError(_refused_sentence(self._queue, reason)))
            pause_s = _AGAIN_S
        self._link.reconnect(pause_s)

    def _fail(self, error: ConfigError) -> None:
        with self._changed:
            is_news = self._failure is None or str(self._failure) != str(error)
            self._failure = error
            self._changed.notify_all()
        if is_news:
            self._log.error("queue_refused", queue=self._queue, reason=str(error))

    def _on_down(self) -> None:
        self._channel = None
        self._in_queue = None
        self._acked, self._asked = [], []
        with self._changed:
            self._to_ack = []
            self._old_tags.clear()
            self._leases.lose_all()
        if self._is_closing:
            self._link.stop()

    def _leave_when_settled(self) -> None:
        with self._changed:
            is_settled = not (self._to_ack or self._copies)
        if is_settled and not (self._acked or self._asked):
            self._link.stop()
        else:
            self._settle()

    def _on_end(self) -> None:
        with self._changed:
            ours = list(self._leases.all())
            for held in ours:
                self._leases.forget(held)
            self._changed.notify_all()
        self._say_lost(ours)

    def _say_lost(self, lost: Iterable[Held]) -> None:
        for held in lost:
            with self._changed:
                future, held.settled = held.settled, None
            if future is not None:
                future.set_exception(
                    SettlementLost(f"{held.id} was taken back before it was settled")
                )


def _refused_sentence(queue: str, reason: exceptions.ChannelClosedByBroker) -> str:
    if "exclusive" in reason.reply_text or reason.reply_code == RESOURCE_LOCKED:
        return f"Another consumer has the queue {queue!r} for itself alone (exclusive); stop it."
    if reason.reply_code == ACCESS_REFUSED:
        return may_not_sentence(queue)
    return f"RabbitMQ does not let us consume the queue {queue!r} ({reason.reply_code})."
