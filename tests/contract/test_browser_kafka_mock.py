"""Looking through topics of librdkafka's mock cluster; what only Kafka can get wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.broker_contract import CLOSE_S, JOIN_S, receive, settled
from contract.browser_contract import BrowserContract, BrowserSystem, bodies, browsing
from contract.kafka_system import MockKafkaSystem
from vault_ml.brokers.kafka import KafkaBrowser
from vault_ml.brokers.kafka.browser import SETTLED
from vault_ml.brokers.port import Message
from vault_ml.demo.kafka_server import EmbeddedKafka
from vault_ml.errors import VaultMLError


@pytest.fixture(scope="module")
def embedded_kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


@pytest.fixture
def kafka(embedded_kafka: EmbeddedKafka) -> MockKafkaSystem:
    return MockKafkaSystem(embedded_kafka)


class TestMockKafkaBrowser(BrowserContract):
    @pytest.fixture
    def system(self, kafka: MockKafkaSystem) -> BrowserSystem:
        return kafka


def filled(kafka: MockKafkaSystem, queue: str, messages: int) -> None:
    producer = kafka.producer()
    for number in range(messages):
        producer.publish(queue, Message(b"%d" % number, b"%d" % number), timeout_s=JOIN_S)
    producer.close(CLOSE_S)


def test_letters_of_many_partitions_are_settled_one_by_one(kafka: MockKafkaSystem) -> None:
    queue = kafka.new_queue(partitions=5)
    filled(kafka, queue, 40)
    with browsing(kafka, queue) as found:
        assert {d.message.body for d in found} == {b"%d" % n for n in range(40)}
        assert len({d.id.partition("@")[0] for d in found}) > 1
        futures = [d.ack() for d in found if int(d.message.body) % 2]
        assert all(settled(future) for future in futures)
    assert {int(body) for body in bodies(kafka, queue)} == set(range(0, 40, 2))


def test_two_people_at_once_settle_what_either_settled(kafka: MockKafkaSystem) -> None:
    queue = kafka.new_queue()
    filled(kafka, queue, 6)
    with browsing(kafka, queue) as mine, browsing(kafka, queue) as yours:
        assert len(mine) == len(yours) == 6
        for delivery in (mine[0], mine[2], yours[2], yours[5]):
            assert settled(delivery.ack())
    assert bodies(kafka, queue) == [b"1", b"3", b"4"]


def test_what_comes_while_we_look_is_for_the_next_look(kafka: MockKafkaSystem) -> None:
    queue = kafka.new_queue()
    filled(kafka, queue, 3)
    browser = kafka.browser(queue)
    found = browser.deliveries()
    first = next(found)
    filled(kafka, queue, 2)
    assert [first.message.body] + [d.message.body for d in found] == [b"0", b"1", b"2"]
    browser.close(CLOSE_S)
    assert len(bodies(kafka, queue)) == 5


def test_a_mark_of_another_letter_settles_nothing(kafka: MockKafkaSystem) -> None:
    """In a mirrored topic offsets are others: a mark fits only the letter it was made for."""
    queue = kafka.new_queue()
    filled(kafka, queue, 2)
    producer = kafka.producer()
    producer.publish(queue, Message(b"", None, {SETTLED: "0@0 000000000000"}), timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    assert bodies(kafka, queue) == [b"0", b"1"]


def test_an_empty_letter_is_no_mark(kafka: MockKafkaSystem) -> None:
    queue = kafka.new_queue()
    producer = kafka.producer()
    producer.publish(queue, Message(b"", None, {"vault-ml-stage": "parse"}), timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    assert bodies(kafka, queue) == [b""]
    with browsing(kafka, queue) as (delivery,):
        assert settled(delivery.ack())
    assert bodies(kafka, queue) == []


def test_looking_joins_no_group_and_commits_nothing(kafka: MockKafkaSystem) -> None:
    queue = kafka.new_queue()
    filled(kafka, queue, 2)
    assert len(bodies(kafka, queue)) == 2
    consumer = kafka.consumer(queue)
    assert receive(consumer).message.body == b"0"
    consumer.close(CLOSE_S)


def test_a_letter_whose_mark_is_not_confirmed_stays(kafka: MockKafkaSystem) -> None:
    queue = kafka.new_queue()
    filled(kafka, queue, 1)
    browser = KafkaBrowser(kafka.options(), queue, log=kafka.log, timeout_s=1.0)
    (delivery,) = list(browser.deliveries())
    kafka.set_down()
    try:
        with pytest.raises(VaultMLError):
            delivery.ack().result(20)
    finally:
        kafka.set_up()
        browser.close(CLOSE_S)
