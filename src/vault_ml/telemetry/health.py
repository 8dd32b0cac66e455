"""Is the worker alive, is it ready, and if not, why.

Alive: its loop moved recently, or it waits for a dependency, which a restart would not bring back.
Ready: the loop has begun, no dependency is away, and each answered its last ping.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vault_ml.errors import VaultMLError

# Longer than any recording may take (fetching, decoding and detecting have limits of their own).
STALLED_AFTER_S = 900.0
# Probes come every few seconds, from several sides; a dependency is pinged no more often.
_PING_EVERY_S = 5.0
# A prober waits a second by default (Kubernetes), so an answer is given before.
_ANSWER_WITHIN_S = 0.8
# A ping that is out for so long is an answer too.
_PING_LOST_AFTER_S = 15.0


@dataclass(slots=True)
class _Watched:
    """A dependency: how to ping it, and what is known of it."""

    ping: Callable[[], None]
    checked_at: float | None = None
    trouble: str | None = "not checked yet"
    asked_at: float | None = None  # of the ping that is out; None when none is


class Health:
    """What probes are told. Methods may be called from any thread."""

    def __init__(
        self,
        *,
        stalled_after_s: float = STALLED_AFTER_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start as alive and not ready."""
        self._stalled_after_s = stalled_after_s
        self._now = now
        self._changed = threading.Condition()
        self._beat_at: float | None = None
        self._watched: dict[str, _Watched] = {}
        self._outages: Callable[[], Mapping[str, str]] = dict
        self._is_draining = False

    def beat(self) -> None:
        """The loop has moved."""
        with self._changed:
            self._beat_at = self._now()

    def watch(self, name: str, ping: Callable[[], None]) -> None:
        """Make readiness depend on `ping`, which returns when all is well and raises otherwise.

        It is called from a thread of its own and may take its time.
        """
        with self._changed:
            self._watched[name] = _Watched(ping)

    def watch_outages(self, reasons: Callable[[], Mapping[str, str]]) -> None:
        """Make readiness depend on `reasons`: what is away now, name -> sentence."""
        with self._changed:
            self._outages = reasons

    def drain(self) -> None:
        """The worker is stopping: not ready from now on."""
        with self._changed:
            self._is_draining = True

    def stalled_for_s(self) -> float | None:
        """None while alive; else for how long the loop has not moved, seconds."""
        is_waiting = bool(self._outages())
        with self._changed:
            if self._beat_at is None or is_waiting or self._is_draining:
                return None
            still_s = self._now() - self._beat_at
            return still_s if still_s > self._stalled_after_s else None

    def unready_reasons(self) -> dict[str, str]:
        """Why the worker is not ready, name -> sentence; empty when it is.

        Answers within a second: pings go on in the background, and what is not known in time is
        said to be unknown.
        """
        self._refresh()
        reasons = dict(self._outages())
        with self._changed:
            now = self._now()
            if self._is_draining:
                reasons["worker"] = "it is stopping"
            elif self._beat_at is None:
                reasons["worker"] = "it is starting"
            for name, watched in self._watched.items():
                trouble = watched.trouble
                if watched.asked_at is not None and now - watched.asked_at > _PING_LOST_AFTER_S:
                    trouble = f"no answer to a ping for {now - watched.asked_at:.0f} s"
                if trouble is not None:
                    reasons.setdefault(name, trouble)
        return reasons

    def _refresh(self) -> None:
        """Ping whatever was not pinged lately, and wait a little for those pings."""
        deadline = time.monotonic() + _ANSWER_WITHIN_S
        with self._changed:
            now = self._now()
            for name, watched in self._watched.items():
                is_due = watched.checked_at is None or now - watched.checked_at > _PING_EVERY_S
                if is_due and watched.asked_at is None:
                    watched.asked_at = now
                    threading.Thread(
                        target=self._ping, args=(watched,), name=f"ping-{name}", daemon=True
                    ).start()
            while any(watched.asked_at == now for watched in self._watched.values()):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    return

    def _ping(self, watched: _Watched) -> None:
        trouble: str | None = None
        try:
            watched.ping()
        except VaultMLError as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001  # a probe must get an answer; its text may hold secrets
            trouble = f"its ping failed with an unexpected {type(error).__name__}"
        with self._changed:
            watched.trouble = trouble
            watched.checked_at = self._now()
            watched.asked_at = None
            self._changed.notify_all()
