"""What a broker with transactions keeps beside the contract of all: inherit `TransactionContract`.

Results are read as their readers read them: committed ones only.
"""

from __future__ import annotations

import time

import pytest

from contract.broker_contract import (
    CLOSE_S,
    JOIN_S,
    BrokerContract,
    OrderContract,
    SizeContract,
    Tester,
    drain,
    receive,
    settled,
)
from vault_ml.brokers.port import Message
from vault_ml.errors import MessageTooLarge


class TransactionContract(BrokerContract):
    """The further cases."""

    def test_a_result_is_visible_once_its_event_is_settled(self, broker: Tester) -> None:
        queue, target = broker.system.new_queue(), broker.system.new_queue()
        broker.publish(queue, b"1")
        result = Message(b"result", b"key", {"vault-ml-run-id": "é"})
        assert settled(receive(broker.consumer(queue)).ack([(target, result)]))
        assert receive(broker.consumer(target)).message == result

    def test_an_event_without_a_result_is_settled_too(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        broker.publish(queue, b"1", b"2")
        consumer = broker.consumer(queue)
        assert settled(receive(consumer).ack())
        consumer.close(CLOSE_S)
        assert receive(broker.consumer(queue)).message.body == b"2"

    def test_results_for_several_places_are_seen_together(self, broker: Tester) -> None:
        queue = broker.system.new_queue()
        targets = [broker.system.new_queue() for _ in range(3)]
        broker.publish(queue, b"1")
        outgoing = [(target, Message(b"for " + target.encode())) for target in targets]
        assert settled(receive(broker.consumer(queue)).ack(outgoing))
        for target in targets:
            assert receive(broker.consumer(target)).message.body == b"for " + target.encode()

    def test_every_result_is_seen_once_when_the_broker_was_away(self, broker: Tester) -> None:
        if not broker.system.can_go_down:
            pytest.skip("this broker is not ours to stop")
        queue, target = broker.system.new_queue(), broker.system.new_queue()
        bodies = [b"%d" % number for number in range(40)]
        broker.publish(queue, *bodies)
        consumer = broker.consumer(queue)
        held = [receive(consumer) for _ in bodies]
        futures = [one.ack([(target, one.message)]) for one in held[:20]]
        time.sleep(0.05)  # into a transaction, or not; whichever, the rest must hold
        broker.system.set_down()
        futures += [one.ack([(target, one.message)]) for one in held[20:]]
        broker.system.set_up()
        open_ones = {
            one.message.body for one, f in zip(held, futures, strict=True) if not settled(f)
        }
        while open_ones:  # taken back while the broker was away
            delivery = receive(consumer)
            if settled(delivery.ack([(target, delivery.message)])):
                open_ones.discard(delivery.message.body)
        seen = [d.message.body for d in drain(broker.consumer(target), len(bodies))]
        assert sorted(seen) == sorted(bodies)


class TransactionOrderContract(OrderContract):
    """More for brokers that settle in the order of a partition, as all with transactions do."""

    settles_in_order = True

    def test_results_become_visible_in_the_order_of_their_events(self, broker: Tester) -> None:
        queue, target = broker.system.new_queue(), broker.system.new_queue()
        broker.publish(queue, *(b"%d" % number for number in range(6)))
        consumer, reader = broker.consumer(queue), broker.consumer(target)
        held = [receive(consumer) for _ in range(6)]
        futures = [
            held[number].ack([(target, Message(b"of " + held[number].message.body))])
            for number in (5, 3, 1, 2, 4)
        ]
        assert reader.receive(1.0) is None, "the first event is not finished"
        assert not any(future.done() for future in futures)
        assert settled(held[0].ack([(target, Message(b"of 0"))]))
        assert all(settled(future) for future in futures)
        assert [d.message.body for d in drain(reader, 6)] == [b"of %d" % n for n in range(6)]

    def test_a_result_of_an_event_that_is_not_settled_is_never_seen(self, broker: Tester) -> None:
        queue, target = broker.system.new_queue(), broker.system.new_queue()
        broker.publish(queue, b"1", b"2")
        first, reader = broker.consumer(queue), broker.consumer(target)
        receive(first)  # never finished
        behind = receive(first).ack([(target, Message(b"2, first time"))])
        assert reader.receive(1.0) is None
        first.close(CLOSE_S)
        assert not settled(behind)
        again = broker.consumer(queue)
        for delivery in drain(again, 2):
            assert settled(delivery.ack([(target, Message(delivery.message.body))]))
        assert [d.message.body for d in drain(reader, 2)] == [b"1", b"2"]


class TransactionSizeContract(SizeContract):
    """More for brokers that refuse what is too large.

    Attributes:
        settles_in_order: see `TransactionOrderContract`.
    """

    settles_in_order = False

    def test_a_result_that_is_too_large_fails_alone_and_can_be_replaced(
        self, broker: Tester
    ) -> None:
        limit = broker.system.max_message_bytes
        if limit is None:
            pytest.skip("this broker is not ours, and its limit unknown")
        queue, target = broker.system.new_queue(), broker.system.new_queue()
        broker.publish(queue, b"0", b"1", b"2")
        consumer, reader = broker.consumer(queue), broker.consumer(target)
        held = [receive(consumer) for _ in range(3)]
        too_large = held[1].ack([(target, Message(b"x" * (limit + 1)))])
        behind = held[2].ack([(target, Message(b"of 2"))])
        assert settled(held[0].ack([(target, Message(b"of 0"))]))
        with pytest.raises(MessageTooLarge):
            too_large.result(JOIN_S)
        assert settled(held[1].ack([(target, Message(b"a letter"))]))
        assert settled(behind)
        seen = [d.message.body for d in drain(reader, 3)]
        if self.settles_in_order:
            assert seen == [b"of 0", b"a letter", b"of 2"]
        assert sorted(seen) == [b"a letter", b"of 0", b"of 2"]

    def test_what_was_refused_can_be_tried_again(self, broker: Tester) -> None:
        limit = broker.system.max_message_bytes
        if limit is None:
            pytest.skip("this broker is not ours, and its limit unknown")
        queue, target = broker.system.new_queue(), broker.system.new_queue()
        broker.publish(queue, b"1")
        consumer = broker.consumer(queue)
        first = receive(consumer)
        with pytest.raises(MessageTooLarge):
            first.ack([(target, Message(b"x" * (limit + 1)))]).result(JOIN_S)
        first.retry(0.0)
        second = receive(consumer)
        assert (second.message.body, second.attempt) == (b"1", 2)
        assert settled(second.ack([(target, Message(b"small"))]))
        assert receive(broker.consumer(target)).message.body == b"small"
