"""What is in our hands, and what becomes of it when the broker takes its leases back.

RabbitMQ leases a message to a channel. When the channel or the connection is lost, every lease is,
and the messages come again: often to us, while the work on them still goes on. So a message whose
lease was lost is an *orphan* here, and when the broker delivers the same bytes again, the orphan
gets the new lease: what is being worked on is not begun a second time, what was done is
acknowledged, what waits goes on waiting.

Each new lease goes to one orphan at most, and an orphan stands for one message, so two equal
messages remain two. Pure: times come in, nothing is waited for.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum

from vault_ml.brokers.port import Message
from vault_ml.brokers.rabbitmq.wire import Arrival


class Phase(Enum):
    """Where a message in our hands is."""

    READY = "ready"  # waits to be received
    IN_HAND = "in hand"  # somebody works on it
    WAITING = "waiting"  # for the time of its next try
    MOVING = "moving"  # a copy with a higher count was sent, the broker has not confirmed it
    DONE = "done"  # to be acknowledged


@dataclass(slots=True, eq=False)
class Held:
    """A message in our hands.

    Attributes:
        arrival: as it came.
        id: for logs.
        attempt: 1 for the first try.
        first_received_at: Unix seconds.
        tag: the lease: the delivery tag on the channel there is; None for an orphan.
        leased_at: when the lease began, `time.monotonic()`.
        phase: where it is.
        due: when it may be received, `time.monotonic()`.
        give_up_at: an orphan that is not delivered again by then is somebody else's.
        renew_after: no new lease is asked for before, `time.monotonic()`.
        is_gone: it is somebody else's, or nobody's any more.
        settled: the future of `ack`, when there is one.
    """

    arrival: Arrival
    id: str
    attempt: int
    first_received_at: float
    tag: int | None
    leased_at: float
    phase: Phase = Phase.READY
    due: float = 0.0
    give_up_at: float | None = None
    renew_after: float = 0.0
    is_gone: bool = False
    settled: Future[None] | None = None

    @property
    def message(self) -> Message:
        """The message as it came."""
        return self.arrival.message

    @property
    def is_counted_by_broker(self) -> bool:
        """Whether the count of attempts is the one that travels with the message."""
        return self.attempt == self.arrival.attempt


def _name(arrival: Arrival) -> tuple[str, int]:
    return arrival.digest, arrival.attempt


@dataclass(slots=True)
class Leases:
    """The books. Not thread-safe: the consumer's lock guards them."""

    queue: str
    _leased: dict[int, Held] = field(default_factory=dict)  # by delivery tag, in order
    _ready: deque[Held] = field(default_factory=deque)
    _waiting: set[Held] = field(default_factory=set)
    _orphans: defaultdict[tuple[str, int], deque[Held]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    def __len__(self) -> int:
        """How many leases there are."""
        return len(self._leased)

    @property
    def waiting(self) -> int:
        """How many leases belong to messages that nobody can work on yet."""
        return sum(one.phase in (Phase.WAITING, Phase.MOVING) for one in self._leased.values())

    def all(self) -> Iterator[Held]:
        """Everything in our hands, leased or not."""
        yield from self._leased.values()
        for orphans in self._orphans.values():
            yield from orphans

    def leased(self) -> list[Held]:
        """What we have a lease of."""
        return list(self._leased.values())

    def arrive(self, arrival: Arrival, tag: int, now: float, wall: float) -> Held:
        """Take a delivery: an orphan that comes home, or something new.

        Args:
            arrival: what came.
            tag: its delivery tag.
            now: `time.monotonic()`.
            wall: Unix seconds.
        """
        if (orphans := self._orphans.get(_name(arrival))) is not None:
            held = orphans.popleft()
            if not orphans:
                del self._orphans[_name(arrival)]
            held.arrival, held.tag, held.leased_at = arrival, tag, now
            held.give_up_at = None
            if held.phase is Phase.WAITING:
                self._waiting.add(held)
        else:
            held = Held(
                arrival,
                id=f"{self.queue}@{arrival.digest}",
                attempt=arrival.attempt,
                first_received_at=arrival.first_received_at or wall,
                tag=tag,
                leased_at=now,
            )
            if arrival.not_before > wall:
                self.wait(held, now + arrival.not_before - wall)
            else:
                self._ready.append(held)
        self._leased[tag] = held
        return held

    def receive(self, now: float) -> Held | None:
        """What is to be worked on next: what is due, then what came first."""
        due = [one for one in self._waiting if one.due <= now and one.tag is not None]
        if due:
            held = min(due, key=lambda one: one.due)
            self._waiting.discard(held)
        elif self._ready:
            held = self._ready.popleft()
        else:
            return None
        held.phase = Phase.IN_HAND
        return held

    def next_due(self) -> float | None:
        """When the next one may be received, `time.monotonic()`."""
        return min((one.due for one in self._waiting if one.tag is not None), default=None)

    def wait(self, held: Held, due: float) -> None:
        """Let it wait for its next try."""
        held.phase, held.due = Phase.WAITING, due
        if not held.is_gone:
            self._waiting.add(held)

    def move(self, held: Held) -> None:
        """A copy of it is on its way."""
        if held.phase is Phase.READY:
            self._ready.remove(held)
        held.phase = Phase.MOVING
        self._waiting.discard(held)

    def finish(self, held: Held) -> None:
        """It is to be acknowledged."""
        held.phase = Phase.DONE
        self._waiting.discard(held)

    def forget(self, held: Held) -> None:
        """It is not ours any more, settled or not."""
        held.is_gone = True
        self._waiting.discard(held)
        if held.tag is not None:
            self._leased.pop(held.tag, None)
            held.tag = None
        elif (orphans := self._orphans.get(_name(held.arrival))) is not None and held in orphans:
            orphans.remove(held)
            if not orphans:
                del self._orphans[_name(held.arrival)]
        if held.phase is Phase.READY and held in self._ready:
            self._ready.remove(held)

    def lose(self, held: Held) -> None:
        """Its lease is lost, or was given back."""
        if held.phase is Phase.READY:
            self.forget(held)  # nothing was done yet: whoever gets it begins
            return
        if held.tag is not None:
            self._leased.pop(held.tag, None)
            held.tag = None
        self._waiting.discard(held)
        self._orphans[_name(held.arrival)].append(held)

    def restore(self, held: Held, tag: int) -> None:
        """It keeps the lease that was to be given back."""
        if held.is_gone:
            return
        phase, leased_at = held.phase, held.leased_at
        self.forget(held)
        held.is_gone, held.phase, held.leased_at, held.tag = False, phase, leased_at, tag
        self._leased[tag] = held
        if phase is Phase.WAITING:
            self._waiting.add(held)

    def lose_all(self) -> None:
        """The channel is gone."""
        for held in self.leased():
            self.lose(held)

    def wait_for_orphans(self, until: float) -> None:
        """The channel is back: what is not delivered again by `until` is somebody else's."""
        for orphans in self._orphans.values():
            for held in orphans:
                held.give_up_at = until

    def given_up(self, now: float) -> list[Held]:
        """Forget the orphans whose time is over; returns them."""
        over = [
            held
            for orphans in self._orphans.values()
            for held in orphans
            if held.give_up_at is not None and held.give_up_at <= now
        ]
        for held in over:
            self.forget(held)
        return over
