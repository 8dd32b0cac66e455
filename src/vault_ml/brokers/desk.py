"""Dead letters on a desk: look through them, send some back, throw some away.

The order is the delivery contract's: a letter leaves its queue only when the event has arrived
where it was sent. A crash between the two sends an event twice, and its results carry the same run
id; it loses none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from vault_ml.brokers import dead_letter
from vault_ml.brokers.letter import Letter, read
from vault_ml.brokers.letter_selection import Selection
from vault_ml.brokers.port import Browser, Message, Producer, SettlementLost
from vault_ml.errors import ConfigError, MessageTooLarge, UnavailableError, VaultMLError

# Letters whose removal from the queue is awaited together: bounds what a crash repeats.
_UNCONFIRMED = 100


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look through the queue found.

    Attributes:
        selected: the letters that are meant, oldest first.
        seen: how many letters were looked at.
        elsewhere: how many would be meant, had they come from the queue that is meant.
        is_all: False when the limit was reached before the end of the queue.
    """

    selected: Sequence[Letter]
    seen: int
    elsewhere: int
    is_all: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one letter.

    Attributes:
        letter: the letter.
        problem: why it lies in the dead-letter queue still; None when it does not.
    """

    letter: Letter
    problem: str | None


class Desk:
    """One dead-letter queue and the queue its events come from."""

    def __init__(
        self,
        browser: Browser,
        producer: Callable[[], Producer],
        *,
        queue: str,
        dead_letter_queue: str,
        timeout_s: float = 30.0,
    ) -> None:
        """Open nothing yet.

        Args:
            browser: of the dead-letter queue.
            producer: makes one, when something is sent back.
            queue: where events go back to.
            dead_letter_queue: its name, for sentences.
            timeout_s: how long the broker may take to confirm one message.
        """
        self.queue = queue
        self.dead_letter_queue = dead_letter_queue
        self._browser = browser
        self._make_producer = producer
        self._producer: Producer | None = None
        self._timeout_s = timeout_s

    def look(
        self,
        selection: Selection,
        *,
        limit: int | None = None,
        on_seen: Callable[[int], None] = lambda _seen: None,
    ) -> Looked:
        """Look through the queue, once.

        Args:
            selection: which letters are meant.
            limit: stop when so many are found.
            on_seen: told how many letters were looked at so far.

        Raises:
            BrokerUnavailable, ConfigError: as `Browser.deliveries`.
        """
        selected: list[Letter] = []
        seen = elsewhere = 0
        from_anywhere = replace(selection, queue=None)
        with closing(self._browser.deliveries()) as deliveries:
            for delivery in deliveries:
                if limit is not None and len(selected) >= limit:
                    return Looked(_oldest_first(selected), seen, elsewhere, is_all=False)
                seen += 1
                on_seen(seen)
                letter = read(delivery)
                if selection.fits(letter):
                    selected.append(letter)
                elif from_anywhere.fits(letter):
                    elsewhere += 1
        return Looked(_oldest_first(selected), seen, elsewhere, is_all=True)

    def redrive(self, letters: Iterable[Letter]) -> Iterator[Done]:
        """Send events back to the queue, bytes and key as they came; yields what is through.

        Each is settled when the queue has confirmed it. What cannot be sent stays.

        Raises:
            BrokerUnavailable, ConfigError: the queue takes nothing more. What was not yielded by
                then stays; of the last letter nobody knows whether the queue has it too.
        """
        producer = self._producer = self._producer or self._make_producer()
        yield from self._settled(letters, lambda letter: self._send_back(producer, letter))

    def drop(self, letters: Iterable[Letter]) -> Iterator[Done]:
        """Take letters out of the queue for good; yields what is through."""
        yield from self._settled(letters, lambda _letter: None)

    def close(self, timeout_s: float) -> None:
        """Give back what was not settled. Idempotent."""
        self._browser.close(timeout_s)
        if self._producer is not None:
            self._producer.close(timeout_s)

    def _settled(
        self, letters: Iterable[Letter], before: Callable[[Letter], None]
    ) -> Iterator[Done]:
        unconfirmed: list[tuple[Letter, Future[None]]] = []
        failure: VaultMLError | None = None
        for letter in letters:
            try:
                before(letter)
            except MessageTooLarge as error:
                yield Done(letter, str(error))
                continue
            except (UnavailableError, ConfigError) as error:
                failure = error
                break
            unconfirmed.append((letter, letter.delivery.ack()))
            if len(unconfirmed) >= _UNCONFIRMED:
                yield self._confirmed(*unconfirmed.pop(0))
        # Also when something broke: what was sent back is told.
        for one in unconfirmed:
            yield self._confirmed(*one)
        if failure is not None:
            raise failure

    def _confirmed(self, letter: Letter, settled: Future[None]) -> Done:
        try:
            settled.result(self._timeout_s)
        except (SettlementLost, FutureTimeout, VaultMLError) as error:
            why = str(error) or "the broker did not confirm in time"
            return Done(letter, f"still in {self.dead_letter_queue}: {why}")
        return Done(letter, None)

    def _send_back(self, producer: Producer, letter: Letter) -> None:
        message = sent_back(letter)
        try:
            producer.publish(self.queue, message, timeout_s=self._timeout_s)
        except MessageTooLarge:
            if not message.headers:
                raise
            # The event fitted before it had a header of ours.
            bare = Message(message.body, message.key)
            producer.publish(self.queue, bare, timeout_s=self._timeout_s)


def sent_back(letter: Letter) -> Message:
    """The event of a letter: its bytes, its key, its own headers, and how often it was sent back.

    The broker knows nothing of the attempts it had, so they are counted from 1 again.
    """
    message = letter.delivery.message
    headers = {
        name: text
        for name, text in message.headers.items()
        if not name.startswith(dead_letter.PREFIX)
    }
    headers[dead_letter.REDRIVEN] = str(letter.redriven + 1)
    return Message(message.body, message.key, headers)


def _oldest_first(letters: list[Letter]) -> list[Letter]:
    """By the time of death; those that tell none come first, in the order of the queue."""
    return sorted(letters, key=lambda letter: letter.dead_lettered_at or _LONG_AGO)


_LONG_AGO = datetime.min.replace(tzinfo=UTC)
