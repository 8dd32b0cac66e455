"""`vault-ml dlq`: dead letters of the queue, the same on every broker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vault_ml.cli.progress import counter, progress
from vault_ml.errors import ConfigError, VaultMLError

if TYPE_CHECKING:
    from vault_ml.brokers.desk import Desk, Done, Looked
    from vault_ml.brokers.letter import Letter
    from vault_ml.brokers.letter_selection import Selection

app = typer.Typer(
    help="Look through dead letters, send them back to the queue, or drop them.",
    no_args_is_help=True,
)

_CLOSE_S = 10.0  # to give back what was not settled
_REASON_CHARACTERS = 160  # of a line of `list`; `show` has all

_Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Beginnings of ids that `list` shows; default: all."),
]
_Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="The reason contains this.")]
_Error = Annotated[
    str | None, typer.Option(metavar="CLASS", help="The error is of this class, as `list` shows.")
]
_Stage = Annotated[
    str | None, typer.Option(help="The step that failed: parse, fetch, decode, detect, ...")
]
_Key = Annotated[
    str | None,
    typer.Option(
        metavar="GLOB", help="The recording or its camera; with * and ? as in file names."
    ),
]
_Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Given up at or after: 90m, 12h, 3d ago, or 2026-03-01."),
]
_Before = Annotated[str | None, typer.Option(metavar="TIME", help="Given up before; as --since.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the first that fit.")]
_AnyQueue = Annotated[
    bool,
    typer.Option("--any-queue", help="Also letters that came from another queue than QUEUE_NAME."),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object per letter.")]


@app.command("list")
def list_letters(
    reason: _Reason = None,
    error: _Error = None,
    stage: _Stage = None,
    key: _Key = None,
    since: _Since = None,
    before: _Before = None,
    limit: _Limit = None,
    as_json: _Json = False,
) -> None:
    """List dead letters: id, when, error, stage, attempts, recording, reason.

    Nothing of an event that may be secret is shown, and nothing is changed.
    """
    chosen = _selection(None, reason, error, stage, key, since, before)
    with _desk() as desk:
        looked = _look(desk, chosen, limit)
        for letter in looked.selected:
            print(json.dumps(_row(letter)) if as_json else _text(letter), flush=True)
        _say(_summary(desk, looked))


@app.command("show")
def show_letter(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Beginnings of ids.")],
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Write the original bytes of one letter, secrets and all."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Show dead letters with their headers and the event, credentials and links left out."""
    with _desk() as desk:
        looked = _look(desk, _selection(ids), None)
        if not looked.selected:
            raise VaultMLError(f"No letter in {desk.dead_letter_queue} has an id like that.")
        if raw:
            _write_raw(looked.selected)
            return
        for number, letter in enumerate(looked.selected):
            if as_json:
                print(json.dumps(_full_row(letter)))
            else:
                print(("\n" if number else "") + _full_text(letter))


@app.command("redrive")
def redrive_letters(
    ids: _Ids = None,
    reason: _Reason = None,
    error: _Error = None,
    stage: _Stage = None,
    key: _Key = None,
    since: _Since = None,
    before: _Before = None,
    limit: _Limit = None,
    any_queue: _AnyQueue = False,
    dry_run: _DryRun = False,
    as_json: _Json = False,
) -> None:
    """Send events back to QUEUE_NAME, bytes and key as they came; their attempts count anew.

    A letter leaves the dead-letter queue when the queue has confirmed its event. What is not
    selected stays.
    """
    chosen = _selection(ids, reason, error, stage, key, since, before)
    with _desk() as desk:
        letters = _ours(desk, chosen, limit, any_queue=any_queue)
        if dry_run:
            _would("be sent back to " + desk.queue, letters, as_json=as_json)
            return
        _do("redriven", f"sent back to {desk.queue}", letters, desk.redrive, as_json=as_json)


