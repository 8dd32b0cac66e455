"""The client of Kerberos Vault: fetch, upload, forward, remove, ping.

What it promises beside its methods: our keys go to the configured Vault and nowhere else; no error
text, cause or log holds a key, a header, a body or the query of an address; every wait is bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from vault_ml.errors import (
    CredentialsRejected,
    RecordingIncomplete,
    RecordingNotFound,
    RecordingRefused,
    RecordingTooLarge,
    SignedUrlExpired,
    VaultUnavailable,
)
from vault_ml.vault import protocol
from vault_ml.vault.api import REDIRECTS, Api, Content, retry_after
from vault_ml.vault.protocol import Standing
from vault_ml.vault.recording import Recording, receive
from vault_ml.vault.transport import Deadline, ExchangeFailed, Reply, Transport, Trouble

__all__ = ["Recording", "VaultClient", "VaultOptions"]

_MOST_REDIRECTS = 3
# A storage that only the Vault can reach (an on-premise Minio) costs one connection timeout; for
# this long its recordings then come through the Vault without another try.
_FORGET_UNREACHABLE_AFTER_S = 60.0
_UPLOAD_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class VaultOptions:
    """How the client behaves.

    Attributes:
        api_prefix: `auto`, or the path of the API below the address (`/api`; empty for none).
        connect_timeout_s: for one connection to be made.
        read_timeout_s: the longest silence that is waited out.
        call_timeout_s: for a whole call that moves no recording.
        transfer_timeout_s: for a whole recording to come or go.
        max_bytes: the largest recording that is fetched.
        work_dir: where a fetched recording lives, without a name; None keeps it in memory.
        max_connections: open at once; more exchanges wait.
    """

    api_prefix: str = "auto"
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    call_timeout_s: float = 60.0
    transfer_timeout_s: float = 300.0
    max_bytes: int = 1 << 30
    work_dir: Path | None = None
    max_connections: int = 32


class VaultClient:
    """One Vault and one account. Thread-safe; recording threads share it."""

    def __init__(
        self, base_url: str, access_key: str, secret_key: str, options: VaultOptions | None = None
    ) -> None:
        """Look at the configuration; nothing is sent yet.

        Raises:
            ConfigError: the address or a key cannot be right.
        """
        self._options = options or VaultOptions()
        roots = protocol.api_roots(base_url, self._options.api_prefix)
        self._credentials = {
            protocol.ACCESS_KEY: protocol.credential_value(access_key, "VAULT_ACCESS_KEY"),
            protocol.SECRET_KEY: protocol.credential_value(secret_key, "VAULT_SECRET_KEY"),
        }
        self._transport = Transport(
            connect_timeout_s=self._options.connect_timeout_s,
            read_timeout_s=self._options.read_timeout_s,
            max_connections=self._options.max_connections,
        )
        self._api = Api(
            roots,
            self._credentials,
            self._transport,
            call_timeout_s=self._options.call_timeout_s,
        )
        self.host = self._api.host
        self._unreachable_until: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"VaultClient({self.host!r})"

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- what callers ask for --------------------------------------------------------------------

    def ping(self) -> None:
        """Return when the Vault answers and knows our credentials.

        A Vault so old that it has no ping is taken at its word that it is healthy.

        Raises:
            CredentialsRejected: it refuses them.
            ConfigError: there is no Vault API at the configured address.
            VaultUnavailable: it does not answer, or not now.
        """
        standing = self._api.standing()
        if standing is Standing.REFUSED:
            raise CredentialsRejected(
                f"Vault at {self.host} rejects our credentials; "
                "check VAULT_ACCESS_KEY and VAULT_SECRET_KEY."
            )

    def fetch(self, key: str, provider: str) -> Recording:
        """The stored recording, whole.

        By a signed URL where the Vault gives a usable one (asked for anew once when it is refused),
        else through the Vault itself. The signed URL is fetched without any header of ours.

        Args:
            key: `payload.key` of the event, sent as it is.
            provider: the event's `source`: the Vault's name for the storage.

        Raises:
            RecordingNotFound: not there, or not yet.
            RecordingIncomplete: empty so far, cut off, damaged, or not finished in time.
            SignedUrlExpired: a fresh signed URL was refused as well.
            RecordingTooLarge, UndecodableRecording: see `vault.recording.receive`.
            RecordingRefused: our credentials are good, this recording is not ours.
            RetryableError: refused, and this Vault cannot be asked why.
            MalformedEvent: no Vault has a recording with this key.
            VaultUnavailable: the Vault or its storage is away, or rejects our credentials now.
            UnavailableError: there is no room for the recording on this machine.
        """
        headers = self._headers(key, provider)
        try:
            recording = self._fetch_signed(headers)
            if recording is not None:
                return recording
        except _UrlRefused as refusal:
            raise SignedUrlExpired(
                f"The storage at {refusal.host} refuses ({refusal.status}) the URL that Vault at "
                f"{self.host} has just signed; check the clocks of both and of the Vault's host."
            ) from None
        return self._fetch_blob(headers)

    def upload(
        self,
        source: bytes | Path | int,
        key: str,
        *,
        provider: str | None = None,
        device: str = "",
        capture: str = "IPCamera",
        directory: str = "",
        cloud_key: str = "",
        fps: float | None = None,
        duration_ms: int | None = None,
        timestamp_ms: int | None = None,
        content_type: str = "video/mp4",
    ) -> None:
        """Store a recording, as an Agent does.

        Args:
            source: the bytes, a file, or a descriptor that can be read at any offset.
            key: the name to store it under.
            provider: the storage to use; None leaves the choice to the Vault.
            device: the camera's key. The rest describes the recording, as the Agent's headers do.
            capture: the kind of source.
            directory: the account's folder.
            cloud_key: the public key of a Hub.
            fps: frames per second.
            duration_ms: length in milliseconds.
            timestamp_ms: start, milliseconds since 1970.
            content_type: of the bytes.

        Raises:
            RecordingTooLarge: the Vault takes nothing of this size.
            RecordingRefused, RecordingNotFound, RetryableError, VaultUnavailable: as `fetch`.
            OSError: the source cannot be read.
        """
        headers = self._headers(key, provider)
        told = {
            protocol.DEVICE: device,
            protocol.CAPTURE: capture,
            protocol.DIRECTORY: directory,
            protocol.CLOUD_KEY: cloud_key,
            protocol.FPS: "" if fps is None else f"{fps:g}",
            protocol.DURATION: "" if duration_ms is None else str(duration_ms),
            protocol.TIMESTAMP: "" if timestamp_ms is None else str(timestamp_ms),
            "Content-Type": content_type,
        }
        headers |= {name: protocol.key_value(value, name) for name, value in told.items() if value}
        deadline = Deadline(self._options.transfer_timeout_s)
        with _opened(source) as (size_bytes, content):
            headers["Content-Length"] = str(size_bytes).encode()
            reply = self._api.call("POST", protocol.STORAGE, headers, content, deadline=deadline)
        if reply.status == 413:
            raise RecordingTooLarge(
                f"Vault at {self.host} does not take a recording of {size_bytes} bytes; "
                "raise the limit there, or in the proxy in front of it."
            )
        self._api.require_success(reply, "to store this recording.")

    def remove(self, key: str, provider: str) -> None:
        """Delete the recording. One that is not there is as good as deleted.

        Raises:
            RecordingRefused, RetryableError, MalformedEvent, VaultUnavailable: as `fetch`.
        """
        reply = self._api.call("DELETE", protocol.STORAGE, self._headers(key, provider))
        if reply.status not in {404, 410}:
            self._api.require_success(reply, "to remove this recording.")

    def forward_media(self, key: str) -> None:
        """Ask the Vault to forward the recording to its remote Vault.

        Returns when the Vault has accepted that. It forwards later, on its own, so a recording
        deleted right after may never arrive.

        Raises:
            RecordingRefused: the Vault will not, for instance because no remote Vault is set up.
            RecordingNotFound: it has no such recording (any more).
            SinkUnavailable: the Vault is away, or cannot now.
            RetryableError, MalformedEvent, VaultUnavailable: as `fetch`.
        """
        # No provider and no body: so does the only public client of this route.
        reply = self._api.call(
            "POST", protocol.FORWARD_MEDIA, self._headers(key, None), is_forward=True
        )
        self._api.require_success(
            reply,
            "to forward this recording; is a remote Vault set up as its integration?",
            is_forward=True,
        )

    def forward_metadata(
        self,
        key: str,
        body: bytes,
        *,
        path: str = protocol.FORWARD_METADATA,
        method: str = "POST",
    ) -> None:
        """Give the Vault metadata of the recording to forward to its Hub.

        Unverified: that such an endpoint was added is public, its path, method and body are not.
        The default is a guess by analogy with `forward_media`; all three are the caller's choice.

        Args:
            key: the recording.
            body: JSON.
            path: below the API root.
            method: HTTP method.

        Raises:
            RecordingRefused: the Vault will not, or has no such route.
            SinkUnavailable: the Vault is away, or cannot now.
            RetryableError, MalformedEvent, VaultUnavailable: as `fetch`.
        """
        route = "/" + path.lstrip("/")
        reply = self._api.call(method, route, self._headers(key, None), body, is_forward=True)
        if reply.status in {404, 405}:
            raise RecordingRefused(
                f"Vault at {self.host} answers {reply.status} to forwarded metadata: it seems to "
                "have no such route. Set its path and method, or switch FORWARDING_METADATA off."
            )
        self._api.require_success(reply, "to forward this metadata.", is_forward=True)

    # --- fetching --------------------------------------------------------------------------------

    def _fetch_signed(self, headers: Mapping[str, bytes]) -> Recording | None:
        """By signed URL; None when there is no usable one.

        Raises:
            _UrlRefused: two signed URLs in a row were refused.
        """
        url = self._signed_url(headers)
        try:
            return None if url is None else self._fetch_url(url)
        except _UrlRefused:  # expired on its way here, most likely
            url = self._signed_url(headers)
            return None if url is None else self._fetch_url(url)

    def _signed_url(self, headers: Mapping[str, bytes]) -> str | None:
        reply = self._api.call("GET", protocol.STORAGE, headers)
        # A Vault that cannot sign answers in several ways, a plain 404 among them; then the blob
        # route has the last word on whether the recording is there.
        if reply.status in {400, 404, 405, 501}:
            return None
        self._api.require_success(reply, "to give this recording.")
        return protocol.signed_url(reply.small_body())

    def _fetch_url(self, url: str) -> Recording | None:
        """Fetch a signed URL without any header of ours; None when it cannot be used from here."""
        deadline = Deadline(self._options.transfer_timeout_s)
        for _ in range(_MOST_REDIRECTS + 1):
            host = protocol.host_of(url)
            who = f"The storage at {host}"
            if not self._may_contact(url) or self._is_unreachable(host):
                return None
            try:
                with (
                    _transfer_errors(who),
                    self._transport.exchange("GET", url, {}, deadline=deadline) as reply,
                ):
                    if reply.status == 200:
                        return self._receive(reply, who, "signed_url")
                    if reply.status not in REDIRECTS:
                        _judge_storage(reply.status, host, retry_after(reply))
                        return None
                    url = protocol.redirect_target(url, reply.headers.get("location", ""))
            except _NoConnection:
                self._unreachable_until[host] = time.monotonic() + _FORGET_UNREACHABLE_AFTER_S
                return None
        return None

    def _may_contact(self, url: str) -> bool:
        """The gate for an address that is not the Vault's own; redirects come through here too.

        Today the form alone: http or https, no user name. Where it leads is not checked yet; only
        the configured Vault hands out such addresses.
        """
        return protocol.is_fetchable(url)

    def _is_unreachable(self, host: str) -> bool:
        return time.monotonic() < self._unreachable_until.get(host, 0.0)

    def _fetch_blob(self, headers: Mapping[str, bytes]) -> Recording:
        who = f"Vault at {self.host}"
        deadline = Deadline(self._options.transfer_timeout_s)
        try:
            with (
                _transfer_errors(who),
                self._api.open("GET", protocol.BLOB, headers, None, deadline) as reply,
            ):
                if reply.status == 200 and not protocol.is_web_page(reply.content_type):
                    return self._receive(reply, who, "blob")
        except _NoConnection as failure:
            raise self._api.no_connection(failure.detail) from failure
        self._api.require_success(reply, "to give this recording.")
        raise VaultUnavailable(
            f"Vault at {self.host} answers {reply.status} instead of a recording; "
            "look at its log and at the proxy in front of it."
        )

    def _receive(self, reply: Reply, who: str, route: str) -> Recording:
        return receive(
            reply,
            who=who,
            route=route,
            max_bytes=self._options.max_bytes,
            work_dir=self._options.work_dir,
        )

    def _headers(self, key: str, provider: str | None) -> dict[str, bytes]:
        headers = {
            "Content-Type": b"application/json",
            protocol.FILE_NAME: protocol.key_value(key, "recording's key"),
            **self._credentials,
        }
        if provider is not None:
            headers[protocol.PROVIDER] = protocol.key_value(provider, "event's source")
        return headers


# --- judging -------------------------------------------------------------------------------------


class _UrlRefused(Exception):
    """The storage refuses a signed URL."""

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"{host} answers {status}")
        self.host = host
        self.status = status


class _NoConnection(Exception):
    """There is no connection to the host at all."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@contextmanager
