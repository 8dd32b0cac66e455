"""Real brokers for the `connected` tests: started once per session, or named by the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem
from connected.start_kafka import ApacheKafka, address_from_environment, why_not


def skip_or_fail(broker: str, reason: str) -> None:
    """Skip, unless `REQUIRE_BROKERS` names this broker."""
    if broker in os.environ.get("REQUIRE_BROKERS", "").split(","):
        pytest.fail(f"{reason}, and REQUIRE_BROKERS names {broker}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def own_apache_kafka() -> Iterator[ApacheKafka | None]:
    """Apache Kafka from its jars; None when the environment names another."""
    if address_from_environment() is not None:
        yield None
        return
    if reason := why_not():
        skip_or_fail("kafka", reason)
    server = ApacheKafka()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def kafka_system(own_apache_kafka: ApacheKafka | None) -> ApacheKafkaSystem:
    """The Kafka to be tested, over its SASL_PLAINTEXT listener when it is ours."""
    if own_apache_kafka is not None:
        return ApacheKafkaSystem(own_apache_kafka.address("SASL_PLAINTEXT"), own_apache_kafka)
    address = address_from_environment()
    assert address is not None
    return ApacheKafkaSystem(address, None)


@pytest.fixture
def own_kafka_system(kafka_system: ApacheKafkaSystem) -> ApacheKafkaSystem:
    """As `kafka_system`, for tests of listeners and users that only ours has."""
    if kafka_system.server is None:
        pytest.skip("KAFKA_TEST_BOOTSTRAP names a broker with other listeners and users")
    return kafka_system
