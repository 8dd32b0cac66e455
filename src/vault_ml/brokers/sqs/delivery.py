"""A message of SQS in our hands."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from vault_ml.brokers.port import Message, Outgoing, SettlementLost, refuse_publishing


@dataclass(slots=True, eq=False)
class Held:
    """A message that SQS hides from others for us. The lock of `Leases` guards what changes.

    Attributes:
        message: as it came.
        name: for logs.
        message_id: SQS's, the same on every redelivery.
        receipt: what it is settled by; another on every redelivery.
        attempt: 1 for the first try.
        first_received_at: Unix seconds.
        received_at: time.monotonic() just before we asked for it.
        hidden_until: time.monotonic() until which nobody else gets it, at least.
        acked: to be done when it is deleted; None before `ack`.
        return_at: time.monotonic() at which it is to come again; None before `retry`.
        is_gone: it is not ours any more.
    """

    message: Message
    name: str
    message_id: str
    receipt: str
    attempt: int
    first_received_at: float
    received_at: float
    hidden_until: float
    acked: Future[None] | None = None
    return_at: float | None = None
    is_gone: bool = False


class Settler(Protocol):
    """The leases, as a delivery sees them."""

    def finish(self, held: Held, future: Future[None]) -> bool:
        """Have it deleted; False when it is not ours any more."""
        ...

    def put_back(self, held: Held, after_s: float, *, burn_attempt: bool) -> None:
        """Have it come again after `after_s`."""
        ...


class SqsDelivery:
    """One message; see the port's `Delivery`."""

    __slots__ = ("_held", "_is_settled", "_settler")

    def __init__(self, held: Held, settler: Settler) -> None:
        """Hand out `held`; `settler` hears what becomes of it."""
        self._held = held
        self._settler = settler
        self._is_settled = False

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self._held.message

    @property
    def id(self) -> str:
        """Queue and message id; the same on redelivery."""
        return self._held.name

    @property
    def attempt(self) -> int:
        """How often SQS gave the message to anybody, less what this consumer knows was no try."""
        return self._held.attempt

    @property
    def first_received_at(self) -> float:
        """Unix seconds, as SQS keeps them."""
        return self._held.first_received_at

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
