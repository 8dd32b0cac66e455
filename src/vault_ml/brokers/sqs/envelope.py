"""What a message looks like in SQS, and back. Pure.

A body of SQS is text of the characters that XML allows, and not empty; ours may be any bytes. What
is plain text stays so for every other consumer; the rest travels as base64, and an attribute says
so. Headers are message attributes, of which there are ten at most; what does not fit travels
as JSON in one of them.

Source: AWS, SQS API Reference, SendMessage and MessageAttributeValue.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, NotRequired, TypedDict

from vault_ml.brokers import dead_letter
from vault_ml.brokers.port import Message

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

MAX_ATTRIBUTES = 10
# Ours, as an envelope's. The dot keeps them apart from headers of ours, which have none.
BODY = "vault-ml.body"
KEY = "vault-ml.key"
HEADERS = "vault-ml.headers"
_OWN = {BODY, KEY, HEADERS}
_BASE64, _EMPTY = "base64", "empty"

# The header of a result that names its run; see `vault_ml.result`.
_RUN_ID = "vault-ml-run-id"

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE_NAME = re.compile(r"(?!(?i:aws|amazon)\.)(?!.*\.\.)(?!\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_GROUP_ID = re.compile(r"[!-~]{1,128}")  # letters, digits and punctuation of ASCII
# The group of a message without a key: one of its own, so that it waits for no other.
_ALONE = "vault-ml.alone."
_DIGEST = "vault-ml.sha256."


class Envelope(TypedDict):
    """Arguments of SendMessage, but for the queue."""

    MessageBody: str
    MessageAttributes: NotRequired[dict[str, MessageAttributeValueTypeDef]]
    MessageGroupId: NotRequired[str]
    MessageDeduplicationId: NotRequired[str]


def to_sqs(message: Message, *, fifo: bool) -> Envelope:
    """Put `message` into the form of SQS; `from_sqs` gives it back unchanged.

    Args:
        message: any.
        fifo: for a FIFO queue: with a group (messages of one are in order) and an identity (the
            same again within five minutes is dropped by SQS). A dead letter gets a group of its
            own, so that a person who looks through them sees all, and not the first of each.
    """
    attributes: dict[str, MessageAttributeValueTypeDef] = {}
    body, encoding = _body(message.body)
    if encoding:
        attributes[BODY] = _text(encoding)
    is_letter = dead_letter.DEAD_LETTERED_AT in message.headers
    group = _group_id(None if is_letter else message.key)
    is_key_in_group = fifo and group.encode() == message.key
    if message.key is not None and not is_key_in_group:
        attributes[KEY] = _binary(message.key) if message.key else _text(_EMPTY)
    _add_headers(attributes, message.headers)
    envelope = Envelope(MessageBody=body)
    if attributes:
        envelope["MessageAttributes"] = attributes
    if fifo:
        envelope["MessageGroupId"] = group
        envelope["MessageDeduplicationId"] = deduplication_id(message)
    return envelope


def from_sqs(raw: MessageTypeDef) -> Message:
    """The message in what ReceiveMessage gave.

    Attributes that are binary, and not ours, are dropped: headers are text.
    """
    attributes = raw.get("MessageAttributes", {})
    texts = {
        name: value.get("StringValue", "")
        for name, value in attributes.items()
        if not value["DataType"].startswith("Binary")
    }
    headers = {name: text for name, text in texts.items() if name not in _OWN}
    headers |= _headers_from_json(texts.get(HEADERS))
    return Message(
        body=_bytes(raw.get("Body", ""), texts.get(BODY)),
        key=_key(raw, texts.get(KEY)),
        headers=headers,
    )


def deduplication_id(message: Message) -> str:
    """The identity of a message, 64 characters.

    Two results of one run are the same message, whatever machine they were made on. Any other is
    the same only when body, key and every header are: a dead letter that was written twice is
    two letters (their times differ), and an event that is sent back is not taken for the one
    that failed a minute ago.
    """
    digest = hashlib.sha256()
    names = {name for name in message.headers if name.startswith("vault-ml-")}
    if _RUN_ID in names and names <= {_RUN_ID, "vault-ml-version"}:
        digest.update(message.headers[_RUN_ID].encode())
    else:
        parts = [message.body, message.key or b""]
        for name, value in sorted(message.headers.items()):
            parts += [name.encode(errors="replace"), value.encode(errors="replace")]
        for part in parts:
            digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def is_plain(text: str) -> bool:
    """Whether SQS takes these characters.

    >>> is_plain("é🎥"), is_plain(chr(0)), is_plain(chr(0xFFFE))
    (True, False, False)
    """
    return _FORBIDDEN.search(text) is None


def size_bytes(envelope: Envelope) -> int:
    """What SQS counts against the queue's limit: body, and name, type, value of attributes."""
    size = len(envelope["MessageBody"].encode())
    for name, value in envelope.get("MessageAttributes", {}).items():
        content = value.get("BinaryValue", b"")
        assert isinstance(content, bytes)
        size += len(name.encode()) + len(value["DataType"]) + len(content)
        size += len(value.get("StringValue", "").encode())
    return size


def _body(body: bytes) -> tuple[str, str]:
    """The text of a body, and the name of its encoding; empty for plain text."""
    if not body:
        return "-", _EMPTY
    try:
        text = body.decode()
    except UnicodeDecodeError:
        pass
    else:
        if is_plain(text):
            return text, ""
    return base64.b64encode(body).decode(), _BASE64


def _bytes(text: str, encoding: str | None) -> bytes:
    if encoding == _EMPTY:
        return b""
    if encoding == _BASE64:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass  # not written by us, whatever the attribute says
    return text.encode(errors="surrogatepass")


def _group_id(key: bytes | None) -> str:
    if key is None:
        return f"{_ALONE}{uuid.uuid4().hex}"
    text = key.decode("latin-1")
    if _GROUP_ID.fullmatch(text) and not text.startswith((_ALONE, _DIGEST)):
        return text
    return f"{_DIGEST}{hashlib.sha256(key).hexdigest()}"


def _key(raw: MessageTypeDef, key_text: str | None) -> bytes | None:
    own = raw.get("MessageAttributes", {}).get(KEY)
    if own is not None and "BinaryValue" in own:
        return bytes(own["BinaryValue"])
    if key_text == _EMPTY:
        return b""
    group = raw.get("Attributes", {}).get("MessageGroupId")
    return None if group is None or group.startswith(_ALONE) else group.encode()


def _add_headers(
    attributes: dict[str, MessageAttributeValueTypeDef], headers: Mapping[str, str]
) -> None:
    fitting = {
        name: text
        for name, text in headers.items()
        if _ATTRIBUTE_NAME.fullmatch(name) and name not in _OWN and text and is_plain(text)
    }
    room = MAX_ATTRIBUTES - len(attributes)
    if len(fitting) < len(headers) or len(fitting) > room:
        room -= 1  # for those that travel as JSON
    native = dict(list(fitting.items())[: max(0, room)])
    attributes |= {name: _text(text) for name, text in native.items()}
    if rest := {name: text for name, text in headers.items() if name not in native}:
        attributes[HEADERS] = _text(json.dumps(rest))  # ASCII, so all its characters are allowed


def _headers_from_json(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {HEADERS: text}  # somebody else's
    if not isinstance(loaded, dict):
        return {HEADERS: text}
    return {name: value for name, value in loaded.items() if isinstance(value, str)}


def _text(value: str) -> MessageAttributeValueTypeDef:
    return {"DataType": "String", "StringValue": value}


def _binary(value: bytes) -> MessageAttributeValueTypeDef:
    return {"DataType": "Binary", "BinaryValue": value}