def _transfer_errors(who: str) -> Iterator[None]:
    """What a failed transfer of a recording means. `who` begins the sentence."""
    try:
        yield
    except ExchangeFailed as failure:
        if failure.trouble is Trouble.NO_CONNECTION:
            raise _NoConnection(str(failure)) from failure
        if failure.trouble in {Trouble.CUT_OFF, Trouble.OUT_OF_TIME}:
            # This recording's trouble: a trickle must not hold up all the others for ever.
            raise RecordingIncomplete(
                f"{who} did not send the whole recording ({failure}); it is fetched again later."
            ) from failure
        raise VaultUnavailable(
            f"{who} stopped in the middle ({failure}); check the network and its log."
        ) from failure


def _judge_storage(status: int, host: str, retry_after_s: float | None) -> None:
    """Raise what the storage's refusal means; return when the blob route is worth a try."""
    if protocol.is_unavailable(status):
        raise VaultUnavailable(
            f"The storage at {host} cannot answer now (status {status}); look at its state.",
            retry_after_s=retry_after_s,
        )
    if status in {400, 401, 403}:
        raise _UrlRefused(host, status)
    if status in {404, 410}:
        raise RecordingNotFound(
            f"The storage at {host} does not have this recording (yet); "
            "it may have been removed, or not be stored completely."
        )


# --- uploading -----------------------------------------------------------------------------------


@contextmanager
def _opened(source: bytes | Path | int) -> Iterator[tuple[int, Content]]:
    """Size and content of what is uploaded; the content can be read more than once."""
    if isinstance(source, bytes):
        yield len(source), source
        return
    fd = source if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(fd).st_size
        yield size_bytes, lambda: _pread(fd, size_bytes)
    finally:
        if fd is not source:
            with suppress(OSError):
                os.close(fd)


def _pread(fd: int, size_bytes: int) -> Iterator[bytes]:
    offset = 0
    while offset < size_bytes:
        piece = os.pread(fd, min(_UPLOAD_PIECE_BYTES, size_bytes - offset), offset)
        if not piece:
            raise OSError("the file became shorter while it was uploaded")
        offset += len(piece)
        yield piece
