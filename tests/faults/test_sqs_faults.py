"""An SQS that refuses, forgets and stalls: what the consumer makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

pytest.importorskip("boto3")

from contract.said_log import SaidLog
from scripted_http import hang
from scripted_sqs import (
    Answer,
    ScriptedSqs,
    all_done,
    all_failed,
    as_route,
    in_turn,
    message,
    ok,
    refusing,
)
from vault_ml.brokers.port import SettlementLost
from vault_ml.brokers.sqs import SqsConsumer, SqsOptions, leases
from vault_ml.brokers.sqs.delivery import SqsDelivery
from vault_ml.errors import ConfigError, CredentialsRejected

DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


class Rig:
    """A scripted service and one consumer of its queue."""

    def __init__(self, sqs: ScriptedSqs) -> None:
        self.sqs = sqs
        self.log = SaidLog()
        self.opened: list[SqsConsumer] = []

    def consumer(self, queue: str = "q", *, visibility_s: int = 30, **more: int) -> SqsConsumer:
        options = SqsOptions(endpoint_url=self.sqs.url, visibility_s=visibility_s)
        consumer = SqsConsumer(options, queue, log=self.log, **more)
        self.opened.append(consumer)
        return consumer

    def give(self, *messages: dict[str, object]) -> None:
        """One answer with these, then none."""
        self.sqs.answers["ReceiveMessage"] = in_turn(ok(Messages=list(messages)), ok())


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ScriptedSqs() as server:
        rig = Rig(server)
        yield rig
        for consumer in rig.opened:
            consumer.close(5)


def receive(consumer: SqsConsumer) -> SqsDelivery:
    delivery = consumer.receive(DEADLINE_S)
    assert delivery is not None
    return delivery


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def is_lost(future: Future[None]) -> bool:
    return isinstance(future.exception(DEADLINE_S), SettlementLost)


def test_a_queue_is_asked_for_nothing_until_somebody_waits(rig: Rig) -> None:
    consumer = rig.consumer()
    consumer.ping(5)
    time.sleep(0.3)  # long enough to be caught at it
    assert rig.sqs.count("ReceiveMessage") == 0
    consumer.receive(0.05)
    wait_for(lambda: rig.sqs.count("ReceiveMessage") > 0, "it asks now")


def test_it_waits_long_at_sqs_while_idle_and_short_while_something_is_in_hand(rig: Rig) -> None:
    rig.give(message())
    consumer = rig.consumer()
    in_hand = receive(consumer)
    assert consumer.receive(0.3) is None
    waits = [asked["WaitTimeSeconds"] for name, asked in rig.sqs.asked if name == "ReceiveMessage"]
    assert waits[0] == 20
    assert set(waits[1:]) == {1}
    in_hand.ack().result(DEADLINE_S)


def test_of_a_fifo_queue_one_message_is_asked_for_at_a_time(rig: Rig) -> None:
    rig.give(message())
    receive(rig.consumer("q.fifo", ahead=9))
    asked = next(asked for name, asked in rig.sqs.asked if name == "ReceiveMessage")
    assert asked["MaxNumberOfMessages"] == 1
    assert asked["ReceiveRequestAttemptId"]


def test_a_fifo_answer_that_was_lost_is_asked_for_again_by_the_same_id(rig: Rig) -> None:
    rig.sqs.answers["ReceiveMessage"] = in_turn(
        refusing("InternalError", 500), ok(Messages=[message()]), ok()
    )
    consumer = rig.consumer("q.fifo")
    receive(consumer)
    consumer.receive(0.3)
    ids = [
        asked["ReceiveRequestAttemptId"]
        for name, asked in rig.sqs.asked
        if name == "ReceiveMessage"
    ]
    assert ids[0] == ids[1]
    assert ids[2] not in ids[:2]


def test_reading_ahead_asks_for_ten(rig: Rig) -> None:
    rig.give(message())
    receive(rig.consumer(ahead=9))
    asked = next(asked for name, asked in rig.sqs.asked if name == "ReceiveMessage")
    assert asked["MaxNumberOfMessages"] == 10


def test_a_deletion_that_fails_is_tried_again_and_the_future_waits(rig: Rig) -> None:
    rig.give(message())
    rig.sqs.answers["DeleteMessageBatch"] = in_turn(
        refusing("RequestThrottled"), all_failed("InternalError", sender=False), all_done
    )
    receive(rig.consumer()).ack().result(DEADLINE_S)
    assert rig.sqs.count("DeleteMessageBatch") == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(all_failed("ReceiptHandleIsInvalid"), id="receipt"),
        pytest.param(all_failed("InvalidParameterValue"), id="expired, as FIFO says it"),
        pytest.param(all_failed("AWS.SimpleQueueService.MessageNotInflight"), id="not in flight"),
    ],
)
def test_a_receipt_that_is_worth_nothing_is_a_lost_settlement(rig: Rig, answer: Answer) -> None:
    rig.give(message())
    rig.sqs.answers["DeleteMessageBatch"] = answer
    assert is_lost(receive(rig.consumer()).ack())
    assert len(rig.log.events("lease_lost")) == 1


def test_a_deletion_that_nobody_confirmed_confirms_nothing(rig: Rig) -> None:
    """The page of a web server is an answer without a failure in it."""
    rig.give(message())
    rig.sqs.answers["DeleteMessageBatch"] = in_turn(ok(), ok(), all_done)
    future = receive(rig.consumer()).ack()
    wait_for(lambda: rig.sqs.count("DeleteMessageBatch") >= 2, "it asks again")
    future.result(DEADLINE_S)
    assert rig.sqs.count("DeleteMessageBatch") == 3


def test_what_could_not_be_lengthened_in_time_is_lost_though_sqs_would_delete_it(rig: Rig) -> None:
    rig.give(message())
    rig.sqs.answers["ChangeMessageVisibilityBatch"] = refusing("InternalError", 500)
    delivery = receive(rig.consumer(visibility_s=2))
    wait_for(lambda: bool(rig.log.events("lease_lost")), "its time is over")
    assert is_lost(delivery.ack())
    assert rig.sqs.count("DeleteMessageBatch") == 0


def test_a_deletion_confirmed_too_late_is_not_believed(rig: Rig) -> None:
    rig.give(message())
    rig.sqs.answers["ChangeMessageVisibilityBatch"] = refusing("InternalError", 500)
    rig.sqs.answers["DeleteMessageBatch"] = as_route(hang)
    assert is_lost(receive(rig.consumer(visibility_s=2)).ack())


def test_work_is_lengthened_at_a_third_of_its_time(rig: Rig) -> None:
    rig.give(message())
    delivery = receive(rig.consumer(visibility_s=3))
    started = time.monotonic()
    wait_for(lambda: len(rig.sqs.visibilities()) >= 4, "four extensions")
    took = time.monotonic() - started
    assert 1.5 < took < 6
    assert set(rig.sqs.visibilities()) == {3}
    delivery.ack().result(DEADLINE_S)
    assert not rig.log.events("lease_lost")


def test_nothing_is_lengthened_beyond_the_limit_of_sqs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LONGEST_HIDDEN_S", 64)  # four seconds of work, and the margin
    rig.give(message())
    delivery = receive(rig.consumer(visibility_s=3))
    wait_for(lambda: bool(rig.log.events("lease_lost")), "the limit is reached")
    assert is_lost(delivery.ack())
    assert all(1 <= seconds <= 3 for seconds in rig.sqs.visibilities())
    assert rig.sqs.visibilities()[-1] < 3


def test_a_retry_is_asked_for_no_later_than_sqs_allows(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.give(message())
    receive(rig.consumer()).retry(86_400.0)
    wait_for(lambda: bool(rig.sqs.visibilities()), "it is given back")
    assert 43_000 < rig.sqs.visibilities()[-1] <= 43_200


def test_a_retry_in_a_fraction_of_a_second_never_comes_early(rig: Rig) -> None:
    rig.give(message())
    receive(rig.consumer()).retry(1.2)
    wait_for(lambda: bool(rig.sqs.visibilities()), "it is given back")
    assert rig.sqs.visibilities()[-1] == 2


def test_a_right_that_is_missing_is_named_and_stops_receiving_until_it_is_there(rig: Rig) -> None:
    rig.give(message())
    rig.sqs.answers["DeleteMessageBatch"] = refusing("AccessDenied", 403)
    consumer = rig.consumer()
    future = receive(consumer).ack()
    wait_for(lambda: bool(rig.log.events("broker_refused")), "the refusal is told")
    with pytest.raises(CredentialsRejected, match="sqs:DeleteMessage on 'q'"):
        consumer.receive(1)
    rig.sqs.answers["DeleteMessageBatch"] = all_done
    future.result(DEADLINE_S)
    assert consumer.receive(0.1) is None
    assert len(rig.log.events("broker_refused")) == 1
    assert "canary" not in str(rig.log.said).lower()


def test_without_the_right_to_lengthen_short_work_is_settled_all_the_same(rig: Rig) -> None:
    rig.give(message())
    rig.sqs.answers["ChangeMessageVisibilityBatch"] = refusing("AccessDenied", 403)
    delivery = receive(rig.consumer(visibility_s=6))
    wait_for(lambda: bool(rig.log.events("broker_refused")), "the refusal is told")
    delivery.ack().result(DEADLINE_S)


def test_a_refusal_to_receive_is_raised_and_told_once(rig: Rig) -> None:
    rig.sqs.answers["ReceiveMessage"] = refusing("InvalidClientTokenId", 403)
    consumer = rig.consumer()
    with pytest.raises(CredentialsRejected, match="AWS_ACCESS_KEY_ID"):
        consumer.receive(DEADLINE_S)
    wait_for(lambda: rig.sqs.count("ReceiveMessage") >= 1, "it asked")
    for _ in range(20):
        with pytest.raises(CredentialsRejected):
            consumer.receive(0.05)
    assert len(rig.log.events("broker_refused")) == 1
    assert rig.sqs.count("ReceiveMessage") < 10
    rig.give(message())
    consumer.pause()  # as a worker does that is refused
    wait_for(lambda: _receives(consumer), "it recovers by itself")
    consumer.resume()
    receive(consumer)


def _receives(consumer: SqsConsumer) -> bool:
    try:
        consumer.receive(0.1)
    except ConfigError:
        return False
    return True


def test_a_service_that_does_not_wait_is_not_asked_without_a_break(rig: Rig) -> None:
    consumer = rig.consumer()
    started = time.monotonic()
    consumer.receive(1.0)
    took = time.monotonic() - started
    assert rig.sqs.count("ReceiveMessage") <= 1 + took / 0.25


def test_an_outage_is_told_once_and_so_is_its_end(rig: Rig) -> None:
    rig.sqs.answers["ReceiveMessage"] = refusing("InternalError", 503)
    consumer = rig.consumer()
    assert consumer.receive(1.5) is None
    rig.give(message())
    receive(consumer).ack().result(DEADLINE_S)
    assert [fields["role"] for fields in rig.log.events("broker_unreachable")] == ["consumer"]
    assert len(rig.log.events("broker_reachable")) == 1


def test_an_idle_consumer_leaves_at_once_and_sends_back_what_came_too_late(rig: Rig) -> None:
    late: Answer = ok(Messages=[message()])

    def after_a_while(asked: dict[str, object]) -> tuple[int, dict[str, object]]:
        wait_for(lambda: has_left, "the consumer has left")
        return late(asked)

    has_left = False
    rig.sqs.answers["ReceiveMessage"] = after_a_while
    consumer = rig.consumer()
    while not rig.sqs.count("ReceiveMessage"):
        assert consumer.receive(0.1) is None
    started = time.monotonic()
    consumer.close(5)
    assert time.monotonic() - started < 1
    has_left = True
    wait_for(lambda: rig.sqs.visibilities() == [0], "it is released")


def test_leaving_takes_no_longer_than_it_may_though_the_service_is_silent(rig: Rig) -> None:
    rig.give(message())
    consumer = rig.consumer()
    future = receive(consumer).ack()
    future.result(DEADLINE_S)
    rig.give(message(message_id="m-2"))
    held = receive(consumer)
    rig.sqs.answers["ChangeMessageVisibilityBatch"] = as_route(hang)
    rig.sqs.answers["DeleteMessageBatch"] = as_route(hang)
    future = held.ack()
    started = time.monotonic()
    consumer.close(1.0)
    assert time.monotonic() - started < 2.5
    assert is_lost(future)
    assert len(rig.log.events("broker_left_waiting")) == 1


def test_what_comes_again_while_it_is_in_hand_was_lost(rig: Rig) -> None:
    rig.give(message(receives=1))
    consumer = rig.consumer()
    first = receive(consumer)
    rig.give(message(receives=2))
    again = receive(consumer)
    assert is_lost(first.ack())
    assert again.attempt == 1  # nobody tried in between
    again.ack().result(DEADLINE_S)


def test_a_delivery_that_was_lost_while_it_waited_here_is_not_handed_out(rig: Rig) -> None:
    gate = threading.Event()

    def late(asked: dict[str, object]) -> tuple[int, dict[str, object]]:
        gate.wait(DEADLINE_S)
        return 200, {"Messages": [message()]}

    rig.sqs.answers["ReceiveMessage"] = in_turn(late, ok())
    rig.sqs.answers["ChangeMessageVisibilityBatch"] = all_failed("ReceiptHandleIsInvalid")
    consumer = rig.consumer(visibility_s=2)
    assert consumer.receive(0.5) is None
    consumer.pause()
    gate.set()  # it comes when nobody may have it
    wait_for(lambda: bool(rig.log.events("lease_lost")), "it is lost")
    consumer.resume()
    assert consumer.receive(0.3) is None


def test_a_bug_in_the_broker_thread_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SqsConsumer, "_held", bug)
    rig.give(message())
    consumer = rig.consumer()
    with pytest.raises(RuntimeError, match="broker thread died"):
        consumer.receive(DEADLINE_S)
    assert rig.log.events("broker_thread_failed")


def test_a_bug_in_the_thread_of_the_leases_is_heard(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    rig.give(message())
    consumer = rig.consumer()
    delivery = receive(consumer)
    monkeypatch.setattr(leases.Leases, "_delete", bug)
    assert is_lost(delivery.ack())
    with pytest.raises(RuntimeError, match="broker thread died"):
        consumer.receive(DEADLINE_S)
    assert rig.log.events("broker_thread_failed")


REDRIVE = '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:1:q-swept", "maxReceiveCount": %s}'


@pytest.mark.parametrize(
    ("count", "event", "parts"),
    [
        ("3", "redrive_policy_too_short", ["after 3 receipts", "'q-swept'", "never", "10 or more"]),
        ('"4"', "redrive_policy_too_short", ["RETRY_MAX_ATTEMPTS is 5"]),
        ("6", "redrive_policy_tight", ["gives back", "10 or more is safe"]),
    ],
)
def test_a_redrive_policy_that_is_in_our_way_is_told(
    rig: Rig, count: str, event: str, parts: list[str]
) -> None:
    rig.sqs.answers["GetQueueAttributes"] = ok(Attributes={"RedrivePolicy": REDRIVE % count})
    rig.consumer(max_attempts=5).receive(0.2)
    wait_for(lambda: bool(rig.log.events(event)), "it is told")
    (fields,) = rig.log.events(event)
    assert all(part in str(fields["reason"]) for part in parts), fields


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ok(), id="none"),
        pytest.param(ok(Attributes={"RedrivePolicy": REDRIVE % "10"}), id="generous"),
        pytest.param(ok(Attributes={"RedrivePolicy": "oops"}), id="nonsense"),
        pytest.param(ok(Attributes={"RedrivePolicy": "[]"}), id="a list"),
        pytest.param(ok(Attributes={"RedrivePolicy": REDRIVE % '"x"'}), id="no number"),
    ],
)
def test_a_redrive_policy_that_is_not_in_our_way_is_not_told(rig: Rig, answer: Answer) -> None:
    rig.sqs.answers["GetQueueAttributes"] = answer
    consumer = rig.consumer(max_attempts=5)
    rig.give(message())
    receive(consumer)
    assert not [event for event, _ in rig.log.said if event.startswith("redrive")]


def test_a_redrive_policy_that_we_may_not_see_is_told_and_work_goes_on(rig: Rig) -> None:
    rig.sqs.answers["GetQueueAttributes"] = refusing("AccessDenied", 403)
    consumer = rig.consumer(max_attempts=5)
    rig.give(message())
    receive(consumer).ack().result(DEADLINE_S)
    (fields,) = rig.log.events("redrive_policy_unknown")
    assert "sqs:GetQueueAttributes" in str(fields["reason"])
