from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from vault_ml import event as events
from vault_ml.errors import MalformedEvent
from vault_ml.event import MAX_DEPTH, MAX_EVENT_BYTES, RecordingEvent, event_schema, parse

# The event of the original's README, as the agent of that time made it.
CLASSIC: dict[str, Any] = {
    "provider": "kstorage",
    "source": "storj",
    "request": "persist",
    "payload": {
        "is_fragmented": False,
        "metadata": {
            "productid": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5",
            "event-timestamp": "1630567591",
            "event-instancename": "highway4",
            "event-microseconds": "0",
        },
        "key": "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4",
        "bytes_range_on_time": None,
        "fileSize": 6189104,
        "bytes_ranges": "",
    },
    "events": ["monitor", "sequence"],
    "date": 1630567591,
}


def with_payload(**fields: Any) -> bytes:
    return json.dumps(CLASSIC | {"payload": CLASSIC["payload"] | fields}).encode()


def minimal(**fields: Any) -> RecordingEvent:
    return parse(json.dumps({"source": "s", "payload": {"key": "k"}} | fields).encode())


@pytest.mark.parametrize("body", [b"", b"   \n"])
def test_an_empty_event_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedEvent, match="is empty"):
        parse(body)


def test_the_classic_event_is_read() -> None:
    event = parse(json.dumps(CLASSIC).encode())
    assert event.key == CLASSIC["payload"]["key"]
    assert event.source == "storj"
    assert event.provider == "kstorage"
    assert event.camera == "highway4"
    assert event.date == event.timestamp == 1630567591
    assert event.file_size == 6189104
    assert event.file_name is not None
    assert event.file_name.sub_second_s == pytest.approx(0.967003)
    assert (event.duration_ms, event.fps, event.signed_url, event.trace_id) == (None,) * 4
    assert event.document == CLASSIC
    assert json.loads(event.text) == CLASSIC


def test_key_and_source_are_all_that_is_needed() -> None:
    event = minimal()
    assert (event.key, event.source) == ("k", "s")
    assert event.camera is None
    assert event.timestamp is None
    assert event.secondary_providers == ()


def test_a_current_event_is_read() -> None:
    event = parse(
        with_payload(
            timestamp="1700000000",
            signedUrl="https://minio.example/a?X-Amz-Signature=canary",
            metadata={"duration": "30000", "fps": "25", "event-instancename": 7},
        ).replace(b'{"provider"', b'{"traceId": "t-1", "secondary_providers": ["b", 5], "provider"')
    )
    assert event.timestamp == 1700000000
    assert event.duration_ms == 30000
    assert event.fps == 25.0
    assert event.camera == "7"
    assert event.trace_id == "t-1"
    assert event.secondary_providers == ("b",)
    assert event.signed_url == "https://minio.example/a?X-Amz-Signature=canary"
    assert "canary" not in repr(event)


def test_the_camera_is_searched_in_metadata_then_payload_then_name() -> None:
    name = "u/1630567591_6-967003_high_way4_200-200-400-400_24_769.mp4"
    assert minimal(payload={"key": name}).camera == "high_way4"
    assert minimal(payload={"key": name, "deviceName": "door"}).camera == "door"
    named = {"key": name, "deviceName": "door", "metadata": {"event-instancename": "gate"}}
    assert minimal(payload=named).camera == "gate"
    assert minimal(payload={"key": name, "metadata": {"event-instancename": ""}}).camera


def test_the_start_is_searched_in_payload_then_metadata_then_name() -> None:
    name = "u/1630567591_3-737_gate_0-0-0-0_-1_0.mp4"
    assert minimal(payload={"key": name}).timestamp == 1630567591
    metadata = {"event-timestamp": "12"}
    assert minimal(payload={"key": name, "metadata": metadata}).timestamp == 12
    assert minimal(payload={"key": name, "metadata": metadata, "timestamp": 7}).timestamp == 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        ("5", 5),
        ("-5", -5),
        (5.0, 5),
        ("5.9", 5),
        (12345678901234567890, 12345678901234567890),
        ("12345678901234567890", 12345678901234567890),
        (None, None),
        (True, None),
        ("soon", None),
        ("1e999", None),
        ([5], None),
        ({"a": 1}, None),
    ],
)
def test_a_number_may_come_as_text_and_nonsense_counts_as_absent(
    value: object, expected: int | None
) -> None:
    assert minimal(date=value).date == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("25", 25.0), (29.97, 29.97), (0, None), ("-1", None), ("x", None), (False, None),
     ([], None), ("nan", None)],
)  # fmt: skip
def test_frames_per_second_are_positive_or_absent(value: object, expected: float | None) -> None:
    event = minimal(payload={"key": "k", "metadata": {"fps": value}})
    assert event.fps == expected


def test_a_number_too_large_for_a_float_is_no_frame_rate() -> None:
    body = b'{"source": "s", "payload": {"key": "k", "metadata": {"fps": 1%s}}}' % (b"0" * 39)
    assert parse(body).fps == 1e39
    huge = 10**400
    assert events._number_or_none(huge) is None


@pytest.mark.parametrize("value", [True, None, [], {}, "a\nb", "\ud800"])
def test_a_hint_that_is_no_usable_text_counts_as_absent(value: object) -> None:
    assert minimal(provider=value).provider is None


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_metadata_that_is_no_object_counts_as_absent(value: object) -> None:
    assert minimal(payload={"key": "k", "metadata": value}).timestamp is None


