"""A dead letter as a person sees it, and which ones are meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from vault_ml.brokers import dead_letter
from vault_ml.brokers.letter import (
    ID_CHARACTERS,
    Letter,
    letter_id,
    printable,
    read,
    shown_body,
    shown_headers,
)
from vault_ml.brokers.letter_selection import Selection, parse_time
from vault_ml.brokers.port import Message

KEY = "youruser/1630567595_6-967003_highway4_200-200-400-400_24_769.mp4"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Lying:
    """A delivery that nobody settles."""

    message: Message
    id: str = "ml-queue.dlq[0]@4"
    attempt: int = 1
    first_received_at: float = 0.0
    settled: list[str] = field(default_factory=list)

    def ack(self, publishing: Sequence[tuple[str, Message]] = ()) -> Future[None]:
        raise AssertionError

    def retry(self, after_s: float, *, burn_attempt: bool = True) -> None:
        raise AssertionError


def event(**more: object) -> bytes:
    return json.dumps({"source": "local", "payload": {"key": KEY}, **more}).encode()


def letter(body: bytes, **headers: str) -> Letter:
    named = {dead_letter.PREFIX + name.replace("_", "-"): text for name, text in headers.items()}
    return read(Lying(Message(body, b"cam", named)))


def dead(**changed: str) -> Letter:
    headers = {
        "reason": "the recording is not there",
        "stage": "fetch",
        "error_class": "RecordingNotFound",
        "attempts": "5",
        "first_received_at": "2026-03-01T10:00:00.000+00:00",
        "dead_lettered_at": "2026-03-01T10:20:00.000+00:00",
        "queue": "ml-queue",
    }
    return letter(event(), **{**headers, **changed})


def test_nothing_is_known_of_an_empty_letter_and_it_can_be_read() -> None:
    found = letter(b"")
    assert (found.reason, found.error, found.attempts, found.recording_key) == (None,) * 4
    assert shown_body(b"") == "<empty>"
    assert shown_headers(Message(b"")) == {}


def test_headers_and_event_are_read() -> None:
    found = dead(redriven="2", host="pod-1", version="1.0")
    assert found.reason == "the recording is not there"
    assert (found.stage, found.error, found.attempts) == ("fetch", "RecordingNotFound", 5)
    assert found.dead_lettered_at == datetime(2026, 3, 1, 10, 20, tzinfo=UTC)
    assert (found.recording_key, found.source, found.camera) == (KEY, "local", "highway4")
    assert (found.queue, found.host, found.version, found.redriven) == (
        "ml-queue", "pod-1", "1.0", 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"attempts": "many", "redriven": "-1"}, id="no-numbers"),
        pytest.param({"attempts": "9" * 50, "redriven": "٣"}, id="no-counts"),
        pytest.param({"dead_lettered_at": "yesterday", "first_received_at": ""}, id="no-times"),
    ],
)
def test_headers_that_make_no_sense_are_as_good_as_absent(headers: dict[str, str]) -> None:
    found = letter(event(), **headers)
    assert found.attempts is None
    assert found.redriven == 0
    assert found.dead_lettered_at is None


def test_id_is_that_of_the_content_wherever_it_lies() -> None:
    one = Message(b"body", b"key", {"a": "1", "b": "2"})
    assert letter_id(one) == letter_id(Message(b"body", b"key", {"b": "2", "a": "1"}))
    assert len(letter_id(one)) == ID_CHARACTERS
    others = [
        Message(b"bod", b"ykey", {"a": "1", "b": "2"}),
        Message(b"body", b"", {"a": "1", "b": "2"}),
        Message(b"body", None, {"a": "1", "b": "2"}),
        Message(b"body", b"key", {"a": "1", "b": "3"}),
        Message(b"body", b"key", {"a": "1"}),
    ]
    assert len({letter_id(message) for message in [one, *others]}) == 6


# What is shown.


def test_credentials_of_an_event_are_not_shown() -> None:
    body = event(
        data={"storage_uri": "https://canary-1", "storage_access_key": "canary-2", "kept": 1.10},
        signedUrl="https://canary-3/x",
        note={"url": "https://user:canary-4@host/a?sig=canary-5", "api_key": "canary-6"},
    )
    shown = shown_body(body)
    assert "canary" not in shown
    assert json.loads(shown)["payload"]["key"] == KEY
    assert json.loads(shown)["data"] == {"kept": 1.1}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"signedUrl": "https://canary/x", "broken', id="cut-off"),
        pytest.param(b'password=canary {"a": 1}', id="text-before"),
        pytest.param(b'["secret: canary", {"secret": "canary"}]', id="a-list"),
        pytest.param(b'{"a":' * 500 + b'{"secret": "canary"}' + b"}" * 500, id="deep"),
        pytest.param(b'{"storage": {"uri": "canary"}}', id="not-an-event"),
        pytest.param(b"\xff\xfe canary", id="binary"),
    ],
)
def test_secrets_of_what_is_no_event_are_not_shown(body: bytes) -> None:
    shown = shown_body(body)
    assert "canary" not in shown.replace("https://canary/x", "")


def test_long_text_is_cut_off_and_says_so() -> None:
    assert shown_body(b"x" * 10_000).endswith("x ... (10000 characters)")


def test_secrets_in_headers_and_reasons_are_not_shown() -> None:
    message = Message(b"", None, {"Authorization": "Bearer canary", "trace": "1"})
    assert shown_headers(message) == {"Authorization": "***", "trace": "1"}
    assert "canary" not in (dead(reason="GET https://a/b?sig=canary failed").reason or "")


def test_text_of_the_wire_cannot_steer_a_terminal() -> None:
    nasty = "a\x1b[2J\x07\r\nb\u202ec\x9bd\u2028"
    shown = printable(nasty)
    assert all(one.isprintable() for one in shown)
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("é漢🎥") == "é漢🎥"


# Which ones are meant.


@pytest.mark.parametrize(
    "selection",
    [
        pytest.param(Selection(), id="all"),
        pytest.param(Selection(reason="NOT there"), id="reason"),
        pytest.param(Selection(error="recordingnotfound"), id="error"),
        pytest.param(Selection(stage="fetch"), id="stage"),
        pytest.param(Selection(key=KEY), id="key"),
        pytest.param(Selection(key="youruser/*"), id="glob"),
        pytest.param(Selection(key="highway?"), id="camera"),
        pytest.param(Selection(since=datetime(2026, 3, 1, 10, 20, tzinfo=UTC)), id="since"),
        pytest.param(Selection(before=NOW), id="before"),
        pytest.param(Selection(queue="ml-queue"), id="queue"),
        pytest.param(Selection(ids=("ffffffffffff", dead().id[:4])), id="one-of-the-ids"),
    ],
)
def test_a_letter_that_fits_is_selected(selection: Selection) -> None:
    assert selection.fits(dead())


@pytest.mark.parametrize(
    "selection",
    [
        pytest.param(Selection(reason="decoded"), id="reason"),
        pytest.param(Selection(error="Recording"), id="error"),
        pytest.param(Selection(stage="decode"), id="stage"),
        pytest.param(Selection(key="highway"), id="key"),
        pytest.param(Selection(key="YOURUSER/*"), id="case-of-a-name"),
        pytest.param(Selection(since=NOW), id="since"),
        pytest.param(Selection(before=datetime(2026, 3, 1, 10, 20, tzinfo=UTC)), id="before"),
        pytest.param(Selection(queue="other"), id="queue"),
        pytest.param(Selection(ids=("zzzz",)), id="id"),
        pytest.param(Selection(stage="fetch", error="DecoderFailed"), id="only-one-of-two"),
    ],
)
def test_a_letter_that_does_not_fit_is_not_selected(selection: Selection) -> None:
    assert not selection.fits(dead())


def test_a_letter_of_the_brokers_own_fits_every_queue_and_no_reason() -> None:
    bare = letter(event())
    assert Selection(queue="ml-queue").fits(bare)
    for selection in (
        Selection(reason="x"), Selection(error="x"), Selection(stage="x"), Selection(since=NOW),
        Selection(before=NOW),
    ):  # fmt: skip
        assert not selection.fits(bare)


def test_a_queue_is_the_same_by_its_name_and_by_its_url() -> None:
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/ml-queue"
    assert Selection(queue=url).fits(dead())
    assert Selection(queue="ml-queue").fits(dead(queue=url))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("90m", datetime(2026, 3, 1, 10, 30, tzinfo=UTC), id="minutes"),
        pytest.param(" 2 d ", datetime(2026, 2, 27, 12, tzinfo=UTC), id="days"),
        pytest.param("1w", datetime(2026, 2, 22, 12, tzinfo=UTC), id="week"),
        pytest.param("2026-02-01", datetime(2026, 2, 1, tzinfo=UTC), id="date"),
        pytest.param("2026-02-01T10:30", datetime(2026, 2, 1, 10, 30, tzinfo=UTC), id="time"),
        pytest.param("2026-02-01T10:30+02:00", datetime(2026, 2, 1, 8, 30, tzinfo=UTC), id="zone"),
    ],
)
def test_times_are_understood(text: str, moment: datetime) -> None:
    assert parse_time(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "5", "-3h", "999999w", "2026-13-01"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="90m, 12h, 3d"):
        parse_time(text, NOW)
