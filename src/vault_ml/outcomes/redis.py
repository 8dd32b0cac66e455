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
from collections.abc import Callable

from vault_ml.errors import OutcomesUnavailable
from vault_ml.outcomes.port import Outcome
from vault_ml.stores.address import RedisServer
from vault_ml.stores.redis_server import NamesByAge, RedisConnection

_KEY = "vault-ml:outcome:"
_BY_AGE = "vault-ml:outcomes"
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
        self._max_age_s = max_age_s
        self._clock = clock
        self._redis = RedisConnection(
            server,
            variable="OUTCOMES",
            what="The outcome store",
            away=OutcomesUnavailable,
            username=username,
            password=password,
        )
        self._aged = NamesByAge(
            self._redis,
            names=_BY_AGE,
            prefix=_KEY,
            max_age_s=max_age_s,
            max_count=max_count,
            every=_PRUNE_EVERY,
            clock=clock,
        )

    def find(self, run_id: str) -> Outcome | None:
        """As the port says."""
        with self._redis.translated():
            text = self._redis.client.get(_KEY + run_id)
        return None if text is None else _outcome(text)

    def remember(self, run_id: str, outcome: Outcome) -> None:
        """As the port says."""
        left_s = outcome.finished_at + self._max_age_s - self._clock()
        if left_s <= 0:
            return
        with self._redis.translated(), self._redis.client.pipeline(transaction=True) as both:
            both.set(_KEY + run_id, _text(outcome), px=max(1, int(left_s * 1000)))
            both.zadd(_BY_AGE, {run_id: outcome.finished_at})
            both.execute()
        self._aged.written()

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
        with self._redis.translated():
            self._redis.client.set(_KEY + run_id, _text(removed), keepttl=True, xx=True)

    def ping(self) -> None:
        """As the port says."""
        self._redis.ping()

    def close(self) -> None:
        """As the port says."""
        self._redis.close()


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
