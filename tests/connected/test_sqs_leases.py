"""What SQS alone does: hides, counts, moves away, keeps groups in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connected.sqs_system import SqsSystem
from contract.broker_contract import CLOSE_S, JOIN_S, receive, settled, wait_for
from vault_ml.brokers.port import Message
from vault_ml.brokers.sqs import SqsConsumer
from vault_ml.errors import ConfigError

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

VISIBILITY_S = 5  # an extension may be late by more than 3 s on a busy machine

both_kinds = pytest.mark.parametrize("ending", ["", ".fifo"], ids=["standard", "fifo"])


def publish(system: SqsSystem, queue: str, *bodies: bytes, key: bytes | None = None) -> None:
    producer = system.producer()
    for body in bodies:
        producer.publish(queue, Message(body, key), timeout_s=JOIN_S)
    producer.close(CLOSE_S)


def test_work_of_ten_times_the_visibility_is_not_delivered_twice(sqs_system: SqsSystem) -> None:
    queues = [sqs_system.new_queue()]
    sqs_system.ending = ".fifo"
    queues.append(sqs_system.new_queue())
    consumers, others, deliveries = [], [], []
    for queue in queues:
        publish(sqs_system, queue, b"1", key=b"cam")
        consumers.append(sqs_system.consumer(queue, visibility_s=VISIBILITY_S))
        deliveries.append(receive(consumers[-1]))
        others.append(sqs_system.consumer(queue, visibility_s=VISIBILITY_S))
    until = time.monotonic() + 10 * VISIBILITY_S + 1
    while time.monotonic() < until:
        for queue, other in zip(queues, others, strict=True):
            assert other.receive(0.5) is None
            assert sqs_system.hidden(queue) == 1
    for queue, delivery in zip(queues, deliveries, strict=True):
        assert settled(delivery.ack())
        assert sqs_system.hidden(queue) == 0
    for other in others:
        assert other.receive(VISIBILITY_S + 0.5) is None
    assert not sqs_system.log.events("lease_lost")
    for one in (*consumers, *others):
        one.close(CLOSE_S)


@both_kinds
def test_what_a_killed_worker_held_comes_again_when_its_time_is_over(
    sqs_system: SqsSystem, ending: str
) -> None:
    sqs_system.ending = ending
    queue = sqs_system.new_queue()
    publish(sqs_system, queue, b"1", key=b"cam")
    script = Path(__file__).with_name("sqs_child.py")
    variables = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}
    child = subprocess.Popen(
        [sys.executable, str(script), sqs_system.endpoint, queue, "4"],
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **variables},
    )
    assert child.stdout is not None
    try:
        name = child.stdout.readline().decode().strip()
        time.sleep(5)  # longer than the visibility: it is extended
        assert sqs_system.hidden(queue) == 1
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    killed_at = time.monotonic()
    consumer = sqs_system.consumer(queue)
    again = receive(consumer)
    assert time.monotonic() - killed_at < 6
    assert (again.id, again.message.body, again.attempt) == (name, b"1", 2)
    assert settled(again.ack())
    consumer.close(CLOSE_S)


@both_kinds
def test_what_was_not_settled_is_there_for_others_at_once(
    sqs_system: SqsSystem, ending: str
) -> None:
    sqs_system.ending = ending
    queue = sqs_system.new_queue()
    publish(sqs_system, queue, b"1", b"2", b"3")
    consumer = sqs_system.consumer(queue, visibility_s=600)
    for _ in range(3):
        receive(consumer)
    started = time.monotonic()
    consumer.close(CLOSE_S)
    assert time.monotonic() - started < 2.5
    assert sqs_system.hidden(queue) == 0
    assert {sqs_system.take(queue)["Body"] for _ in range(3)} == {"1", "2", "3"}


def test_an_idle_consumer_leaves_within_a_second(sqs_system: SqsSystem) -> None:
    consumer = sqs_system.consumer(sqs_system.new_queue())
    assert consumer.receive(1.0) is None  # a request waits at SQS now
    started = time.monotonic()
    consumer.close(CLOSE_S)
    assert time.monotonic() - started < 1.0


@both_kinds
def test_a_receipt_that_was_outlived_is_a_lost_settlement(
    sqs_system: SqsSystem, ending: str
) -> None:
    """The consumer cannot reach SQS for longer than its message is hidden."""
    if sqs_system.gate is None:
        pytest.skip("this service is not ours to hide")
    sqs_system.ending = ending
    queue = sqs_system.new_queue()
    publish(sqs_system, queue, b"1")
    consumer = sqs_system.consumer(queue, visibility_s=2)
    delivery = receive(consumer)
    sqs_system.set_down()
    time.sleep(2.5)  # the visibility
    sqs_system.set_up()
    taken = sqs_system.take(queue)  # by another consumer
    assert not settled(delivery.ack())
    assert sqs_system.hidden(queue) == 1  # that other one has it still
    assert taken["Attributes"]["ApproximateReceiveCount"] == "2"
    consumer.close(CLOSE_S)


def test_a_group_waits_for_its_first_and_keeps_its_order_after_a_failure(
    sqs_fifo_system: SqsSystem,
) -> None:
    system = sqs_fifo_system
    queue = system.new_queue()
    publish(system, queue, b"a1", b"a2", b"a3", key=b"a")
    publish(system, queue, b"b1", key=b"b")
    consumer = system.consumer(queue)
    held = {(one := receive(consumer)).message.body: one for _ in range(2)}
    assert held.keys() == {b"a1", b"b1"}
    assert consumer.receive(1.5) is None  # a2 waits for a1
    held[b"a1"].retry(2.0)
    assert consumer.receive(1.0) is None  # also while it waits for its next try
    order = []
    for _ in range(3):
        delivery = receive(consumer)
        order.append((delivery.message.body, delivery.attempt))
        assert settled(delivery.ack())
    assert order == [(b"a1", 2), (b"a2", 1), (b"a3", 1)]
    consumer.close(CLOSE_S)


def test_a_group_keeps_its_order_over_the_end_of_a_consumer(sqs_fifo_system: SqsSystem) -> None:
    system = sqs_fifo_system
    queue = system.new_queue()
    publish(system, queue, b"1", b"2", b"3", key=b"a")
    first = system.consumer(queue)
    assert receive(first).message.body == b"1"
    first.close(CLOSE_S)
    second = system.consumer(queue)
    for body in (b"1", b"2", b"3"):
        delivery = receive(second)
        assert delivery.message.body == body
        assert settled(delivery.ack())
    second.close(CLOSE_S)


def test_the_same_result_twice_within_minutes_arrives_once_on_fifo(
    sqs_fifo_system: SqsSystem,
) -> None:
    system = sqs_fifo_system
    queue = system.new_queue()
    producer = system.producer()
    for run in ("r1", "r1", "r2"):
        message = Message(b"{}", b"cam", {"vault-ml-run-id": run})
        producer.publish(queue, message, timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    consumer = system.consumer(queue)
    runs = []
    while (delivery := consumer.receive(3)) is not None:
        runs.append(delivery.message.headers["vault-ml-run-id"])
        assert settled(delivery.ack())
    assert runs == ["r1", "r2"]
    consumer.close(CLOSE_S)


@both_kinds
def test_a_redrive_policy_takes_its_course_and_was_warned_of(
    sqs_system: SqsSystem, ending: str
) -> None:
    sqs_system.ending = ending
    queue, swept = sqs_system.new_queue(), sqs_system.new_queue()
    client = sqs_system.client()
    arn = client.get_queue_attributes(QueueUrl=sqs_system.url(swept), AttributeNames=["QueueArn"])[
        "Attributes"
    ]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    client.set_queue_attributes(
        QueueUrl=sqs_system.url(queue), Attributes={"RedrivePolicy": policy}
    )
    publish(sqs_system, queue, b"1")
    consumer = SqsConsumer(sqs_system.options(), queue, log=sqs_system.log, max_attempts=5)
    for attempt in (1, 2):
        delivery = receive(consumer)
        assert delivery.attempt == attempt
        delivery.retry(0.0)
    assert consumer.receive(2.0) is None
    assert sqs_system.take(swept)["Body"] == "1"
    (warning,) = sqs_system.log.events("redrive_policy_too_short")
    assert warning["max_receive_count"] == 2
    assert swept in str(warning["reason"])
    consumer.close(CLOSE_S)


def test_an_event_of_somebody_else_is_taken_as_it_is(sqs_system: SqsSystem) -> None:
    queue = sqs_system.new_queue()
    body = '{"a": "é漢🎥\r\n"}'
    sqs_system.client().send_message(
        QueueUrl=sqs_system.url(queue),
        MessageBody=body,
        MessageAttributes={
            "trace": {"DataType": "String", "StringValue": "t-1"},
            "number": {"DataType": "Number", "StringValue": "7"},
            "raw": {"DataType": "Binary", "BinaryValue": b"\x00"},
        },
    )
    consumer = sqs_system.consumer(queue)
    message = receive(consumer).message
    assert (message.body, message.key) == (body.encode(), None)
    assert dict(message.headers) == {"trace": "t-1", "number": "7"}
    consumer.close(CLOSE_S)


def test_a_result_is_plain_text_with_attributes_for_somebody_else(sqs_system: SqsSystem) -> None:
    queue = sqs_system.new_queue()
    producer = sqs_system.producer()
    message = Message('{"a": "é"}'.encode(), b"cam", {"vault-ml-run-id": "r1"})
    producer.publish(queue, message, timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    taken = sqs_system.take(queue)
    assert taken["Body"] == '{"a": "é"}'
    assert taken["MessageAttributes"]["vault-ml-run-id"]["StringValue"] == "r1"


def test_a_queue_is_reached_by_its_url_without_any_other_setting(sqs_system: SqsSystem) -> None:
    queue = sqs_system.new_queue()
    url = sqs_system.url(queue)
    producer = sqs_system.producer()
    producer.publish(url, Message(b"1"), timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    consumer = sqs_system.consumer(url, endpoint_url="")
    delivery = receive(consumer)
    assert delivery.id.startswith(f"{queue}@")
    assert settled(delivery.ack())
    consumer.close(CLOSE_S)


@both_kinds
def test_missing_queues_are_made_of_the_right_kind(sqs_system: SqsSystem, ending: str) -> None:
    sqs_system.ending = ending
    source, target = sqs_system.name(), sqs_system.name()
    consumer = sqs_system.consumer(source)
    producer = sqs_system.producer()
    producer.publish(source, Message(b"1", b"cam"), timeout_s=JOIN_S)
    producer.publish(target, Message(b"2", b"cam"), timeout_s=JOIN_S)
    assert settled(receive(consumer).ack())
    attributes = sqs_system.client().get_queue_attributes(
        QueueUrl=sqs_system.url(target), AttributeNames=["All"]
    )["Attributes"]
    assert attributes.get("FifoQueue", "false") == ("true" if ending else "false")
    assert attributes["MessageRetentionPeriod"] == "1209600"
    consumer.close(CLOSE_S)
    producer.close(CLOSE_S)


def test_a_queue_that_is_removed_under_us_is_made_again(sqs_system: SqsSystem) -> None:
    queue = sqs_system.new_queue()
    consumer = sqs_system.consumer(queue)
    publish(sqs_system, queue, b"1")
    assert settled(receive(consumer).ack())
    sqs_system.client().delete_queue(QueueUrl=sqs_system.url(queue))
    wait_for(lambda: _receives(consumer, sqs_system, queue), "a message comes again")
    consumer.close(CLOSE_S)


def _receives(consumer: SqsConsumer, system: SqsSystem, queue: str) -> bool:
    try:
        publish(system, queue, b"2")
        return consumer.receive(0.5) is not None
    except ConfigError:
        return False


def test_a_service_that_falls_silent_holds_up_no_leave_and_loses_nothing(
    sqs_system: SqsSystem,
) -> None:
    if sqs_system.gate is None:
        pytest.skip("this service is not ours to silence")
    queue = sqs_system.new_queue()
    publish(sqs_system, queue, b"1")
    consumer = sqs_system.consumer(queue, visibility_s=4)
    delivery = receive(consumer)
    sqs_system.gate.is_stuck = True
    acked = delivery.ack()
    started = time.monotonic()
    consumer.close(1.5)
    assert time.monotonic() - started < 3
    assert acked.done()
    sqs_system.set_down()
    sqs_system.set_up()
    if not settled(
        acked
    ):  # SQS may have deleted it and the answer was swallowed: never the reverse
        return
    other = sqs_system.consumer(queue)
    assert other.receive(5) is None
    other.close(CLOSE_S)


def test_many_events_arrive_once_each_with_several_consumers(sqs_system: SqsSystem) -> None:
    queue = sqs_system.new_queue()
    bodies = {b"%d" % number for number in range(100)}
    publish(sqs_system, queue, *bodies)
    consumers = [sqs_system.consumer(queue) for _ in range(3)]
    seen: list[bytes] = []
    futures = []
    while len(seen) < len(bodies):
        for consumer in consumers:
            if (delivery := consumer.receive(0.5)) is not None:
                seen.append(delivery.message.body)
                futures.append(delivery.ack())
    assert all(settled(future) for future in futures)
    assert sorted(seen) == sorted(bodies)
    for consumer in consumers:
        consumer.close(CLOSE_S)
