"""The judge: reads a history and says what was promised and not kept.

It knows the promises, not the program: it imports nothing of `vault_ml` and looks only at what
stood on the queues, what the Vault was asked, and what is left in the Vault's folder.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from proof.history import Event, History, Letter, Result, VaultCall

# Clocks are the same machine's, but brokers keep whole milliseconds.
_CLOCK_S = 0.002
# What may cost a try of a recording that no attempt was counted for: the process or the lease was
# lost before the count could be written down.
_UNCOUNTED = (
    "kill", "failpoint", "freeze", "join", "leave", "broker", "vault", "hub",
    "weather to the broker",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One promise that was not kept.

    Attributes:
        kind: such as `lost`.
        key: the recording or the event's digest.
        sentence: what was seen.
    """

    kind: str
    key: str
    sentence: str


@dataclass(frozen=True)
class Expected:
    """What a run without faults came to, for one recording."""

    run_id: str
    body_sha: str
    count: int


KINDS = {
    "lost": "an event is gone from the queue and has neither result nor dead letter",
    "stuck": "an event is still on the queue and nothing becomes of it",
    "unsettled": "an event has its result, and the broker would deliver it again for ever",
    "removed too early": "a recording went before its result, its forward, or without being asked",
    "differing duplicates": "one run id with two contents, or one recording with two run ids",
    "repeated in spite of transactions": "a reader of committed messages saw a result twice",
    "wrong result": "a result that a run without faults does not have",
    "unexpected dead letter": "a dead letter of an event that can be processed",
    "wrong dead letter": "a dead letter with altered bytes, another error, or too few attempts",
    "attempts lost": "an event was tried far more often than it may be",
    "not forwarded": "a recording with its result, whose forward was never accepted",
    "forwarded without cause": "a forward that nobody asked for",
    "bad exit": "a worker that was told to stop did not end with 0",
}


def expectations(history: History) -> dict[str, Expected]:
    """What a run without faults says about each recording.

    Raises:
        ValueError: it is not without fault itself.
    """
    expected = {
        result.key: Expected(result.run_id, result.body_sha, result.count)
        for result in history.results
    }
    findings = check(history, expected)
    faults = [fault for fault in history.faults if not fault.kind.startswith("poison")]
    if findings or faults or len(history.results) != len(expected):
        raise ValueError(f"the run without faults is not without fault: {findings[:5]}")
    return expected


def check(history: History, expected: Mapping[str, Expected]) -> list[Finding]:
    """Everything that was promised and not kept; empty when all was.

    Args:
        history: one run.
        expected: from a run without faults with the same recordings.
    """
    books = _Books(history)
    return [
        *_outcomes(books),
        *_removals(books),
        *_results(books, expected),
        *_letters(books),
        *_attempts(books),
        *_forwards(books),
        *_exits(history),
    ]


