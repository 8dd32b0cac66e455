"""What goes over the wire between a client and Kerberos Vault: routes, headers, addresses, replies.

Pure: the client and the embedded Vault share it. Everything here that is not obvious was learnt
from public clients of the Vault, since its server is not public; the reasons stand beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from vault_ml.errors import ConfigError, MalformedEvent

# Routes, below the API root.
STORAGE = "/storage"
BLOB = "/storage/blob"
BULK = "/storage/bulk"
SIGNED = "/storage/signed"
SIGNED_VALIDATE = "/storage/signed/validate"
FORWARD_MEDIA = "/storage/forward/media"
FORWARD_METADATA = "/storage/forward/metadata"  # no public source shows this one
PING = "/ping"
HEALTH = "/health"

# Headers, in the spelling of the Agent.
FILE_NAME = "X-Kerberos-Storage-FileName"
PROVIDER = "X-Kerberos-Storage-Provider"
ACCESS_KEY = "X-Kerberos-Storage-AccessKey"
SECRET_KEY = "X-Kerberos-Storage-SecretAccessKey"  # noqa: S105  # the name of a header
CLOUD_KEY = "X-Kerberos-Storage-CloudKey"
DEVICE = "X-Kerberos-Storage-Device"
CAPTURE = "X-Kerberos-Storage-Capture"
DIRECTORY = "X-Kerberos-Storage-Directory"
FPS = "X-Kerberos-Storage-Fps"
DURATION = "X-Kerberos-Storage-Duration"  # milliseconds
TIMESTAMP = "X-Kerberos-Storage-Timestamp"  # milliseconds since 1970

_API_PREFIX = "/api"
# Until May 2023 the API had a host or a port of its own, and no prefix.
_API_ONLY_LABEL = "api"
_API_ONLY_PORT = 8081
_DEL = 0x7F
_LONGEST_RETRY_AFTER_S = 3600.0


# --- where the API is -----------------------------------------------------------------------------


def api_roots(base_url: str, prefix: str = "auto") -> tuple[str, ...]:
    """The addresses under which the API may answer, the likeliest first.

    Args:
        base_url: what the operator configured: with or without `/api`, with or without a slash.
        prefix: `auto` to find out, or the path of the API, such as `/api`; empty or `none` when it
            has none.

    Returns:
        One address when there is nothing to find out, else two. None ends in a slash.

    Raises:
        ConfigError: this is no address of a Vault; the sentence never repeats it, because such an
            address may hold a password.

    >>> api_roots("https://vault.example.org/")
    ('https://vault.example.org/api', 'https://vault.example.org')
    >>> api_roots("https://api.vault.example.org")
    ('https://api.vault.example.org', 'https://api.vault.example.org/api')
    """
    parts = _split_base(base_url.strip().rstrip("/"))
    path = parts.path.rstrip("/")
    if prefix != "auto":
        wanted = _clean_prefix(prefix)
        return (_with_path(parts, path.removesuffix(wanted) + wanted),)
    if path.endswith(_API_PREFIX):
        return (_with_path(parts, path),)
    if path.endswith(STORAGE):
        path = path.removesuffix(STORAGE)
        if path.endswith(_API_PREFIX):
            return (_with_path(parts, path),)
        return (_with_path(parts, path), _with_path(parts, path + _API_PREFIX))
    prefixed, bare = _with_path(parts, path + _API_PREFIX), _with_path(parts, path)
    if _API_ONLY_LABEL in str(parts.hostname).split(".") or parts.port == _API_ONLY_PORT:
        return (bare, prefixed)
    return (prefixed, bare)


def _split_base(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url)
        has_port = parts.port is not None  # reading it is what checks it
    except ValueError as error:
        raise ConfigError(f"VAULT_API_URL is not an address ({_reason(error)}).") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            "VAULT_API_URL must begin with http:// or https:// and name a host, such as "
            "https://vault.example.org/api."
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "VAULT_API_URL must not hold a user name or password; "
            "use VAULT_ACCESS_KEY and VAULT_SECRET_KEY."
        )
    if parts.query or parts.fragment or (parts.netloc.endswith(":") and not has_port):
        raise ConfigError("VAULT_API_URL must be a host and perhaps a path, with nothing after it.")
    return parts


def _reason(error: ValueError) -> str:
    # Only what names no part of the address: Python's own messages quote the port.
    return "its port is not a number up to 65535" if "ort" in str(error) else "it cannot be read"


def _clean_prefix(prefix: str) -> str:
    bare = prefix.strip("/")
    return f"/{bare}" if bare and bare != "none" else ""


def _with_path(parts: SplitResult, path: str) -> str:
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def host_of(url: str) -> str:
    """Host and port of an address: all of it that may stand in a message.

    >>> host_of("https://bucket.example.org:9000/youruser/1.mp4?X-Signature=abc")
    'bucket.example.org:9000'
    """
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "an address without a host"
    except ValueError:
        return "an address that cannot be read"


# --- header values -------------------------------------------------------------------------------


def key_value(text: str, what: str) -> bytes:
    """A recording key or provider from the wire, as a header value.

    The Vault's clients send it raw, slashes and all; outside ASCII it is UTF-8.

    Raises:
        MalformedEvent: it cannot stand in a header (a line break would begin another header).
    """
    try:
        return _header_value(text)
    except ValueError as error:
        raise MalformedEvent(f"The {what} {error}; no Vault has such a recording.") from None


def credential_value(text: str, what: str) -> bytes:
    """A key from the configuration, as a header value.

    Raises:
        ConfigError: it cannot stand in a header. The sentence does not show it.
    """
    try:
        return _header_value(text)
    except ValueError as error:
        raise ConfigError(
            f"{what} {error}; look for a stray line break or space at its ends."
        ) from None


def _header_value(text: str) -> bytes:
    try:
        value = text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode") from None
    if not value:
        raise ValueError("is empty")
    if any(byte < ord(" ") or byte == _DEL for byte in value):
        raise ValueError("holds a control character")
    if value.strip(b" ") != value:
        raise ValueError("begins or ends with a space")
    return value


def header_text(value: bytes) -> str:
    """The inverse, for a server: what a header value means. Never fails.

    >>> header_text("youruser/1_Tür_.mp4".encode())
    'youruser/1_Tür_.mp4'
    """
    return value.decode("utf-8", "replace")


# --- replies -------------------------------------------------------------------------------------


def is_web_page(content_type: str, body_start: bytes = b"") -> bool:
    """True for HTML. The Vault's user interface answers every unknown path with a page and 200."""
    if content_type.partition(";")[0].strip().lower() in {"text/html", "application/xhtml+xml"}:
        return True
    start = body_start.lstrip()[:14].lower()
    return start.startswith((b"<!doctype html", b"<html"))


