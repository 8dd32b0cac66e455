"""`OUTCOMES` -> a store."""

from __future__ import annotations

from vault_ml.outcomes.port import OutcomeStore
from vault_ml.stores.address import SqliteFile, parse


def open_store(
    address: str,
    *,
    username: str = "",
    password: str = "",
    max_age_s: float,
    max_count: int,
) -> OutcomeStore:
    """The store at `address`; a server is not asked before `ping`.

    Args:
        address: what `address.parse` takes.
        username: of a server; empty for its default user.
        password: of a server; empty for none.
        max_age_s: older outcomes are forgotten.
        max_count: of more than these, the oldest are forgotten.

    Raises:
        ConfigError: the package for it is not installed, or the file cannot be used.
    """
    where = parse(address)
    if isinstance(where, SqliteFile):
        from vault_ml.outcomes.sqlite import SqliteOutcomes

        return SqliteOutcomes(where.path, max_age_s=max_age_s, max_count=max_count)
    from vault_ml.outcomes.redis import RedisOutcomes

    return RedisOutcomes(
        where,
        username=username,
        password=password,
        max_age_s=max_age_s,
        max_count=max_count,
    )
