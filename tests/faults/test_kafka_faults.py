"""What Kafka can do to us, on librdkafka's mock cluster: injected errors, outages, revocations."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog
from confluent_kafka import Consumer, Producer, TopicPartition

from contract.broker_contract import CLOSE_S, JOIN_S, receive, settled, wait_for
from contract.kafka_system import MockKafkaSystem
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.brokers_for import broker_for
from vault_ml.demo.kafka_server import EmbeddedKafka
from vault_ml.errors import BrokerUnavailable, ConfigError, MessageTooLarge
from vault_ml.settings import load

PRODUCE, OFFSET_COMMIT, JOIN_GROUP = 0, 8, 11
TOO_LARGE, OFFSET_METADATA_TOO_LARGE, NOT_COORDINATOR = 10, 12, 16
UNKNOWN_MEMBER_ID, TOPIC_AUTHORIZATION_FAILED, GROUP_AUTHORIZATION_FAILED = 25, 29, 30
POLICY_VIOLATION, INVALID_RECORD = 44, 87


class Running:
    """A mock cluster of its own, with one queue, one producer, and consumers closed at the end."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.kafka = kafka
        self.system = MockKafkaSystem(kafka)
        self.queue = self.system.new_queue()
        self.producer: KafkaProducer = self.system.producer()
        self._consumers: list[KafkaConsumer] = []

    def consumer(self, prefetch: int = 500, window: int = 1000) -> KafkaConsumer:
        consumer = KafkaConsumer(
            self.system.options(),
            self.queue,
            log=self.system.log,
            prefetch=prefetch,
            window=window,
        )
        self._consumers.append(consumer)
        return consumer

    def publish(self, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            self.producer.publish(self.queue, Message(b"%d" % number), timeout_s=JOIN_S)

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close(CLOSE_S)
        self.producer.close(CLOSE_S)


@pytest.fixture
def running() -> Iterator[Running]:
    with EmbeddedKafka() as kafka:
        running = Running(kafka)
        yield running
        running.close()


# Commits.


def test_a_commit_refused_twice_is_sent_again(running: Running) -> None:
    running.publish(1)
    delivery = receive(running.consumer())
    running.kafka.push_errors(OFFSET_COMMIT, [NOT_COORDINATOR, NOT_COORDINATOR])
    delivery.ack().result(JOIN_S)


def test_a_member_that_was_forgotten_loses_nothing(running: Running) -> None:
    running.publish(3)
    consumer = running.consumer()
    held = [receive(consumer) for _ in range(3)]
    running.kafka.push_errors(OFFSET_COMMIT, [UNKNOWN_MEMBER_ID] * 3)
    futures = {delivery.message.body: delivery.ack() for delivery in held}
    open_ones = {body for body, future in futures.items() if not settled(future)}
    while open_ones:
        delivery = receive(consumer)
        assert delivery.message.body in open_ones
        if settled(delivery.ack()):
            open_ones.remove(delivery.message.body)


def test_a_broker_that_keeps_no_text_costs_the_counts_and_says_so(running: Running) -> None:
    running.publish(2)
    consumer = running.consumer()
    done = receive(consumer)
    running.kafka.push_errors(OFFSET_COMMIT, [OFFSET_METADATA_TOO_LARGE])
    receive(consumer).retry(0.0)
    wait_for(lambda: bool(running.system.log.events("attempts_not_kept")), "it was said")
    assert settled(done.ack())
    assert receive(consumer).attempt == 2  # while we live, we count


def test_the_finished_prefix_is_committed_on_close_without_waiting(running: Running) -> None:
    running.publish(3)
    consumer = running.consumer()
    held = [receive(consumer) for _ in range(3)]
    futures = [held[0].ack(), held[1].ack()]
    consumer.close(CLOSE_S)
    assert [settled(future) for future in futures] == [True, True]
    assert receive(running.consumer()).message.body == b"2"


def test_what_is_acked_behind_a_hole_is_lost_on_close(running: Running) -> None:
    running.publish(2)
    consumer = running.consumer()
    held = [receive(consumer) for _ in range(2)]
    behind = held[1].ack()
    consumer.close(CLOSE_S)
    assert not settled(behind)


# Revocation.


def test_a_revoked_partition_is_committed_and_its_rest_is_lost(running: Running) -> None:
    running.queue = running.system.new_queue(partitions=2)
    for number in range(40):
        running.producer.publish(
            running.queue, Message(b"%d" % number, b"key%d" % number), timeout_s=JOIN_S
        )
    first = running.consumer()
    held = [receive(first) for _ in range(40)]
    assert {delivery.id.split("@")[0][-3:] for delivery in held} == {"[0]", "[1]"}
    futures = {delivery.message.body: delivery.ack() for delivery in held[:20]}
    in_hand = {delivery.message.body: delivery for delivery in held[20:]}
    second = running.consumer()
    got = {receive(second).message.body}  # a partition has moved
    while (more := second.receive(1.0)) is not None:
        got.add(more.message.body)
    stays_away = {body for body, future in futures.items() if future.done() and settled(future)}
    assert not got & stays_away
    moved = {body for body in in_hand if body in got}
    assert moved
    for body in moved:
        assert not settled(in_hand[body].ack()), "two members cannot settle one message"
    kept = [delivery for body, delivery in in_hand.items() if body not in moved]
    for future in [delivery.ack() for delivery in kept]:
        assert settled(future)


def test_a_retry_of_a_revoked_delivery_is_not_received_again(running: Running) -> None:
    running.publish(1)
    first = running.consumer()
    delivery = receive(first)
    first.close(CLOSE_S)
    delivery.retry(0.0)
    again = receive(running.consumer())
    assert again.attempt == 1


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_partitions_begin_at_their_commit_or_at_their_oldest_event(
    running: Running, strategy: str
) -> None:
    running.queue = running.system.new_queue(partitions=4)
    options = replace(running.system.options(), extra={"partition.assignment.strategy": strategy})
    plain = Producer({"bootstrap.servers": running.kafka.bootstrap})
    for number, offset in itertools.product(range(4), range(6)):
        plain.produce(running.queue, b"%d@%d" % (number, offset), partition=number)
    assert plain.flush(10) == 0
    earlier = Consumer({"bootstrap.servers": running.kafka.bootstrap, "group.id": options.group})
    # Committed, committed beyond what is there (the topic was made anew), and not at all.
    places = [TopicPartition(running.queue, 0, 4), TopicPartition(running.queue, 1, 99)]
    earlier.commit(offsets=places, asynchronous=False)
    earlier.close()
    consumer = KafkaConsumer(options, running.queue, log=running.system.log)
    seen = [receive(consumer).message.body for _ in range(2 + 6 + 6 + 6)]
    assert consumer.receive(1.0) is None
    consumer.close(CLOSE_S)
    begin = {0: 4, 1: 0, 2: 0, 3: 0}
    wanted = [b"%d@%d" % (number, at) for number in begin for at in range(begin[number], 6)]
    assert sorted(seen) == sorted(wanted)


def test_a_partition_that_went_while_paused_is_read_when_it_comes_back(running: Running) -> None:
    running.queue = running.system.new_queue(partitions=4)
    first = running.consumer()
    wait_for(lambda: len(first._books.numbers()) == 4, "all partitions are the first one's")
    first.pause()
    wait_for(lambda: len(first._paused_numbers) == 4, "they are paused")
    second = running.consumer()
    wait_for(lambda: len(second._books.numbers()) == 2, "two have gone")
    first.resume()
    second.close(CLOSE_S)
    wait_for(lambda: len(first._books.numbers()) == 4, "they are back")
    for number in range(40):
        running.producer.publish(
            running.queue, Message(b"%d" % number, b"key%d" % number), timeout_s=JOIN_S
        )
    assert len({receive(first).message.body for _ in range(40)}) == 40


# Bounds.


def test_no_more_is_taken_than_the_prefetch(running: Running) -> None:
    running.publish(300)
    consumer = running.consumer(prefetch=10)
    wait_for(lambda: len(consumer._books._ready) >= 10, "the local queue is full")
    time.sleep(0.5)  # during which nothing may come; there is no event to wait for
    assert len(consumer._books._ready) <= 12
    got = [receive(consumer) for _ in range(300)]
    assert [int(delivery.message.body) for delivery in got] == list(range(300))


def test_the_worker_never_waits_for_a_partition_to_resume(running: Running) -> None:
    """Resuming takes librdkafka up to a second: with more than that at hand nobody waits."""
    chosen = load(
        {
            "QUEUE_NAME": running.queue,
            "KAFKA_BROKER": running.system.options().brokers,
            "KAFKA_OPTIONS": "session.timeout.ms=6000",
            "MESSAGE_VAULT_ORIGINS": "*",
        }
    )
    running.publish(60)
    consumer = broker_for(chosen, structlog.get_logger()).consumer(1)
    try:
        assert isinstance(consumer, KafkaConsumer)
        wait_for(lambda: len(consumer._books._ready) == 60, "all are at hand")
    finally:
        consumer.close(CLOSE_S)


def test_a_hole_stops_its_partition_when_the_window_is_full(running: Running) -> None:
    running.publish(100)
    consumer = running.consumer(window=20)
    hole = receive(consumer)
    behind = []
    while (delivery := consumer.receive(1.0)) is not None:
        behind.append(delivery.ack())
    assert 19 <= len(behind) <= 25
    assert not any(future.done() for future in behind)
    hole.ack()
    for future in behind:
        assert settled(future)
    for number in range(1 + len(behind), 100):
        later = receive(consumer)
        assert int(later.message.body) == number
        later.ack()


# Outages.


def test_an_outage_is_said_once_and_quietly(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    running.publish(1)
    consumer = running.consumer()
    acked = receive(consumer).ack()
    assert settled(acked)
    log = running.system.log
    running.kafka.set_down()
    wait_for(lambda: len(log.events("broker_unreachable")) == 2, "consumer and producer say it")
    with pytest.raises(BrokerUnavailable, match="connection refused"):
        consumer.ping(3.0)
    assert consumer.receive(0.5) is None
    assert len(log.events("broker_unreachable")) == 2
    running.kafka.set_up()
    wait_for(lambda: bool(log.events("broker_reachable")), "it is said to be back")
    running.publish(1, start=1)
    assert receive(consumer).message.body == b"1"
    assert capfd.readouterr().err == ""


def test_a_consumer_may_be_started_before_its_broker(running: Running) -> None:
    running.publish(1)
    running.kafka.set_down()
    consumer = running.consumer()
    assert consumer.receive(1.0) is None
    running.kafka.set_up()
    assert receive(consumer).message.body == b"0"


def test_closing_does_not_wait_for_a_broker_that_is_away(running: Running) -> None:
    running.publish(1)
    consumer = running.consumer()
    delivery = receive(consumer)
    running.kafka.set_down()
    wait_for(lambda: bool(running.system.log.events("broker_unreachable")), "it was noticed")
    acked = delivery.ack()
    started = time.monotonic()
    consumer.close(1.0)
    consumer.close(JOIN_S)  # whoever clears up after the worker does not wait once more
    assert time.monotonic() - started < 2.0
    assert len(running.system.log.events("broker_left_waiting")) == 1
    assert not settled(acked)
    running.kafka.set_up()


# Refusals.


def test_a_group_that_is_not_for_us_is_a_configuration_error(running: Running) -> None:
    running.publish(1)
    running.kafka.push_errors(JOIN_GROUP, [GROUP_AUTHORIZATION_FAILED] * 2)
    consumer = running.consumer()
    with pytest.raises(ConfigError, match="does not let our user join the consumer group"):
        consumer.receive(JOIN_S)
    assert len(running.system.log.events("queue_refused")) == 1
    # Somebody gives us the right: it goes on by itself.
    deadline = time.monotonic() + JOIN_S
    delivery = None
    while delivery is None and time.monotonic() < deadline:
        try:
            delivery = consumer.receive(0.5)
        except ConfigError:
            time.sleep(0.1)
    assert delivery is not None


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        (TOPIC_AUTHORIZATION_FAILED, ConfigError, "does not let our user use the topic"),
        (TOO_LARGE, MessageTooLarge, "refuses a message of 3 bytes"),
        (POLICY_VIOLATION, ConfigError, "refuses our message"),
        (INVALID_RECORD, ConfigError, "refuses our message"),
    ],
    ids=["may not write", "too large", "policy", "record"],
)
def test_a_refused_publish_says_why(
    running: Running, code: int, kind: type[Exception], sentence: str
) -> None:
    running.publish(1)
    running.kafka.push_errors(PRODUCE, [code])
    with pytest.raises(kind, match=sentence):
        running.producer.publish(running.queue, Message(b"abc"), timeout_s=JOIN_S)
    running.publish(1)


def test_a_closed_producer_publishes_nothing(running: Running) -> None:
    producer = running.system.producer()
    producer.close(CLOSE_S)
    with pytest.raises(BrokerUnavailable, match="closed"):
        producer.publish(running.queue, Message(b"1"), timeout_s=1)


# The embedded broker itself.


def test_the_embedded_broker_ends_with_its_parent() -> None:
    script = (
        "from vault_ml.demo.kafka_server import EmbeddedKafka\n"
        "import os\n"
        "print(EmbeddedKafka().pid, flush=True)\n"
        "os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    wait_for(lambda: not is_running(pid), "the child has ended", 10)


def is_running(pid: int) -> bool:
    """True unless the process is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_embedded_broker_says_what_it_cannot_do(running: Running) -> None:
    with pytest.raises(ConfigError, match="cannot create the topic"):
        running.kafka.create_topic(running.queue)