class _Books:
    """A history, sorted by recording and by event."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.duty = history.duty
        self.good = [event for event in history.events if not event.expects]
        self.poison = [event for event in history.events if event.expects]
        self.by_sha = {event.body_sha: event for event in history.events}
        self.results: dict[str, list[Result]] = defaultdict(list)
        for result in history.results:
            self.results[result.key].append(result)
        self.letters: dict[str, list[Letter]] = defaultdict(list)
        for letter in history.letters:
            self.letters[letter.body_sha].append(letter)
        self.calls: dict[str, list[VaultCall]] = defaultdict(list)
        for call in history.calls:
            self.calls[call.key].append(call)

    @cached_property
    def backlog(self) -> set[str]:
        return set(self.history.backlog)

    @cached_property
    def present(self) -> set[str]:
        return set(self.history.present)

    def was_forwarded(self, key: str, what: str, before: int | None = None) -> bool:
        """The Vault accepted it (before the `before`-th call about this recording)."""
        return any(call.what == what and call.status == 200 for call in self.calls[key][:before])

    def wants_forward(self, key: str) -> bool:
        return any(result.count >= self.duty.object_threshold for result in self.results[key])


def _outcomes(books: _Books) -> Iterator[Finding]:
    for event in books.history.events:
        has_result = event.key is not None and event.key in books.results and not event.expects
        has_outcome = has_result or event.body_sha in books.letters
        name = _name(event)
        if has_outcome and event.body_sha in books.backlog:
            yield Finding("unsettled", name, "it is done, and still on the queue")
        elif not has_outcome and event.body_sha in books.backlog:
            yield Finding("stuck", name, "no result, no dead letter; it waits on the queue")
        elif not has_outcome:
            kind = "lost" if books.history.is_settled else "stuck"
            yield Finding(kind, name, "no result, no dead letter, not on the queue")
    if not books.history.is_settled and not books.backlog:
        yield Finding("unsettled", "", "the broker says that something is left to deliver")


def _removals(books: _Books) -> Iterator[Finding]:
    duty = books.duty
    for event in books.history.events:
        key = event.key
        if key is None or event.is_missing:
            continue
        removals = [
            (index, call)
            for index, call in enumerate(books.calls[key])
            if call.what == "remove" and call.status in {200, 204}
        ]
        if not removals:
            if key not in books.present:
                yield _too_early(key, "it is gone, and nobody asked the Vault to remove it")
            continue
        index, removal = removals[0]
        if event.expects:
            yield _too_early(key, "its event was never processed")
            continue
        if not duty.removes:
            yield _too_early(key, "REMOVE_AFTER_PROCESSED is off")
        if key not in books.results:
            yield _too_early(key, "it has no result")
            continue
        sent = [result.sent_at for result in books.results[key] if result.sent_at is not None]
        if sent and min(sent) > removal.at + _CLOCK_S:
            late_s = min(sent) - removal.at
            yield _too_early(key, f"its first result was sent {late_s:.3f} s after the removal")
        if not books.wants_forward(key):
            continue
        if duty.forwards_media:
            if not duty.removes_forwarded:
                yield _too_early(key, "its forwarding is only queued, and it had to stay")
            if not books.was_forwarded(key, "forward_media", before=index):
                yield _too_early(key, "its forward had not been accepted")
        if duty.forwards_metadata and not books.was_forwarded(key, "forward_metadata", index):
            yield _too_early(key, "its metadata had not been accepted")
        for what in ("forward_hub", "forward_detections") if duty.forwards_hub else ():
            if not books.was_forwarded(key, what, index):
                yield _too_early(key, f"Hub had not accepted it ({what})")


def _results(books: _Books, expected: Mapping[str, Expected]) -> Iterator[Finding]:
    good = {event.key: event for event in books.good}
    for key, results in books.results.items():
        copies = good[key].copies if key in good else 1
        if books.duty.transactions and len(results) > copies:
            yield Finding("repeated in spite of transactions", key, f"{len(results)} results")
        if len({result.run_id for result in results}) > 1:
            yield Finding("differing duplicates", key, "more than one run id")
        contents = Counter(result.body_sha for result in results)
        if len(contents) > 1:
            yield Finding("differing duplicates", key, f"{len(contents)} contents of one run id")
        if any(result.run_id != result.inner_run_id for result in results):
            yield Finding("differing duplicates", key, "header and body name different run ids")
        if key not in good:
            yield Finding("wrong result", key, "nobody put such an event on the queue")
            continue
        if key not in expected:
            yield Finding("wrong result", key, "the run without faults has no result for it")
        elif {(result.run_id, result.body_sha) for result in results} != {
            (expected[key].run_id, expected[key].body_sha)
        }:
            yield Finding("wrong result", key, "the run without faults came to another one")


def _letters(books: _Books) -> Iterator[Finding]:
    for sha, letters in books.letters.items():
        event = books.by_sha.get(sha)
        if event is None:
            yield Finding("wrong dead letter", sha, "nobody put these bytes on the queue")
            continue
        if not event.expects:
            if not is_late_copy(books.history, event, letters):
                yield Finding(
                    "unexpected dead letter",
                    _name(event),
                    f"{letters[0].error} in {letters[0].stage}: {letters[0].reason}",
                )
            continue
        for letter in letters:
            if letter.error not in event.expects and not _was_cut_off(books, event, letter):
                yield Finding(
                    "wrong dead letter",
                    _name(event),
                    f"{letter.error} instead of {' or '.join(event.expects)}",
                )
            elif event.retries and letter.attempts < books.duty.max_attempts:
                yield Finding(
                    "wrong dead letter",
                    _name(event),
                    f"given up at attempt {letter.attempts} of {books.duty.max_attempts}",
                )


def _was_cut_off(books: _Books, event: Event, letter: Letter) -> bool:
    """The answer about a recording that is not there was itself cut off, at the last try."""
    return (
        event.is_missing
        and letter.error == "RecordingIncomplete"
        and any(f.kind.endswith(": cut") and f.key == event.key for f in books.history.faults)
    )


def is_late_copy(history: History, event: Event, letters: list[Letter]) -> bool:
    """Delivered once more after its recording was processed and removed: nothing to look at.

    Only what was put on the queue more than once, or what a broker without a confirmed
    acknowledgement delivers again, may end so, and only after its result.
    """
    if event.copies < 2 and history.system not in AT_LEAST_ONCE:
        return False
    has_result = any(result.key == event.key for result in history.results)
    is_removed = event.key not in history.present
    return has_result and is_removed and all(x.error == "RecordingNotFound" for x in letters)


# Brokers that may deliver what was acknowledged: an `ack` of AMQP has no answer, and a standard
# queue of SQS promises no more than "at least once".
AT_LEAST_ONCE = frozenset({"rabbitmq", "sqs"})


def _attempts(books: _Books) -> Iterator[Finding]:
    common = sum(fault.kind.startswith(_UNCOUNTED) for fault in books.history.faults)
    for event in books.poison:
        if not event.is_missing or event.key is None:
            continue
        asked = Counter(call.what for call in books.calls[event.key] if call.status == 404)
        tries = max(asked["sign"], asked["blob"])
        most = books.duty.max_attempts * event.copies + common
        if tries > most:
            yield Finding(
                "attempts lost", event.key, f"tried {tries} times, {most} would be the most"
            )


def _forwards(books: _Books) -> Iterator[Finding]:
    for what, is_on in (
        ("forward_media", books.duty.forwards_media),
        ("forward_metadata", books.duty.forwards_metadata),
        ("forward_hub", books.duty.forwards_hub),
        ("forward_detections", books.duty.forwards_hub),
    ):
        for event in books.good:
            key = event.key
            if key is None or key not in books.results:
                continue
            is_wanted = is_on and books.wants_forward(key)
            was_asked = any(call.what == what for call in books.calls[key])
            if is_wanted and not books.was_forwarded(key, what):
                yield Finding("not forwarded", key, f"{what} was never accepted")
            if was_asked and not is_wanted:
                yield Finding("forwarded without cause", key, what)


def _exits(history: History) -> Iterator[Finding]:
    for code in history.exits:
        if code != 0:
            yield Finding("bad exit", "", f"a worker told to stop ended with {code}")


def _too_early(key: str, sentence: str) -> Finding:
    return Finding("removed too early", key, sentence)


def _name(event: Event) -> str:
    return event.key or event.body_sha[:12]
