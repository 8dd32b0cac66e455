"""HTTP as the Vault client needs it: nothing sent or followed unasked, and a limit on everything.

One request, one reply: no redirects, no cookies, no proxy from the environment, no log line
(httpx's own client logs addresses with their query, and a signed URL is a secret). Time is limited
twice: per read, and for the whole exchange, whatever trickles in and however slowly.
"""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from typing import Any

import certifi
import httpcore
import httpx

from vault_ml.errors import ConfigError
from vault_ml.vault.addresses import Reach, Refused, check_address
from vault_ml.vault.protocol import host_of, retry_after_s

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Enough for any reply that is not a recording.
_SMALL_BODY_BYTES = 64 * 1024
# Shorter than servers keep idle connections (5 s is common), so that we rarely send into a
# connection that the other side is just closing.
_KEEPALIVE_S = 4.0


class Trouble(Enum):
    """How an exchange failed."""

    NO_CONNECTION = auto()  # name not found, refused, TLS not trusted
    SILENT = auto()  # no byte within the time for one read
    OUT_OF_TIME = auto()  # bytes came, but the whole took too long
    BROKEN = auto()  # reset, or not HTTP
    CUT_OFF = auto()  # the body ended before its announced length
    REFUSED = auto()  # by us: its name resolves to an address that it may not lead to


class ExchangeFailed(Exception):
    """No usable answer. Its text holds no address, header or body."""

    def __init__(self, trouble: Trouble, detail: str) -> None:
        """`detail` is a clause for a sentence, such as `connection refused`."""
        super().__init__(detail)
        self.trouble = trouble


# Host and port -> the IP addresses it resolves to, as text.
Resolver = Callable[[str, int], Sequence[str]]


def system_resolver(host: str, port: int) -> Sequence[str]:
    """What the system says.

    Raises:
        OSError: it does not know the name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Whom we trust, and who we are, beyond the usual.

    Attributes:
        ca_file: more certificate authorities, PEM: a company's own.
        client_cert: our certificate (and its chain), PEM, for servers that ask for one.
        client_key: its private key, PEM, where it is not in the same file.
    """

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


class Deadline:
    """The moment by which a whole exchange must be over."""

    def __init__(self, limit_s: float) -> None:
        """`limit_s` from now."""
        self.limit_s = limit_s
        self._at = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Seconds left; zero or less when it has passed."""
        return self._at - time.monotonic()


class Reply:
    """The answer: status and headers now, the body while the exchange is open."""

    def __init__(self, response: httpcore.Response, deadline: Deadline) -> None:
        """Wrap `response`; `Transport.exchange` closes it."""
        self.status = response.status
        self.headers = httpx.Headers(response.headers)
        self._response = response
        self._deadline = deadline
        self._small: bytes | None = None

    @property
    def content_type(self) -> str:
        """The Content-Type header, or nothing."""
        return str(self.headers.get("content-type", ""))

    def pieces(self) -> Iterator[bytes]:
        """The body as it came over the wire, not decompressed.

        Raises:
            ExchangeFailed: it broke off or took too long.
        """
        with _translated(self._deadline, in_body=True):
            for piece in self._response.iter_stream():
                if self._deadline.left_s() <= 0:
                    raise ExchangeFailed(Trouble.OUT_OF_TIME, _too_long(self._deadline))
                yield piece

    def small_body(self) -> bytes:
        """Up to 64 KiB of the body, kept; what follows is not read.

        For looking into, never for a message or a log: the Vault's 401 repeats both our keys.

        Raises:
            ExchangeFailed: as `pieces`.
        """
        if self._small is None:
            parts, size = [], 0
            for piece in self.pieces():
                parts.append(piece)
                size += len(piece)
                if size >= _SMALL_BODY_BYTES:
                    break
            self._small = b"".join(parts)[:_SMALL_BODY_BYTES]
        return self._small


def retry_after(reply: Reply) -> float | None:
    """Seconds that the other side asks us to wait, where it does."""
    return retry_after_s(reply.headers.get("retry-after"), datetime.now(UTC))


class Transport:
    """Connections, kept and shared. Thread-safe."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        max_connections: int,
        tls: TlsOptions | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        """Trust the system's certificate authorities and Mozilla's (certifi), and those in `tls`.

        Raises:
            ConfigError: a file of `tls` cannot be used.
        """
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        # One pool per reach: a connection that was made with a longer reach must not serve an
        # exchange with a shorter one.
        self._pools = {
            reach: httpcore.ConnectionPool(
                ssl_context=trust(tls or TlsOptions()),
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEEPALIVE_S,
                network_backend=_Backend(reach, resolver),
            )
            for reach in (None, *Reach)
        }

    def close(self) -> None:
        """Close every connection. Idempotent."""
        for pool in self._pools.values():
            pool.close()

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, bytes],
        *,
        deadline: Deadline,
        content: bytes | Iterable[bytes] | None = None,
        reach: Reach | None = None,
    ) -> Iterator[Reply]:
        """Send one request and give its reply, open until the block ends.

        Args:
            method: the HTTP method.
            url: http or https. Its host goes into messages, nothing else of it.
            headers: sent as they are, with `Host`, `User-Agent` and `Accept` added.
            deadline: for the whole exchange, the body included.
            content: the request's body; an iterable needs a Content-Length header beside it.
            reach: what the host may resolve to; None for anything, for what was configured.

        Raises:
            ExchangeFailed: there is no (whole) reply.
        """
        request = self._request(method, url, headers, content, deadline)
        before = getattr(_clock, "deadline", None)
        _clock.deadline = deadline
        try:
            with _translated(deadline, in_body=False):
                response = self._pools[reach].handle_request(request)
            try:
                yield Reply(response, deadline)
            finally:
                response.close()
        finally:
            _clock.deadline = before

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, bytes],
        content: bytes | Iterable[bytes] | None,
        deadline: Deadline,
    ) -> httpcore.Request:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            # Its text quotes the address.
            detail = f"the address at {host_of(url)} cannot be read"
            raise ExchangeFailed(Trouble.NO_CONNECTION, detail) from None
        every = {"User-Agent": b"vault-ml", "Accept": b"*/*", "Accept-Encoding": b"identity"}
        pairs = [(name.encode(), value) for name, value in {**every, **headers}.items()]
        request = httpx.Request(method, parsed, headers=pairs)
        if isinstance(content, bytes):
            request.headers["Content-Length"] = str(len(content))
        return httpcore.Request(
            method,
            httpcore.URL(
                scheme=parsed.raw_scheme,
                host=parsed.raw_host,
                port=parsed.port,
                target=parsed.raw_path,
            ),
            headers=request.headers.raw,
            content=content,
            extensions={
                "timeout": {
                    "connect": self._connect_timeout_s,
                    "read": self._read_timeout_s,
                    "write": self._read_timeout_s,
                    "pool": max(deadline.left_s(), 0.0),
                }
            },
        )


