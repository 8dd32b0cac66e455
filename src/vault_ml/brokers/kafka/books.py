"""What is in our hands: the partitions, what waits to be received, what waits to be due.

Three kinds of thread meet here: the broker thread brings messages, recording threads take them
and say what became of them, and whoever commits (docs/adr/0012) asks what may be committed.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future

from vault_ml.brokers.kafka.attempts import Attempt
from vault_ml.brokers.kafka.delivery import Held
from vault_ml.brokers.kafka.partition import Partition, Settling, Share
from vault_ml.brokers.port import Message, SettlementLost

_PREFETCH_BYTES = 8 * 1024 * 1024
# Results that wait for an earlier event of their partition (transactions only), all together.
_HELD_BYTES = 64 * 1024 * 1024


class Books:
    """Thread-safe.

    Attributes:
        changed: the lock, notified when something can be received.
    """

    def __init__(self, queue: str, *, prefetch: int, window: int) -> None:
        """Begin with no partition.

        Args:
            queue: the topic.
            prefetch: as `KafkaConsumer`.
            window: as `KafkaConsumer`.
        """
        self.changed = threading.Condition()
        self._queue = queue
        self._prefetch = prefetch
        self._window = window
        self._partitions: dict[int, Partition] = {}
        self._ready: deque[Held] = deque()
        self._ready_bytes = 0
        self._later: list[tuple[float, int, Held]] = []
        self._sequence = itertools.count()
        self._is_full = False

    # The partitions: the broker thread.

    def numbers(self) -> list[int]:
        """The partitions that are ours."""
        with self.changed:
            return list(self._partitions)

    def positions(self) -> dict[int, int]:
        """For each partition that something came of: everything below is finished."""
        with self.changed:
            found = {number: one.position for number, one in self._partitions.items()}
        return {number: position for number, position in found.items() if position is not None}

    def open(self, number: int, metadata: str | None = None) -> None:
        """Begin a partition at the commit that carries `metadata`."""
        self.drop([number])  # should it be ours still
        with self.changed:
            self._partitions[number] = Partition(self._queue, number, metadata)

    def drop(self, numbers: Iterable[int]) -> None:
        """End partitions: what is not settled by now never will be."""
        unsettled: list[Future[None]] = []
        with self.changed:
            for number in numbers:
                if partition := self._partitions.pop(number, None):
                    unsettled += partition.lose()
            self._ready = deque(held for held in self._ready if not held.partition.is_lost)
            self._ready_bytes = sum(len(held.message.body) for held in self._ready)
            self._later = [entry for entry in self._later if not entry[2].partition.is_lost]
            heapq.heapify(self._later)
        for future in unsettled:
            future.set_exception(SettlementLost("the partition was taken back before the commit"))

    def goes_back(self, number: int, offset: int) -> bool:
        """True when the log of this partition was cut off or made anew."""
        with self.changed:
            partition = self._partitions.get(number)
            return partition is not None and partition.goes_back(offset)

    def take(self, number: int, offset: int, message: Message) -> None:
        """Note a message that came; one of a partition that is not ours any more is dropped."""
        with self.changed:
            if (partition := self._partitions.get(number)) is not None:
                partition.receive(offset)
                self._put_ready(Held(partition, offset, message))

    def emit_due(self) -> None:
        """Let be received what waited long enough."""
        now = time.monotonic()
        with self.changed:
            while self._later and self._later[0][0] <= now:
                self._put_ready(heapq.heappop(self._later)[2])

    def to_pause(self, *, everything: bool) -> set[int]:
        """The partitions that nothing is to be fetched of now."""
        with self.changed:
            filling = max(len(self._ready) / self._prefetch, self._ready_bytes / _PREFETCH_BYTES)
            # Resumed at half: pausing throws away what librdkafka has fetched ahead.
            self._is_full = filling >= (0.5 if self._is_full else 1.0)
            held_bytes = _HELD_BYTES / max(1, len(self._partitions))
            return {
                number
                for number, partition in self._partitions.items()
                if everything
                or self._is_full
                or partition.window >= self._window
                or partition.held_bytes >= held_bytes
            }

    def _put_ready(self, held: Held) -> None:
        self._ready.append(held)
        self._ready_bytes += len(held.message.body)
        self.changed.notify()

    # Receiving and settling: any thread.

    def next(self) -> tuple[Held, Attempt] | None:
        """What is to be received now. The caller holds `changed`."""
        if not self._ready:
            return None
        held = self._ready.popleft()
        self._ready_bytes -= len(held.message.body)
        return held, held.partition.attempt(held.offset, time.time())

    def finish(self, held: Held, settling: Settling) -> bool:
        """Note that the work is done; False when the partition was taken from us."""
        with self.changed:
            if held.partition.is_lost:
                return False
            held.partition.finish(held.offset, settling)
            return True

    def put_back(self, held: Held, attempt: Attempt, after_s: float) -> None:
        """Let it be received again after `after_s`, as `attempt`."""
        with self.changed:
            if held.partition.is_lost:
                return
            held.partition.set_attempt(held.offset, attempt)
            due = time.monotonic() + max(0.0, after_s)
            heapq.heappush(self._later, (due, next(self._sequence), held))

    # Committing: the broker thread or that of the transactions.

    def offers(
        self, limit_bytes: int, numbers: Iterable[int] | None = None
    ) -> list[tuple[int, int, str]]:
        """What to commit now, as (partition, offset, text); of `numbers` only if given."""
        with self.changed:
            return [
                (number, *offer)
                for number in (list(self._partitions) if numbers is None else numbers)
                if number in self._partitions
                and (offer := self._partitions[number].offer(limit_bytes)) is not None
            ]

    def has_to_settle(self, numbers: Iterable[int]) -> bool:
        """True when something of these partitions can be settled now."""
        with self.changed:
            return any(
                number in self._partitions and self._partitions[number].has_to_settle
                for number in numbers
            )

    def shares(self, limit_bytes: int, *, events: int, size_bytes: int) -> list[Share]:
        """What a transaction is to commit now, as `Partition.share` bounds it for each."""
        with self.changed:
            ours = len(self._partitions) or 1
            found = (
                partition.share(
                    events=max(1, events // ours),
                    size_bytes=size_bytes // ours,
                    limit_bytes=limit_bytes,
                )
                for partition in self._partitions.values()
            )
            return [share for share in found if share is not None]

    def confirm(self, number: int, offset: int) -> None:
        """Note that a commit went through."""
        with self.changed:
            partition = self._partitions.get(number)
            settled = [] if partition is None else partition.confirm(offset)
        for future in settled:
            future.set_result(None)

    def confirm_share(self, share: Share) -> None:
        """Note that a transaction went through; of what was taken from us meanwhile nothing."""
        with self.changed:
            settled = [] if share.partition.is_lost else share.partition.confirm(share.end)
        for future in settled:
            future.set_result(None)

    def refuse(self, share: Share, offset: int, error: Exception) -> None:
        """Note that what `offset` was to publish is refused for good."""
        with self.changed:
            future = None if share.partition.is_lost else share.partition.refuse(offset)
        if future is not None:
            future.set_exception(error)
