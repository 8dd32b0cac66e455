"""RABBITMQ_HOST: one or several addresses, with or without scheme, port and virtual host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

PORT, TLS_PORT = 5672, 5671
_ADDRESS = re.compile(
    r"(?:(?P<scheme>amqps?)://)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?:/(?P<vhost>[^/?#\s]*))?",
    re.IGNORECASE,
)
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """One node of a RabbitMQ.

    Attributes:
        host: a name or an IP address, without brackets.
        port: where it listens.
        tls: True for amqps.
        vhost: the virtual host that stood in the address, None when none did.
    """

    host: str
    port: int
    tls: bool
    vhost: str | None

    def __str__(self) -> str:
        """`host:port`, for sentences."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_addresses(text: str) -> tuple[Address, ...]:
    """The addresses in `RABBITMQ_HOST`.

    >>> [str(address) for address in parse_addresses("rabbit-0, amqps://rabbit-1/cctv")]
    ['rabbit-0:5672', 'rabbit-1:5671']
    >>> parse_addresses("amqp://mq:5672/%2F")[0].vhost
    '/'

    Raises:
        ValueError: with a sentence that follows the name of the variable. It shows nothing of the
            text, which may hold a password.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError("is empty; set it to host:port of RabbitMQ")
    if any("@" in part for part in parts):
        raise ValueError(
            "must not hold a user or password; use RABBITMQ_USERNAME and RABBITMQ_PASSWORD"
        )
    addresses = tuple(_parse(part) for part in parts)
    if len({address.vhost for address in addresses}) > 1:
        raise ValueError("names more than one virtual host; name it once, in RABBITMQ_VHOST")
    return addresses


def _parse(part: str) -> Address:
    found = _ADDRESS.fullmatch(part)
    if found is None or not 0 < int(found["port"] or 1) <= _MAX_PORT:
        raise ValueError(
            "must be host, host:port or amqp(s)://host:port/vhost, several separated by commas"
        )
    tls = (found["scheme"] or "").lower() == "amqps"
    vhost = found["vhost"]
    return Address(
        host=found["host"].strip("[]"),
        port=int(found["port"] or (TLS_PORT if tls else PORT)),
        tls=tls,
        # `amqp://host/` is how many write the default one; AMQP's own reading is an empty name.
        vhost=unquote(vhost) or None if vhost is not None else None,
    )
