"""Which dead letters are meant. Pure: times come in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from vault_ml.brokers.letter import Letter
from vault_ml.brokers.queue_names import sqs_name

_AGO = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Selection:
    """What a letter must be to be selected; what is unset selects all.

    Attributes:
        ids: beginnings of letters' ids, any of which may fit.
        reason: text that the reason contains, in any case.
        error: class of the error, in any case.
        stage: the step that failed.
        key: name of the recording or of its camera; `*`, `?` and `[...]` as in file names.
        since: dead-lettered at or after this.
        before: dead-lettered before this.
        queue: the queue it came from. Letters that do not say where they come from fit every one.
    """

    ids: tuple[str, ...] = ()
    reason: str | None = None
    error: str | None = None
    stage: str | None = None
    key: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    queue: str | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether the letter is meant."""
        return (
            self._fits_id(letter)
            and _contains(letter.reason, self.reason)
            and _equals(letter.error, self.error)
            and _equals(letter.stage, self.stage)
            and self._fits_key(letter)
            and self._fits_time(letter)
            and self._fits_queue(letter)
        )

    def _fits_id(self, letter: Letter) -> bool:
        return not self.ids or letter.id.startswith(self.ids)

    def _fits_key(self, letter: Letter) -> bool:
        if self.key is None:
            return True
        names = (letter.recording_key, letter.camera)
        return any(name is not None and fnmatchcase(name, self.key) for name in names)

    def _fits_queue(self, letter: Letter) -> bool:
        if self.queue is None or letter.queue is None:
            return True
        # SQS may have one queue by its name here and by its URL there.
        return sqs_name(letter.queue) == sqs_name(self.queue)

    def _fits_time(self, letter: Letter) -> bool:
        if self.since is None and self.before is None:
            return True
        at = letter.dead_lettered_at
        if at is None:
            return False
        return (self.since is None or at >= self.since) and (
            self.before is None or at < self.before
        )


def parse_time(text: str, now: datetime) -> datetime:
    """A moment: so long ago (`90m`, `12h`, `3d`), or a date or time of ISO 8601.

    UTC, unless the text says otherwise.

    >>> parse_time("2h", datetime(2026, 3, 1, 12, tzinfo=UTC)).isoformat()
    '2026-03-01T10:00:00+00:00'
    >>> parse_time("2026-03-01", datetime(2026, 3, 1, 12, tzinfo=UTC)).isoformat()
    '2026-03-01T00:00:00+00:00'

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time; say how long ago (90m, 12h, 3d), or a date or time such as "
            "2026-03-01 or 2026-03-01T10:30"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _contains(text: str | None, part: str | None) -> bool:
    return part is None or (text is not None and part.casefold() in text.casefold())


def _equals(text: str | None, wanted: str | None) -> bool:
    return wanted is None or (text is not None and text.casefold() == wanted.casefold())
