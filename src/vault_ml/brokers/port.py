"""The port to a message broker: receive, settle, publish.

One vocabulary for Kafka, SQS and RabbitMQ. What differs between them (offsets, visibility,
acknowledgements) stays inside the adapter, with its broker thread.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """What travels: bytes, an optional key, text headers.

    Attributes:
        body: the payload, never changed by an adapter.
        key: the partitioning key, where the broker has one.
        headers: names to text. An adapter drops incoming headers that are not UTF-8.
    """

    body: bytes
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Outgoing = tuple[str, Message]
"""A message on its way: (destination, message)."""


class SettlementLost(Exception):  # an outcome of `Delivery.ack`, not a failure of ours
    """The broker took the delivery back before it was settled; it will be delivered again."""


class Delivery(Protocol):
    """One message in our hands. Exactly one of `ack` and `retry` is called, once.

    The adapter keeps the lease alive until then, from its own thread. Both may be called from
    any thread and do not block.
    """

    @property
    def message(self) -> Message:
        """The message as it came."""
        ...

    @property
    def id(self) -> str:
        """A name for logs, such as `ml-queue[3]@1234`; the same on redelivery where possible."""
        ...

    @property
    def attempt(self) -> int:
        """1 for the first try, 2 after one `retry`, and so on."""
        ...

    @property
    def first_received_at(self) -> float:
        """Unix seconds of the first try, as far as the broker lets us know."""
        ...

    def ack(self, publishing: Sequence[Outgoing] = ()) -> Future[None]:
        """Say that the work is done.

        Args:
            publishing: to become visible together with this settlement, or neither: for brokers
                with transactions only. Others are given nothing here; publish before.

        Returns:
            A future that is done when the broker can no longer deliver this message again (on
            Kafka: the committed prefix of its partition has passed it), or that fails with
            `SettlementLost` when the lease was lost first. It fails with a `PoisonError` when the
            broker refuses what was to be published; the delivery is in our hands then and can be
            settled again.
        """
        ...

    def retry(self, after_s: float, *, burn_attempt: bool = True) -> None:
        """Give it back, to come again through `receive`, here or elsewhere, after `after_s`.

        With `burn_attempt` the next delivery counts one attempt more.
        """
        ...


class Consumer(Protocol):
    """Where events come from. Owns a broker thread; its methods may be called from any thread."""

    def receive(self, timeout_s: float) -> Delivery | None:
        """The next delivery, or None after `timeout_s`, or at once when closed.

        Raises:
            ConfigError: the broker refused our credentials or the queue does not exist and
                cannot be made; the sentence says which and what to do.
        """
        ...

    def pause(self) -> None:
        """Fetch nothing new; leases of what is in flight are kept. Idempotent."""
        ...

    def resume(self) -> None:
        """Fetch again. Idempotent."""
        ...

    def lag(self) -> int | None:
        """Messages of the queue that are not settled, about; None when unknown.

        A few seconds old. Kafka: of the partitions that are ours. Returns within a second.
        """
        ...

    def ping(self, timeout_s: float) -> None:
        """Return when the broker answers.

        Raises:
            BrokerUnavailable: no answer in time.
            CredentialsRejected: it answered that we may not.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Settle what was acked, give back the rest, leave. Idempotent; returns in time."""
        ...


class Producer(Protocol):
    """Where results and dead letters go. Methods may be called from any thread."""

    def publish(self, destination: str, message: Message, *, timeout_s: float) -> None:
        """Send and return only when the broker has confirmed it.

        Raises:
            BrokerUnavailable: not confirmed in time (it may still arrive: publish is
                at-least-once).
            MessageTooLarge: the broker refuses this size.
            ConfigError: the destination does not exist and cannot be made, or we may not write.
        """
        ...

    def ping(self, timeout_s: float) -> None:
        """As `Consumer.ping`."""
        ...

    def close(self, timeout_s: float) -> None:
        """Flush and leave. Idempotent; returns in time."""
        ...


def refuse_publishing(publishing: Sequence[Outgoing]) -> None:
    """For `Delivery.ack` of a broker without transactions.

    Raises:
        TypeError: there is something; ignoring it would lose a result.
    """
    if publishing:
        raise TypeError("this broker cannot publish together with a settlement; publish before")


class Browser(Protocol):
    """What lies in a queue now, for a person to look through: dead letters.

    Not for work: it may hold every message of the queue at once, and other readers may not see
    them until it is closed.
    """

    def deliveries(self) -> Generator[Delivery]:
        """Every message that is there, once, oldest first where the broker keeps an order.

        `ack` takes a message out of the queue for good. Whatever is not acked stays, unchanged and
        where it was, as far as the broker can; the adapter says where it cannot.

        Raises:
            BrokerUnavailable: no answer; what came before it may be all there is, or not.
            ConfigError: as `Consumer.receive`.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Give back what was not acked. Idempotent; returns in time."""
        ...
