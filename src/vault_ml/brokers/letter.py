"""A dead letter as a person sees it: why it is here, what it is about, no secrets.

The body of a letter is the event as it came, and that may hold credentials and signed links. Only
`Message.body` has those; everything here is fit to be shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from vault_ml import event as events
from vault_ml import json_text
from vault_ml.brokers import dead_letter
from vault_ml.brokers.port import Delivery, Message
from vault_ml.errors import MalformedEvent
from vault_ml.telemetry.redaction import redact, redact_text

ID_CHARACTERS = 12
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_SHOWN_CHARACTERS = 4000  # of a body that is no JSON


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and what its headers and its event tell.

    A letter that the broker itself moved here, after too many deliveries, has no headers of ours:
    then what they would tell is None.

    Attributes:
        id: names the letter by its content, so it is the same in every listing.
        delivery: the letter in our hands.
        reason: the sentence.
        stage: the step that failed.
        error: class of the error.
        attempts: tries before it was given up.
        first_received_at, dead_lettered_at: UTC.
        queue: where the event came from.
        host, version: of the worker that gave it up.
        redriven: how often it was sent back before.
        recording_key, source, camera: of the event; None when that cannot be understood.
    """

    id: str
    delivery: Delivery
    reason: str | None
    stage: str | None
    error: str | None
    attempts: int | None
    first_received_at: datetime | None
    dead_lettered_at: datetime | None
    queue: str | None
    host: str | None
    version: str | None
    redriven: int
    recording_key: str | None
    source: str | None
    camera: str | None


def read(delivery: Delivery) -> Letter:
    """Read what came out of a dead-letter queue; anything that lies in one can be read."""
    headers = delivery.message.headers
    try:
        event = events.parse(delivery.message.body)
    except MalformedEvent:
        event = None
    reason = headers.get(dead_letter.REASON)
    return Letter(
        id=letter_id(delivery.message),
        delivery=delivery,
        reason=None if reason is None else redact_text(reason),
        stage=headers.get(dead_letter.STAGE),
        error=headers.get(dead_letter.ERROR_CLASS),
        attempts=_number(headers.get(dead_letter.ATTEMPTS)),
        first_received_at=_time(headers.get(dead_letter.FIRST_RECEIVED_AT)),
        dead_lettered_at=_time(headers.get(dead_letter.DEAD_LETTERED_AT)),
        queue=headers.get(dead_letter.QUEUE),
        host=headers.get(dead_letter.HOST),
        version=headers.get(dead_letter.VERSION),
        redriven=_number(headers.get(dead_letter.REDRIVEN)) or 0,
        recording_key=event.key if event else None,
        source=event.source if event else None,
        camera=event.camera if event else None,
    )


def letter_id(message: Message) -> str:
    """A name made of the content: body, key and headers. Two letters that are equal share it."""
    parts = [message.body, b"" if message.key is None else b"k" + message.key]
    for name, text in sorted(message.headers.items()):
        parts += [name.encode(errors="replace"), text.encode(errors="replace")]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()[:ID_CHARACTERS]


def shown_headers(message: Message) -> dict[str, str]:
    """The headers without secrets."""
    shown = redact(dict(message.headers))
    assert isinstance(shown, Mapping)
    return {str(name): str(text) for name, text in shown.items()}


def shown_body(body: bytes) -> str:
    """The event without credentials, signed links and whatever else has the name of a secret.

    An event of Kerberos Vault comes as indented JSON. What is no JSON comes as text, cut off when
    it is long: its secrets, if any, are found by their look only.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return f"<{len(body)} bytes, not text>"
    if not text.strip():
        return "<empty>"
    if len(body) <= events.MAX_EVENT_BYTES and json_text.depth(text) <= events.MAX_DEPTH:
        try:
            if isinstance(json_text.decode(text), dict):
                text = json_text.without(text, events.CREDENTIAL_PATHS)
            return json.dumps(redact(json_text.decode(text)), indent=2, ensure_ascii=False)
        except ValueError:
            pass
    cut = f" ... ({len(text)} characters)" if len(text) > _SHOWN_CHARACTERS else ""
    return redact_text(text[:_SHOWN_CHARACTERS]) + cut


def printable(text: str, *, keep: str = "") -> str:
    r"""Text that cannot steer a terminal: what does not print is written as an escape.

    Args:
        text: data from the wire.
        keep: characters that are let through all the same, such as a line break.

    >>> printable("a" + chr(27) + "[31m")
    'a\\x1b[31m'
    """
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )


def _number(text: str | None) -> int | None:
    if text is None or not _COUNT.fullmatch(text):
        return None
    return int(text)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
