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

    def keep_newest(self, by_age: str, prefix: str, *, oldest: float, most: int) -> None:
        """Bound what is kept: the keys of what is too old have expired, their names have not.

        Args:
            by_age: the sorted set of names, by time.
            prefix: of their keys.
            oldest: names from before are forgotten, unix seconds.
            most: of more names, the oldest are forgotten, and their keys.
        """
        with self.translated():
            self.client.zremrangebyscore(by_age, "-inf", oldest)
            surplus = self.client.zcard(by_age) - most
            if surplus > 0:
                names = self.client.zpopmin(by_age, surplus)
                self.client.unlink(*(prefix + name.decode() for name, _ in names))

    def close(self) -> None:
        """Leave. Idempotent."""
        self.client.close()

    def _unavailable(self, error: Exception) -> UnavailableError:
        why = "full" if isinstance(error, redis.exceptions.OutOfMemoryError) else "away"
        return self._away(
            f"{self._what}, Redis at {self._server}, is {why} ({type(error).__name__})."
        )
