"""A Redis server (or Valkey, or another that speaks its protocol), as memories use it.

Raises:
    ConfigError: on import, when the package redis is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vault_ml.errors import ConfigError, CredentialsRejected, UnavailableError
from vault_ml.stores.address import RedisServer

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise ConfigError(
        "redis://... needs the package redis: pip install 'vault-ml[redis]'"
    ) from error

_ANSWER_S = 1.0  # Redis answers in a millisecond, or something is wrong


class RedisConnection:
    """A connection that is made when it is needed. Any thread may use it."""

    def __init__(
        self,
        server: RedisServer,
        *,
        variable: str,
        what: str,
        away: Callable[[str], UnavailableError],
        username: str = "",
        password: str = "",
    ) -> None:
        """Connect lazily.

        Args:
            server: where it is.
            variable: the setting that names it; `<variable>_PASSWORD` holds the password.
            what: what is kept there, such as `The outcome store`.
            away: sentence -> what to raise when it cannot be used now.
            username: empty for Redis' default user.
            password: empty for none.
        """
        self._server = server
        self._variable = variable
        self._what = what
        self._away = away
        self.client: Any = redis.Redis(
            host=server.host,
            port=server.port,
            db=server.database,
            username=username or None,
            password=password or None,
            ssl=server.uses_tls,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_ANSWER_S,
            # Once, for a connection that was closed while it lay idle.
            retry=Retry(NoBackoff(), 1),
            client_name="vault-ml",
        )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within it Redis' errors become ours."""
        try:
            yield
        except redis.RedisError as error:
            raise self._unavailable(error) from error

    def replaced(self, key: str, change: Callable[[bytes | None], Any]) -> bool:
        """Have `change` queue commands for what is under `key`, and run them as one step.

        Args:
            key: what must not change meanwhile.
            change: what is there -> a function that queues commands on the pipeline it is given.

        Returns:
            False when somebody else changed it meanwhile; then nothing was done.
        """
        with self.translated(), self.client.pipeline(transaction=True) as pipeline:
            pipeline.watch(key)
            queue = change(pipeline.get(key))
            pipeline.multi()
            queue(pipeline)
            try:
                pipeline.execute()
            except redis.WatchError:
                return False
            return True

    def ping(self) -> None:
        """Return when it answers, and knows us.

        Raises:
            UnavailableError: it does not.
            ConfigError: it answers that we may not, or is none.
        """
        try:
            self.client.ping()
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise CredentialsRejected(
                f"Redis at {self._server} refused us; check {self._variable}_USERNAME and "
                f"{self._variable}_PASSWORD."
            ) from error
        except redis.ResponseError as error:
            raise ConfigError(
                f"Redis at {self._server} refuses us; is there a database {self._server.database}, "
                f"and does it want a password ({self._variable}_PASSWORD)?"
            ) from error
        except redis.RedisError as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Leave. Idempotent."""
        self.client.close()

    def _unavailable(self, error: Exception) -> UnavailableError:
        why = "full" if isinstance(error, redis.exceptions.OutOfMemoryError) else "away"
        return self._away(
            f"{self._what}, Redis at {self._server}, is {why} ({type(error).__name__})."
        )


class NamesByAge:
    """Bounds what is kept: the keys of what is too old expire by themselves, their names do not.

    Whoever writes a key adds its name to the sorted set in the same step, then calls `written`.
    """

    def __init__(
        self,
        redis: RedisConnection,
        *,
        names: str,
        prefix: str,
        max_age_s: float,
        max_count: int,
        every: int,
        clock: Callable[[], float],
    ) -> None:
        """Look at nothing yet.

        Args:
            redis: where they are.
            names: the sorted set of names, by unix seconds.
            prefix: of their keys.
            max_age_s: older names are forgotten.
            max_count: of more names, the oldest are forgotten, and their keys.
            every: look after so many writes of ours; by so many `max_count` may be passed.
            clock: Unix seconds.
        """
        self._redis = redis
        self._names = names
        self._prefix = prefix
        self._max_age_s = max_age_s
        self._max_count = max_count
        self._every = every
        self._clock = clock
        self._until_prune = every

    def written(self) -> None:
        """Count a write, and prune when it is time.

        Raises:
            UnavailableError: as `RedisConnection.translated` makes it.
        """
        self._until_prune -= 1
        if self._until_prune <= 0:
            self._until_prune = self._every
            self.prune()

    def prune(self) -> None:
        """Forget what is too old, and the oldest of what is too many.

        Raises:
            UnavailableError: as `RedisConnection.translated` makes it.
        """
        client = self._redis.client
        with self._redis.translated():
            client.zremrangebyscore(self._names, "-inf", self._clock() - self._max_age_s)
            surplus = client.zcard(self._names) - self._max_count
            if surplus > 0:
                oldest = client.zpopmin(self._names, surplus)
                client.unlink(*(self._prefix + name.decode() for name, _ in oldest))
