"""An embedded Kerberos Vault: the API that vault-ml uses, on a real socket, with files in a folder.

For the demo and the tests, with the habits of the real one that bite a client: a web page with 200
for every unknown path, a 401 that repeats both keys, URLs that expire, forwarding that is only
queued. Not for keeping recordings: one account, no limits, no TLS.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import uvicorn

from vault_ml.demo.vault_api import Account, Request, VaultApi
from vault_ml.demo.vault_files import Files
from vault_ml.demo.vault_forwarding import Forwarder

__all__ = ["EmbeddedVault", "Request"]

_STOP_WITHIN_S = 5


class EmbeddedVault:
    """One Vault with one account, served from a thread of its own.

    It can be stopped and started again on the same folder and port: an outage. A context manager.
    """

    def __init__(
        self,
        folder: Path,
        access_key: str,
        secret_key: str,
        *,
        provider: str = "local",
        on_event: Callable[[bytes], None] | None = None,
        mount: Literal["both", "api", "root"] = "both",
        port: int = 0,
        signed_url_ttl_s: float = 900.0,
        signs_urls: bool = True,
        compresses_blobs: bool = False,
        forward_to: EmbeddedVault | None = None,
        can_forward: bool = True,
        takes_tus: bool = True,
    ) -> None:
        """Prepare; `start` opens the socket.

        Args:
            folder: where the recordings are kept.
            access_key: of the only account.
            secret_key: of the only account.
            provider: the only storage provider, bound to that account.
            on_event: called with the event after each upload, before the upload is answered, from
                another thread; when it raises, the upload is answered with 500.
            mount: where the API stands: below `/api` (with the web page around it), at the root as
                until 2023 (without a page), or both.
            port: 0 for a free one, which is then kept for later starts.
            signed_url_ttl_s: how long a signed URL works.
            signs_urls: False answers without a signed URL, as Vaults that cannot sign do.
            compresses_blobs: send blobs with Content-Encoding gzip.
            forward_to: the remote Vault; without one, forwarded recordings stay queued.
            can_forward: False when no remote Vault is set up: forwarding is then refused.
            takes_tus: False for an older Vault, which knows uploads in one piece only.
        """
        self.account = Account("", access_key, secret_key, provider)
        self._files = Files(folder)
        self._forwarder = Forwarder(self._files, forward_to.account if forward_to else None)
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._api = VaultApi(
            self._files,
            self.account,
            mount=mount,
            on_event=on_event,
            signed_url_ttl_s=signed_url_ttl_s,
            signs_urls=signs_urls,
            compresses_blobs=compresses_blobs,
            forward=self._forwarder.queue if can_forward else None,
            takes_tus=takes_tus,
        )

    # --- running ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen on 127.0.0.1 and serve; returns when connections are accepted."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._port))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self.account.url = self.url
        config = uvicorn.Config(
            self._api.app,
            http="h11",
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="vault", daemon=True
        )
        self._thread.start()
        self._forwarder.start()
        return self

    def stop(self) -> None:
        """Stop serving; connections are refused from now on. Idempotent."""
        self._forwarder.stop()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_WITHIN_S)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address without `/api`, such as `http://127.0.0.1:49152`."""
        return f"http://127.0.0.1:{self._port}"

    # --- looking in from outside -----------------------------------------------------------------

    def put(self, key: str, content: bytes) -> None:
        """Store a recording without the API; no event is sent."""
        with self._files.writing(key, {}) as file:
            file.write(content)

    def get(self, key: str) -> bytes | None:
        """The stored bytes, or None."""
        stored = self._files.get(key)
        return stored.path.read_bytes() if stored else None

    def has(self, key: str) -> bool:
        """True while the recording is stored."""
        return self._files.get(key) is not None

    def keys(self) -> tuple[str, ...]:
        """The keys of all stored recordings, sorted."""
        return self._files.keys()

    def event(self, key: str) -> bytes:
        """The event that this Vault sends about a stored recording; KeyError when it has none."""
        return self._api.event(key, int(time.time()))

    @property
    def forwarded(self) -> tuple[str, ...]:
        """Keys whose forwarding was accepted, in order."""
        return self._forwarder.queued

    @property
    def delivered(self) -> tuple[str, ...]:
        """Keys that have arrived at the remote Vault, in order."""
        return self._forwarder.delivered

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Forwarded metadata: key and body, in order."""
        return tuple(self._api.metadata)

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, in order of arrival."""
        return tuple(self._api.requests)
