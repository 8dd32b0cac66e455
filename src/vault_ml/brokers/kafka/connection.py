"""How the way to the brokers is, in a sentence, said once per change.

librdkafka reports the same trouble up to 20 times a second, as error events and as log lines.
Here they become one of three states, and what goes to our log is the change.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from enum import Enum

from confluent_kafka import KafkaError

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected
from vault_ml.telemetry.log import Log

_REPEAT_S = 60.0  # the same sentence again, when a state flaps, is news at most once a minute


class State(Enum):
    """What we know about the brokers."""

    UNKNOWN = "unknown"
    UP = "up"
    AWAY = "away"
    REFUSED = "refused"


class Connection:
    """The state of one client's way to the brokers. Thread-safe."""

    def __init__(self, options: KafkaOptions, log: Log, role: str) -> None:
        """Say changes to `log`, as those of `role` (`consumer`, `producer`)."""
        self._options = options
        self._log = log
        self._role = role
        self._lock = threading.Lock()
        self._state = State.UNKNOWN
        self._sentence = ""
        self._reason = ""
        self._last_said: tuple[str, float] = ("", 0.0)

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    def refusal(self) -> ConfigError | None:
        """An error to raise while the brokers refuse us, else None."""
        with self._lock:
            if self._state is not State.REFUSED:
                return None
            return CredentialsRejected(self._sentence)

    def unavailable(self) -> BrokerUnavailable:
        """An error to raise when the brokers did not answer in time."""
        with self._lock:
            reason = f" ({self._reason})" if self._reason else ""
        return BrokerUnavailable(f"Kafka at {self._options.brokers} does not answer{reason}.")

    def came_up(self) -> None:
        """Note a sign of life."""
        with self._lock:
            was, self._state = self._state, State.UP
            self._reason = ""
        if was in (State.AWAY, State.REFUSED):
            self._log.info("broker_reachable", role=self._role, brokers=self._options.brokers)

    def on_error(self, error: KafkaError) -> None:
        """Take an error event of librdkafka."""
        code = error.code()
        if code == codes.AUTHENTICATION:
            self._refused(refused_sentence(self._options, error.str()))
        elif code == codes.ALL_BROKERS_DOWN:
            self._went_away()
        elif reason := reason_of(code, error.str(), self._options):
            with self._lock:
                self._reason = reason

    def librdkafka_logger(self) -> logging.Logger:
        """A logger for librdkafka that prints nothing and keeps the reason of a failure."""
        # Attached to no other logger, so nothing of it reaches standard error.
        logger = logging.Logger("librdkafka")  # noqa: LOG001
        logger.addHandler(_ReasonHandler(self))
        return logger

    def on_log(self, text: str) -> None:
        """Take a log line. Some reasons are told here only."""
        if hung_up_at_once(text):
            with self._lock:
                self._reason = protocol_hint(self._options)

    def _refused(self, sentence: str) -> None:
        with self._lock:
            self._state, self._sentence = State.REFUSED, sentence
        if self._is_news(sentence):
            self._log.error("broker_refused", role=self._role, reason=sentence)

    def _went_away(self) -> None:
        with self._lock:
            if self._state in (State.REFUSED, State.AWAY):
                return
            self._state = State.AWAY
        sentence = str(self.unavailable())
        if self._is_news(sentence):
            self._log.warning("broker_unreachable", role=self._role, reason=sentence)

    def _is_news(self, sentence: str) -> bool:
        now = time.monotonic()
        with self._lock:
            said, at = self._last_said
            if said == sentence and now - at < _REPEAT_S:
                return False
            self._last_said = (sentence, now)
        return True


class _ReasonHandler(logging.Handler):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.on_log(record.getMessage())


def refused_sentence(options: KafkaOptions, text: str) -> str:
    """What a refused login means; `text` is librdkafka's, which names the kind."""
    where = f"Kafka at {options.brokers}"
    mechanism = options.sasl_mechanism
    # A token that is refused is told as a failed handshake too.
    if "handshake failed" in text and (mechanism != "OAUTHBEARER" or "Unsupported" in text):
        return (
            f"{where} does not take logins by {mechanism} on this port; "
            "check KAFKA_SECURITY and KAFKA_MECHANISM."
        )
    if "Failed to acquire" in text:
        return (
            f"No token was given to us for {where}; check the sasl.oauthbearer options in "
            "KAFKA_OPTIONS, and whether the token endpoint answers."
        )
    if mechanism == "OAUTHBEARER":
        return f"{where} refused our token; check the sasl.oauthbearer options in KAFKA_OPTIONS."
    return (
        f"{where} refused the login of {options.username!r} by {mechanism}; "
        "check KAFKA_USERNAME and KAFKA_PASSWORD."
    )


# What a TLS server tells a client about the client's certificate (RFC 8446, 6.2).
_OUR_CERTIFICATE = re.compile(
    r"alert (?:bad certificate|unsupported certificate|certificate \w+|unknown ca)"
)


def reason_of(code: int, text: str, options: KafkaOptions) -> str:
    """Why no connection came about, in a few words of ours; empty when it says nothing new."""
    if code == codes.RESOLVE:
        return "its name is not known to DNS; check KAFKA_BROKER"
    if _OUR_CERTIFICATE.search(text):
        return (
            "it does not take our TLS certificate, or wants one; name it by "
            "ssl.certificate.location and ssl.key.location in KAFKA_OPTIONS"
        )
    if code == codes.SSL or "SSL handshake failed" in text:
        if "certificate verify failed" in text:
            return (
                "its TLS certificate is not signed by an authority we know; "
                "name the right one by ssl.ca.location in KAFKA_OPTIONS"
            )
        return f"no TLS session came about; {protocol_hint(options)}"
    if "Connection refused" in text:
        return "connection refused; is it running, and is KAFKA_BROKER right?"
    if "timed out" in text or code == codes.TIMED_OUT:
        return "timed out; is a firewall between us?"
    return ""


_HUNG_UP = re.compile(r"Disconnected.*\(after (\d+)ms in state (?:APIVERSION_QUERY|UP)\b")
_AT_ONCE_MS = 1000  # a broker that understands us keeps a new connection for minutes


def hung_up_at_once(text: str) -> bool:
    """True for librdkafka's log line of a port that closes the connection at our first words.

    >>> hung_up_at_once("Disconnected: connection closed by peer (after 4ms in state UP)")
    True
    >>> hung_up_at_once("Disconnected: connection closed by peer (after 93000ms in state UP)")
    False
    """
    found = _HUNG_UP.search(text)
    return found is not None and int(found[1]) < _AT_ONCE_MS


def protocol_hint(options: KafkaOptions) -> str:
    """The likeliest cause when a port hangs up on us before the first answer."""
    return (
        f"it hangs up at once, so this port may speak another protocol than "
        f"KAFKA_SECURITY={options.security or 'PLAINTEXT'}"
    )


def weakness_of(librdkafka: tuple[int, ...]) -> str | None:
    """What a person should know of this version of librdkafka; None when there is nothing.

    Source: https://github.com/confluentinc/librdkafka/issues/5301 and docs/adr/0013.

    >>> weakness_of((2, 11, 1)) is None
    True
    """
    if librdkafka < (2, 12):
        return None
    version = ".".join(map(str, librdkafka))
    return (
        f"The Kafka client here, librdkafka {version}, may stop for good when the list of brokers "
        "is empty for a moment, as that of a cluster of one broker is after a pause of seconds. "
        "Take confluent-kafka 2.11.1 (Python up to 3.13), or more brokers, and restart a worker "
        "that takes no events."
    )
