"""What looking through a queue keeps on every broker: inherit `BrowserContract`."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest

from contract.broker_contract import CLOSE_S, JOIN_S, BrokerSystem, Tester, receive, settled
from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.desk import Desk
from vault_ml.brokers.letter_selection import Selection
from vault_ml.brokers.port import Browser, Delivery, Message
from vault_ml.errors import BrokerUnavailable, MalformedEvent, UndecodableRecording

# What makes a message a dead letter.
DEATH = {dead_letter.DEAD_LETTERED_AT: "2026-03-01T10:00:00+00:00"}


class BrowserSystem(BrokerSystem, Protocol):
    """A running broker whose queues can be looked through."""

    def browser(self, queue: str) -> Browser: ...


@contextlib.contextmanager
def browsing(system: BrowserSystem, queue: str) -> Iterator[list[Delivery]]:
    """Everything in the queue; what is not acked by the end stays."""
    browser = system.browser(queue)
    try:
        yield list(browser.deliveries())
    finally:
        browser.close(CLOSE_S)


def bodies(system: BrowserSystem, queue: str) -> list[bytes]:
    with browsing(system, queue) as found:
        return [delivery.message.body for delivery in found]


class BrowserContract:
    """The cases. `system` is to be overridden.

    Attributes:
        keeps_order: False for a broker that promises no order.
    """

    keeps_order = True

    @pytest.fixture
    def system(self) -> BrowserSystem:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, system: BrowserSystem) -> Iterator[Tester]:
        tester = Tester(system)
        yield tester
        tester.close()

    def in_order(self, found: list[bytes]) -> list[bytes]:
        return found if self.keeps_order else sorted(found)

    def test_an_empty_queue_has_nothing_to_look_at(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        queue = system.new_queue()
        started = time.monotonic()
        assert bodies(system, queue) == []
        assert time.monotonic() - started < 20

    def test_a_queue_that_is_not_there_has_nothing_either(self, system: BrowserSystem) -> None:
        """Some make it on the way; nobody takes offence."""
        ending = ".fifo" if system.new_queue().endswith(".fifo") else ""
        assert bodies(system, f"vault-ml-test-{uuid.uuid4().hex[:8]}{ending}") == []

    def test_everything_is_seen_once_and_unchanged(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        queue = system.new_queue()
        sent = [
            Message(b"\x00%d" % n, b"camera" if n % 2 else None, {**DEATH, "n": f"é{n}"})
            for n in range(25)
        ]
        for message in sent:
            broker.producer.publish(queue, message, timeout_s=JOIN_S)
        with browsing(system, queue) as found:
            got = [delivery.message for delivery in found]
        if not self.keeps_order:
            got.sort(key=lambda message: sent.index(message))
        assert got == sent

    def test_looking_changes_nothing(self, broker: Tester, system: BrowserSystem) -> None:
        queue = system.new_queue()
        broker.publish(queue, b"1", b"2", b"3")
        for _ in range(3):
            assert self.in_order(bodies(system, queue)) == [b"1", b"2", b"3"]

    def test_what_is_acked_is_gone_and_the_rest_stays(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        queue = system.new_queue()
        broker.publish(queue, *(b"%d" % n for n in range(8)))
        for gone, left in ((b"36", b"012457"), (b"0", b"12457"), (b"1274", b"5"), (b"5", b"")):
            with browsing(system, queue) as found:
                for delivery in found:
                    if delivery.message.body in gone:
                        assert settled(delivery.ack())
            want = [bytes([one]) for one in left]
            assert self.in_order(bodies(system, queue)) == want

    def test_of_two_equal_messages_one_stays(self, broker: Tester, system: BrowserSystem) -> None:
        queue = system.new_queue()
        twins = [Message(b"twin", b"camera", {**DEATH, "made": str(n // 2)}) for n in range(4)]
        for message in twins:
            broker.producer.publish(queue, message, timeout_s=JOIN_S)
        with browsing(system, queue) as found:
            assert len(found) >= 2  # a broker may drop what it has had just now
            before = len(found)
            assert settled(found[0].ack())
        assert len(bodies(system, queue)) == before - 1

    def test_leaving_in_the_middle_leaves_everything(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        queue = system.new_queue()
        broker.publish(queue, b"1", b"2", b"3")
        browser = system.browser(queue)
        next(iter(browser.deliveries()))
        browser.close(CLOSE_S)
        browser.close(CLOSE_S)
        assert self.in_order(bodies(system, queue)) == [b"1", b"2", b"3"]

    def test_a_message_is_settled_once(self, broker: Tester, system: BrowserSystem) -> None:
        queue = system.new_queue()
        broker.publish(queue, b"1")
        with browsing(system, queue) as (delivery,):
            delivery.retry(0.0, burn_attempt=False)
            with pytest.raises(RuntimeError, match="settled already"):
                delivery.ack()
        assert bodies(system, queue) == [b"1"]

    def test_a_broker_that_is_away_is_not_an_empty_queue(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        if not system.can_go_down:
            pytest.skip("this broker is not ours to stop")
        queue = system.new_queue()
        broker.publish(queue, b"1")
        system.set_down()
        try:
            with pytest.raises(BrokerUnavailable):
                bodies(system, queue)
        finally:
            system.set_up()
        assert bodies(system, queue) == [b"1"]

    # The whole way: an event dies, is found, is sent back, dies again, is dropped.

    def test_an_event_is_sent_back_and_counted_anew(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        queue, dead = system.new_queue(), system.new_queue()
        letters = DeadLetters(broker.producer, dead, queue=queue, host="pod-1", version="1.2")
        broker.producer.publish(
            queue, Message(b"\xff event", b"cam", {"traceparent": "00-1"}), timeout_s=JOIN_S
        )
        consumer = broker.consumer(queue)
        receive(consumer).retry(0.0)
        delivery = receive(consumer)
        letters.send(delivery, MalformedEvent("no JSON"), "parse")
        assert settled(delivery.ack())
        for times in ("1", "2"):
            desk = self.desk(broker, system, queue, dead)
            looked = desk.look(Selection(stage="parse"))
            assert (looked.seen, [letter.attempts for letter in looked.selected]) == (
                1,
                [2 if times == "1" else 1],
            )
            (done,) = desk.redrive(looked.selected)
            assert done.problem is None
            desk.close(CLOSE_S)
            again = receive(consumer)
            assert (again.message.body, again.message.key) == (b"\xff event", b"cam")
            assert dict(again.message.headers) == {
                "traceparent": "00-1", dead_letter.REDRIVEN: times,
            }  # fmt: skip
            assert again.attempt == 1
            letters.send(again, MalformedEvent("no JSON"), "parse")
            assert settled(again.ack())
        desk = self.desk(broker, system, queue, dead)
        looked = desk.look(Selection())
        assert [letter.redriven for letter in looked.selected] == [2]
        assert [done.problem for done in desk.drop(looked.selected)] == [None]
        desk.close(CLOSE_S)
        assert bodies(system, dead) == []
        assert consumer.receive(0.5) is None

    def test_what_is_not_selected_stays_in_order(
        self, broker: Tester, system: BrowserSystem
    ) -> None:
        queue, dead = system.new_queue(), system.new_queue()
        letters = DeadLetters(broker.producer, dead, queue=queue, host="pod-1", version="1.2")
        consumer = broker.consumer(queue)
        for number in range(9):
            broker.publish(queue, b"%d" % number)
            delivery = receive(consumer)
            error = UndecodableRecording("noise") if number % 3 else MalformedEvent("no JSON")
            letters.send(delivery, error, "decode")
            assert settled(delivery.ack())
        desk = self.desk(broker, system, queue, dead)
        looked = desk.look(Selection(error="MalformedEvent"))
        assert [letter.delivery.message.body for letter in looked.selected] == [b"0", b"3", b"6"]
        assert [done.problem for done in desk.redrive(looked.selected)] == [None] * 3
        desk.close(CLOSE_S)
        left = bodies(system, dead)
        assert self.in_order(left) == [b"1", b"2", b"4", b"5", b"7", b"8"]
        back = [receive(consumer).message.body for _ in range(3)]
        assert (back if self.keeps_order else sorted(back)) == [b"0", b"3", b"6"]

    @staticmethod
    def desk(broker: Tester, system: BrowserSystem, queue: str, dead: str) -> Desk:
        return Desk(system.browser(dead), system.producer, queue=queue, dead_letter_queue=dead)
