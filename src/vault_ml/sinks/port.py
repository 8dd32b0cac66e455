"""The port to a place that a processed recording is sent to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vault_ml.brokers.port import Message
from vault_ml.event import RecordingEvent
from vault_ml.result import LookedAtFrame
from vault_ml.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Processed:
    """One recording that was looked at: what the pipeline hands to the sinks.

    Attributes:
        event: what was asked.
        frames: what was seen, every looked-at frame in order of time.
        verdict: what follows from it.
        message: the result message as it will be published.
        run_id: identifies this way of looking at this recording; the same on every redelivery.
        seconds: time spent per room (`fetch`, `decode`, `detect`).
        bytes_fetched: size of what came over the wire.
        left_out: what the message lost to the size limit, a sentence; None when nothing.
        block: what was seen as Hub's typed block of detections; None when nothing was.
    """

    event: RecordingEvent
    frames: Sequence[LookedAtFrame]
    verdict: Verdict
    message: Message
    run_id: str
    seconds: Mapping[str, float]
    bytes_fetched: int
    left_out: str | None
    block: Mapping[str, Any] | None = None


class Sink(Protocol):
    """One step after detection. Sinks run in order, each confirmed before the next."""

    @property
    def name(self) -> str:
        """For logs and metrics, such as `publish`."""
        ...

    def wants(self, processed: Processed) -> bool:
        """True when this recording is to be sent here."""
        ...

    def send(self, processed: Processed) -> None:
        """Send it, and return only when the other side has confirmed.

        Sending the same recording twice must do no harm: a crash between two steps repeats them.

        Raises:
            UnavailableError: the other side is away; nothing else is tried until it is back.
            RetryableError: refused for now; the event is tried again later.
            PoisonError: refused for good.
        """
        ...