def is_wrong_root(status: int, content_type: str, body_start: bytes) -> bool:
    """True when this answer did not come from the API, so its address must be looked for again.

    A page is one sign, but not with every status: proxies also say 413, 429 and 5xx with a page.
    The other is a 404 or 405 that is not JSON: a router that does not know the path (the API's own
    404 says in JSON that it has no such recording).
    """
    if is_web_page(content_type, body_start):
        return 200 <= status < 300 or status in {401, 403, 404, 405}
    return status in {404, 405} and json_object(body_start) is None


class Standing(Enum):
    """What an answer to POST /ping says."""

    ACCEPTED = auto()
    REFUSED = auto()
    UNKNOWN = auto()  # the API, but it does not say what it thinks of our credentials
    NOT_THE_API = auto()
    AWAY = auto()


def ping_standing(status: int, content_type: str, body_start: bytes) -> Standing:
    """What the answer to a ping says about this address and about our credentials."""
    if is_unavailable(status):
        return Standing.AWAY
    if is_web_page(content_type, body_start) or 300 <= status < 400 or status in {404, 405}:
        return Standing.NOT_THE_API
    if status in {401, 403}:
        return Standing.REFUSED
    return Standing.ACCEPTED if 200 <= status < 300 else Standing.UNKNOWN


def is_unavailable(status: int) -> bool:
    """True for a status that says "not now": too early, too many, timed out, server errors."""
    return status in {408, 425, 429} or status >= 500


def json_object(body: bytes) -> dict[str, object] | None:
    """`body` as a JSON object, or None when it is something else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def signed_url(body: bytes) -> str | None:
    """The signed URL in the reply to GET /storage, or None when there is no usable one.

    Vaults that cannot sign answer 200 with an empty or missing `data`; some older ones put a
    message there. Both mean: use the blob route.
    """
    reply = json_object(body)
    data = reply.get("data") if reply else None
    return data if isinstance(data, str) and is_fetchable(data) else None


def is_fetchable(url: str) -> bool:
    """True for an address that may be fetched at all: http or https, a host, no user name.

    Only the form is looked at here; whether the host may be contacted is the client's affair.
    """
    if any(char <= " " or ord(char) == _DEL for char in url):
        return False
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # reading it raises when it is no port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc


def redirect_target(url: str, location: str) -> str:
    """Where a redirect leads; nothing when it leads nowhere.

    >>> redirect_target("https://s3.example.org/a/b?sig=1", "../c")
    'https://s3.example.org/c'
    """
    try:
        return urljoin(url, location) if location else ""
    except ValueError:
        return ""


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """When to come back, from a Retry-After header: seconds or a date; at most an hour.

    Args:
        value: the header, or None when there was none.
        now: an aware time, for the date form.

    >>> retry_after_s("7", datetime(2021, 9, 2, tzinfo=UTC))
    7.0
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER_S)
    moment = _moment(text)
    if moment is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), _LONGEST_RETRY_AFTER_S)


def clock_ahead_s(date: str | None, now: datetime) -> float | None:
    """How far `now` is ahead of the Vault's clock, seconds; None where it does not tell its time.

    Args:
        date: the header of an answer that has just come.
        now: an aware time.

    >>> clock_ahead_s("Thu, 02 Sep 2021 00:00:00 GMT", datetime(2021, 9, 2, 0, 1, tzinfo=UTC))
    60.0
    """
    moment = _moment(date or "")
    return None if moment is None else (now - moment).total_seconds()


def _moment(text: str) -> datetime | None:
    """A date of HTTP."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def bulk_reply(urls: Iterable[tuple[str, str]]) -> bytes:
    """The reply to POST /storage/bulk: `data` is a JSON-encoded *string*, to be parsed twice."""
    return json.dumps({"data": json.dumps(dict(urls))}).encode()
