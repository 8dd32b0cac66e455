"""Membership of a consumer group of Apache Kafka: long work, old members, kill -9."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connected.apache_kafka_system import QUIET, ApacheKafkaSystem
from contract.broker_contract import receive, settled, wait_for
from vault_ml.brokers.kafka import KafkaConsumer
from vault_ml.brokers.port import Message
from vault_ml.errors import ConfigError

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


POLL_INTERVAL_S = 3.0


def test_work_of_ten_times_the_poll_interval_is_settled_and_not_delivered_again(
    kafka_system: ApacheKafkaSystem,
) -> None:
    queue = kafka_system.new_queue()
    producer = kafka_system.producer()
    options = kafka_system.options(
        {
            "session.timeout.ms": f"{POLL_INTERVAL_S * 1000:.0f}",
            "heartbeat.interval.ms": "300",
            "max.poll.interval.ms": f"{POLL_INTERVAL_S * 1000:.0f}",
        }
    )
    worker = KafkaConsumer(options, queue, log=kafka_system.log)
    other = KafkaConsumer(options, queue, log=kafka_system.log)
    try:
        producer.publish(queue, Message(b"1"), timeout_s=20)
        members = [worker, other]
        holder = None
        deadline = time.monotonic() + 30
        while holder is None and time.monotonic() < deadline:
            holder = next((d for one in members if (d := one.receive(0.2)) is not None), None)
        assert holder is not None
        until = time.monotonic() + 10 * POLL_INTERVAL_S + 1
        while time.monotonic() < until:
            assert [one.receive(0.5) for one in members] == [None, None]
        assert settled(holder.ack())
        # The one that had nothing to do all the time has said why, once.
        (said,) = kafka_system.log.events("no_partition_left")
        assert "more members than the topic" in str(said["reason"])
    finally:
        worker.close(10)
        other.close(10)
        producer.close(10)


def test_a_member_too_many_says_so_until_another_leaves(kafka_system: ApacheKafkaSystem) -> None:
    kafka_system.extra = {"session.timeout.ms": "6000"}
    queue = kafka_system.new_queue(partitions=2)
    producer = kafka_system.producer()
    members = [kafka_system.consumer(queue) for _ in range(3)]
    try:
        wait_for(lambda: bool(kafka_system.log.events("no_partition_left")), "it was said")
        assert len(kafka_system.log.events("no_partition_left")) == 1
        for one in members[:2]:
            one.close(10)
        producer.publish(queue, Message(b"1"), timeout_s=20)
        producer.publish(queue, Message(b"2"), timeout_s=20)
        assert {receive(members[2]).message.body for _ in range(2)} == {b"1", b"2"}
    finally:
        for one in members:
            one.close(10)
        producer.close(10)


def test_a_group_of_eager_members_is_named_as_the_reason(
    kafka_system: ApacheKafkaSystem,
) -> None:
    queue = kafka_system.new_queue(partitions=2)
    eager = Consumer(
        {
            **kafka_system.options().connection(),
            "group.id": kafka_system.group,
            "partition.assignment.strategy": "range",
        },
        logger=logging.Logger("eager"),  # noqa: LOG001
    )
    eager.subscribe([queue])
    ours: KafkaConsumer | None = None
    try:
        wait_for(lambda: eager.poll(0.1) is None and bool(eager.assignment()), "the old one joined")
        ours = kafka_system.consumer(queue)
        with pytest.raises(ConfigError, match="strategy=range,roundrobin"):
            ours.receive(20)
        ours.close(10)
        # What the sentence says helps.
        options = kafka_system.options({"partition.assignment.strategy": "range,roundrobin"})
        ours = KafkaConsumer(options, queue, log=kafka_system.log)
        deadline = time.monotonic() + 30
        while not kafka_system.log.events("partitions_assigned"):
            eager.poll(0.05)
            assert ours.receive(0.05) is None
            assert time.monotonic() < deadline
    finally:
        if ours is not None:
            ours.close(10)
        eager.close()


def test_a_topic_made_anew_is_read_from_its_start(kafka_system: ApacheKafkaSystem) -> None:
    queue = kafka_system.new_queue()
    producer, consumer = kafka_system.producer(), kafka_system.consumer(queue)
    try:
        for number in range(5):
            producer.publish(queue, Message(b"old %d" % number), timeout_s=20)
        in_hand = [receive(consumer) for _ in range(5)]
        assert settled(in_hand[0].ack())
        admin = AdminClient(kafka_system.options().connection(), logger=QUIET)
        admin.delete_topics([queue])[queue].result(20)
        wait_for(lambda: queue not in admin.list_topics(timeout=5).topics, "it is gone")
        admin.create_topics([NewTopic(queue, 1)])[queue].result(20)
        producer.publish(queue, Message(b"new"), timeout_s=20)
        delivery = receive(consumer)
        assert delivery.message.body == b"new"
        assert settled(delivery.ack())
        assert not settled(in_hand[1].ack()), "it is of a log that is no more"
        assert len(kafka_system.log.events("partition_restarted")) == 1
    finally:
        consumer.close(10)
        producer.close(10)


def test_a_removed_topic_is_said_and_forgotten_when_it_is_back(
    kafka_system: ApacheKafkaSystem,
) -> None:
    queue = kafka_system.new_queue()
    options = kafka_system.options({"topic.metadata.refresh.interval.ms": "1000"})
    consumer = KafkaConsumer(options, queue, log=kafka_system.log)
    try:
        wait_for(lambda: bool(kafka_system.log.events("partitions_assigned")), "it joined")
        admin = AdminClient(kafka_system.options().connection(), logger=QUIET)
        admin.delete_topics([queue])[queue].result(20)
        with pytest.raises(ConfigError, match="was removed while we read it"):
            consumer.receive(30)
        assert len(kafka_system.log.events("queue_refused")) == 1
        admin.create_topics([NewTopic(queue, 3)])[queue].result(20)
        wait_for(lambda: is_quiet(consumer), "it was looked for and found")
    finally:
        consumer.close(10)


def is_quiet(consumer: KafkaConsumer) -> bool:
    try:
        return consumer.receive(0.1) is None
    except ConfigError:
        return False


WORKER = """
import sys, time
from contract.kafka_system import SaidLog
from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions
brokers, group, queue, username, password, mechanism, security, ca = sys.argv[1:]
extra = {"session.timeout.ms": "6000", **({"ssl.ca.location": ca} if ca else {})}
options = KafkaOptions(brokers, group, username, password, mechanism, security, extra)
consumer = KafkaConsumer(options, queue, log=SaidLog())
first = consumer.receive(60)
first.ack().result(30)
second = consumer.receive(60)
second.retry(0.0)
consumer.receive(60).ack()  # finished behind what is in hand
again = consumer.receive(60)
time.sleep(1.0)  # the commit of the attempt
print("in hand", again.attempt, flush=True)
time.sleep(600)
"""


def test_kill_9_between_work_and_ack_brings_it_back_with_its_count(
    kafka_system: ApacheKafkaSystem,
) -> None:
    queue = kafka_system.new_queue()
    producer = kafka_system.producer()
    for body in (b"done", b"in hand", b"behind"):
        producer.publish(queue, Message(body), timeout_s=20)
    producer.close(10)
    address = kafka_system.address
    worker = subprocess.Popen(
        [
            *(sys.executable, "-c", WORKER, address.bootstrap, kafka_system.group, queue),
            *(address.username, address.password, address.mechanism, address.security),
            address.ca_file,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with worker:
        assert worker.stdout is not None
        said = worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
    assert said == "in hand 2\n"
    consumer = kafka_system.consumer(queue)
    try:
        back = {d.message.body: d for d in (receive(consumer), receive(consumer))}
        assert set(back) == {b"in hand", b"behind"}
        assert back[b"in hand"].attempt == 2
        assert back[b"behind"].attempt == 1
        assert consumer.receive(1.0) is None
    finally:
        consumer.close(10)
