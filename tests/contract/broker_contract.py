"""What every broker keeps, whatever it is: inherit `BrokerContract` and give it a `system`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Protocol

import pytest

from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.port import Consumer, Delivery, Message, Producer, SettlementLost
from vault_ml.errors import BrokerUnavailable, MalformedEvent, MessageTooLarge

# Joining a group takes a broker seconds; what must not happen is waited for this long.
JOIN_S = 40.0
QUIET_S = 0.6
CLOSE_S = 10.0


class BrokerSystem(Protocol):
    """A running broker under test."""

    can_go_down: bool
    max_message_bytes: int | None

    def new_queue(self, partitions: int = 1) -> str:
        """A queue nobody used before."""
        ...

    def consumer(self, queue: str) -> Consumer:
        """A new member of the queue's one group."""
        ...

    def producer(self) -> Producer: ...

    def set_down(self) -> None: ...

    def set_up(self) -> None: ...


class Tester:
    """A system with everything opened closed at the end."""

    __test__ = False  # not a class of tests, whatever its name says

    def __init__(self, system: BrokerSystem) -> None:
        self.system = system
        self._opened: list[Consumer | Producer] = []
        self.producer = system.producer()
        self._opened.append(self.producer)

    def consumer(self, queue: str) -> Consumer:
        consumer = self.system.consumer(queue)
        self._opened.append(consumer)
        return consumer

    def publish(self, queue: str, *bodies: bytes, key: bytes | None = None) -> None:
        for body in bodies:
            self.producer.publish(queue, Message(body, key), timeout_s=JOIN_S)

    def close(self) -> None:
        for one in self._opened:
            one.close(CLOSE_S)


def receive(consumer: Consumer, timeout_s: float = JOIN_S) -> Delivery:
    """The next delivery, which must come; a broker that says it is away is waited for."""
    deadline = time.monotonic() + timeout_s
    trouble: BrokerUnavailable | None = None
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            if (delivery := consumer.receive(left_s)) is not None:
                return delivery
        except BrokerUnavailable as error:
            trouble = error
            time.sleep(0.1)
    raise AssertionError(f"nothing came within {timeout_s:g} s") from trouble


def drain(consumer: Consumer, expected: int) -> list[Delivery]:
    """What comes: at least `expected`, then whatever follows without a pause."""
    got = [receive(consumer) for _ in range(expected)]
    while (more := consumer.receive(QUIET_S)) is not None:
        got.append(more)
    return got


def settled(future: Future[None]) -> bool:
    """True when the broker will not deliver it again, False when the lease was lost."""
    try:
        future.result(JOIN_S)
    except SettlementLost:
        return False
    return True


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = JOIN_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


