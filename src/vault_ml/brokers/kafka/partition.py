"""The books of one assigned partition: what is in our hands, what may be committed."""

from __future__ import annotations

from concurrent.futures import Future

from vault_ml.brokers.kafka.attempts import METADATA_LIMIT_BYTES, Attempt, decode, encode
from vault_ml.brokers.offsets import FinishedPrefix


class Partition:
    """One partition from its assignment to its revocation. The consumer's lock guards it.

    Attributes:
        is_lost: it was taken from us; nothing of it can be settled any more.
    """

    def __init__(self, topic: str, number: int, metadata: str | None = None) -> None:
        """Begin at the commit that carries `metadata`."""
        self.topic = topic
        self.number = number
        self.is_lost = False
        self._prefix = FinishedPrefix()
        self._attempts = decode(metadata)
        self._acked: dict[int, Future[None]] = {}
        self._confirmed: tuple[int, str] | None = None
        self._start_metadata = metadata or ""
        self._offered: tuple[int, str] | None = None
        self._last_offset = -1

    @property
    def window(self) -> int:
        """How many received messages no commit has room to pass."""
        return self._prefix.window

    def name(self, offset: int) -> str:
        """A delivery's name for logs."""
        return f"{self.topic}[{self.number}]@{offset}"

    def goes_back(self, offset: int) -> bool:
        """True when the log was cut off or made anew: `offset` is not above what we had."""
        return offset <= self._last_offset

    def receive(self, offset: int) -> None:
        """Note a message that came."""
        self._prefix.receive(offset)
        self._last_offset = offset
        if self._confirmed is None:
            # Committing the first offset we get would move nothing.
            self._confirmed = (offset, self._start_metadata)
            for older in [known for known in self._attempts if known < offset]:
                del self._attempts[older]

    def attempt(self, offset: int, now: float) -> Attempt:
        """Which attempt comes next."""
        return self._attempts.get(offset) or Attempt(1, now)

    def set_attempt(self, offset: int, attempt: Attempt) -> None:
        """Note which attempt comes next."""
        self._attempts[offset] = attempt

    def finish(self, offset: int, acked: Future[None]) -> None:
        """Note that the work is done; `acked` is for `confirm` or `lose`."""
        self._prefix.finish(offset)
        self._attempts.pop(offset, None)
        self._acked[offset] = acked

    def offer(self, limit_bytes: int = METADATA_LIMIT_BYTES) -> tuple[int, str] | None:
        """The offset and text to commit now, or None when that would change nothing."""
        position = self._prefix.position
        if position is None:
            return None
        offer = (position, encode(self._attempts, limit_bytes))
        if offer == self._confirmed:
            return None
        self._offered = offer
        return offer

    def confirm(self, offset: int) -> list[Future[None]]:
        """Note that a commit went through; returns what is settled by it."""
        if self._offered is not None and self._offered[0] == offset:
            self._confirmed = self._offered
        return [self._acked.pop(done) for done in sorted(self._acked) if done < offset]

    def lose(self) -> list[Future[None]]:
        """Note that it was taken from us; returns what was not settled."""
        self.is_lost = True
        lost = list(self._acked.values())
        self._acked.clear()
        return lost
