"""Where the time of a recording went, as a collector sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conftest import shared_file
from e2e.stand import Stand, recording_name, wait_for
from otlp_collector import Collector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ONE_PERSON = "video/one_person_5s_768x432_10fps.mp4"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def send(stand: Stand, key: str, trace_id: str) -> None:
    event = json.loads(stand.vault.event(key))
    stand.send(json.dumps({**event, "traceId": trace_id}).encode())


def test_a_recording_is_one_trace_under_the_id_of_its_event(
    stand: Stand, small_model: str, collector: Collector
) -> None:
    results = stand.reader(stand.target)
    worker = stand.worker(
        MODEL=small_model,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
        FORWARDING_MEDIA="true",
        FORWARDING_METADATA="true",
        FORWARDING_OBJECT_THRESHOLD="0",
        REMOVE_AFTER_PROCESSED="true",
        REMOVE_AFTER_FORWARD_QUEUED="true",
        CONFIDENCE_THRESHOLD="0.3",
    )
    key = recording_name(1)
    stand.vault.put(key, shared_file(ONE_PERSON).read_bytes())
    send(stand, key, TRACE)
    wait_for(lambda: not stand.vault.has(key), 90, f"removal; {worker.output()}")
    rooms = ["parse", "fetch", "decode", "detect", "track", "judge", "publish",
             "forward_media", "forward_metadata", "settle", "remove"]  # fmt: skip
    wait_for(
        lambda: {*rooms, "recording"} <= {span.name for span in collector.spans(TRACE)},
        30,
        f"every room; {[span.name for span in collector.spans(TRACE)]}",
    )
    spans = {span.name: span for span in collector.spans(TRACE)}
    root = spans.pop("recording")
    assert root.parent_span_id == b""
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    began = [spans[room].start_time_unix_nano for room in rooms]
    assert began == sorted(began), "the rooms are gone through in order"
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in spans.values())
    known = {each.key: each.value for each in root.attributes}
    assert known["key"].string_value == key
    assert known["run_id"].string_value == results.messages[0].headers["vault-ml-run-id"]
    assert collector.services == {"vault-ml"}
    # Whoever reads the result goes on with the same trace, and a log line leads to it.
    parent = f"00-{TRACE}-{root.span_id.hex()}-"
    assert results.messages[0].headers["traceparent"].startswith(parent)
    assert worker.lines("recording_processed")[0]["trace_id"] == TRACE
    assert worker.stop() == 0
    account = stand.vault.account
    assert account.access_key not in collector.text
    assert account.secret_key not in collector.text


def test_what_failed_is_marked_and_names_the_room(
    stand: Stand, small_model: str, collector: Collector
) -> None:
    worker = stand.worker(
        MODEL=small_model,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
        RETRY_MAX_ATTEMPTS="1",
    )
    key = recording_name(2)
    stand.vault.put(key, b"no video at all" * 1000)
    send(stand, key, TRACE)
    wait_for(
        lambda: "recording" in {span.name for span in collector.spans(TRACE)},
        90,
        f"the trace; {worker.output()}",
    )
    spans = {span.name: span for span in collector.spans(TRACE)}
    assert spans["decode"].status.code == spans["recording"].status.code == 2
    assert spans["fetch"].status.code == 0
    why = {each.key: each.value.string_value for each in spans["decode"].attributes}
    assert why["error.type"] == "UndecodableRecording"


def test_a_collector_that_is_away_costs_no_recording_and_no_time_at_the_end(
    stand: Stand, small_model: str
) -> None:
    results = stand.reader(stand.target)
    worker = stand.worker(
        MODEL=small_model,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    stand.store(recording_name(3), shared_file(ONE_PERSON).read_bytes())
    wait_for(lambda: len(results.messages) == 1, 90, f"a result; {worker.output()}")
    wait_for(lambda: "traces may be lost" in worker.output(), 30, f"a complaint; {worker.output()}")
    assert worker.stop(15) == 0
    assert worker.output().count("traces may be lost") == 1
