"""A message in AMQP and back: what is ours stays hidden, what is not stays as it was."""

from __future__ import annotations

import decimal
from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from vault_ml.brokers.port import Message
from vault_ml.brokers.rabbitmq import wire
from vault_ml.errors import MessageTooLarge


def sent(properties: Any) -> Any:
    """The properties as the other side gets them, through pika's own encoding."""
    decoded = pika.BasicProperties()
    decoded.decode(b"".join(properties.encode()))
    return decoded


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Message(b""), id="empty"),
        pytest.param(Message(b"\x00\xff", b"\x00\xffkey"), id="bytes that are no text"),
        pytest.param(Message(b"{}", b"", {"é": "漢", "empty": ""}), id="an empty key"),
        pytest.param(Message(b"{}", b"cam", {"x-retry": "1"}), id="a header with x-"),
    ],
)
def test_a_message_arrives_as_it_was(message: Message) -> None:
    arrival = wire.from_wire(message.body, sent(wire.to_wire(message)))
    assert arrival.message == message
    assert (arrival.attempt, arrival.first_received_at, arrival.not_before) == (1, None, 0.0)
    assert arrival.delivery_count is None


def test_an_event_of_the_vault_has_no_headers_at_all() -> None:
    arrival = wire.from_wire(b"{}", pika.BasicProperties(content_type="application/json"))
    assert arrival.message == Message(b"{}")


def test_what_the_broker_and_we_write_is_no_header_of_the_message() -> None:
    headers = {
        "x-delivery-count": 3,
        "x-death": [{"reason": "rejected"}],
        "x-first-death-reason": "rejected",
        wire.ATTEMPT: "4",
        wire.FIRST_RECEIVED: "1700000000.5",
        wire.NOT_BEFORE: "1700000300.25",
        "x-retry-count": 2,
        "flag": True,
        "ratio": 0.5,
        "table": {"a": 1},
        "nothing": None,
        "bytes": b"\xff",
    }
    arrival = wire.from_wire(b"1", pika.BasicProperties(headers=headers))
    assert arrival.message.headers == {"x-retry-count": "2", "flag": "true", "ratio": "0.5"}
    assert (arrival.attempt, arrival.delivery_count) == (4, 3)
    assert (arrival.first_received_at, arrival.not_before) == (1700000000.5, 1700000300.25)


@pytest.mark.parametrize("text", ["", "many", "nan", "inf", "-3", "1e400", b"\xff", None, {}])
def test_nonsense_in_our_headers_counts_as_none(text: Any) -> None:
    headers = {wire.ATTEMPT: text, wire.FIRST_RECEIVED: text, wire.NOT_BEFORE: text}
    arrival = wire.from_wire(b"1", pika.BasicProperties(headers=headers))
    assert (arrival.attempt, arrival.first_received_at, arrival.not_before) == (1, None, 0.0)


def test_a_copy_is_the_message_with_its_count() -> None:
    properties = pika.BasicProperties(
        content_type="text/plain",
        correlation_id="7",
        user_id="somebody",
        priority=3,
        delivery_mode=1,
        headers={
            "traceparent": "00-1",
            "x-delivery-count": 2,
            "CC": ["elsewhere"],
            "BCC": ["elsewhere"],
            "ratio": 0.5,
            "nested": {"list": [1.5, {"a": 2.5}]},
            "price": decimal.Decimal("1.5"),
            "at": datetime(2026, 11, 22, tzinfo=UTC),
            wire.KEY: b"\xffcam",
        },
    )
    original = wire.from_wire(b"body", properties)  # pika reads floats, but writes none
    copy = sent(
        wire.copy_to_wire(original, attempt=2, first_received_at=1.7e9, not_before=1.7e9 + 60)
    )
    again = wire.from_wire(b"body", copy)
    assert again.message.key == b"\xffcam"
    assert again.digest == original.digest, "it has the same name"
    assert (again.attempt, again.first_received_at) == (2, 1.7e9)
    assert 1.7e9 + 60 <= again.not_before < 1.7e9 + 60.1
    assert again.delivery_count is None
    assert (copy.content_type, copy.correlation_id, copy.priority) == ("text/plain", "7", 3)
    assert copy.delivery_mode == 2
    assert copy.user_id is None, "the broker refuses that of another user"
    assert not {"CC", "BCC"} & set(copy.headers), "it would be routed elsewhere too"
    assert copy.headers["at"] == datetime(2026, 11, 22, tzinfo=UTC)
    assert original.properties.headers["x-delivery-count"] == 2, "the original is untouched"
    third = wire.copy_to_wire(again, attempt=3, first_received_at=1.7e9, not_before=0.0)
    assert wire.NOT_BEFORE not in third.headers
    assert third.message_id == copy.message_id


def test_messages_have_different_names_and_copies_the_same() -> None:
    digests = {
        wire.from_wire(m.body, wire.to_wire(m)).digest
        for m in (
            Message(b"a"),
            Message(b"b"),
            Message(b"a", b""),
            Message(b"a", b"k"),
            Message(b"a", None, {"k": ""}),
            Message(b"a", None, {"k": "v"}),
        )
    }
    assert len(digests) == 6
    twins = [wire.from_wire(b"a", wire.to_wire(Message(b"a"))).digest for _ in range(2)]
    assert twins[0] == twins[1], "message ids are not part of it"


def test_headers_have_to_fit_into_a_frame() -> None:
    wire.check_headers(wire.to_wire(Message(b"", None, {"a": "x" * 1000})), 1100)
    with pytest.raises(MessageTooLarge, match="frame_max"):
        wire.check_headers(wire.to_wire(Message(b"", None, {"a": "x" * 1100})), 1100)
    with pytest.raises(MessageTooLarge, match="255 bytes"):
        wire.check_headers(wire.to_wire(Message(b"", None, {"é" * 128: "x"})), 0)
    wire.check_headers(pika.BasicProperties(), 131072)
