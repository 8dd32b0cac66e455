"""A message of RabbitMQ in our hands."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from vault_ml.brokers.port import Message, Outgoing, SettlementLost, refuse_publishing
from vault_ml.brokers.rabbitmq.leases import Held


class Settler(Protocol):
    """The consumer, as a delivery sees it."""

    def finish(self, held: Held, future: Future[None]) -> bool:
        """Note that the work is done; False when it is somebody else's by now."""
        ...

    def put_back(self, held: Held, after_s: float, *, burn_attempt: bool) -> None:
        """Hand it out again after `after_s`."""
        ...


class RabbitDelivery:
    """One message; see the port's `Delivery`."""

    __slots__ = ("_held", "_is_settled", "_settler", "attempt", "first_received_at", "id")

    def __init__(self, held: Held, settler: Settler) -> None:
        """Hand out `held`; `settler` hears what became of it."""
        self._held = held
        self._settler = settler
        self._is_settled = False
        self.id = held.id
        self.attempt = held.attempt
        self.first_received_at = held.first_received_at

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._held.message

    def ack(self, publishing: Sequence[Outgoing] = ()) -> Future[None]:
        """As the port says. Callbacks of the future run on the broker thread: keep them short."""
        refuse_publishing(publishing)
        self._settle_once()
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # nobody can cancel what the broker decides
        if not self._settler.finish(self._held, future):
            future.set_exception(SettlementLost(f"{self.id} was taken back before it was settled"))
        return future

    def retry(self, after_s: float, *, burn_attempt: bool = True) -> None:
        """As the port says."""
        self._settle_once()
        self._settler.put_back(self._held, after_s, burn_attempt=burn_attempt)

    def _settle_once(self) -> None:
        if self._is_settled:
            raise RuntimeError(f"{self.id} is settled already")
        self._is_settled = True
