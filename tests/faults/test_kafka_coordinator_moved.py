"""A broker that coordinates our group and is gone, on librdkafka's mock cluster of two brokers.

librdkafka waits for such a broker for ever when offsets are sent to a transaction, and some of its
versions never ask for another one when offsets are looked up (its issues 5456 and 5511). Ours must
do neither.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from contract.broker_contract import JOIN_S, wait_for
from contract.said_log import SaidLog
from vault_ml.brokers.kafka.cluster import Cluster
from vault_ml.brokers.kafka.connection import Connection
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.kafka.transactional import TransactionalProducer, TransactionInDoubt
from vault_ml.brokers.port import Message
from vault_ml.demo.kafka_server import load_librdkafka

GROUP, QUEUE, TARGET, ID = "workers", "queue", "results", "workers-1"
STAYS, GOES = 1, 2  # the brokers: for everything, and for the group
_PTR, _STR, _I32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32


class TwoBrokers:
    """A cluster whose second broker does nothing but coordinate the group, and may go."""

    def __init__(self) -> None:
        self._lib = load_librdkafka()
        for name, arguments in {
            "rd_kafka_mock_coordinator_set": [_PTR, _STR, _STR, _I32],
            "rd_kafka_mock_partition_set_leader": [_PTR, _STR, _I32, _I32],
            "rd_kafka_mock_broker_set_down": [_PTR, _I32],
            "rd_kafka_mock_cluster_destroy": [_PTR],
            "rd_kafka_destroy": [_PTR],
        }.items():
            getattr(self._lib, name).argtypes = arguments
        text = ctypes.create_string_buffer(512)
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"0", text, len(text))
        self._handle = self._lib.rd_kafka_new(0, conf, text, len(text))
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._handle, 2)
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        addresses: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self.bootstrap = addresses.partition(",")[0]
        for topic in (QUEUE, TARGET):
            self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1)
            self._lib.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), 0, STAYS)
        self._coordinate(b"transaction", ID, STAYS)
        self._coordinate(b"group", GROUP, GOES)

    def group_is_away(self) -> None:
        """The group's broker refuses."""
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, GOES)

    def group_moves(self) -> None:
        """The other broker takes it."""
        self._coordinate(b"group", GROUP, STAYS)

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)

    def _coordinate(self, kind: bytes, name: str, broker: int) -> None:
        self._lib.rd_kafka_mock_coordinator_set(self._cluster, kind, name.encode(), broker)


@pytest.fixture
def brokers() -> Iterator[TwoBrokers]:
    brokers = TwoBrokers()
    yield brokers
    brokers.close()


@pytest.fixture
def options(brokers: TwoBrokers) -> KafkaOptions:
    return KafkaOptions(brokers=brokers.bootstrap, group=GROUP, transactions=True)


@pytest.fixture
def connection(options: KafkaOptions) -> Connection:
    return Connection(options, SaidLog(), "test")


def proof_of_membership(options: KafkaOptions) -> object:
    consumer = Consumer(options.consumer())
    try:
        consumer.subscribe([QUEUE])

        def has_joined() -> bool:
            consumer.poll(0.1)
            return bool(consumer.assignment())

        wait_for(has_joined, "it is in the group")
        return consumer.consumer_group_metadata()
    finally:
        consumer.close()


def test_offsets_for_a_coordinator_that_is_gone_come_back_in_doubt(
    brokers: TwoBrokers, options: KafkaOptions, connection: Connection
) -> None:
    membership = proof_of_membership(options)
    producer = TransactionalProducer(options, ID, connection, SaidLog())
    producer.begin(JOIN_S)
    assert producer.send([(TARGET, Message(b"first"))]) == []
    producer.commit([TopicPartition(QUEUE, 0, 1)], membership)  # the way to the broker is known

    assert producer.send([(TARGET, Message(b"second"))]) == []
    brokers.group_is_away()
    started = time.monotonic()
    with pytest.raises(TransactionInDoubt):
        producer.commit([TopicPartition(QUEUE, 0, 2)], membership)
    producer.close()
    assert time.monotonic() - started < JOIN_S

    brokers.group_moves()
    successor = TransactionalProducer(options, ID, connection, SaidLog())
    successor.begin(JOIN_S)
    assert successor.send([(TARGET, Message(b"second"))]) == []
    successor.commit([TopicPartition(QUEUE, 0, 2)], membership)
    successor.close()


def test_committed_offsets_are_asked_of_the_broker_that_has_them_now(
    brokers: TwoBrokers, options: KafkaOptions, connection: Connection
) -> None:
    cluster = Cluster(options, connection, SaidLog())
    before = cluster.committed(GROUP, QUEUE, [0], JOIN_S)
    brokers.group_is_away()
    brokers.group_moves()
    cluster.ping(JOIN_S)
    assert cluster.committed(GROUP, QUEUE, [0], JOIN_S) == before
