"""Outcomes in Redis, or in anything that speaks its protocol: for workers on many hosts.

One key per run, which expires by itself, and a sorted set of the run ids by age, which bounds their
number. Remembered is what Redis has answered; what it keeps over its own restart is its matter
(`appendonly`), and what it loses costs a repetition.

Raises:
    ConfigError: on import, when the package redis is not installed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vault_ml.errors import ConfigError, CredentialsRejected, OutcomesUnavailable
from vault_ml.outcomes.address import RedisServer
from vault_ml.outcomes.port import Outcome

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise ConfigError(
        "OUTCOMES=redis://... needs the package redis: pip install 'vault-ml[redis]'"
    ) from error

_KEY = "vault-ml:outcome:"
_BY_AGE = "vault-ml:outcomes"
_ANSWER_S = 1.0  # Redis answers in a millisecond, or something is wrong
_PRUNE_EVERY = 500  # outcomes of this worker; by so many the bound on their number may be passed


class RedisOutcomes:
    """See the port."""

    def __init__(
        self,
        server: RedisServer,
        *,
        username: str = "",
        password: str = "",
        max_age_s: float,
        max_count: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connect lazily.

        Args:
            server: where it is.
            username: empty for Redis' default user.
            password: empty for none.
            max_age_s: older outcomes are forgotten.
            max_count: of more than these, the oldest are forgotten.
            clock: Unix seconds.
        """
        self._server = server
        self._max_age_s = max_age_s
        self._max_count = max_count
        self._clock = clock
        self._until_prune = _PRUNE_EVERY
        self._client: Any = redis.Redis(
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

    def find(self, run_id: str) -> Outcome | None:
        """As the port says."""
        with self._translated():
            text = self._client.get(_KEY + run_id)
        return None if text is None else _outcome(text)

    def remember(self, run_id: str, outcome: Outcome) -> None:
        """As the port says."""
        left_s = outcome.finished_at + self._max_age_s - self._clock()
        if left_s <= 0:
            return
        with self._translated(), self._client.pipeline(transaction=True) as both:
            both.set(_KEY + run_id, _text(outcome), px=max(1, int(left_s * 1000)))
            both.zadd(_BY_AGE, {run_id: outcome.finished_at})
            both.execute()
        self._until_prune -= 1
        if self._until_prune <= 0:
            self._until_prune = _PRUNE_EVERY
            self._prune()

    def mark_removed(self, run_id: str) -> None:
        """As the port says."""
        outcome = self.find(run_id)
        if outcome is None:
            return
        removed = Outcome(
            outcome.steps,
            outcome.result_sha256,
            outcome.is_forwarded,
            outcome.finished_at,
            is_removed=True,
        )
        with self._translated():
            self._client.set(_KEY + run_id, _text(removed), keepttl=True, xx=True)

    def ping(self) -> None:
        """As the port says."""
        try:
            self._client.ping()
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise CredentialsRejected(
                f"Redis at {self._server} refused us; check OUTCOMES_USERNAME and "
                "OUTCOMES_PASSWORD."
            ) from error
        except redis.ResponseError as error:
            raise ConfigError(
                f"Redis at {self._server} refuses us; is there a database {self._server.database}, "
                "and does it want a password (OUTCOMES_PASSWORD)?"
            ) from error
        except redis.RedisError as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """As the port says."""
        self._client.close()

    def _prune(self) -> None:
        """The keys of old outcomes have expired by themselves; their ids have not."""
        with self._translated():
            self._client.zremrangebyscore(_BY_AGE, "-inf", self._clock() - self._max_age_s)
            surplus = self._client.zcard(_BY_AGE) - self._max_count
            if surplus > 0:
                oldest = self._client.zpopmin(_BY_AGE, surplus)
                self._client.unlink(*(_KEY + run_id.decode() for run_id, _ in oldest))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> OutcomesUnavailable:
        why = "full" if isinstance(error, redis.exceptions.OutOfMemoryError) else "away"
        return OutcomesUnavailable(
            f"The outcome store, Redis at {self._server}, is {why} ({type(error).__name__})."
        )


def _text(outcome: Outcome) -> str:
    return json.dumps(
        {
            "steps": sorted(outcome.steps),
            "result_sha256": outcome.result_sha256,
            "is_forwarded": outcome.is_forwarded,
            "finished_at": outcome.finished_at,
            "is_removed": outcome.is_removed,
        }
    )


def _outcome(text: bytes) -> Outcome | None:
    """What `_text` wrote; None for anything else: then the work is done once more."""
    try:
        read = json.loads(text)
        return Outcome(
            steps=frozenset(str(step) for step in read["steps"]),
            result_sha256=str(read["result_sha256"]),
            is_forwarded=bool(read["is_forwarded"]),
            finished_at=float(read["finished_at"]),
            is_removed=bool(read["is_removed"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