@functools.cache  # reading the certificates takes a noticeable part of a second
def trust(tls: TlsOptions) -> ssl.SSLContext:
    """Whom we believe that they are who they say, and who we are.

    Raises:
        ConfigError: a file of `tls` cannot be used.
    """
    context = ssl.create_default_context()  # the system's: companies add their own there
    context.load_verify_locations(certifi.where())  # containers often have none
    if tls.ca_file is not None:
        with _usable("VAULT_CA_FILE", "certificates in PEM form"):
            context.load_verify_locations(tls.ca_file)
    if tls.client_cert is not None:
        with _usable("VAULT_CLIENT_CERT or VAULT_CLIENT_KEY", "a certificate and its key in PEM"):
            # An empty password instead of a question on the terminal.
            context.load_cert_chain(tls.client_cert, tls.client_key, password="")
    return context


@contextmanager
def _usable(variable: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        detail = (error.strerror if isinstance(error, OSError) else None) or "cannot be read"
        raise ConfigError(f"{variable} is not {what} ({detail}).") from None


# --- time ----------------------------------------------------------------------------------------

# An exchange runs in the thread that asked for it from its first byte to its last, so the thread is
# the way to tell a shared connection whose time it is spending.
_clock = threading.local()


def _bound(timeout: float | None) -> float | None:
    deadline: Deadline | None = getattr(_clock, "deadline", None)
    if deadline is None:  # a connection closed between two exchanges
        return timeout
    left_s = deadline.left_s()
    if left_s <= 0:
        raise httpcore.ReadTimeout
    return left_s if timeout is None else min(timeout, left_s)


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline of the current exchange."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _bound(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _bound(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _bound(timeout)))

    def get_extra_info(self, info: str) -> Any:  # httpcore's signature
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Opens connections. The one place where a host name becomes an address."""

    def __init__(self, reach: Reach | None, resolver: Resolver) -> None:
        self._backend = httpcore.SyncBackend()
        self._reach = reach
        self._resolver = resolver

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in self._addresses(host, port):
            try:
                stream = self._backend.connect_tcp(
                    address, port, _bound(timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream)
        raise failure

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        """What to connect to: checked addresses, and never the name once more.

        A server that answers differently the second time (rebinding) has no second time. One bad
        address among good ones is enough to refuse: nobody has both by accident.
        """
        if self._reach is None:
            return (host,)
        try:
            addresses = self._resolver(host.strip("[]"), port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in addresses:
            try:
                check_address(address, self._reach)
            except Refused as refused:
                raise ExchangeFailed(Trouble.REFUSED, str(refused)) from None
        return addresses


# --- failures ------------------------------------------------------------------------------------


@contextmanager
def _translated(deadline: Deadline, *, in_body: bool) -> Iterator[None]:
    """The one table from httpcore's errors to ours."""
    try:
        yield
    except (httpcore.ConnectTimeout, httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
        if deadline.left_s() <= 0:
            raise ExchangeFailed(Trouble.OUT_OF_TIME, _too_long(deadline)) from error
        is_connecting = isinstance(error, httpcore.ConnectTimeout)
        trouble = Trouble.NO_CONNECTION if is_connecting else Trouble.SILENT
        raise ExchangeFailed(trouble, "no answer in time") from error
    except httpcore.PoolTimeout as error:
        raise ExchangeFailed(Trouble.OUT_OF_TIME, _too_long(deadline)) from error
    except httpcore.ConnectError as error:
        raise ExchangeFailed(Trouble.NO_CONNECTION, _short(error)) from error
    except (httpcore.ReadError, httpcore.WriteError) as error:
        raise ExchangeFailed(Trouble.BROKEN, "it closed the connection") from error
    except httpcore.ProtocolError:
        # Not chained: these texts quote what was sent or received, and a 401 repeats our keys.
        if in_body:
            raise ExchangeFailed(Trouble.CUT_OFF, "the body ended too early") from None
        raise ExchangeFailed(Trouble.BROKEN, "its answer is not HTTP") from None


def _too_long(deadline: Deadline) -> str:
    return f"not finished within {deadline.limit_s:g} s"


def _short(error: Exception) -> str:
    """The system's words, such as `Connection refused`, without numbers in brackets."""
    text = str(error).split("] ", 1)[-1].strip()
    return text[:1].lower() + text[1:] if text else "no connection"
