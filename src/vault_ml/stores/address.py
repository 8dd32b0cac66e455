"""Where a memory is kept: `sqlite:/path/file.db` or `redis://host:port/0`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A file on this host."""

    path: Path


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A server that speaks Redis' protocol.

    Attributes:
        host, port: where it listens.
        database: its number.
        uses_tls: `rediss://`.
    """

    host: str
    port: int
    database: int
    uses_tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str, variable: str = "OUTCOMES") -> SqliteFile | RedisServer:
    """Read an address; a path alone is a SQLite file.

    Args:
        text: the address.
        variable: the setting it stands in, for the sentence.

    >>> parse("sqlite:/var/lib/vault-ml/outcomes.db").path.name
    'outcomes.db'
    >>> str(parse("redis://cache/2"))
    'cache:6379'

    Raises:
        ValueError: it is none; the sentence follows the variable's name.
    """
    scheme, colon, rest = text.partition(":")
    match scheme.lower() if colon else "":
        case "sqlite":
            return _file(rest)
        case "redis" | "rediss":
            return _server(text, variable)
    if text.startswith(("/", "./")):
        return _file(text)
    raise ValueError("must be sqlite:/path/file.db or redis://host:port/0")


def _file(rest: str) -> SqliteFile:
    if rest.startswith("//"):
        if not rest.startswith("///"):  # what stands there would be a host
            raise ValueError("must name a file of this host: sqlite:/path/file.db")
        rest = "/" + rest.lstrip("/")
    if not rest or rest.endswith("/"):
        raise ValueError("must name a file: sqlite:/path/file.db")
    return SqliteFile(Path(rest))


def _server(text: str, variable: str) -> RedisServer:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if "@" in parts.netloc:
        raise ValueError(
            f"must not hold a user or password; use {variable}_USERNAME and {variable}_PASSWORD"
        )
    database = parts.path.strip("/") or "0"
    is_number = database.isascii() and database.isdigit()
    if not host or port == 0 or not is_number or parts.query or parts.fragment:
        raise ValueError("must be redis://host:port/0, with the number of the database at the end")
    return RedisServer(host, port or _REDIS_PORT, int(database), parts.scheme.lower() == "rediss")
