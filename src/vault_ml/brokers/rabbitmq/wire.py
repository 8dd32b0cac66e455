"""What a message looks like in AMQP 0-9-1, and what we write beside it.

AMQP has no key and no count of attempts, so both travel in headers. What is ours begins with
`x-vault-ml-` and is never shown as a header of the message.
"""

from __future__ import annotations

import copy
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import pika

from vault_ml.brokers.port import Message
from vault_ml.errors import MessageTooLarge

_OWN = "x-vault-ml-"
KEY = _OWN + "key"
ATTEMPT = _OWN + "attempt"
FIRST_RECEIVED = _OWN + "first-received"
NOT_BEFORE = _OWN + "not-before"
_DELIVERY_COUNT = "x-delivery-count"
# Written by the broker; they differ from delivery to delivery.
_OF_THE_BROKER = (
    "x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count",
    "x-opt-rabbitmq-", "x-stream-offset",
)  # fmt: skip
# Would send a copy elsewhere too, or have it refused.
_NOT_COPIED = ("CC", "BCC")
_ROUNDING_S = 0.002  # a wait may end late, never early
_PERSISTENT = 2
_FRAME_OVERHEAD = 8 + 22  # of a frame; and of a content header before its properties, generously
_LONGEST_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came off the wire.

    Attributes:
        message: as the port has it.
        properties: pika's, whole.
        attempt: 1, or what a copy of ours says.
        first_received_at: Unix seconds of the first try, None when this is it.
        not_before: Unix seconds, the end of a wait; 0.0 for at once.
        delivery_count: how often the broker has taken it back so far; None when it does not count
            (a classic queue).
        digest: names the message; the same on redelivery and for our copies.
    """

    message: Message
    properties: Any
    attempt: int
    first_received_at: float | None
    not_before: float
    delivery_count: int | None
    digest: str


def from_wire(body: bytes, properties: Any) -> Arrival:
    """Read a delivery of pika's. Never fails: what cannot be read is as good as absent."""
    raw: dict[str, Any] = properties.headers or {}
    key = raw.get(KEY)
    message = Message(
        body=body,
        key=key.encode() if isinstance(key, str) else key if isinstance(key, bytes) else None,
        headers={
            str(name): text
            for name, value in raw.items()
            if not _is_internal(name) and (text := _text(value)) is not None
        },
    )
    count = raw.get(_DELIVERY_COUNT)
    return Arrival(
        message=message,
        properties=properties,
        attempt=max(1, int(_number(raw.get(ATTEMPT)) or 1)),
        first_received_at=_number(raw.get(FIRST_RECEIVED)),
        not_before=_number(raw.get(NOT_BEFORE)) or 0.0,
        delivery_count=int(count) if isinstance(count, int) else None,
        digest=_digest(message),
    )


def to_wire(message: Message) -> Any:
    """The properties of a new message, persistent."""
    headers: dict[str, Any] = dict(message.headers)
    if message.key is not None:
        headers[KEY] = message.key
    return pika.BasicProperties(
        content_type="application/json" if message.body[:1] == b"{" else None,
        delivery_mode=_PERSISTENT,
        headers=headers,
        message_id=uuid.uuid4().hex,  # a returned message is known by it
    )


def copy_to_wire(
    arrival: Arrival, *, attempt: int, first_received_at: float, not_before: float
) -> Any:
    """The properties of a copy of what arrived, for the same queue: as it came, but for ours."""
    properties = copy.copy(arrival.properties)
    headers = {
        name: _encodable(value)
        for name, value in (arrival.properties.headers or {}).items()
        if name not in _NOT_COPIED and not _is_of_the_broker(name)
    }
    headers |= {ATTEMPT: str(attempt), FIRST_RECEIVED: f"{first_received_at:.3f}"}
    headers.pop(NOT_BEFORE, None)
    if not_before > 0:
        headers[NOT_BEFORE] = f"{not_before + _ROUNDING_S:.3f}"
    properties.headers = headers
    properties.delivery_mode = _PERSISTENT
    properties.user_id = None  # the broker refuses that of another user
    properties.message_id = properties.message_id or uuid.uuid4().hex
    return properties


def check_headers(properties: Any, frame_max: int) -> None:
    """Refuse headers that no AMQP connection can carry: they travel in one frame.

    Raises:
        MessageTooLarge: the headers are, or a name of one.
    """
    for name in properties.headers or {}:
        if len(str(name).encode()) > _LONGEST_NAME_BYTES:
            raise MessageTooLarge(
                f"RabbitMQ takes no header whose name has more than {_LONGEST_NAME_BYTES} bytes."
            )
    size = sum(len(piece) for piece in properties.encode()) + _FRAME_OVERHEAD
    if frame_max and size > frame_max:
        raise MessageTooLarge(
            f"The headers of the message have {size} bytes; RabbitMQ takes {frame_max} (frame_max)."
        )


def _is_of_the_broker(name: object) -> bool:
    return str(name).startswith(_OF_THE_BROKER)


def _is_internal(name: object) -> bool:
    return str(name).startswith(_OWN) or _is_of_the_broker(name)


def _text(value: object) -> str | None:
    """A header as text; tables, lists and what is not UTF-8 are dropped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(int(value)) if isinstance(value, int) else str(value)
    return None


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and 0 < number < 1e12 else None


def _encodable(value: object) -> object:
    """What pika reads but cannot write: floating point numbers, which become text."""
    if isinstance(value, float):
        return str(value)
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {name: _encodable(item) for name, item in value.items()}
    return value


def _digest(message: Message) -> str:
    digest = hashlib.blake2b(digest_size=8)
    parts = [message.body, b"" if message.key is None else b"k" + message.key]
    parts += [f"{name}={text}".encode() for name, text in sorted(message.headers.items())]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
