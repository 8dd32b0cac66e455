"""`STATIC_MEMORY` -> a store."""

from __future__ import annotations

from vault_ml.scene.port import SceneStore
from vault_ml.stores.address import SqliteFile, parse


def open_scenes(
    address: str, *, username: str = "", password: str = "", max_age_s: float
) -> SceneStore:
    """The store at `address`; a server is not asked before `ping`.

    Args:
        address: what `stores.address.parse` takes.
        username: of a server; empty for its default user.
        password: of a server; empty for none.
        max_age_s: cameras of which nothing came for longer are forgotten.

    Raises:
        ConfigError: the package for it is not installed, or the file cannot be used.
    """
    where = parse(address)
    if isinstance(where, SqliteFile):
        from vault_ml.scene.sqlite import SqliteScenes

        return SqliteScenes(where.path, max_age_s=max_age_s)
    from vault_ml.scene.redis import RedisScenes

    return RedisScenes(where, username=username, password=password, max_age_s=max_age_s)
