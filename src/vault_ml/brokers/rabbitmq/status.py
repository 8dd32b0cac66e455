"""How the way to RabbitMQ is, in a sentence, said once per change.

pika tells trouble by some twenty exceptions, many of them wrapped in others. Here they become one
of three states, and what goes to our log is the change.
"""

from __future__ import annotations

import re
import threading
import time
from enum import Enum

from pika import exceptions

from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected, VaultMLError
from vault_ml.telemetry.log import Log

_REPEAT_S = 60.0  # the same sentence again, when a state flaps, is news at most once a minute

# Reply codes of AMQP 0-9-1, and one of RabbitMQ's.
NO_ROUTE = 312
ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406


_REASONS = (
    ("gaierror", "its name is not known to DNS; check RABBITMQ_HOST"),
    ("Connection refused", "connection refused; is it running, and is RABBITMQ_HOST right?"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its TLS certificate is for another name, or not by an authority in RABBITMQ_CA_FILE",
    ),
    ("SSL", "no TLS session came about; does this port speak TLS, or is it for amqp://?"),
    ("IncompatibleProtocol", "this port does not speak AMQP 0-9-1; is it the one for amqps://?"),
    ("connection limit", "it has as many connections as it allows"),
    ("CONNECTION_FORCED", "it closed the connection"),
    ("is down", "the virtual host is down"),
    ("HeartbeatTimeout", "no heartbeat came"),
    ("imeout", "timed out; is a firewall between us?"),
    ("StreamLost", "the connection broke"),
)


class State(Enum):
    """What we know about the broker."""

    UNKNOWN = "unknown"
    UP = "up"
    AWAY = "away"
    REFUSED = "refused"


class Status:
    """The state of one client's way to the broker. Thread-safe."""

    def __init__(self, options: RabbitOptions, log: Log, role: str) -> None:
        """Say changes to `log`, as those of `role` (`consumer`, `producer`)."""
        self._where = options.where
        self._options = options
        self._log = log
        self._role = role
        self._lock = threading.Lock()
        self._state = State.UNKNOWN
        self._refusal: ConfigError | None = None
        self._sentence = ""
        self._last_said: tuple[str, float] = ("", 0.0)

    @property
    def is_up(self) -> bool:
        """True while there is a connection."""
        return self._state is State.UP

    def refusal(self) -> ConfigError | None:
        """An error to raise while the broker refuses us, else None; a fresh one for each caller."""
        with self._lock:
            refusal = self._refusal
        return None if refusal is None else type(refusal)(str(refusal))

    def unavailable(self) -> BrokerUnavailable:
        """An error to raise when the broker did not answer in time."""
        with self._lock:
            return BrokerUnavailable(self._sentence or f"{self._where} does not answer.")

    def came_up(self) -> None:
        """Note a connection that is open."""
        with self._lock:
            was, self._state = self._state, State.UP
            self._sentence, self._refusal = "", None
        if was in (State.AWAY, State.REFUSED):
            self._log.info("broker_reachable", role=self._role, broker=self._where)

    def failed(self, error: BaseException) -> None:
        """Note why there is no connection."""
        told = translated(error, self._options)
        if isinstance(told, ConfigError):
            self.refuse(told)
            return
        with self._lock:
            is_change = self._state is not State.AWAY
            self._state, self._refusal = State.AWAY, None
            self._sentence = sentence = str(told)
        if is_change and self._is_news(sentence):
            self._log.warning("broker_unreachable", role=self._role, reason=sentence)

    def refuse(self, error: ConfigError) -> None:
        """Note that the broker answers, but will not have us until something is changed."""
        with self._lock:
            self._state, self._refusal = State.REFUSED, error
        if self._is_news(str(error)):
            self._log.error("broker_refused", role=self._role, reason=str(error))

    def blocked(self, is_blocked: bool) -> None:
        """Note that the broker takes no messages for now, or takes them again."""
        with self._lock:
            self._sentence = (
                f"{self._where} is short of memory or disk space and takes no messages."
                if is_blocked
                else ""
            )
        if is_blocked:
            self._log.warning("broker_blocked", role=self._role, reason=str(self.unavailable()))
        else:
            self._log.info("broker_unblocked", role=self._role, broker=self._where)

    def _is_news(self, sentence: str) -> bool:
        now = time.monotonic()
        with self._lock:
            said, at = self._last_said
            if said == sentence and now - at < _REPEAT_S:
                return False
            self._last_said = (sentence, now)
        return True


def translated(error: BaseException, options: RabbitOptions) -> VaultMLError:
    """One of our errors for what pika met while it connected or was connected."""
    if isinstance(error, VaultMLError):
        return error
    where, text = options.where, _text(error)
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
        hint = ""
        if options.username == "guest":
            hint = " (by default the user guest may log in only from RabbitMQ's own machine)"
        return CredentialsRejected(
            f"{where} refused the login of {options.username!r}; check RABBITMQ_USERNAME and "
            f"RABBITMQ_PASSWORD{hint}."
        )
    if "NOT_ALLOWED" in text and "limit" not in text and "is down" not in text:
        vhost = options.virtual_host
        if "not found" in text:
            return ConfigError(f"{where} has no virtual host {vhost!r}; check RABBITMQ_VHOST.")
        return CredentialsRejected(
            f"{where} does not let {options.username!r} into the virtual host {vhost!r}; give the "
            "user permissions there, or check RABBITMQ_VHOST."
        )
    reason = next((reason for mark, reason in _REASONS if mark in text), "")
    return BrokerUnavailable(f"{where} does not answer{f' ({reason})' if reason else ''}.")


def _text(error: BaseException) -> str:
    """What an exception and those it wraps say. For finding words in, never to be shown."""
    return repr(error)


_TOO_LARGE = re.compile(r"message size (\d+) is larger than configured max size (\d+)")
_ACK_TIMEOUT = re.compile(r"timed out.*?Timeout value used: (\d+)", re.DOTALL)


def size_limit_in(reason: BaseException) -> int | None:
    """The largest message, bytes, that the broker named when it closed our channel.

    >>> size_limit_in(Exception("message size 9 is larger than configured max size 8"))
    8
    """
    found = _TOO_LARGE.search(str(reason))
    return int(found[2]) if found else None


def ack_timeout_in(reason: BaseException) -> float | None:
    """The broker's patience, seconds, when it closed our channel for want of an acknowledgement.

    >>> ack_timeout_in(Exception("on channel 1 timed out. Timeout value used: 1800000 ms."))
    1800.0
    """
    found = _ACK_TIMEOUT.search(str(reason))
    return int(found[1]) / 1000 if found else None
