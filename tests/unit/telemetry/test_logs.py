from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vault_ml.event import RecordingEvent, parse
from vault_ml.telemetry.logs import (
    Lines,
    RecordingLog,
    classic_event,
    classic_result,
    configure,
    is_for_people,
)
from vault_ml.verdict import Verdict

GOLDEN = Path(__file__).parents[2] / "golden"
EVENT = parse(b'{"source": "storj", "payload": {"key": "u/a.mp4"}}')


@dataclass
class FakeMessage:
    body: bytes


@dataclass
class FakeFrame:
    detections: list[int]


@dataclass
class FakeProcessed:
    """What `sinks.port.Processed` is to the log."""

    event: RecordingEvent = EVENT
    frames: list[FakeFrame] = field(default_factory=lambda: [FakeFrame([1, 2]), FakeFrame([])])
    verdict: Verdict = field(default_factory=lambda: Verdict(2, "objects >= 1", True))
    message: FakeMessage = field(default_factory=lambda: FakeMessage(b'{"a": 1}'))
    run_id: str = "id-1"
    seconds: dict[str, float] = field(default_factory=lambda: {"fetch": 0.123456})
    bytes_fetched: int = 1000
    left_out: str | None = None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clean_root_logger() -> Iterator[None]:
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    configure("auto", "INFO", stream=stream).bind(delivery="q[0]@1").info(
        "recording_fetched", key="u/ü.mp4", bytes=5, path=Path("/a")
    )
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "recording_fetched", "level": "info", "delivery": "q[0]@1", "key": "u/ü.mp4",
        "bytes": 5, "path": "/a",
    }  # fmt: skip


def test_a_json_line_begins_with_what_happened_how_grave_and_when() -> None:
    stream = io.StringIO()
    log = configure("json", "INFO", stream=stream)
    log.bind(delivery="q[0]@1").warning("recording_fetched", key="k", about="a")
    (line,) = lines(stream)
    assert list(line) == ["event", "level", "timestamp", "delivery", "key", "about"]


def test_on_a_terminal_a_line_is_for_people() -> None:
    stream = Terminal()
    configure("auto", "INFO", stream=stream).info("recording_fetched", key="k")
    assert "recording_fetched" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    plain = io.StringIO()
    configure("console", "INFO", stream=plain).info("recording_fetched", key="k", bytes=5)
    assert "key=k bytes=5" in plain.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_the_level_decides_what_is_logged() -> None:
    stream = io.StringIO()
    log = configure("json", "WARNING", stream=stream)
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_do_not_get_out(log_format: str) -> None:
    stream = io.StringIO()
    log = configure(log_format, "DEBUG", stream=stream)
    log.info("a", password="canary", headers={"X-Kerberos-Storage-AccessKey": "canary"})
    log.info("b", url="https://minio/a?sig=canary", body=b"canary", nested=[{"secret": "canary"}])
    log.info("request to https://u:canary@h failed")
    try:
        token = "https://minio/a?sig=canary"
        raise RuntimeError(f"cannot fetch {token}")
    except RuntimeError:
        log.exception("bug")
    assert "canary" not in stream.getvalue()
    assert "cannot fetch https://minio/a?***" in stream.getvalue().replace("\\n", "\n")
    assert "Traceback" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) >= 4


def test_libraries_are_heard_at_warning_through_the_same_gate() -> None:
    stream = io.StringIO()
    configure("json", "INFO", stream=io.StringIO())
    configure("json", "INFO", stream=stream)  # the last one only
    logging.getLogger("httpx").info("GET https://minio/a?sig=canary")
    logging.getLogger("urllib3").warning("retrying %s", "https://minio/a?sig=canary")
    broken = logging.LogRecord("broken", 30, "f", 1, "one %s and %s", ("argument",), None)
    logging.getLogger().handlers[-1].handle(broken)
    first, second = lines(stream)
    assert (first["level"], first["library"]) == ("warning", "urllib3")
    assert first["message"] == "retrying https://minio/a?***"
    assert second["message"] == "one %s and %s"


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    stream = io.StringIO()
    log = configure("json", "INFO", stream=stream)
    stream.close()
    log.info("into_the_void")


def test_lines_of_several_threads_are_not_mixed() -> None:
    stream = io.StringIO()
    sink = Lines(stream)

    def write(digit: str) -> None:
        for _ in range(50):
            sink.write(digit * 50)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {len(set(line)) for line in stream.getvalue().splitlines()} == {1}
    assert len(stream.getvalue().splitlines()) == 200


