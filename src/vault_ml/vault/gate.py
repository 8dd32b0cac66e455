"""The one gate for addresses that nobody configured: which may be called, and how far they lead.

Who named it decides. The Vault that the operator configured may name a storage in a private
network (an on-premise Minio). A message may name what that Vault has named before, and what
MESSAGE_VAULT_ORIGINS allows. A redirect is judged anew, as if whoever named the first address had
named the second.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from vault_ml.vault.addresses import (
    Origin,
    Origins,
    Reach,
    Refused,
    check_host,
    is_local,
    parse,
)

# Vaults have a handful of storages; with a bucket in the host name, some more.
_MOST_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Passage:
    """An address that may be called.

    Attributes:
        url: the address.
        origin: where it leads.
        reach: what its host may resolve to.
        is_from_message: a message named it (or an address that redirected here).
    """

    url: str = field(repr=False)
    origin: Origin
    reach: Reach
    is_from_message: bool


class Gate:
    """The gate in front of one Vault's storages. Thread-safe."""

    def __init__(self, vault_url: str, origins: Origins, *, is_configured: bool) -> None:
        """Guard the storages of the Vault at `vault_url`.

        Args:
            vault_url: the Vault's address.
            origins: MESSAGE_VAULT_ORIGINS.
            is_configured: the operator configured this Vault; False when a message named it.

        Raises:
            Refused: a message may not name this Vault.
        """
        self._origins = origins
        self._is_configured = is_configured
        self._vault = parse(vault_url)
        if is_configured:
            # A Vault elsewhere has no business with our own machine.
            self._reach = Reach.LOCAL if is_local(self._vault.host) else Reach.PRIVATE
        else:
            self._reach = origins.reach(self._vault)
            check_host(self._vault.host, self._reach)
        self._named: OrderedDict[Origin, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def api_reach(self) -> Reach | None:
        """What the Vault itself may resolve to; None for anything, where it was configured."""
        return None if self._is_configured else self._reach

    def from_vault(self, url: str) -> Passage:
        """Let an address pass that the Vault named.

        Raises:
            Refused: it will not be called.
        """
        origin = parse(url)
        reach = self._reach if self._is_configured else self._named_by_stranger(origin)
        check_host(origin.host, reach)
        if self._is_configured:
            self._remember(origin)
        return Passage(url, origin, reach, is_from_message=False)

    def from_message(self, url: str) -> Passage:
        """Let an address pass that a message named.

        Raises:
            Refused: it will not be called.
        """
        origin = parse(url)
        reach = self._reach if self._is_known(origin) else self._origins.reach(origin)
        check_host(origin.host, reach)
        return Passage(url, origin, reach, is_from_message=True)

    def redirected(self, passage: Passage, url: str) -> Passage:
        """Let an address pass that one which has passed redirects to.

        Raises:
            Refused: it will not be called.
        """
        origin = parse(url)
        if origin.host == passage.origin.host:  # to https, to another port
            reach = passage.reach
        elif self._is_known(origin):
            reach = self._reach
        elif passage.is_from_message:
            reach = self._origins.reach(origin)
        else:
            reach = self._named_by_stranger(origin)
        check_host(origin.host, reach)
        return replace(passage, url=url, origin=origin, reach=reach)

    def _named_by_stranger(self, origin: Origin) -> Reach:
        """How far a server may send us that is neither configured nor the message itself."""
        if origin.host == self._vault.host:
            return self._reach
        try:
            return self._origins.reach(origin)
        except Refused:
            return Reach.PUBLIC

    def _is_known(self, origin: Origin) -> bool:
        if not self._is_configured:
            return False
        if origin == self._vault:
            return True
        with self._lock:
            if origin in self._named:
                self._named.move_to_end(origin)
                return True
        return False

    def _remember(self, origin: Origin) -> None:
        with self._lock:
            self._named[origin] = None
            self._named.move_to_end(origin)
            if len(self._named) > _MOST_REMEMBERED:
                self._named.popitem(last=False)
