"""The client of Kerberos Vault: fetch, upload, forward, remove, ping.

What it promises beside its methods: our keys go to the configured Vault and nowhere else; no error
text, cause or log holds a key, a header, a body or the query of an address; every wait is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from vault_ml.errors import (
    AddressRefused,
    ConfigError,
    CredentialsRejected,
    MalformedEvent,
    RecordingRefused,
    RecordingTooLarge,
)
from vault_ml.vault import protocol
from vault_ml.vault.addresses import Origins, Refused
from vault_ml.vault.api import Api, Content
from vault_ml.vault.gate import Gate
from vault_ml.vault.protocol import Standing
from vault_ml.vault.ranged import RangedRecording
from vault_ml.vault.recording import Recording
from vault_ml.vault.retrieval import Opened, Retrieval
from vault_ml.vault.storage import TransferOptions
from vault_ml.vault.transport import Deadline, Resolver, TlsOptions, Transport, system_resolver

__all__ = ["Opened", "RangedRecording", "Recording", "VaultClient", "VaultOptions"]

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
        origins: what a message may name: MESSAGE_VAULT_ORIGINS.
        tls: whom we trust and who we are.
        resolver: host names to IP addresses, for addresses that nobody configured.
    """

    api_prefix: str = "auto"
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    call_timeout_s: float = 60.0
    transfer_timeout_s: float = 300.0
    max_bytes: int = 1 << 30
    work_dir: Path | None = None
    max_connections: int = 32
    origins: Origins = field(default_factory=Origins)
    tls: TlsOptions = field(default_factory=TlsOptions)
    resolver: Resolver = system_resolver


class VaultClient:
    """One Vault and one account. Thread-safe; recording threads share it."""

    def __init__(
        self,
        base_url: str,
        access_key: str,
        secret_key: str,
        options: VaultOptions | None = None,
        *,
        is_from_event: bool = False,
    ) -> None:
        """Look at the configuration; nothing is sent yet.

        Args:
            base_url: the Vault's address.
            access_key: of the account there.
            secret_key: of the account there.
            options: how to behave.
            is_from_event: address and keys came in an event, not from the operator. Then the
                address must pass the gate, and what is wrong with them is that event's trouble.

        Raises:
            ConfigError: the address or a key cannot be right.
            AddressRefused: an event may not name this Vault.
        """
        self._options = options or VaultOptions()
        roots = protocol.api_roots(base_url, self._options.api_prefix)
        self._credentials = {
            protocol.ACCESS_KEY: protocol.credential_value(access_key, "VAULT_ACCESS_KEY"),
            protocol.SECRET_KEY: protocol.credential_value(secret_key, "VAULT_SECRET_KEY"),
        }
        try:
            gate = Gate(roots[0], self._options.origins, is_configured=not is_from_event)
        except Refused as refused:
            if is_from_event:
                raise AddressRefused(
                    f"The Vault that the event names is not called: {refused}."
                ) from None
            raise ConfigError(f"VAULT_API_URL cannot be used: {refused}.") from None
        self._transport = Transport(
            connect_timeout_s=self._options.connect_timeout_s,
            read_timeout_s=self._options.read_timeout_s,
            max_connections=self._options.max_connections,
            tls=self._options.tls,
            resolver=self._options.resolver,
        )
        self._api = Api(
            roots,
            self._credentials,
            self._transport,
            call_timeout_s=self._options.call_timeout_s,
            is_from_event=is_from_event,
            reach=gate.api_reach,
        )
        self._retrieval = Retrieval(
            self._api,
            self._transport,
            gate,
            TransferOptions(
                self._options.transfer_timeout_s, self._options.max_bytes, self._options.work_dir
            ),
        )
        self.host = self._api.host

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

    @property
    def clock_ahead_s(self) -> float | None:
        """How far our clock is ahead of the Vault's, seconds, by its last answer to a ping.

        None where it has not answered, or does not say its time.
        """
        return self._api.clock_ahead_s

    def fetch(
        self,
        key: str,
        provider: str,
        *,
        signed_url: str | None = None,
        secondary_providers: Sequence[str] = (),
    ) -> Recording:
        """The stored recording, whole.

        The ways, in this order, until one gives it: the event's own signed URL; a URL that the
        Vault signs now (asked for anew once when the storage refuses it); through the Vault itself;
        the same two at the secondary providers. URLs are fetched without any header of ours, and
        only those that pass the gate.

        Args:
            key: `payload.key` of the event, sent as it is.
            provider: the event's `source`: the Vault's name for the storage.
            signed_url: `payload.signedUrl` of the event.
            secondary_providers: the event's further storages.

        Raises:
            RecordingNotFound: not there, or not yet.
            RecordingIncomplete: empty so far, cut off, damaged, or not finished in time.
            SignedUrlExpired: a fresh signed URL was refused as well, and no other way works.
            RecordingTooLarge, UndecodableRecording: see `vault.recording.receive`.
            RecordingRefused: our credentials are good, this recording is not ours.
            RetryableError: refused, and this Vault cannot be asked why.
            MalformedEvent: no Vault has a recording with this key.
            VaultUnavailable: the Vault or its storage is away, or rejects our credentials now.
            UnavailableError: there is no room for the recording on this machine.
        """
        return self._retrieval.fetch(
            self._headers_of(key, provider, secondary_providers), signed_url=signed_url
        )

    def open(
        self,
        key: str,
        provider: str,
        *,
        signed_url: str | None = None,
        secondary_providers: Sequence[str] = (),
        ranges_from_bytes: int = 0,
    ) -> Opened:
        """The stored recording, to be read where it is looked at.

        By HTTP ranges where the storage serves them, else whole; the ways are those of `fetch`.

        Args:
            key: as `fetch`.
            provider: as `fetch`.
            signed_url: as `fetch`.
            secondary_providers: as `fetch`.
            ranges_from_bytes: a smaller recording is fetched whole.

        Raises:
            As `fetch`; reading raises as `RangedRecording.read_at`.
        """
        return self._retrieval.open(
            self._headers_of(key, provider, secondary_providers),
            signed_url=signed_url,
            ranges_from_bytes=ranges_from_bytes,
        )

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

    def _headers_of(
        self, key: str, provider: str, secondary_providers: Sequence[str]
    ) -> list[dict[str, bytes]]:
        """For each storage provider, once, the headers that ask for the recording."""
        headers = [self._headers(key, provider)]
        for name in dict.fromkeys(secondary_providers):
            if name != provider:
                with suppress(MalformedEvent):  # only a hint: it must not condemn the event
                    headers.append(self._headers(key, name))
        return headers

    def _headers(self, key: str, provider: str | None) -> dict[str, bytes]:
        headers = {
            "Content-Type": b"application/json",
            protocol.FILE_NAME: protocol.key_value(key, "recording's key"),
            **self._credentials,
        }
        if provider is not None:
            headers[protocol.PROVIDER] = protocol.key_value(provider, "event's source")
        return headers


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
