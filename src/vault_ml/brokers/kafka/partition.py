"""The books of one assigned partition: what is in our hands, what may be committed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from vault_ml.brokers.kafka.attempts import METADATA_LIMIT_BYTES, Attempt, decode, encode
from vault_ml.brokers.offsets import FinishedPrefix
from vault_ml.brokers.port import Outgoing


@dataclass(frozen=True, slots=True)
class Settling:
    """A message whose work is done, until a commit has passed it.

    Attributes:
        future: done by that commit.
        publishing: what is to become visible with it (transactions only).
    """

    future: Future[None]
    publishing: tuple[Outgoing, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of what is to be published."""
        return sum(len(message.body) for _, message in self.publishing)


@dataclass(frozen=True, slots=True)
class Share:
    """What one partition has for a transaction.

    Attributes:
        partition: whose it is.
        end: the offset to commit; everything below it is finished.
        text: to go with the commit.
        publishing: what becomes visible by it, as (offset of the event, what), in order.
    """

    partition: Partition
    end: int
    text: str
    publishing: tuple[tuple[int, Outgoing], ...]


class Partition:
    """One partition from its assignment to its revocation. The books' lock guards it.

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
        self._settling: dict[int, Settling] = {}
        self._refused: set[int] = set()  # finished once, but what it was to publish was refused
        self._confirmed: tuple[int, str] | None = None
        self._start_metadata = metadata or ""
        self._offered: tuple[int, str] | None = None
        self._last_offset = -1

    @property
    def window(self) -> int:
        """How many received messages no commit has passed yet."""
        return self._prefix.unfinished + len(self._refused) + len(self._settling)

    @property
    def held_bytes(self) -> int:
        """Size of what waits here to be published."""
        return sum(settling.size_bytes for settling in self._settling.values())

    @property
    def has_to_settle(self) -> bool:
        """True when a commit now would change something."""
        position = self.position
        return position is not None and self._confirmed != (position, encode(self._attempts))

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

    def finish(self, offset: int, settling: Settling) -> None:
        """Note that the work is done; its future is for `confirm`, `refuse` or `lose`."""
        if offset in self._refused:
            self._refused.discard(offset)
        else:
            self._prefix.finish(offset)
        self._attempts.pop(offset, None)
        self._settling[offset] = settling

    def refuse(self, offset: int) -> Future[None] | None:
        """Note that what `offset` was to publish cannot be; it counts as unfinished again.

        Returns:
            Its future, to be failed; None when it is settled by now.
        """
        settling = self._settling.pop(offset, None)
        if settling is None:
            return None
        self._refused.add(offset)
        return settling.future

    def offer(self, limit_bytes: int = METADATA_LIMIT_BYTES) -> tuple[int, str] | None:
        """The offset and text to commit now, or None when that would change nothing."""
        position = self.position
        if position is None:
            return None
        offer = (position, encode(self._attempts, limit_bytes))
        if offer == self._confirmed:
            return None
        self._offered = offer
        return offer

    def share(
        self, *, events: int, size_bytes: int, limit_bytes: int = METADATA_LIMIT_BYTES
    ) -> Share | None:
        """What a transaction could commit now; None when that would change nothing.

        Args:
            events: no more than so many, the oldest first.
            size_bytes: no more than this to publish, unless a single one is larger.
            limit_bytes: of the text.
        """
        position = self.position
        if position is None:
            return None
        end, total = position, 0
        publishing: list[tuple[int, Outgoing]] = []
        ready = sorted(offset for offset in self._settling if offset < position)
        for count, offset in enumerate(ready):
            settling = self._settling[offset]
            total += settling.size_bytes
            if count == events or (count and total > size_bytes):
                end = offset
                break
            publishing += [(offset, outgoing) for outgoing in settling.publishing]
        offer = (end, encode(self._attempts, limit_bytes))
        if offer == self._confirmed:
            return None
        self._offered = offer
        return Share(self, *offer, tuple(publishing))

    def confirm(self, offset: int) -> list[Future[None]]:
        """Note that a commit went through; returns what is settled by it."""
        if self._offered is not None and self._offered[0] == offset:
            self._confirmed = self._offered
        passed = sorted(done for done in self._settling if done < offset)
        return [self._settling.pop(done).future for done in passed]

    def lose(self) -> Sequence[Future[None]]:
        """Note that it was taken from us; returns what was not settled."""
        self.is_lost = True
        lost = [settling.future for settling in self._settling.values()]
        self._settling.clear()
        return lost

    @property
    def position(self) -> int | None:
        """Everything below is finished; None while nothing came."""
        position = self._prefix.position
        if position is None or not self._refused:
            return position
        return min(position, *self._refused)
