"""How the service is, in a sentence, said once per change."""

from __future__ import annotations

import threading
import time
from enum import Enum

from vault_ml.errors import BrokerUnavailable, ConfigError, VaultMLError
from vault_ml.telemetry.log import Log

_REPEAT_S = 60.0  # the same sentence again, when a state flaps, is news at most once a minute


class State(Enum):
    """What we know about the service."""

    UNKNOWN = "unknown"
    UP = "up"
    AWAY = "away"
    REFUSED = "refused"


class Connection:
    """The state of one half's way to SQS. Thread-safe."""

    def __init__(self, where: str, log: Log, role: str) -> None:
        """Say changes to `log`, as those of `role` (`consumer`, `producer`)."""
        self._where = where
        self._log = log
        self._role = role
        self._lock = threading.Lock()
        self._state = State.UNKNOWN
        self._refusal: ConfigError | None = None
        self._said: dict[str, float] = {}

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    def refusal(self) -> ConfigError | None:
        """A fresh error to raise while the service refuses us, else None."""
        with self._lock:
            if self._refusal is None:
                return None
            return type(self._refusal)(str(self._refusal))

    def came_up(self) -> None:
        """Note an answer to what was asked."""
        with self._lock:
            was, self._state = self._state, State.UP
            self._refusal = None
        if was in (State.AWAY, State.REFUSED):
            self._log.info("broker_reachable", role=self._role, broker=self._where)

    def went_wrong(self, error: VaultMLError) -> None:
        """Note that something could not be done, and why."""
        is_refusal = isinstance(error, ConfigError)
        with self._lock:
            was = self._state
            self._state = State.REFUSED if is_refusal else State.AWAY
            self._refusal = error if isinstance(error, ConfigError) else None
            sentence = str(error)
            now = time.monotonic()
            is_news = now - self._said.get(sentence, -_REPEAT_S) >= _REPEAT_S
            if is_news:
                self._said = {
                    text: at for text, at in self._said.items() if now - at < _REPEAT_S
                } | {sentence: now}
        if is_refusal and is_news:
            self._log.error("broker_refused", role=self._role, reason=sentence)
        elif is_news and was is not State.AWAY:
            self._log.warning("broker_unreachable", role=self._role, reason=sentence)


def unavailable_in_time(where: str) -> BrokerUnavailable:
    """For an answer that did not come before a deadline of ours."""
    return BrokerUnavailable(f"{where} did not answer in time.")
