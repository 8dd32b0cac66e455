"""Forward the result as metadata to Kerberos Hub, through the Vault."""

from __future__ import annotations

from vault_ml.sinks.port import Processed
from vault_ml.vault.client import VaultClient


class ForwardMetadata:
    """The result message, posted to the Vault's forward-metadata route.

    No public source shows this route; path and method are settings, and the documentation says
    that the default is unverified against a live Vault.
    """

    name = "forward_metadata"

    def __init__(self, vault: VaultClient, *, path: str, method: str) -> None:
        """Forward through `vault` with `method` to `path` below its API root."""
        self._vault = vault
        self._path = path
        self._method = method

    def wants(self, processed: Processed) -> bool:
        """True when the object threshold was reached."""
        return processed.verdict.is_interesting

    def send(self, processed: Processed) -> None:
        """Post; raises as `VaultClient.forward_metadata`."""
        self._vault.forward_metadata(
            processed.event.key, processed.message.body, path=self._path, method=self._method
        )
