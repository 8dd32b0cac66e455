"""A broker in memory: a test double for everything above the port.

It keeps the whole contract of `vault_ml.brokers.port`, without a socket. For your own tests:

    broker = MemoryBroker()
    broker.producer().publish("ml-queue", Message(b"{}"), timeout_s=1)
    consumer = broker.consumer("ml-queue")
    delivery = consumer.receive(1.0)
    delivery.ack()
    assert broker.messages("ml-results") == []

Nothing outlives the `MemoryBroker` object; consumers may come and go.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from vault_ml.brokers.port import Message, Outgoing, SettlementLost
from vault_ml.errors import (
    BrokerUnavailable,
    ConfigError,
    MessageTooLarge,
    PoisonError,
    VaultMLError,
)


@dataclass(slots=True)
class _Entry:
    """One message of one group."""

    number: int
    message: Message
    attempt: int = 1
    first_received_at: float = 0.0  # 0: never received
    not_before: float = 0.0  # time.monotonic()
    holder: MemoryConsumer | None = None


@dataclass(frozen=True, slots=True)
class _Acked:
    """A message whose work is done; settled as soon as the broker is up."""

    entry: _Entry
    future: Future[None]
    publishing: tuple[Outgoing, ...]


class MemoryBroker:
    """Queues by name, each read by any number of groups. Thread-safe.

    Attributes:
        max_message_bytes: larger bodies are refused; None refuses none.
    """

    def __init__(
        self, *, queues: Sequence[str] | None = None, max_message_bytes: int | None = None
    ) -> None:
        """Begin empty.

        Args:
            queues: the only queues there are; None makes every queue when it is first named.
            max_message_bytes: see the class.
        """
        self.max_message_bytes = max_message_bytes
        self._queues = None if queues is None else frozenset(queues)
        self._published: dict[str, list[Message]] = defaultdict(list)
        self._groups: dict[tuple[str, str], list[_Entry]] = {}
        self._is_down = False
        self._consumers: list[MemoryConsumer] = []
        self._changed = threading.Condition()

    def consumer(self, queue: str, group: str = "vault-ml") -> MemoryConsumer:
        """A consumer of `queue`; those of one group share the messages, oldest first.

        Raises:
            ConfigError: there is no such queue.
        """
        with self._changed:
            self._check_queue(queue)
            if (queue, group) not in self._groups:
                self._groups[queue, group] = [
                    _Entry(number, message) for number, message in enumerate(self._published[queue])
                ]
            consumer = MemoryConsumer(self, queue, group)
            self._consumers.append(consumer)
        return consumer

    def producer(self) -> MemoryProducer:
        """A producer."""
        return MemoryProducer(self)

    def messages(self, queue: str) -> list[Message]:
        """Everything that was ever published to `queue`, oldest first, settled or not."""
        with self._changed:
            return list(self._published[queue])

    def unsettled(self, queue: str, group: str = "vault-ml") -> list[Message]:
        """What `group` has still to settle, oldest first."""
        with self._changed:
            entries = self._groups.get((queue, group))
            if entries is None:
                return list(self._published[queue])
            return [entry.message for entry in entries]

    def set_down(self) -> None:
        """Play a broker that is away: nothing is received, published or settled."""
        with self._changed:
            self._is_down = True

    def set_up(self) -> None:
        """Answer again. What was acked meanwhile is settled now."""
        with self._changed:
            self._is_down = False
            outcomes = [outcome for one in self._consumers for outcome in one.settle_acked()]
            self._changed.notify_all()
        tell(outcomes)

    def _check_queue(self, queue: str) -> None:
        if self._queues is not None and queue not in self._queues:
            raise ConfigError(f"There is no queue {queue!r}, and it cannot be made.")

    def _check_up(self) -> None:
        if self._is_down:
            raise BrokerUnavailable("The broker in memory is set down.")

    def _publish(self, queue: str, message: Message) -> None:
        self._publish_all([(queue, message)])

    def _publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        """All or none."""
        with self._changed:
            self._check_up()
            for queue, message in outgoing:
                self._check_queue(queue)
                size = len(message.body)
                if self.max_message_bytes is not None and size > self.max_message_bytes:
                    raise MessageTooLarge(f"{size} bytes are more than {self.max_message_bytes}.")
            for queue, message in outgoing:
                self._append(queue, message)
            self._changed.notify_all()

    def _append(self, queue: str, message: Message) -> None:
        number = len(self._published[queue])
        self._published[queue].append(message)
        for (of_queue, _), entries in self._groups.items():
            if of_queue == queue:
                entries.append(_Entry(number, message))


class MemoryDelivery:
    """One message in our hands; see the port's `Delivery`."""

    def __init__(self, consumer: MemoryConsumer, entry: _Entry) -> None:
        """Hold `entry` for `consumer`."""
        self._consumer = consumer
        self._entry = entry
        self._is_settled = False
        self.message = entry.message
        self.attempt = entry.attempt
        self.first_received_at = entry.first_received_at
        self.id = f"{consumer.queue}@{entry.number}"

    def ack(self, publishing: Sequence[Outgoing] = ()) -> Future[None]:
        """As the port says; done at once, or when the broker is up again."""
        self._settle_once()
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        future.add_done_callback(self._after)
        self._consumer.finish(_Acked(self._entry, future, tuple(publishing)))
        return future

    def retry(self, after_s: float, *, burn_attempt: bool = True) -> None:
        """As the port says."""
        self._settle_once()
        self._consumer.put_back(self._entry, after_s, burn_attempt=burn_attempt)

    def _after(self, future: Future[None]) -> None:
        if isinstance(future.exception(), PoisonError):
            self._is_settled = False  # refused, so it is in our hands again

    def _settle_once(self) -> None:
        if self._is_settled:
            raise RuntimeError(f"{self.id} is settled already")
        self._is_settled = True


