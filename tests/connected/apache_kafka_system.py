"""Apache Kafka as a system for the contract suite."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connected.start_kafka import Address, ApacheKafka
from contract.kafka_system import SaidLog
from vault_ml.brokers.kafka import KafkaBrowser, KafkaConsumer, KafkaOptions, KafkaProducer

MADE_WITHIN_S = 60.0
QUIET = logging.Logger("quiet")  # noqa: LOG001  for clients of the tests' own


class ApacheKafkaSystem:
    """Apache Kafka: ours, which may be killed, or somebody's, which may not."""

    def __init__(self, address: Address, server: ApacheKafka | None) -> None:
        self.address = address
        self.server = server
        self.can_go_down = server is not None
        self.max_message_bytes: int | None = 1_048_588 if server is not None else None
        self.group = f"vault-ml-test-{uuid.uuid4().hex[:8]}"
        self.log = SaidLog()
        self.transactions = False
        self.extra: dict[str, str] = {}

    def at(self, address: Address) -> ApacheKafkaSystem:
        """The same broker on another listener."""
        return ApacheKafkaSystem(address, self.server)

    def options(self, extra: Mapping[str, str] | None = None) -> KafkaOptions:
        chosen = {**self.extra, **(extra or {})}
        return replace(
            kafka_options(self.address, self.group, chosen), transactions=self.transactions
        )

    def new_queue(self, partitions: int = 1) -> str:
        name = f"vault-ml-test-{uuid.uuid4().hex[:8]}"
        admin = AdminClient(self.options().connection(), logger=QUIET)
        deadline = time.monotonic() + MADE_WITHIN_S
        while True:
            try:
                admin.create_topics([NewTopic(name, partitions)])[name].result(20)
            except KafkaException as error:
                # A node that started, or got no processor, a moment ago is fenced off by itself.
                is_fenced = error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR
                if not is_fenced or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return name

    def consumer(self, queue: str) -> KafkaConsumer:
        return KafkaConsumer(self.options(), queue, log=self.log)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self.options(), log=self.log)

    def browser(self, queue: str) -> KafkaBrowser:
        return KafkaBrowser(self.options(), queue, log=self.log, timeout_s=10.0)

    def set_down(self) -> None:
        assert self.server is not None
        self.server.kill()

    def set_up(self) -> None:
        assert self.server is not None
        self.server.start()


def kafka_options(
    address: Address, group: str, extra: Mapping[str, str] | None = None
) -> KafkaOptions:
    """Our options for a listener."""
    ca = {"ssl.ca.location": address.ca_file} if address.ca_file else {}
    if address.client_file:
        ca |= {
            "ssl.certificate.location": address.client_file,
            "ssl.key.location": address.client_file,
        }
    return KafkaOptions(
        address.bootstrap,
        group,
        username=address.username,
        password=address.password,
        mechanism=address.mechanism,
        security=address.security,
        extra={**ca, **(extra or {})},
    )