@pytest.mark.parametrize("value", [None, "b", 5])
def test_secondary_providers_that_are_no_list_count_as_absent(value: object) -> None:
    assert minimal(secondary_providers=value).secondary_providers == ()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"null", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"<html>", "not valid JSON"),
        (b'{"source": NaN}', "not valid JSON"),
        (b'{"source": -Infinity}', "not valid JSON"),
        (b'{"a": "line\nbreak"}', "not valid JSON"),
        (b"{}", "no source"),
        (b'{"source": "s"}', "no payload"),
        (b'{"source": "s", "payload": {}}', "no payload.key"),
        (b'{"source": "s", "payload": null}', "payload is not an object"),
        (b'{"source": "s", "payload": []}', "payload is not an object"),
        (b'{"source": "s", "payload": {"key": ""}}', "payload.key is empty"),
        (b'{"source": "s", "payload": {"key": 5}}', "payload.key is not a text"),
        (b'{"source": "s", "payload": {"key": null}}', "payload.key is not a text"),
        (b'{"source": 5, "payload": {"key": "k"}}', "source is not a text"),
        (b'{"source": "s", "payload": {"key": "a\\r\\nX-Evil: 1"}}', "cannot be the name"),
        (b'{"source": "s", "payload": {"key": "a\\u0000"}}', "cannot be the name"),
        (b'{"source": "s", "payload": {"key": "\\ud800"}}', "cannot be the name"),
        (b'{"source": "s", "payload": {"key": "%s"}}' % (b"k" * 5000), "cannot be the name"),
        (b" " * MAX_EVENT_BYTES + b"{}", "larger than"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "deeper than"),
        (b"[" * 1_000_000, "deeper than"),
        (b'{"a":' * 100_000, "deeper than"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_event_is_malformed_with_a_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(MalformedEvent, match=sentence) as caught:
        parse(body)
    assert "\n" not in str(caught.value)


def test_a_malformed_event_is_not_repeated_in_the_sentence() -> None:
    body = b'{"source": "s", "payload": {"key": 5}, "data": {"storage_secret": "canary"}}'
    with pytest.raises(MalformedEvent) as caught:
        parse(body)
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_the_deepest_nesting_that_is_allowed_is_read() -> None:
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    body = f'{{"source": "s", "payload": {{"key": "k"}}, "a": {nested}}}'
    assert parse(body.encode()).key == "k"


def test_brackets_inside_texts_do_not_nest() -> None:
    assert minimal(a="[" * 200 + '\\"' + "{" * 200).key == "k"


def test_a_byte_order_mark_is_tolerated() -> None:
    assert parse(b"\xef\xbb\xbf" + json.dumps(CLASSIC).encode()).source == "storj"


def test_a_number_of_thousands_of_digits_is_passed_on() -> None:
    body = b'{"source": "s", "payload": {"key": "k"}, "n": %s}' % (b"9" * 10_000)
    assert parse(body).text == body.decode()


def test_of_two_equal_names_the_last_counts_and_both_are_kept() -> None:
    body = b'{"source": "a", "source": "b", "payload": {"key": "k"}}'
    event = parse(body)
    assert event.source == "b"
    assert event.text == body.decode()


def test_credentials_are_cut_out_and_the_rest_stays_as_it_was() -> None:
    body = (
        '{"source":"s",  "n": 1.10, "payload": {"key": "k", "signedUrl": "https://canary?s=1",'
        ' "fileSize": 1e2}, "data": {"storage_uri": "canary", "storage_access_key": "canary",'
        ' "Storage_Secret": "canary", "storage_secret_key": "canary", "thumby": {"a": 1.0}},'
        ' "monitorStage": {"name": "x", "user": {"id": 7, "storage": {"secret_key": "canary"}}},'
        ' "storage": {"accessKey": "canary"}, "signedUrl": "canary"}'
    )
    clean = parse(body.encode()).without_credentials()
    assert "canary" not in clean
    assert '"n": 1.10' in clean
    assert '"fileSize": 1e2' in clean
    assert json.loads(clean) == {
        "source": "s",
        "n": 1.1,
        "payload": {"key": "k", "fileSize": 100.0},
        "data": {"thumby": {"a": 1.0}},
        "monitorStage": {"name": "x", "user": {"id": 7}},
    }


def test_an_event_without_credentials_is_not_touched() -> None:
    body = b'{ "source" :"s", "payload":{"key":"k"} ,"data":{"x":1.0},"monitorStage":[1] }'
    assert parse(body).without_credentials() == body.decode()


def test_the_schema_accepts_events_and_refuses_what_is_none() -> None:
    schema = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for body in (
        json.dumps(CLASSIC).encode(),
        with_payload(signedUrl="https://x", timestamp="5", metadata={"fps": "25"}),
        b'{"source": "s", "payload": {"key": "k"}, "anything": [1]}',
    ):
        parse(body)
        validator.validate(json.loads(body))
    no_events: list[object] = [{}, {"source": "s"}, {"source": "s", "payload": {"key": ""}}, []]
    for document in no_events:
        with pytest.raises(MalformedEvent):
            parse(json.dumps(document).encode())
        assert not validator.is_valid(document)
