"""What an operator may say about Kafka, and the librdkafka configuration that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vault_ml.errors import ConfigError

_OWN_VARIABLE = {
    "bootstrap.servers": "KAFKA_BROKER",
    "metadata.broker.list": "KAFKA_BROKER",
    "group.id": "KAFKA_GROUP",
    "security.protocol": "KAFKA_SECURITY",
    "sasl.mechanism": "KAFKA_MECHANISM",
    "sasl.mechanisms": "KAFKA_MECHANISM",
    "sasl.username": "KAFKA_USERNAME",
    "sasl.password": "KAFKA_PASSWORD",
}

# No recording is lost because these are what they are.
_CONTRACT = {
    "enable.auto.commit": "an event is committed when its work is done, not when it was read",
    "enable.auto.offset.store": "an event is committed when its work is done",
    "auto.commit.interval.ms": "an event is committed when its work is done",
    "auto.offset.reset": "a new group begins with the oldest event and skips none",
    "enable.idempotence": "a result must not be doubled or reordered by a resend",
    "acks": "a result is published when all replicas have it",
    "request.required.acks": "a result is published when all replicas have it",
    "batch.num.messages": "a result that is too large must not take others with it",
    "transactional.id": "KAFKA_TRANSACTIONS=true makes one for every process",
}
# A worker that dies within a transaction holds up those who read the results, and whoever takes
# over its partitions, this long (and up to 10 s more: brokers look every 10 s). Ours take far less
# than a second; a broker that hesitates for longer costs a rebuilt producer, nothing else.
_TRANSACTION_TIMEOUT_MS = 15_000
_COMMITTED = "read_committed"


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach the cluster and who we are.

    Attributes:
        brokers: `host:port`, several separated by commas.
        group: the consumer group; replicas of one group share the work.
        username, password: for SASL PLAIN and SCRAM. The password never shows in a repr.
        mechanism: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`, or `GSSAPI` where
            librdkafka was built with it; PLAIN when empty.
        security: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`; PLAINTEXT when empty.
        extra: further librdkafka options, passed through.
        transactions: results become visible together with the offsets of their events.

    Raises:
        ConfigError: the values contradict each other, or `extra` holds an option that has its own
            variable or that the delivery contract rests on.
    """

    brokers: str
    group: str
    username: str = ""
    password: str = field(default="", repr=False)
    mechanism: str = ""
    security: str = ""
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    transactions: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything connects."""
        if not self.brokers.strip():
            raise ConfigError("KAFKA_BROKER is empty; set it to host:port of a Kafka broker.")
        for name in self.extra:
            if variable := _OWN_VARIABLE.get(name):
                raise ConfigError(f"KAFKA_OPTIONS may not set {name}; use {variable}.")
            if reason := _CONTRACT.get(name):
                raise ConfigError(f"KAFKA_OPTIONS may not set {name}: {reason}.")
        if self.transactions and self.extra.get("isolation.level", _COMMITTED) != _COMMITTED:
            raise ConfigError(
                "KAFKA_OPTIONS may not set isolation.level when KAFKA_TRANSACTIONS=true: whoever "
                "takes over a partition must wait for the transactions of its last owner."
            )
        if self.username and not self.security:
            raise ConfigError(
                "KAFKA_USERNAME is set but KAFKA_SECURITY is not, so the login would not be used; "
                "set KAFKA_SECURITY to SASL_SSL or SASL_PLAINTEXT."
            )
        if self.uses_sasl and self.sends_password:
            for variable, value in (
                ("KAFKA_USERNAME", self.username),
                ("KAFKA_PASSWORD", self.password),
            ):
                if not value:
                    raise ConfigError(
                        f"KAFKA_SECURITY={self.security} needs {variable}, which is not set."
                    )

    @property
    def uses_sasl(self) -> bool:
        """True when a login is made."""
        return self.security.upper().startswith("SASL")

    @property
    def sasl_mechanism(self) -> str:
        """The mechanism in force, in capitals."""
        return (self.mechanism or "PLAIN").upper()

    @property
    def sends_password(self) -> bool:
        """True when the mechanism wants user name and password: not a token, not a ticket."""
        return self.sasl_mechanism not in ("OAUTHBEARER", "GSSAPI")

    def connection(self) -> dict[str, Any]:
        """Options that every client of ours shares."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.brokers,
            "client.id": "vault-ml",
            "socket.keepalive.enable": True,
            # Work resumes within seconds of the broker's return, not librdkafka's 10.
            "reconnect.backoff.max.ms": 2000,
        }
        if self.security:
            config["security.protocol"] = self.security.lower()
        if self.uses_sasl:
            config["sasl.mechanism"] = self.sasl_mechanism
            if self.sends_password:
                config["sasl.username"] = self.username
                config["sasl.password"] = self.password
        return {**config, **self.extra}

    def consumer(self) -> dict[str, Any]:
        """Options of the consumer."""
        config: dict[str, Any] = {
            # The local queue is small and partitions pause when it is full, which throws away
            # what was prefetched; so little is prefetched, and fetching resumes at once.
            "queued.min.messages": 200,
            "fetch.queue.backoff.ms": 50,
            "max.partition.fetch.bytes": 262_144,
            "statistics.interval.ms": 1000,
            # New partitions and a removed topic are noticed as late as this; librdkafka: 5 min.
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        if self.extra.get("group.protocol", "classic").lower() == "classic":
            config["partition.assignment.strategy"] = "cooperative-sticky"
            # Members hear of a rebalance by their next heartbeat; librdkafka: 3 s. Where workers
            # come and go every few seconds, a group that hears so late never gets to share out.
            config["heartbeat.interval.ms"] = 1000
        return {
            **config,
            **self.connection(),
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # The consumer begins at the oldest event where nothing is committed, but it makes sure
            # that nothing is, which librdkafka does not always.
            "auto.offset.reset": "error",
        }

    def producer(self) -> dict[str, Any]:
        """Options of the producer."""
        return {
            "linger.ms": 0,  # every publish waits for its confirmation
            "message.timeout.ms": 30_000,
            # The broker knows its limit; ours only keeps nonsense out of the send buffer.
            "message.max.bytes": 64 * 1024 * 1024,
            **self.connection(),
            "acks": "all",
            "enable.idempotence": True,
            "batch.num.messages": 1,
            # We make topics ourselves, and say so.
            "allow.auto.create.topics": False,
        }

    def transactional_producer(self, transactional_id: str) -> dict[str, Any]:
        """Options of the producer of one process' transactions."""
        timeout_ms = int(self.extra.get("transaction.timeout.ms", _TRANSACTION_TIMEOUT_MS))
        return {
            **self.producer(),
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            # librdkafka asks for this order. A message that took longer would come too late anyway.
            "message.timeout.ms": min(timeout_ms, int(self.extra.get("message.timeout.ms", 2**31))),
            # The coordinator answers "a moment" while it writes the end of the last transaction.
            "retry.backoff.ms": 20,
            # The only place where librdkafka tells which requests a broker understands.
            "debug": ",".join(filter(None, ("feature", self.extra.get("debug", "")))),
        }
