"""What stands at each camera, on a Redis server: for the workers of many hosts.

A key per camera, which Redis forgets by itself when nothing came of it for long, and a sorted set
of the cameras by time that bounds their number. Two workers that change a camera at the same time
are told apart by WATCH: the second looks again.

Raises:
    ConfigError: on import, when the package redis is not installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vault_ml.errors import SceneUnavailable
from vault_ml.stores.address import RedisServer
from vault_ml.stores.redis_server import NamesByAge, RedisConnection

_KEY = "vault-ml:scene:"
_BY_AGE = "vault-ml:scenes"
_TRIES = 100  # of as many workers that change one camera at once, each gets its turn
_PRUNE_EVERY = 200  # recordings of this worker; by so many the bound on cameras may be passed


class RedisScenes:
    """See the port."""

    def __init__(
        self,
        server: RedisServer,
        *,
        username: str = "",
        password: str = "",
        max_age_s: float,
        max_cameras: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connect lazily.

        Args:
            server: where it is.
            username: empty for Redis' default user.
            password: empty for none.
            max_age_s: cameras of which nothing came for longer are forgotten.
            max_cameras: of more than these, the oldest are forgotten.
            clock: Unix seconds.
        """
        self._server = server
        self._max_age_s = max_age_s
        self._clock = clock
        self._redis = RedisConnection(
            server,
            variable="STATIC_MEMORY",
            what="What stood at the cameras",
            away=SceneUnavailable,
            username=username,
            password=password,
        )
        self._aged = NamesByAge(
            self._redis,
            names=_BY_AGE,
            prefix=_KEY,
            max_age_s=max_age_s,
            max_count=max_cameras,
            every=_PRUNE_EVERY,
            clock=clock,
        )

    def change(self, camera: str, change: Callable[[str | None], str]) -> None:
        """As the port says."""
        key = _KEY + camera

        def changed(text: bytes | None) -> Callable[[Any], None]:
            # In somebody else's key anything may stand; what is no text of ours is nothing.
            new = change(None if text is None else text.decode("utf-8", "replace"))

            def queue(pipeline: Any) -> None:
                pipeline.set(key, new, px=max(1, int(self._max_age_s * 1000)))
                pipeline.zadd(_BY_AGE, {camera: self._clock()})

            return queue

        if not any(self._redis.replaced(key, changed) for _ in range(_TRIES)):
            raise SceneUnavailable(
                f"What stood at {camera}, Redis at {self._server}, is changed by too many at once."
            )
        self._aged.written()

    def ping(self) -> None:
        """As the port says."""
        self._redis.ping()

    def close(self) -> None:
        """As the port says."""
        self._redis.close()