def test_a_recording_is_one_line() -> None:
    stream = io.StringIO()
    log = configure("json", "INFO", stream=stream)
    recording_log = RecordingLog("json", log)
    recording_log.checking()
    recording_log.received(EVENT)
    recording_log.processed(log.bind(attempt=1), FakeProcessed(), seconds=1.23456789)
    (line,) = lines(stream)
    del line["timestamp"]
    assert line == {
        "event": "recording_processed", "level": "info", "attempt": 1, "key": "u/a.mp4",
        "provider": "storj", "frames": 2, "detections": 2, "objects": 2, "outcome": "interesting",
        "bytes_fetched": 1000, "run_id": "id-1", "seconds": 1.2346, "fetch_s": 0.1235,
    }  # fmt: skip


def test_a_shortened_result_is_warned_of() -> None:
    stream = io.StringIO()
    log = configure("json", "INFO", stream=stream)
    boring = Verdict(0, "objects >= 1", is_interesting=False)
    processed = FakeProcessed(left_out="data.run was left out", verdict=boring)
    RecordingLog("json", log).processed(log, processed, seconds=1)
    first, second = lines(stream)
    assert (first["event"], first["level"]) == ("result_shortened", "warning")
    assert second["outcome"] == "not_interesting"


def test_classic_prints_what_the_first_vault_ml_printed() -> None:
    pairs = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("original_pair_*.json"))]
    stdout, stderr = io.StringIO(), io.StringIO()
    log = configure("classic", "DEBUG", stream=stderr)
    recording_log = RecordingLog("classic", log, stdout=stdout)
    expected = []
    for pair in pairs:
        event = parse(json.dumps(pair["event"]).encode())
        recording_log.checking()
        recording_log.checking()  # an idle poll
        recording_log.received(event)
        message = FakeMessage(pair["result_printed"].encode())
        recording_log.processed(log, FakeProcessed(event=event, message=message), seconds=1)
        expected += ["checking..", pair["event_printed"], pair["result_printed"],
                     "Sending to footages", "next.."]  # fmt: skip
    assert stdout.getvalue().splitlines() == expected
    assert stderr.getvalue() == ""
    log.warning("vault_unreachable")
    assert "vault_unreachable" in stderr.getvalue()


def test_classic_says_nothing_of_sending_when_nothing_is_published() -> None:
    stdout = io.StringIO()
    log = configure("classic", "INFO", stream=io.StringIO())
    recording_log = RecordingLog("classic", log, stdout=stdout, publishes=False)
    recording_log.processed(log, FakeProcessed(), seconds=1)
    recording_log.processed(log, FakeProcessed(), seconds=1)
    assert "Sending" not in stdout.getvalue()
    assert [line for line in stdout.getvalue().splitlines() if line.endswith("..")] == [
        "checking..", "next..", "checking..", "next..",
    ]  # fmt: skip


def test_classic_does_not_print_credentials() -> None:
    event = parse(
        b'{"source": "s", "payload": {"key": "k", "signedUrl": "canary"},'
        b' "x": {"password": "canary"}, "data": {"storage_secret": "canary"}, "u": "https://h?canary"}'
    )
    text = classic_event(event)
    assert "canary" not in text
    assert text.startswith("{'source': 's', 'payload': {'key': 'k'}")


def test_a_classic_result_is_one_line() -> None:
    assert "\n" not in classic_result(b'{"a": {\r\n  "b": 1\n}}')


@pytest.mark.parametrize(
    ("log_format", "is_people"), [("console", True), ("classic", True), ("json", False)]
)
def test_a_chosen_format_does_not_ask_for_a_terminal(log_format: str, is_people: bool) -> None:
    assert is_for_people(log_format, io.StringIO()) is is_people
    assert is_for_people(log_format, Terminal()) is is_people


def test_the_layer_table_is_printed_or_logged_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table = "layer     filters\n    0 conv     32"
    log = configure("json", "INFO")
    RecordingLog("classic", log).layer_table(table)
    assert capsys.readouterr().out == table + "\n"
    RecordingLog("console", log).layer_table(table)
    assert capsys.readouterr().err == table + "\n"
    RecordingLog("json", log).layer_table(table)
    assert json.loads(capsys.readouterr().err)["table"] == table
    RecordingLog("json", log).layer_table("")
    assert capsys.readouterr().err == ""
