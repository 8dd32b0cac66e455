"""Ask the Vault to forward the recording to a remote Vault."""

from __future__ import annotations

from vault_ml.sinks.port import Processed
from vault_ml.vault.clients import VaultClients


class ForwardMedia:
    """The Vault's own forwarding to a remote Vault, asked for when enough objects were seen.

    The Vault answers 200 when it has *queued* the forwarding; the copy follows later. The worker
    therefore does not remove such a recording unless told to (`REMOVE_AFTER_FORWARD_QUEUED`).
    """

    name = "forward_media"

    def __init__(self, vaults: VaultClients) -> None:
        """Forward through the Vault that holds the recording."""
        self._vaults = vaults

    def wants(self, processed: Processed) -> bool:
        """True when the object threshold was reached."""
        return processed.verdict.is_interesting

    def send(self, processed: Processed) -> None:
        """Ask; raises as `VaultClient.forward_media` and `VaultClients.lease`."""
        event = processed.event
        with self._vaults.lease(event.storage) as lease:
            lease.run(lambda vault: vault.forward_media(event.key))
