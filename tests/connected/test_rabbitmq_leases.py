"""How long and how often RabbitMQ lets us have an event: kill -9, heartbeats, its ack timeout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from connected.rabbitmq_system import RabbitSystem
from contract.broker_contract import CLOSE_S, JOIN_S, Tester, receive, settled, wait_for
from vault_ml.brokers.port import Delivery, Message
from vault_ml.brokers.rabbitmq import RabbitConsumer
from vault_ml.brokers.rabbitmq.limits import Limits

# rabbitmqctl alone may take half a minute on a busy machine.
pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


@pytest.fixture
def tester(rabbit_system: RabbitSystem) -> Iterator[Tester]:
    made = Tester(rabbit_system)
    yield made
    made.close()


def with_limits(
    tester: Tester, queue: str, limits: Limits, *, prefetch: int = 100
) -> RabbitConsumer:
    """A consumer that is closed with the tester."""
    system = tester.system
    assert isinstance(system, RabbitSystem)
    consumer = RabbitConsumer(
        system.options(), queue, log=system.log, limits=limits, prefetch=prefetch
    )
    tester._opened.append(consumer)
    return consumer


WORKER = """
import sys, time
from contract.said_log import SaidLog
from vault_ml.brokers.rabbitmq import RabbitConsumer, RabbitOptions
host, username, password, vhost, queue = sys.argv[1:]
options = RabbitOptions(host, username, password, vhost)
consumer = RabbitConsumer(options, queue, log=SaidLog())
consumer.receive(30).ack().result(30)
consumer.receive(30).retry(0.0)
bodies = {consumer.receive(30).message.body for _ in range(2)}
print(*sorted(body.decode() for body in bodies), flush=True)
time.sleep(600)
"""


def test_kill_9_of_a_worker_brings_its_events_back_at_once_with_their_counts(
    rabbit_system: RabbitSystem, tester: Tester
) -> None:
    queue = rabbit_system.new_queue()
    tester.publish(queue, b"done", b"tried", b"new")
    address = rabbit_system.address
    worker = subprocess.Popen(
        [
            *(sys.executable, "-c", WORKER, address.host, address.username, address.password),
            *(address.vhost, queue),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with worker:
        assert worker.stdout is not None
        said = worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
    assert said == "new tried\n"
    killed_at = time.monotonic()
    consumer = tester.consumer(queue)
    back = {d.message.body: d.attempt for d in (receive(consumer), receive(consumer))}
    assert time.monotonic() - killed_at < 5
    assert back == {b"tried": 2, b"new": 1}
    assert consumer.receive(0.5) is None


def test_heartbeats_go_on_during_work_ten_times_as_long(rabbit_system: RabbitSystem) -> None:
    queue = rabbit_system.new_queue()
    producer = rabbit_system.producer(heartbeat_s=2)
    consumer = rabbit_system.consumer(queue, heartbeat_s=2)
    try:
        producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        delivery = receive(consumer)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            assert consumer.receive(0.5) is None
        assert settled(delivery.ack())
        producer.publish(queue, Message(b"2"), timeout_s=1)
        assert rabbit_system.log.events("broker_unreachable") == []
    finally:
        consumer.close(CLOSE_S)
        producer.close(CLOSE_S)


def test_a_restart_of_the_server_begins_no_work_twice(own_rabbit_system: RabbitSystem) -> None:
    tester = Tester(own_rabbit_system)
    try:
        queue = own_rabbit_system.new_queue()
        tester.publish(queue, b"in hand", b"acked", b"in hand", b"waits")
        consumer = tester.consumer(queue)
        held = {}
        for number in range(4):
            held[number] = receive(consumer)
        own_rabbit_system.set_down()
        acked = held[1].ack()
        held[3].retry(1.0)
        own_rabbit_system.set_up()
        acked.result(JOIN_S)
        again = receive(consumer)
        assert (again.message.body, again.attempt) == (b"waits", 2)
        assert consumer.receive(1.0) is None, "what is in hand was handed out a second time"
        assert all(settled(one.ack()) for one in (held[0], held[2], again))
        consumer.close(CLOSE_S)
        assert own_rabbit_system.waiting_in(queue) == 0
        for role in ("consumer", "producer"):
            said = [
                fields
                for fields in own_rabbit_system.log.events("broker_unreachable")
                if fields["role"] == role
            ]
            assert 1 <= len(said) <= 3, said  # two producers; flapping while it boots
    finally:
        tester.close()


def test_a_lease_that_is_lost_for_good_loses_the_settlement(
    rabbit_system: RabbitSystem, tester: Tester
) -> None:
    queue = rabbit_system.new_queue()
    tester.publish(queue, b"1")
    first = tester.consumer(queue)
    delivery = receive(first)
    first.close(CLOSE_S)
    assert not settled(delivery.ack())
    assert receive(tester.consumer(queue)).message.body == b"1"


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_old_leases_are_renewed_before_the_broker_takes_them(
    rabbit_system: RabbitSystem, tester: Tester, kind: str
) -> None:
    queue = rabbit_system.new_name()
    rabbit_system.declare(queue, {"x-queue-type": kind})
    tester.publish(queue, b"worked on", b"waits", b"ready")
    consumer = with_limits(tester, queue, Limits(ack_timeout_s=2.0, work_s=0.5), prefetch=3)
    in_hand, waits = receive(consumer), receive(consumer)
    waits.retry(3600.0, burn_attempt=False)
    wait_for(lambda: len(rabbit_system.log.events("leases_renewed")) >= 5, "renewed")
    # One is still being worked on, one waits, and one was in nobody's hands all the time.
    assert receive(consumer).message.body == b"ready"
    assert consumer.receive(0.5) is None
    assert settled(in_hand.ack())
    consumer.close(CLOSE_S)
    other = tester.consumer(queue)
    assert sorted(receive(other).message.body for _ in range(2)) == [b"ready", b"waits"]
    assert other.receive(0.5) is None


def test_leases_are_renewed_by_copies_where_the_delivery_limit_is_near(
    rabbit_system: RabbitSystem, tester: Tester
) -> None:
    queue, dead = rabbit_system.new_queue(), rabbit_system.new_name()
    with rabbit_system.connect() as connection:
        connection.channel().queue_delete(queue)
    rabbit_system.declare(dead)
    rabbit_system.declare(
        queue,
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": 3,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        },
    )
    tester.publish(queue, b"worked on", b"waits", b"ready")
    limits = Limits(ack_timeout_s=1.0, work_s=0.2, delivery_limit=3.0)
    consumer = with_limits(tester, queue, limits, prefetch=3)
    in_hand, waits = receive(consumer), receive(consumer)
    waits.retry(3600.0)
    wait_for(lambda: len(rabbit_system.log.events("leases_renewed")) >= 12, "renewed")
    assert receive(consumer).message.body == b"ready"
    assert consumer.receive(0.3) is None
    assert settled(in_hand.ack())
    consumer.close(CLOSE_S)
    assert rabbit_system.waiting_in(dead) == 0
    other = tester.consumer(queue)
    back = {d.message.body: d.attempt for d in (receive(other),)}
    assert back == {b"ready": 1}, "the other one waits an hour, for its second try"
    assert other.receive(0.5) is None


def test_an_ack_timeout_that_nobody_told_us_is_met_and_heeded(
    own_rabbit_system: RabbitSystem,
) -> None:
    server = own_rabbit_system.server
    assert server is not None
    server.control("eval", "application:set_env(rabbit, consumer_timeout, 3000).")
    tester = Tester(own_rabbit_system)
    try:
        queue = own_rabbit_system.new_queue()
        tester.publish(queue, b"1")
        consumer = tester.consumer(queue)
        in_hand = receive(consumer)
        wait_for(lambda: bool(own_rabbit_system.log.events("ack_timeout_met")), "it was met")
        wait_for(lambda: len(own_rabbit_system.log.events("leases_renewed")) >= 2, "it is heeded")
        assert len(own_rabbit_system.log.events("ack_timeout_met")) == 1
        assert consumer.receive(0.5) is None
        assert settled(in_hand.ack())
        consumer.close(CLOSE_S)
        assert own_rabbit_system.waiting_in(queue) == 0
    finally:
        server.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        tester.close()


def test_many_waiting_events_hold_up_no_others(rabbit_system: RabbitSystem, tester: Tester) -> None:
    queue = rabbit_system.new_queue()
    tester.publish(queue, *(b"%d" % number for number in range(60)))
    consumer = with_limits(tester, queue, Limits(), prefetch=2)
    for number in range(50):
        receive(consumer).retry(300.0, burn_attempt=bool(number % 2))
    fresh = [receive(consumer) for _ in range(2)]
    assert {d.attempt for d in fresh} == {1}
    # And the rest is left to others, but for a margin.
    wait_for(lambda: rabbit_system.waiting_in(queue) >= 0, "the broker answers")
    other = tester.consumer(queue)
    rest: list[Delivery] = []
    while len(rest) < 8 and (more := (other.receive(0.2) or consumer.receive(0.2))) is not None:
        rest.append(more)
    assert len(rest) == 8


def test_an_event_that_kills_its_workers_ends_in_the_dead_letter_queue(
    rabbit_system: RabbitSystem, tester: Tester
) -> None:
    queue = rabbit_system.new_name()
    dead = f"{queue}.dlq"
    ours = rabbit_system.consumer(queue, dead_letter=dead, delivery_limit=2)
    assert ours.receive(1.0) is None
    ours.close(CLOSE_S)
    created = [fields["queue"] for fields in rabbit_system.log.events("queue_created")]
    assert created == [dead, queue]
    tester.publish(queue, b"1")
    for _ in range(3):
        with rabbit_system.connect() as connection:
            channel = connection.channel()
            wait_for(lambda: channel.basic_get(queue)[0] is not None, "delivered")  # noqa: B023
            # Gone without an ack.
    wait_for(lambda: rabbit_system.waiting_in(dead) == 1, "dead-lettered")
    letter = receive(tester.consumer(dead))
    assert letter.message == Message(b"1")
