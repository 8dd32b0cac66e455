"""Publish the result to the target queue."""

from __future__ import annotations

from vault_ml.brokers.port import Producer
from vault_ml.sinks.port import Processed


class Publish:
    """The result message on the target queue, confirmed by the broker."""

    name = "publish"

    def __init__(self, producer: Producer, destination: str, *, timeout_s: float) -> None:
        """Publish to `destination` and wait at most `timeout_s` for the confirmation."""
        self._producer = producer
        self._destination = destination
        self._timeout_s = timeout_s

    def wants(self, processed: Processed) -> bool:
        """Every recording that was looked at has its result, also when nothing was seen."""
        del processed
        return True

    def send(self, processed: Processed) -> None:
        """Publish; raises as `Producer.publish`."""
        self._producer.publish(self._destination, processed.message, timeout_s=self._timeout_s)
