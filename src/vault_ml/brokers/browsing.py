"""A browser for every broker that hides a received message from others until it is settled."""

from __future__ import annotations

from collections.abc import Callable, Generator

from vault_ml.brokers.port import Consumer, Delivery

# Somebody looks on, but a busy machine takes a while for a first connection, and "it is away" must
# be true.
_PING_S = 30.0


class HoldingBrowser:
    """Receives everything, holds it, and leaves: what was not acked goes back by itself.

    The consumer keeps the leases meanwhile, so reading may take as long as it wants. What it costs
    is the broker's: the messages are hidden from other readers until the browser is closed, and
    brokers that count deliveries count one.
    """

    def __init__(
        self, consumer: Callable[[], Consumer], *, quiet_s: float, first_s: float = 0.0
    ) -> None:
        """Read through a consumer that takes everything there is.

        Args:
            consumer: makes it, on the first reading. It must not wait for settlements before it
                fetches more.
            quiet_s: when nothing came for so long, that was all.
            first_s: the same for the first message, which has connecting and subscribing before
                it: what is called empty too early is believed.
        """
        self._make = consumer
        self._quiet_s = quiet_s
        self._first_s = max(first_s, quiet_s)
        self._consumer: Consumer | None = None

    def deliveries(self) -> Generator[Delivery]:
        """As the port says. To be read once."""
        if self._consumer is not None:
            raise RuntimeError("a browser reads its queue once")
        self._consumer = consumer = self._make()
        consumer.ping(_PING_S)
        patience_s = self._first_s
        try:
            while (delivery := consumer.receive(patience_s)) is not None:
                patience_s = self._quiet_s
                yield delivery
            # Silence may also be that of a broker which has gone.
            consumer.ping(_PING_S)
        finally:
            consumer.pause()

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        if self._consumer is not None:
            self._consumer.close(timeout_s)
