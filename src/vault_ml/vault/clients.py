"""Which Vault a recording is in: the configured one, or the one that its event names.

An event's address and keys are used for that event only, and only together. Ours go to the
configured Vault and nowhere else. Clients of named Vaults are kept for a while, because events of
one account come in rows and a connection is dear.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from vault_ml.errors import (
    ConfigError,
    MalformedEvent,
    RetryableError,
    SinkUnavailable,
    VaultUnavailable,
)
from vault_ml.event import Storage
from vault_ml.vault.addresses import Refused, check_host, parse
from vault_ml.vault.client import VaultClient, VaultOptions

T = TypeVar("T")

# Accounts whose recordings are in flight at once, and some more.
_MOST_CLIENTS = 16
# While a Vault that an event names is away, that event waits this long without burning attempts.
# The others go on: nobody may stop them by naming a Vault that never answers.
NAMED_VAULT_PATIENCE_S = 3600.0


@dataclass(eq=False, slots=True)
class _Kept:
    client: VaultClient
    users: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A client for one event, until the lease ends.

    Attributes:
        vault: the client.
        is_own: it is the configured Vault's.
        provider: the storage provider there, where the event's `source` is not meant.
    """

    vault: VaultClient
    is_own: bool
    provider: str | None = field(default=None)

    def run(self, step: Callable[[VaultClient], T]) -> T:
        """Do `step` with the client.

        Raises:
            RetryableError: a Vault that the event names is away; that is no outage of ours.
            VaultMLError: as `step` raises.
        """
        try:
            return step(self.vault)
        except (VaultUnavailable, SinkUnavailable) as error:
            if self.is_own:
                raise
            raise RetryableError(str(error), patience_s=NAMED_VAULT_PATIENCE_S) from error


class VaultClients:
    """The configured Vault's client, and those of Vaults that events name. Thread-safe."""

    def __init__(self, own: VaultClient | None, options: VaultOptions) -> None:
        """Use `own` where an event names no other Vault that it may name.

        Args:
            own: of the configured Vault, the caller's to close; None where there is none.
            options: for the others. `options.origins` says what an event may name.
        """
        self.own = own
        self._options = options
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def lease(self, storage: Storage | None) -> Iterator[Lease]:
        """The client for an event.

        Args:
            storage: what the event says about where its recording is.

        Raises:
            MalformedEvent: it names no Vault, or none that can be used, and none is configured.
            AddressRefused: it may not name that Vault, and none is configured.
        """
        if self.own is not None and (storage is None or not self._may_name(storage)):
            yield Lease(self.own, is_own=True)
            return
        if storage is None:
            raise MalformedEvent(
                "The event brings no address and keys of a Vault, and VAULT_API_URL, "
                "VAULT_ACCESS_KEY and VAULT_SECRET_KEY are not set."
            )
        kept = self._take(storage)
        try:
            yield Lease(kept.client, is_own=False, provider=storage.provider)
        finally:
            with self._lock:
                kept.users -= 1
            self._close_surplus()

    def close(self) -> None:
        """Close the clients of named Vaults. Idempotent."""
        with self._lock:
            kept = list(self._kept.values())
            self._kept.clear()
        for one in kept:
            one.client.close()

    def _may_name(self, storage: Storage) -> bool:
        try:
            origin = parse(storage.uri.strip())
            check_host(origin.host, self._options.origins.reach(origin))
        except Refused:
            return False
        return True

    def _take(self, storage: Storage) -> _Kept:
        name = _digest(storage)
        with self._lock:
            kept = self._kept.get(name)
            if kept is None:
                kept = self._kept[name] = _Kept(self._client(storage))
            self._kept.move_to_end(name)
            kept.users += 1
        return kept

    def _client(self, storage: Storage) -> VaultClient:
        try:
            return VaultClient(
                storage.uri,
                storage.access_key.get_secret_value(),
                storage.secret_key.get_secret_value(),
                self._options,
                is_from_event=True,
            )
        except ConfigError:  # its sentence names our variables
            raise MalformedEvent(
                "The address or the keys of the Vault that the event names cannot be right."
            ) from None

    def _close_surplus(self) -> None:
        with self._lock:
            idle = [name for name, kept in self._kept.items() if not kept.users]
            number = max(0, len(self._kept) - _MOST_CLIENTS)
            surplus = [self._kept.pop(name) for name in idle[:number]]
        for kept in surplus:
            kept.client.close()


def _digest(storage: Storage) -> bytes:
    """A name for address and keys together that does not hold them."""
    digest = hashlib.sha256()
    secrets = (storage.access_key.get_secret_value(), storage.secret_key.get_secret_value())
    for text in (storage.uri, *secrets, storage.provider or ""):
        part = text.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
