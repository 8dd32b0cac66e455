"""Real brokers for the `connected` tests: started once per session, or named by the environment.

Most of these tests wait for a broker, so the brokers stand side by side: with
`-n 4 --dist loadgroup` every lane runs in a process of its own, with a server of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from connected import start_rabbitmq
from connected.apache_kafka_system import ApacheKafkaSystem
from connected.gate import Gate
from connected.rabbitmq_system import RabbitSystem
from connected.requirement import skip_or_fail
from connected.sqs_system import REGION, SqsSystem
from connected.start_kafka import ApacheKafka, address_from_environment, why_not
from connected.start_ministack import ACCESS_KEY, SECRET_KEY, Ministack, endpoint_from_environment
from connected.start_ministack import why_not as why_no_ministack
from connected.start_redis import Redis, client, started
from connected.start_redis import address_from_environment as redis_from_environment
from vault_ml.stores.address import RedisServer

# The first word that the name of a test's file or its parameter contains -> its lane. The longest
# of Kafka's files has a lane, and a server, of its own.
LANES = {
    "test_broker_apache_kafka": "kafka contract",
    "rabbitmq": "rabbitmq",
    "sqs": "sqs",
    "redis": "redis",
}

AWS_VARIABLES = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist says nothing of its types
    """Gives every lane to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes | None:
    """As xdist asks for it, for `--dist loadgroup`."""
    return Lanes(config, log) if config.getvalue("dist") == "loadgroup" else None


def lane_of(nodeid: str) -> str:
    """The lane of a test.

    >>> lane_of("tests/connected/test_outages.py::test_nothing_is_lost[SQS]")
    'sqs'
    """
    file, _, name = nodeid.rpartition("/")[2].partition("::")
    _, _, parameter = name.partition("[")
    told = f"{file} {parameter}".lower()
    return next((lane for word, lane in LANES.items() if word in told), "kafka")


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


@pytest.fixture(scope="session")
def ministack() -> Iterator[Ministack | None]:
    """ministack; None when the environment names another service."""
    if endpoint_from_environment() is not None:
        yield None
        return
    if reason := why_no_ministack():
        skip_or_fail("sqs", reason)
    server = Ministack()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def sqs_system(
    ministack: Ministack | None, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SqsSystem]:
    """The SQS to be tested, with standard queues."""
    if ministack is None:
        for name, text in AWS_VARIABLES.items():
            monkeypatch.setenv(name, text)
        endpoint = endpoint_from_environment()
        assert endpoint is not None
        system = SqsSystem(endpoint, None)
        yield system
        system.remove_queues()
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    gate = Gate(ministack.port)
    try:
        yield SqsSystem(f"http://{gate.address}", gate)
    finally:
        gate.shut()


@pytest.fixture
def sqs_fifo_system(sqs_system: SqsSystem) -> SqsSystem:
    """The same, with FIFO queues."""
    sqs_system.ending = ".fifo"
    return sqs_system


@pytest.fixture(scope="session")
def own_rabbitmq() -> Iterator[start_rabbitmq.RabbitMQ | None]:
    """RabbitMQ from Debian's package; None when the environment names another."""
    if start_rabbitmq.address_from_environment() is not None:
        yield None
        return
    if reason := start_rabbitmq.why_not():
        skip_or_fail("rabbitmq", reason)
    server = start_rabbitmq.RabbitMQ()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def rabbit_system(own_rabbitmq: start_rabbitmq.RabbitMQ | None) -> RabbitSystem:
    """The RabbitMQ to be tested."""
    if own_rabbitmq is not None:
        return RabbitSystem(own_rabbitmq.address, own_rabbitmq)
    address = start_rabbitmq.address_from_environment()
    assert address is not None
    return RabbitSystem(address, None)


@pytest.fixture
def own_rabbit_system(rabbit_system: RabbitSystem) -> RabbitSystem:
    """As `rabbit_system`, for tests that kill it, configure it or use users that only ours has."""
    if rabbit_system.server is None:
        pytest.skip("RABBITMQ_TEST_HOST names a broker that is not ours to change")
    return rabbit_system


@pytest.fixture(scope="session")
def own_redis() -> Iterator[Redis | None]:
    """None when the environment names another."""
    if redis_from_environment() is not None:
        yield None
    else:
        yield from started()


@pytest.fixture
def redis_server(own_redis: Redis | None) -> RedisServer:
    """Where an empty database is."""
    address = own_redis.server if own_redis is not None else redis_from_environment()
    assert address is not None
    client(address).flushdb()
    return address


@pytest.fixture
def redis(own_redis: Redis | None, redis_server: RedisServer) -> Redis:
    """Ours, which may be killed."""
    if own_redis is None:
        pytest.skip("REDIS_TEST_URL names a server that is not ours to stop")
    return own_redis
