"""Sending letters back and dropping them, when something goes wrong on the way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from vault_ml.brokers import dead_letter
from vault_ml.brokers.browsing import HoldingBrowser
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.desk import Desk
from vault_ml.brokers.letter_selection import Selection
from vault_ml.brokers.memory import MemoryBroker
from vault_ml.brokers.port import Message, SettlementLost
from vault_ml.errors import BrokerUnavailable, ConfigError, MalformedEvent, RecordingNotFound

QUEUE, DEAD = "ml-queue", "ml-queue.dlq"


def died(broker: MemoryBroker, *bodies: bytes, queue: str = QUEUE) -> None:
    """Events that were received, failed and became dead letters."""
    producer, consumer = broker.producer(), broker.consumer(QUEUE)
    for body in bodies:
        producer.publish(QUEUE, Message(body, b"cam", {"trace": "1"}), timeout_s=1)
        delivery = consumer.receive(1)
        assert delivery is not None
        letters = DeadLetters(producer, DEAD, queue=queue, host="here", version="0")
        letters.send(delivery, MalformedEvent("no JSON"), "parse")
        delivery.ack()
    consumer.close(1)


def desk_of(broker: MemoryBroker, target: MemoryBroker | None = None) -> Desk:
    browser = HoldingBrowser(lambda: broker.consumer(DEAD), quiet_s=0.02)
    return Desk(browser, (target or broker).producer, queue=QUEUE, dead_letter_queue=DEAD)


def test_an_empty_queue_has_no_letters() -> None:
    desk = desk_of(MemoryBroker())
    looked = desk.look(Selection())
    assert (list(looked.selected), looked.seen, looked.is_all) == ([], 0, True)
    assert list(desk.redrive([])) == list(desk.drop([])) == []
    desk.close(1)
    desk.close(1)


def test_event_goes_back_as_it_came_and_says_that_it_was_sent_back() -> None:
    broker = MemoryBroker()
    died(broker, b"\xff\x00")
    desk = desk_of(broker)
    (done,) = desk.redrive(desk.look(Selection()).selected)
    desk.close(1)
    assert done.problem is None
    (back,) = broker.unsettled(QUEUE)
    assert back == Message(b"\xff\x00", b"cam", {"trace": "1", dead_letter.REDRIVEN: "1"})
    assert broker.unsettled(DEAD) == []


def test_letter_is_settled_only_when_its_event_has_arrived() -> None:
    broker, away = MemoryBroker(), MemoryBroker()
    died(broker, b"1", b"2")
    away.set_down()
    desk = desk_of(broker, away)
    with pytest.raises(BrokerUnavailable):
        list(desk.redrive(desk.look(Selection()).selected))
    desk.close(1)
    assert [one.body for one in broker.unsettled(DEAD)] == [b"1", b"2"]


def test_what_was_sent_before_the_trouble_is_told_and_settled() -> None:
    broker = MemoryBroker()
    died(broker, b"1", b"2", b"3")
    desk = desk_of(broker)
    selected = desk.look(Selection()).selected

    class GoesAway:
        def __init__(self) -> None:
            self.sent = 0

        def publish(self, destination: str, message: Message, *, timeout_s: float) -> None:
            if self.sent == 2:
                raise BrokerUnavailable("away")
            self.sent += 1

        def ping(self, timeout_s: float) -> None: ...

        def close(self, timeout_s: float) -> None: ...

    desk._make_producer = GoesAway
    work = desk.redrive(selected)
    assert [(one.letter, one.problem) for one in itertools.islice(work, 2)] == [
        (selected[0], None),
        (selected[1], None),
    ]
    with pytest.raises(BrokerUnavailable):
        next(work)
    desk.close(1)
    assert [one.body for one in broker.unsettled(DEAD)] == [b"3"]


def test_event_that_is_too_large_with_our_header_goes_without() -> None:
    class Tight(MemoryBroker):
        """Counts headers, as brokers do."""

        def _publish(self, queue: str, message: Message) -> None:
            extra = sum(len(name) + len(text) for name, text in message.headers.items())
            super()._publish(queue, Message(message.body + b" " * extra, message.key))

    broker, target = MemoryBroker(), Tight(max_message_bytes=10)
    died(broker, b"0123456789", b"0123456789-")
    desk = desk_of(broker, target)
    one, two = desk.redrive(desk.look(Selection()).selected)
    desk.close(1)
    problems = {done.letter.delivery.message.body: done.problem for done in (one, two)}
    assert problems[b"0123456789"] is None
    assert "11 bytes" in (problems[b"0123456789-"] or "")
    assert [len(message.body) for message in target.messages(QUEUE)] == [10]
    assert [one.body for one in broker.unsettled(DEAD)] == [b"0123456789-"]


def test_letter_that_the_broker_does_not_let_go_is_told() -> None:
    broker = MemoryBroker()
    died(broker, b"1")
    desk = desk_of(broker)
    (letter,) = desk.look(Selection()).selected

    def lost(_publishing: Sequence[tuple[str, Message]] = ()) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(SettlementLost("taken back"))
        return future

    letter.delivery.ack = lost  # type: ignore[method-assign,assignment]
    (done,) = desk.drop([letter])
    assert done.problem == "still in ml-queue.dlq: taken back"
    desk.close(1)


def test_limit_takes_the_first_and_says_that_there_are_more() -> None:
    broker = MemoryBroker()
    died(broker, b"1", b"2", b"3")
    seen: list[int] = []
    desk = desk_of(broker)
    looked = desk.look(Selection(), limit=2, on_seen=seen.append)
    assert [letter.delivery.message.body for letter in looked.selected] == [b"1", b"2"]
    assert (looked.is_all, seen) == (False, [1, 2])
    list(desk.drop(looked.selected))
    desk.close(1)
    assert [one.body for one in broker.unsettled(DEAD)] == [b"3"]
    whole = desk_of(broker)
    assert whole.look(Selection(), limit=5).is_all
    whole.close(1)


def test_letters_of_another_queue_are_counted_and_stay() -> None:
    broker = MemoryBroker()
    died(broker, b"1")
    died(broker, b"2", queue="another")
    desk = desk_of(broker)
    looked = desk.look(Selection(queue=QUEUE))
    assert [letter.delivery.message.body for letter in looked.selected] == [b"1"]
    assert (looked.seen, looked.elsewhere) == (2, 1)
    desk.close(1)


def test_oldest_comes_first_whatever_order_the_broker_keeps() -> None:
    broker = MemoryBroker()
    for time in ("2026-03-02T00:00:00+00:00", "2026-03-01T00:00:00+00:00", ""):
        headers = {dead_letter.DEAD_LETTERED_AT: time} if time else {}
        message = Message(time.encode(), None, headers)
        broker.producer().publish(DEAD, message, timeout_s=1)
    desk = desk_of(broker)
    selected = desk.look(Selection()).selected
    assert [letter.delivery.message.body[:10] for letter in selected] == [
        b"", b"2026-03-01", b"2026-03-02",
    ]  # fmt: skip
    desk.close(1)


def test_browser_says_when_the_broker_went_away_while_it_read() -> None:
    broker = MemoryBroker()
    died(broker, b"1")
    browser = HoldingBrowser(lambda: broker.consumer(DEAD), quiet_s=0.02)
    deliveries = browser.deliveries()
    next(deliveries)
    broker.set_down()
    with pytest.raises(BrokerUnavailable):
        next(deliveries)
    browser.close(1)


def test_browser_reads_once() -> None:
    broker = MemoryBroker()
    browser = HoldingBrowser(lambda: broker.consumer(DEAD), quiet_s=0.0)
    assert list(browser.deliveries()) == []
    with pytest.raises(RuntimeError, match="once"):
        list(browser.deliveries())
    browser.close(1)
    HoldingBrowser(lambda: broker.consumer(DEAD), quiet_s=0.0).close(1)


def test_queue_that_is_not_there_is_named() -> None:
    broker = MemoryBroker(queues=[QUEUE])
    desk = desk_of(broker)
    with pytest.raises(ConfigError, match=DEAD):
        desk.look(Selection())
    desk.close(1)


def test_an_event_that_dies_again_remembers_how_often_it_was_sent_back() -> None:
    broker = MemoryBroker()
    died(broker, b"1")
    desk = desk_of(broker)
    list(desk.redrive(desk.look(Selection()).selected))
    desk.close(1)
    delivery = broker.consumer(QUEUE).receive(1)
    assert delivery is not None
    letters = DeadLetters(broker.producer(), DEAD, queue=QUEUE, host="here", version="0")
    letters.send(delivery, RecordingNotFound(), "fetch")
    (letter,) = broker.unsettled(DEAD)
    assert letter.headers[dead_letter.REDRIVEN] == "1"
    assert letter.headers[dead_letter.STAGE] == "fetch"
