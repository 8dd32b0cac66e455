"""Forward the result as metadata to Kerberos Hub, through the Vault."""

from __future__ import annotations

from vault_ml.sinks.port import Processed
from vault_ml.vault.clients import VaultClients


class ForwardMetadata:
    """The result message, posted to the Vault's forward-metadata route.

    No public source shows this route; path and method are settings, and the documentation says
    that the default is unverified against a live Vault.
    """

    name = "forward_metadata"

    def __init__(self, vaults: VaultClients, *, path: str, method: str) -> None:
        """Forward with `method` to `path` below the API of the Vault that holds the recording."""
        self._vaults = vaults
        self._path = path
        self._method = method

    def wants(self, processed: Processed) -> bool:
        """True when the object threshold was reached."""
        return processed.verdict.is_interesting

    def send(self, processed: Processed) -> None:
        """Post; raises as `VaultClient.forward_metadata` and `VaultClients.lease`."""
        event, body = processed.event, processed.message.body
        with self._vaults.lease(event.storage) as lease:
            lease.run(
                lambda vault: vault.forward_metadata(
                    event.key, body, path=self._path, method=self._method
                )
            )