@app.command("drop")
def drop_letters(
    ids: _Ids = None,
    reason: _Reason = None,
    error: _Error = None,
    stage: _Stage = None,
    key: _Key = None,
    since: _Since = None,
    before: _Before = None,
    limit: _Limit = None,
    any_queue: _AnyQueue = False,
    dry_run: _DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Take letters out of the dead-letter queue for good. Their recordings stay in the Vault."""
    chosen = _selection(ids, reason, error, stage, key, since, before)
    if not yes and not dry_run and not sys.stdin.isatty():
        raise ConfigError("Nobody can be asked here whether to drop letters; add --yes.")
    with _desk() as desk:
        letters = _ours(desk, chosen, limit, any_queue=any_queue)
        if dry_run:
            _would("be dropped", letters, as_json=as_json)
            return
        if letters and not yes:
            for letter in letters:
                print(_text(letter), file=sys.stderr)
            question = f"Drop {_count(letters)} of {desk.dead_letter_queue} for good?"
            if not typer.confirm(question, err=True):
                _say("nothing was dropped")
                raise typer.Exit(1)
        _do("dropped", "dropped", letters, desk.drop, as_json=as_json)


@contextmanager
def _desk() -> Iterator[Desk]:
    from vault_ml import settings
    from vault_ml.brokers_for import dead_letter_desk
    from vault_ml.telemetry.logs import configure

    chosen = settings.load(os.environ)
    desk = dead_letter_desk(chosen, configure("auto", "WARNING"))
    try:
        yield desk
    finally:
        desk.close(_CLOSE_S)


def _selection(
    ids: Sequence[str] | None,
    reason: str | None = None,
    error: str | None = None,
    stage: str | None = None,
    key: str | None = None,
    since: str | None = None,
    before: str | None = None,
) -> Selection:
    from vault_ml.brokers.letter_selection import Selection, parse_time

    now = datetime.now(UTC)
    try:
        return Selection(
            ids=tuple(ids or ()),
            reason=reason,
            error=error,
            stage=stage,
            key=key,
            since=None if since is None else parse_time(since, now),
            before=None if before is None else parse_time(before, now),
        )
    except ValueError as wrong:
        raise ConfigError(str(wrong)) from None


def _look(desk: Desk, chosen: Selection, limit: int | None) -> Looked:
    with counter(f"reading {desk.dead_letter_queue}:") as on_seen:
        return desk.look(chosen, limit=limit, on_seen=on_seen)


def _ours(desk: Desk, chosen: Selection, limit: int | None, *, any_queue: bool) -> Sequence[Letter]:
    """The letters meant that came from our queue; others are those of another worker."""
    from dataclasses import replace

    looked = _look(desk, chosen if any_queue else replace(chosen, queue=desk.queue), limit)
    if looked.elsewhere:
        _say(
            f"{looked.elsewhere} more fit, but came from another queue than {desk.queue}; set "
            "QUEUE_NAME to that one, or add --any-queue"
        )
    return looked.selected


def _would(what: str, letters: Sequence[Letter], *, as_json: bool) -> None:
    for letter in letters:
        print(json.dumps(_row(letter)) if as_json else _text(letter))
    _say(f"{_count(letters)} would {what}; nothing was done")


def _do(
    outcome: str,
    said: str,
    letters: Sequence[Letter],
    work: Callable[[Iterable[Letter]], Iterable[Done]],
    *,
    as_json: bool,
) -> None:
    done = failed = 0
    try:
        with progress(outcome, len(letters)) as advance:
            for one in work(letters):
                advance(one.letter.id)
                if one.problem is None:
                    done += 1
                else:
                    failed += 1
                    _say(f"{one.letter.id}: {_plain(one.problem)}")
                if as_json:
                    row = _row(one.letter)
                    row |= {"outcome": "failed" if one.problem else outcome, "problem": one.problem}
                    print(json.dumps(row), flush=True)
    finally:
        _say(f"{done} of {_count(letters)} {said}" + (f", {failed} not" if failed else ""))
    if failed:
        raise typer.Exit(1)


def _write_raw(letters: Sequence[Letter]) -> None:
    bodies = {letter.delivery.message.body for letter in letters}
    if len(bodies) > 1:
        raise ConfigError(f"{len(letters)} letters have ids like that; --raw writes one.")
    _say("these are the original bytes; they may hold credentials")
    sys.stdout.flush()
    sys.stdout.buffer.write(bodies.pop())
    sys.stdout.buffer.flush()


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "delivery": letter.delivery.id,
        "dead_lettered_at": _iso(letter.dead_lettered_at),
        "first_received_at": _iso(letter.first_received_at),
        "error": letter.error,
        "stage": letter.stage,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "key": letter.recording_key,
        "source": letter.source,
        "camera": letter.camera,
        "queue": letter.queue,
        "host": letter.host,
        "version": letter.version,
        "redriven": letter.redriven,
        "bytes": len(letter.delivery.message.body),
    }


def _full_row(letter: Letter) -> dict[str, Any]:
    from vault_ml.brokers.letter import shown_body, shown_headers

    message = letter.delivery.message
    key = None if message.key is None else message.key.decode(errors="backslashreplace")
    return _row(letter) | {
        "message_key": key,
        "headers": shown_headers(message),
        "event": shown_body(message.body),
    }


def _text(letter: Letter) -> str:
    at = letter.dead_lettered_at
    when = "-" * 19 if at is None else at.strftime("%Y-%m-%dT%H:%M:%S")
    tries = f"x{letter.attempts}" if letter.attempts is not None else ""
    again = f" (re-driven {letter.redriven}x)" if letter.redriven else ""
    what = letter.recording_key or f"{len(letter.delivery.message.body)} bytes, not an event"
    reason = letter.reason or "put here by the broker, without a reason"
    if len(reason) > _REASON_CHARACTERS:
        reason = reason[: _REASON_CHARACTERS - 3] + "..."
    head = f"{letter.id}  {when}  {letter.error or '-'}  {letter.stage or '-'} {tries}{again}"
    return f"{_plain(head)}\n{'':14}{_plain(what)}\n{'':14}{_plain(reason)}"


def _full_text(letter: Letter) -> str:
    from vault_ml.brokers.letter import printable

    row = _full_row(letter)
    lines = [
        f"{name:<18} {_plain(str(row[name]))}"
        for name in ("id", "delivery", "key", "source", "camera", "message_key", "bytes")
        if row[name] is not None
    ]
    lines += ["", "headers"]
    lines += [f"  {_plain(name)}: {_plain(text)}" for name, text in row["headers"].items()]
    lines += ["", "event, without credentials and signed links (--raw writes the original)"]
    return "\n".join([*lines, printable(row["event"], keep="\n")])


def _summary(desk: Desk, looked: Looked) -> str:
    if not looked.seen:
        return f"{desk.dead_letter_queue} is empty"
    rest = "" if looked.is_all else "; there are more"
    return f"{len(looked.selected)} of {looked.seen} letters in {desk.dead_letter_queue}{rest}"


def _count(letters: Sequence[Letter]) -> str:
    return f"{len(letters)} letter" + ("" if len(letters) == 1 else "s")


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")


def _plain(text: str) -> str:
    from vault_ml.brokers.letter import printable

    return printable(text)


def _say(sentence: str) -> None:
    print(f"vault-ml: {sentence}", file=sys.stderr, flush=True)
