"""Forwarding of the embedded Vault: accepted at once, done later, on a thread."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from vault_ml.errors import UnavailableError, VaultMLError
from vault_ml.vault.client import VaultClient

if TYPE_CHECKING:
    from vault_ml.demo.vault_api import Account
    from vault_ml.demo.vault_files import Files

_RETRY_AFTER_S = 0.2


class Forwarder:
    """A queue of keys, and the thread that uploads them to the remote Vault, if there is one.

    A recording that was removed before its turn never arrives: so does the real Vault.
    """

    def __init__(self, files: Files, remote: Account | None) -> None:
        """Read from `files`, upload to `remote`; its address may still change until then."""
        self._files = files
        self._remote = remote
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._queued: list[str] = []
        self._delivered: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> tuple[str, ...]:
        """What was accepted, in order."""
        return tuple(self._queued)

    @property
    def delivered(self) -> tuple[str, ...]:
        """What has arrived, in order."""
        return tuple(self._delivered)

    def queue(self, key: str) -> None:
        """Accept a recording for forwarding."""
        self._queued.append(key)
        self._waiting.put(key)

    def start(self) -> None:
        """Begin to send."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="vault-forwarding", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; what waits is sent after the next start. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                key = self._waiting.get(timeout=0.05)
            except queue.Empty:
                continue
            if not self._try(key):
                self._waiting.put(key)
                self._stop.wait(_RETRY_AFTER_S)

    def _try(self, key: str) -> bool:
        """Send one; False when it is worth another try."""
        remote, stored = self._remote, self._files.get(key)
        if remote is None or stored is None:
            return True
        client = VaultClient(remote.url, remote.access_key, remote.secret_key)
        try:
            with client:
                client.upload(stored.path, key, provider=remote.provider)
        except UnavailableError:
            return False
        except (VaultMLError, OSError):
            return True
        self._delivered.append(key)
        return True
