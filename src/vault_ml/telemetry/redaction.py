"""What must never be shown: secrets by their name, and the query strings of URLs.

The last gate before a log line leaves the process. The first one is not to pass secrets at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "***"

# Parts of a name that make its value a secret, in the spellings of settings, headers, JSON fields
# and librdkafka options. Compared without case, dashes, dots and underscores.
_SECRET_PARTS = (
    "password",
    "passwd",
    "secret",
    "accesskey",
    "privatekey",
    "apikey",
    "authorization",
    "credential",
    "cookie",
    "signedurl",
    "cloudkey",
    "bearer",
    "jaas",
    "keypem",
    "keystore",
)
# `event-token` of a recording is no secret but a number that the agent made up.
_OPEN_TOKENS = frozenset({"eventtoken"})
_SEPARATORS = re.compile(r"[-_. ]")
# Of our own headers, what says which recording; everything else with this prefix is masked.
_KERBEROS_PREFIX = "xkerberos"
_OPEN_KERBEROS_HEADERS = frozenset(
    f"xkerberosstorage{name}"
    for name in ("filename", "provider", "device", "capture", "directory", "fps", "duration",
                 "timestamp")
)  # fmt: skip

# All of these are linear in time for any text: what is logged may come from the wire.
_RUN = re.compile(r"[^\s'\"<>]+")
_URL_USER = re.compile(r"://[^/@]*@")
_NAMED_IN_TEXT = re.compile(
    r"(?P<name>(?:password|secret|access[-_]?key|authorization)[\w.-]{0,40}['\"]?\s{0,5}[:=]\s{0,5})"
    r"(?P<value>\"(?:[^\"\\]++|\\.)*+\"|'(?:[^'\\]++|\\.)*+'|(?:(?:Bearer|Basic)\s{1,5})?[^\s,;}\]]+)",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a value under this name is never shown.

    >>> is_secret_name("X-Kerberos-Storage-SecretAccessKey"), is_secret_name("recording_key")
    (True, False)
    """
    plain = _SEPARATORS.sub("", name).lower()
    if plain.startswith(_KERBEROS_PREFIX):
        return plain not in _OPEN_KERBEROS_HEADERS
    is_token = plain.endswith("token") and plain not in _OPEN_TOKENS
    return is_token or any(part in plain for part in _SECRET_PARTS)


def redact_text(text: str) -> str:
    """A text without what it may leak: query strings and logins of URLs, `password=...` pairs.

    >>> redact_text("GET https://u:p@minio/a.mp4?X-Amz-Signature=1 failed")
    'GET https://***@minio/a.mp4?*** failed'
    """
    if "://" in text:
        text = _RUN.sub(_without_login_and_query, text)
    return _NAMED_IN_TEXT.sub(rf"\g<name>{MASK}", text)


def _without_login_and_query(run: re.Match[str]) -> str:
    """One run of characters that may be in a URL; each is looked at once."""
    word, colon, rest = run.group().partition("://")
    if not colon:
        return word
    before, question, query = rest.partition("?")
    before = _URL_USER.sub(f"://{MASK}@", f"://{before}")
    return word + before + (question + MASK if query else question)


def redact(value: object) -> object:
    """A copy of nested dicts, lists and texts with every secret masked; other values as they are.

    Raises:
        Nothing: what nests deeper than 20 is masked whole.
    """
    return _redact(value, depth=0)


_MAX_DEPTH = 20


def _redact(value: object, depth: int) -> object:
    if depth > _MAX_DEPTH:
        return MASK
    match value:
        case str():
            return redact_text(value)
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {
                name: MASK
                if isinstance(name, str) and is_secret_name(name) and item not in (None, "")
                else _redact(item, depth + 1)
                for name, item in value.items()
            }
        case list():
            return [_redact(item, depth + 1) for item in value]
        case tuple():
            return tuple(_redact(item, depth + 1) for item in value)
        case _:
            return value