class BrokerContract:
    """The cases. `system` is to be overridden.

    Attributes:
        keeps_order: see `OrderContract`.
        close_burns: attempts that the broker itself counts when a consumer that closes gives a
            message back.
    """

    keeps_order = False
    close_burns = 0

    @pytest.fixture
    def system(self) -> BrokerSystem:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, system: BrokerSystem) -> Iterator[Tester]:
        tester = Tester(system)
        yield tester
        tester.close()

    # Receiving.

    def test_an_empty_queue_gives_none_in_time(self, broker: Tester) -> None:
        consumer = broker.consumer(broker.system.new_queue())
        started = time.monotonic()
        assert consumer.receive(0.3) is None
        assert 0.25 < time.monotonic() - started < 10.0

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(Message(b"{}"), id="no key, no headers"),
            pytest.param(Message(bytes(range(256)) * 40, b"\x00\xffkey"), id="binary"),
            pytest.param(
                Message("é漢🎥".encode(), b"k", {"naïve": "é漢🎥", "a": ""}), id="unicode"
            ),
            pytest.param(Message(b"", b"k", {"x": "y"}), id="empty body"),
        ],
    )
    def test_a_message_arrives_unchanged(self, broker: Tester, message: Message) -> None:
        queue = broker.system.new_queue()
        broker.producer.publish(queue, message, timeout_s=JOIN_S)
        delivery = receive(broker.consumer(queue))
        assert delivery.message.body == message.body
        assert delivery.message.key == message.key
        assert dict(delivery.message.headers) == dict(message.headers)
        assert delivery.attempt == 1
        assert abs(delivery.first_received_at - time.time()) < 60
        assert queue in delivery.id

    def test_a_new_group_begins_with_the_oldest(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1", b"2", b"3")
        bodies = [d.message.body for d in drain(broker.consumer(queue), 3)]
        assert (bodies if self.keeps_order else sorted(bodies)) == [b"1", b"2", b"3"]

    # Settling.

    def test_ack_ends_it(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"done", b"open")
        first = broker.consumer(queue)
        done = receive(first)
        assert settled(done.ack())
        first.close(CLOSE_S)
        left = {b"done", b"open"} - {done.message.body}
        assert [d.message.body for d in drain(broker.consumer(queue), 1)] == list(left)

    def test_close_without_ack_brings_it_back_and_burns_nothing(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        first = broker.consumer(queue)
        in_hand = receive(first)
        first.close(CLOSE_S)
        again = receive(broker.consumer(queue))
        assert (again.message.body, again.id) == (b"1", in_hand.id)
        assert again.attempt == 1 + self.close_burns

    def test_retry_comes_back_counted_and_not_before_its_time(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        consumer = broker.consumer(queue)
        first = receive(consumer)
        started = time.monotonic()
        first.retry(1.0)
        second = receive(consumer)
        assert time.monotonic() - started >= 1.0
        assert (second.message.body, second.attempt) == (b"1", 2)
        assert second.id == first.id
        assert second.first_received_at == pytest.approx(first.first_received_at, abs=1.0)
        second.retry(0.0)
        assert receive(consumer).attempt == 3

    def test_retry_without_burning_counts_nothing(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        consumer = broker.consumer(queue)
        receive(consumer).retry(0.1, burn_attempt=False)
        assert receive(consumer).attempt == 1

    def test_a_retry_blocks_no_other_message(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1", b"2", b"3")
        consumer = broker.consumer(queue)
        held = receive(consumer)
        held.retry(60.0)
        others = {d.message.body for d in drain(consumer, 2)}
        assert others == {b"1", b"2", b"3"} - {held.message.body}

    def test_attempts_survive_a_restart(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"0", b"1")
        first = broker.consumer(queue)
        done, troubled = receive(first), receive(first)
        assert settled(done.ack())
        troubled.retry(0.0)
        receive(first).retry(0.0)
        third = receive(first)
        assert third.attempt == 3
        first.close(CLOSE_S)
        again = receive(broker.consumer(queue))
        assert again.message.body == troubled.message.body
        assert again.attempt == 3 + self.close_burns
        assert again.first_received_at == pytest.approx(troubled.first_received_at, abs=1.5)

    def test_attempts_survive_also_when_nothing_is_settled(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        first = broker.consumer(queue)
        receive(first).retry(0.0)
        first.close(CLOSE_S)
        assert receive(broker.consumer(queue)).attempt == 2

    def test_what_is_settled_stays_away_and_what_is_not_comes_back(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, *(b"%d" % number for number in range(6)))
        first = broker.consumer(queue)
        held = [receive(first) for _ in range(6)]
        futures = {int(held[n].message.body): held[n].ack() for n in (5, 0, 3, 1)}
        wait_for(lambda: futures[0].done() and futures[1].done(), "the prefix is settled")
        first.close(CLOSE_S)
        stays_away = {number for number, future in futures.items() if settled(future)}
        assert {0, 1} <= stays_away
        back = {int(d.message.body) for d in drain(broker.consumer(queue), 6 - len(stays_away))}
        assert back == set(range(6)) - stays_away
        assert {2, 4} <= back

    def test_a_delivery_is_settled_once(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        delivery = receive(broker.consumer(queue))
        delivery.ack()
        with pytest.raises(RuntimeError, match="settled already"):
            delivery.retry(0.0)
        with pytest.raises(RuntimeError, match="settled already"):
            delivery.ack()

    def test_lag_is_what_is_not_settled(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1", b"2", b"3")
        consumer = broker.consumer(queue)
        held = [receive(consumer), receive(consumer)]
        assert settled(held[0].ack())
        wait_for(lambda: consumer.lag() == 2, f"two are left, not {consumer.lag()}")
        assert settled(held[1].ack())
        assert settled(receive(consumer).ack())
        wait_for(lambda: consumer.lag() == 0, f"none is left, not {consumer.lag()}")

    # Members of a group.

    def test_two_consumers_share_and_nothing_is_left_out(self, broker: Tester) -> None:
        queue = broker.system.new_queue(partitions=4)
        consumers = [broker.consumer(queue), broker.consumer(queue)]
        seen: list[set[bytes]] = [set(), set()]
        stop = threading.Event()

        def work(index: int) -> None:
            while not stop.is_set():
                if (delivery := consumers[index].receive(0.2)) is not None:
                    seen[index].add(delivery.message.body)
                    delivery.ack()

        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        try:
            sent = 0
            deadline = time.monotonic() + JOIN_S
            while not all(seen) and time.monotonic() < deadline:
                broker.publish(queue, b"%d" % sent, key=b"%d" % sent)
                sent += 1
                time.sleep(0.02)  # the pace of the sender
            everything = {b"%d" % number for number in range(sent)}
            wait_for(lambda: seen[0] | seen[1] == everything, "all messages were seen")
            assert all(seen), "one consumer got nothing"
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    # Pausing and closing.

    def test_pause_receives_nothing_and_keeps_what_is_in_hand(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        consumer = broker.consumer(queue)
        in_hand = receive(consumer)
        consumer.pause()
        consumer.pause()
        broker.publish(queue, b"2")
        assert consumer.receive(QUIET_S) is None
        assert settled(in_hand.ack())
        consumer.resume()
        consumer.resume()
        assert receive(consumer).message.body == b"2"

    def test_a_waiting_receive_ends_within_a_second_of_close(self, broker: Tester) -> None:
        consumer = broker.consumer(broker.system.new_queue())
        assert consumer.receive(QUIET_S) is None
        ended: list[float] = []

        def wait() -> None:
            assert consumer.receive(60.0) is None
            ended.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)  # let it wait; whether it does already changes nothing
        closed_at = time.monotonic()
        consumer.close(CLOSE_S)
        thread.join(5)
        assert ended
        assert ended[0] - closed_at < 1.0

    def test_closing_twice_is_fine_and_nothing_comes_after(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1", b"2")
        consumer = broker.consumer(queue)
        in_hand = receive(consumer)
        consumer.close(CLOSE_S)
        consumer.close(CLOSE_S)
        assert consumer.receive(5.0) is None
        assert not settled(in_hand.ack())
        producer = broker.system.producer()
        producer.close(CLOSE_S)
        producer.close(CLOSE_S)

    # Trouble.

    def test_ping_answers(self, broker: Tester) -> None:
        consumer = broker.consumer(broker.system.new_queue())
        consumer.ping(JOIN_S)
        broker.producer.ping(JOIN_S)

    def test_an_unconfirmed_publish_raises_in_time(self, broker: Tester) -> None:
        if not broker.system.can_go_down:
            pytest.skip("this broker is not ours to stop")
        queue = broker.system.new_queue()
        broker.publish(queue, b"1")
        broker.system.set_down()
        try:
            started = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                broker.producer.publish(queue, Message(b"2"), timeout_s=1.0)
            with pytest.raises(BrokerUnavailable):
                broker.producer.ping(0.5)
            assert time.monotonic() - started < 20, "soon, also where the machine is busy"
        finally:
            broker.system.set_up()
        broker.publish(queue, b"3")

    def test_work_goes_on_when_the_broker_is_back(self, broker: Tester) -> None:
        if not broker.system.can_go_down:
            pytest.skip("this broker is not ours to stop")
        queue = broker.system.new_queue()
        broker.publish(queue, b"1", b"2")
        consumer = broker.consumer(queue)
        in_hand, troubled = receive(consumer), receive(consumer)
        broker.system.set_down()
        acked = in_hand.ack()
        troubled.retry(0.0)
        with pytest.raises(BrokerUnavailable):
            consumer.ping(0.5)
        assert not acked.done()
        broker.system.set_up()
        if settled(acked):
            again = receive(consumer)
            assert (again.message.body, again.attempt) == (troubled.message.body, 2)
            assert settled(again.ack())
        else:  # it was away for so long that both were taken back
            open_ones = {b"1", b"2"}
            while open_ones:
                again = receive(consumer)
                if settled(again.ack()):
                    open_ones.discard(again.message.body)
        broker.publish(queue, b"3")
        assert receive(consumer).message.body == b"3"

    # Dead letters.

    def test_a_dead_letter_carries_the_bytes_and_the_reason(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        dead = broker.system.new_queue()
        body = b"\xff not json \x00"
        broker.producer.publish(queue, Message(body, b"cam", {"trace": "é"}), timeout_s=JOIN_S)
        consumer = broker.consumer(queue)
        receive(consumer).retry(0.0)
        delivery = receive(consumer)
        letters = DeadLetters(broker.producer, dead, queue=queue, host="pod-1", version="1.2")
        letters.send(delivery, MalformedEvent("It is not JSON: é."), "parse")
        assert settled(delivery.ack())
        letter = receive(broker.consumer(dead)).message
        assert (letter.body, letter.key) == (body, b"cam")
        headers = dict(letter.headers)
        assert headers.pop(dead_letter.FIRST_RECEIVED_AT) <= headers.pop(
            dead_letter.DEAD_LETTERED_AT
        )
        assert headers == {
            "trace": "é",
            "vault-ml-reason": "It is not JSON: é.",
            "vault-ml-stage": "parse",
            "vault-ml-error-class": "MalformedEvent",
            "vault-ml-attempts": "2",
            "vault-ml-queue": queue,
            "vault-ml-delivery-id": delivery.id,
            "vault-ml-host": "pod-1",
            "vault-ml-version": "1.2",
        }


class OrderContract:
    """More for brokers that promise an order: of messages of one key, or of one queue."""

    keeps_order = True

    def test_order_is_kept_per_key(self, broker: Tester) -> None:
        queue = broker.system.new_queue(partitions=3)
        consumer = broker.consumer(queue)
        for number, key in itertools.product(range(8), (b"a", b"b", b"c", b"d")):
            broker.publish(queue, b"%d" % number, key=key)
        got: dict[bytes | None, list[int]] = {}
        for _ in range(32):
            delivery = receive(consumer)
            got.setdefault(delivery.message.key, []).append(int(delivery.message.body))
            delivery.ack()  # some brokers give the next of a key only now
        assert consumer.receive(QUIET_S) is None
        assert got == {key: list(range(8)) for key in (b"a", b"b", b"c", b"d")}


class SizeContract:
    """More for brokers that refuse what is too large."""

    def test_what_the_broker_calls_too_large_is_named_so(self, broker: Tester) -> None:
        limit = broker.system.max_message_bytes
        if limit is None:
            pytest.skip("this broker is not ours, and its limit unknown")
        queue = broker.system.new_queue()
        with pytest.raises(MessageTooLarge, match=str(limit + 1)):
            broker.producer.publish(queue, Message(b"x" * (limit + 1)), timeout_s=JOIN_S)
        broker.publish(queue, b"x")
