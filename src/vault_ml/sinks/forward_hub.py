"""Forward to Kerberos Hub itself: the result by its queue route, what was seen as detections.

Both routes are read from public sources (how a Vault hands events to Hub; the body of Hub's typed
detections) and are unverified against a live Hub. They are settings, and off unless switched on.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod

from vault_ml.errors import RecordingRefused, SinkUnavailable
from vault_ml.sinks.port import Processed
from vault_ml.vault.protocol import host_of
from vault_ml.vault.transport import Deadline, ExchangeFailed, TlsOptions, Transport, retry_after

CLOUD_KEY = "X-Kerberos-Cloud-Key"
_CALL_S = 60.0
_AWAY = frozenset({408, 425, 429})
_NOT_US = frozenset({401, 403})


class Hub:
    """Posts to one Hub with one key. Thread-safe."""

    def __init__(self, url: str, cloud_key: str, *, tls: TlsOptions | None = None) -> None:
        """Post below `url`; `cloud_key` goes there and nowhere else."""
        self._url = url.rstrip("/")
        self._headers = {
            "Content-Type": b"application/json",
            CLOUD_KEY: cloud_key.encode("latin-1", "replace"),
        }
        self._host = host_of(url)
        self._transport = Transport(
            connect_timeout_s=10.0, read_timeout_s=30.0, max_connections=16, tls=tls
        )

    def post(self, path: str, body: bytes) -> None:
        """Return when Hub has taken `body`.

        Raises:
            SinkUnavailable: Hub is away, cannot now, or refuses our key.
            RecordingRefused: it will not take this.
        """
        try:
            with self._transport.exchange(
                "POST", self._url + path, self._headers, deadline=Deadline(_CALL_S), content=body
            ) as reply:
                status, wait_s = reply.status, retry_after(reply)
        except ExchangeFailed as error:
            raise SinkUnavailable(f"Hub at {self._host} does not answer: {error}.") from error
        if 200 <= status < 300:
            return
        if status in _NOT_US:
            raise SinkUnavailable(f"Hub at {self._host} refuses our key; check HUB_CLOUD_KEY.")
        if status >= 500 or status in _AWAY:
            raise SinkUnavailable(f"Hub at {self._host} answers {status}.", retry_after_s=wait_s)
        raise RecordingRefused(
            f"Hub at {self._host} answers {status} to {path}: it does not take this, or has no "
            "such route. Switch the forwarding off, or change HUB_API_URL."
        )

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._transport.close()


class _ToHub(ABC):
    """One of Hub's routes, for recordings that reach the object threshold."""

    def __init__(self, hub: Hub, path: str) -> None:
        """Post to `path` below the Hub's address."""
        self._hub = hub
        self._path = path

    def wants(self, processed: Processed) -> bool:
        """True when the object threshold was reached."""
        return processed.verdict.is_interesting

    def send(self, processed: Processed) -> None:
        """Post; raises as `Hub.post`."""
        self._hub.post(self._path, self._body(processed))

    @abstractmethod
    def _body(self, processed: Processed) -> bytes: ...


class ForwardToHubQueue(_ToHub):
    """The result message on Hub's queue route."""

    name = "forward_hub"

    def _body(self, processed: Processed) -> bytes:
        return b'{"message": ' + processed.message.body + b"}"


class ForwardDetections(_ToHub):
    """The typed block of detections at Hub's own address for it, kept there by the run id."""

    name = "forward_detections"

    def wants(self, processed: Processed) -> bool:
        """True when the object threshold was reached and something was seen: Hub wants tracks."""
        return super().wants(processed) and processed.block is not None

    def _body(self, processed: Processed) -> bytes:
        body = {"mediaKey": processed.event.key, **(processed.block or {})}
        return json.dumps(body, allow_nan=False).encode()
