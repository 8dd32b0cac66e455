"""The books of leases against a broker in a few lines: nothing undone is ever acknowledged."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future

import pika
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vault_ml.brokers.rabbitmq.leases import Held, Leases, Phase
from vault_ml.brokers.rabbitmq.wire import ATTEMPT, Arrival, from_wire

BODIES = (b"a", b"b")  # few, so that equal messages are common


def arrival(body: bytes, attempt: int) -> Arrival:
    return from_wire(body, pika.BasicProperties(headers={ATTEMPT: str(attempt)}))


class LeasesMachine(RuleBasedStateMachine):
    """A queue, one channel of ours, and others who take what they get."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases("q")
        self.now = 0.0
        self.tag = 0
        self.queue: list[tuple[bytes, int]] = []  # (body, attempt)
        self.unacked: dict[int, tuple[bytes, int]] = {}
        self.in_hand: list[Held] = []
        self.published: Counter[bytes] = Counter()
        self.acked: Counter[bytes] = Counter()
        self.work_done: Counter[bytes] = Counter()  # also by others

    # The broker.

    @rule(body=st.sampled_from(BODIES))
    def publish(self, body: bytes) -> None:
        self.queue.append((body, 1))
        self.published[body] += 1

    @precondition(lambda self: self.queue)
    @rule()
    def deliver(self) -> None:
        self.tag += 1
        self.unacked[self.tag] = self.queue.pop(0)
        held = self.leases.arrive(arrival(*self.unacked[self.tag]), self.tag, self.now, self.now)
        if held.phase is Phase.DONE:
            self.ack(held)

    @precondition(lambda self: self.queue)
    @rule()
    def somebody_else_does_it(self) -> None:
        body, _ = self.queue.pop(0)
        self.work_done[body] += 1
        self.acked[body] += 1

    @rule()
    def channel_is_lost(self) -> None:
        self.queue[:0] = self.unacked.values()
        self.unacked.clear()
        self.leases.lose_all()
        self.leases.wait_for_orphans(self.now + 30)

    def ack(self, held: Held) -> None:
        assert held.tag is not None
        body, _ = self.unacked.pop(held.tag)
        assert body == held.message.body
        self.acked[body] += 1
        self.leases.forget(held)

    # We.

    @rule()
    def receive(self) -> None:
        if (held := self.leases.receive(self.now)) is not None:
            assert held.phase is Phase.IN_HAND
            assert held not in self.in_hand
            self.in_hand.append(held)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.in_hand))
        self.in_hand.remove(held)
        self.work_done[held.message.body] += 1
        if held.is_gone:
            return
        held.settled = Future()
        self.leases.finish(held)
        if held.tag is not None:
            self.ack(held)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), wait_s=st.sampled_from([0.0, 5.0]))
    def retry(self, data: st.DataObject, wait_s: float) -> None:
        held = data.draw(st.sampled_from(self.in_hand))
        self.in_hand.remove(held)
        if not held.is_gone:
            held.attempt += 1
            self.leases.wait(held, self.now + wait_s)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), is_confirmed=st.booleans())
    def copy(self, data: st.DataObject, is_confirmed: bool) -> None:
        """The count travels with a copy; the original is acknowledged behind it."""
        held = data.draw(st.sampled_from(self.waiting()))
        self.leases.move(held)
        if not is_confirmed:
            self.leases.wait(held, held.due)
            return
        body = held.message.body
        self.queue.append((body, held.attempt))
        self.published[body] += 1
        self.work_done[body] += 1  # to hand it on was the work on the original
        self.leases.finish(held)
        if held.tag is not None:
            self.ack(held)

    @precondition(lambda self: self.leases.leased())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.leases.leased()))
        assert held.tag is not None
        self.queue.insert(0, self.unacked.pop(held.tag))
        self.leases.lose(held)

    @rule(seconds=st.sampled_from([1.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for held in self.leases.given_up(self.now):
            assert held.is_gone

    def waiting(self) -> list[Held]:
        return [one for one in self.leases.all() if one.phase is Phase.WAITING]

    @invariant()
    def nothing_is_acknowledged_undone(self) -> None:
        for body in BODIES:
            assert self.acked[body] <= self.work_done[body]

    @invariant()
    def nothing_is_lost(self) -> None:
        for body in BODIES:
            at_broker = sum(one[0] == body for one in (*self.queue, *self.unacked.values()))
            assert self.published[body] == self.acked[body] + at_broker

    @invariant()
    def the_books_agree_with_the_broker(self) -> None:
        leased = self.leases.leased()
        assert {held.tag for held in leased} == set(self.unacked)
        for held in leased:
            assert held.tag is not None
            assert held.message.body == self.unacked[held.tag][0]


TestLeases = LeasesMachine.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