class MemoryConsumer:
    """One member of a group; made by `MemoryBroker.consumer`."""

    def __init__(self, broker: MemoryBroker, queue: str, group: str) -> None:
        """Join."""
        self.queue = queue
        self._broker = broker
        self._changed = broker._changed  # noqa: SLF001  one module, one lock
        self._entries = broker._groups[queue, group]  # noqa: SLF001  one module, one lock
        self._acked: list[_Acked] = []
        self._is_paused = False
        self._is_closed = False

    def receive(self, timeout_s: float) -> MemoryDelivery | None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                if (entry := self._next(now)) is not None:
                    entry.holder = self
                    entry.first_received_at = entry.first_received_at or time.time()
                    return MemoryDelivery(self, entry)
                if now >= deadline:
                    break
                due = [e.not_before for e in self._entries if e.holder is None]
                wake = min([deadline, *(at for at in due if at > now)])
                self._changed.wait(wake - now)
        return None

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
        """As the port says."""
        with self._changed:
            return len(self._entries)

    def ping(self, timeout_s: float) -> None:  # noqa: ARG002  memory answers at once
        """As the port says."""
        with self._changed:
            self._broker._check_up()  # noqa: SLF001  one module

    def close(self, timeout_s: float) -> None:  # noqa: ARG002  memory answers at once
        """As the port says. What is in hand goes back and burns no attempt."""
        with self._changed:
            self._is_closed = True
            if self in self._broker._consumers:  # noqa: SLF001  one module
                self._broker._consumers.remove(self)  # noqa: SLF001  one module
            for entry in self._entries:
                if entry.holder is self:
                    entry.holder = None
            lost, self._acked = self._acked, []
            self._changed.notify_all()
        for acked in lost:
            acked.future.set_exception(
                SettlementLost("the consumer was closed before the broker knew")
            )

    def finish(self, acked: _Acked) -> None:
        """For `MemoryDelivery.ack`."""
        outcomes: list[_Outcome] = []
        with self._changed:
            is_lost = acked.entry.holder is not self
            if not is_lost:
                self._acked.append(acked)
                outcomes = self.settle_acked()
        if is_lost:
            acked.future.set_exception(SettlementLost("the consumer was closed before"))
        tell(outcomes)

    def put_back(self, entry: _Entry, after_s: float, *, burn_attempt: bool) -> None:
        """For `MemoryDelivery.retry`."""
        with self._changed:
            if entry.holder is not self:
                return
            entry.attempt += 1 if burn_attempt else 0
            entry.not_before = time.monotonic() + after_s
            entry.holder = None
            self._changed.notify_all()

    def _next(self, now: float) -> _Entry | None:
        if self._is_paused or self._broker._is_down:  # noqa: SLF001  one module
            return None
        for entry in self._entries:
            if entry.holder is None and entry.not_before <= now:
                return entry
        return None

    def settle_acked(self) -> list[_Outcome]:
        """For the broker, which holds its lock: what to `tell` once that is released."""
        if self._broker._is_down:  # noqa: SLF001  one module
            return []
        done, self._acked = self._acked, []
        return [(acked.future, self._settle(acked)) for acked in done]

    def _settle(self, acked: _Acked) -> VaultMLError | None:
        try:
            self._broker._publish_all(acked.publishing)  # noqa: SLF001  one module
        except VaultMLError as error:
            return error
        self._entries.remove(acked.entry)
        return None


_Outcome = tuple[Future[None], VaultMLError | None]


def tell(outcomes: Sequence[_Outcome]) -> None:
    """Do the futures, outside every lock."""
    for future, error in outcomes:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


class MemoryProducer:
    """Publishes at once; made by `MemoryBroker.producer`."""

    def __init__(self, broker: MemoryBroker) -> None:
        """Send to `broker`."""
        self._broker = broker

    def publish(self, destination: str, message: Message, *, timeout_s: float) -> None:  # noqa: ARG002  memory answers at once
        """As the port says."""
        self._broker._publish(destination, message)  # noqa: SLF001  one module

    def ping(self, timeout_s: float) -> None:  # noqa: ARG002  memory answers at once
        """As the port says."""
        with self._broker._changed:  # noqa: SLF001  one module, one lock
            self._broker._check_up()  # noqa: SLF001  one module

    def close(self, timeout_s: float) -> None:
        """As the port says."""
