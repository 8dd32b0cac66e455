"""A transactional client that can be tampered with: what it does is real, what it says need not be.

confluent-kafka's clients are objects of C, so their methods are wrapped, not replaced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from vault_ml.brokers.kafka import cluster, transactional


class Meddled:
    """A client with one method that is preceded and followed by something else."""

    def __init__(
        self,
        client: Any,
        method: str,
        before: Callable[[], None],
        after: Callable[[], None],
        left: list[int],
    ) -> None:
        self._client = client
        self._method = method
        self._before = before
        self._after = after
        self._left = left

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name != self._method or threading.current_thread().name != "kafka-transactions":
            return found

        def meddled(*args: Any, **kwargs: Any) -> Any:
            if self._left[0] <= 0:
                return found(*args, **kwargs)
            self._left[0] -= 1
            self._before()
            answer = found(*args, **kwargs)
            self._after()
            return answer

        return meddled


def meddle(
    method: str,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    times: int = 1,
) -> Callable[[], None]:
    """Let transactional producers made from now on be meddled with; returns what undoes it."""
    original = cluster.checked_client
    left = [times]

    def checked_client(*args: Any) -> Any:
        return Meddled(original(*args), method, before, after, left)

    setattr(transactional, "checked_client", checked_client)  # noqa: B010  mypy sees no export

    def undo() -> None:
        setattr(transactional, "checked_client", original)  # noqa: B010  same

    return undo
