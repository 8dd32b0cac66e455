"""A message of Kafka in our hands."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import Message as ClientMessage

from vault_ml.brokers.kafka.attempts import Attempt
from vault_ml.brokers.kafka.partition import Partition, Settling
from vault_ml.brokers.port import Message, Outgoing, SettlementLost
from vault_ml.errors import PoisonError


@dataclass(frozen=True, slots=True)
class Held:
    """A message in our hands that waits to be received, for the first time or again."""

    partition: Partition
    offset: int
    message: Message


class Settler(Protocol):
    """The consumer, as a delivery sees it."""

    def finish(self, held: Held, settling: Settling) -> bool:
        """Note that the work is done; False when the partition was taken from us.

        Raises:
            TypeError: something is to be published, and there are no transactions.
        """
        ...

    def put_back(self, held: Held, attempt: Attempt, after_s: float) -> None:
        """Hand it out again after `after_s`, as `attempt`."""
        ...


class KafkaDelivery:
    """One message; see the port's `Delivery`."""

    __slots__ = ("_attempt", "_held", "_is_settled", "_settler", "id")

    def __init__(self, held: Held, attempt: Attempt, settler: Settler) -> None:
        """Hand out `held`; `settler` hears what became of it."""
        self._settler = settler
        self._held = held
        self._attempt = attempt
        self._is_settled = False
        self.id = held.partition.name(held.offset)

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._held.message

    @property
    def attempt(self) -> int:
        """1 for the first try."""
        return self._attempt.number

    @property
    def first_received_at(self) -> float:
        """Unix seconds; across restarts known for what was retried."""
        return self._attempt.first_received_at

    def ack(self, publishing: Sequence[Outgoing] = ()) -> Future[None]:
        """As the port says. Callbacks of the future run on the thread that commits: be short."""
        self._settle_once()
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # nobody can cancel what the broker decides
        future.add_done_callback(self._after)  # the first of the callbacks, so it runs first
        if not self._settler.finish(self._held, Settling(future, tuple(publishing))):
            future.set_exception(SettlementLost(f"{self.id} was taken back before it was settled"))
        return future

    def retry(self, after_s: float, *, burn_attempt: bool = True) -> None:
        """As the port says. The message stays here, its partition's commits stay behind it."""
        self._settle_once()
        number = self._attempt.number + (1 if burn_attempt else 0)
        again = Attempt(number, self._attempt.first_received_at)
        self._settler.put_back(self._held, again, after_s)

    def _after(self, future: Future[None]) -> None:
        if isinstance(future.exception(), PoisonError):
            self._is_settled = False  # refused, so it is in our hands again

    def _settle_once(self) -> None:
        if self._is_settled:
            raise RuntimeError(f"{self.id} is settled already")
        self._is_settled = True


def to_message(message: ClientMessage) -> Message:
    """A message of the port; headers that are not UTF-8 are dropped."""
    headers: dict[str, str] = {}
    raw = message.headers() or []
    for name, value in raw.items() if isinstance(raw, dict) else raw:
        try:
            headers[name] = value.decode() if isinstance(value, bytes) else value or ""
        except UnicodeDecodeError:
            continue
    return Message(body=message.value() or b"", key=message.key(), headers=headers)
