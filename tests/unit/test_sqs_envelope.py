from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("boto3")

from vault_ml.brokers import dead_letter
from vault_ml.brokers.port import Message
from vault_ml.brokers.sqs.envelope import (
    BODY,
    HEADERS,
    KEY,
    deduplication_id,
    from_sqs,
    size_bytes,
    to_sqs,
)


def text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def raw(body: str, attributes: dict[str, Any] | None = None, **about: str) -> Any:
    return {"Body": body, "MessageAttributes": attributes or {}, "Attributes": about}


def test_nothing_at_all_is_a_message_that_is_empty() -> None:
    assert from_sqs({}) == Message(b"")
    envelope = to_sqs(Message(b""), fifo=False)
    assert envelope["MessageBody"]
    assert envelope.get("MessageAttributes") == {BODY: text("empty")}


def test_plain_text_stays_plain_for_every_other_consumer() -> None:
    body = '{"a": "é漢🎥\r\n\t"}'
    assert to_sqs(Message(body.encode()), fifo=False) == {"MessageBody": body}


def test_headers_are_attributes_that_every_consumer_can_read() -> None:
    envelope = to_sqs(Message(b"{}", None, {"trace": "é", "a.b-c_9": "x"}), fifo=False)
    assert envelope["MessageAttributes"] == {"trace": text("é"), "a.b-c_9": text("x")}


def test_of_more_headers_than_fit_the_first_stay_readable() -> None:
    headers = {f"h{number}": str(number) for number in range(12)}
    attributes = to_sqs(Message(b"\xff", b"k", headers), fifo=False)["MessageAttributes"]
    assert list(attributes) == [BODY, KEY, *(f"h{n}" for n in range(7)), HEADERS]
    assert attributes[HEADERS] == text(
        '{"h7": "7", "h8": "8", "h9": "9", "h10": "10", "h11": "11"}'
    )


def test_ten_headers_are_ten_attributes() -> None:
    headers = {f"h{number}": str(number) for number in range(10)}
    assert set(to_sqs(Message(b"x", None, headers), fifo=False)["MessageAttributes"]) == set(
        headers
    )


@pytest.mark.parametrize(
    ("attributes", "headers"),
    [
        pytest.param({"n": {"DataType": "Number", "StringValue": "7"}}, {"n": "7"}, id="number"),
        pytest.param({"n": {"DataType": "Number.int", "StringValue": "7"}}, {"n": "7"}, id="label"),
        pytest.param({"b": {"DataType": "Binary", "BinaryValue": b"x"}}, {}, id="binary"),
        pytest.param({HEADERS: text("{oops")}, {HEADERS: "{oops"}, id="no JSON"),
        pytest.param({HEADERS: text("[1]")}, {HEADERS: "[1]"}, id="no object"),
        pytest.param({HEADERS: text('{"a": 1, "b": "2"}')}, {"b": "2"}, id="no texts"),
    ],
)
def test_attributes_of_others_are_headers_where_they_are_text(
    attributes: dict[str, Any], headers: dict[str, str]
) -> None:
    assert dict(from_sqs(raw("{}", attributes)).headers) == headers


def test_a_body_that_only_claims_to_be_base64_is_taken_as_it_is() -> None:
    assert from_sqs(raw("{not base64}", {BODY: text("base64")})).body == b"{not base64}"
    assert from_sqs(raw("{}", {BODY: text("rot13")})).body == b"{}"


def test_the_group_of_an_event_is_its_key() -> None:
    assert from_sqs(raw("{}", MessageGroupId="camera-7")).key == b"camera-7"
    assert from_sqs(raw("{}")).key is None


def test_a_key_that_can_be_a_group_is_not_sent_twice() -> None:
    envelope = to_sqs(Message(b"{}", b"camera-7"), fifo=True)
    assert envelope["MessageGroupId"] == "camera-7"
    assert "MessageAttributes" not in envelope
    with_space = to_sqs(Message(b"{}", b"camera 7"), fifo=True)
    assert with_space["MessageGroupId"].startswith("vault-ml.sha256.")
    assert with_space["MessageAttributes"][KEY]["BinaryValue"] == b"camera 7"


def test_dead_letters_of_one_camera_do_not_hide_behind_each_other() -> None:
    letter = Message(b"{}", b"camera-7", {dead_letter.DEAD_LETTERED_AT: "2026-11-22T10:00:00.000"})
    one, other = to_sqs(letter, fifo=True), to_sqs(letter, fifo=True)
    assert one["MessageGroupId"] != other["MessageGroupId"]
    back = from_sqs(raw("{}", one["MessageAttributes"], MessageGroupId=one["MessageGroupId"]))
    assert back.key == b"camera-7"


def test_two_results_of_one_run_are_one_message() -> None:
    def result(body: bytes, run: str, version: str = "1") -> Message:
        return Message(
            body,
            b"cam",
            {
                "content-type": "application/json",
                "vault-ml-run-id": run,
                "vault-ml-version": version,
            },
        )

    assert deduplication_id(result(b"a", "r1")) == deduplication_id(result(b"b", "r1", "2"))
    assert deduplication_id(result(b"a", "r1")) != deduplication_id(result(b"a", "r2"))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Message(b"b", b"k", {"h": "1"}), id="body"),
        pytest.param(Message(b"a", b"l", {"h": "1"}), id="key"),
        pytest.param(Message(b"a", b"k", {"h": "2"}), id="header"),
        pytest.param(Message(b"a", b"k", {"h": "1", "vault-ml-redriven": "1"}), id="sent back"),
        pytest.param(Message(b"ak", b"", {"h": "1"}), id="the same bytes cut elsewhere"),
    ],
)
def test_any_other_message_is_the_same_only_when_all_of_it_is(other: Message) -> None:
    one = Message(b"a", b"k", {"h": "1"})
    assert deduplication_id(one) == deduplication_id(Message(b"a", b"k", {"h": "1"}))
    assert deduplication_id(one) != deduplication_id(other)


def test_an_event_that_carries_a_run_id_and_is_sent_back_is_not_dropped() -> None:
    event = Message(b"a", b"k", {"vault-ml-run-id": "r1"})
    again = Message(b"a", b"k", {"vault-ml-run-id": "r1", "vault-ml-redriven": "1"})
    assert deduplication_id(event) != deduplication_id(again)


def test_the_size_is_what_sqs_counts() -> None:
    envelope = to_sqs(Message("é".encode(), b"\xff\xff", {"abc": "é"}), fifo=False)
    assert size_bytes(envelope) == 2 + len("vault-ml.key" + "Binary") + 2 + len("abcString") + 2
