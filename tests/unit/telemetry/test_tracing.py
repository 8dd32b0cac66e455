"""Spans: whose trace they are in, and what they say."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vault_ml.errors import ConfigError
from vault_ml.telemetry.tracing import NO_TRACE, NoTracing, OpenTelemetry, tracing_to

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: SpanExporter) -> Iterator[OpenTelemetry]:
    tracing = OpenTelemetry(exporter, version="1")
    yield tracing
    tracing.close()


def test_an_event_keeps_its_trace_id(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = tracing.recording(TRACE.upper(), {}, {"key": "a.mp4"}, seconds=2)
    trace.past("parse", 1)
    trace.note(objects=3)
    trace.end()
    assert trace.id == TRACE
    tracing.close()
    parse, root = exporter.get_finished_spans()
    assert (parse.name, root.name) == ("parse", "recording")
    assert root.attributes == {"key": "a.mp4", "objects": 3}
    assert root.parent is None
    for span, seconds in ((root, 2), (parse, 1)):
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time >= seconds * 1e9


@pytest.mark.parametrize("wrong", [None, "", "0" * 32, TRACE[1:], "g" * 32, TRACE + "\n"])
def test_what_is_no_trace_id_begins_a_new_trace(tracing: OpenTelemetry, wrong: str | None) -> None:
    first = tracing.recording(wrong, {}, {}, seconds=0)
    second = tracing.recording(wrong, {}, {}, seconds=0)
    assert first.id is not None
    assert first.id != second.id
    assert first.id not in {TRACE, "0" * 32}


def test_a_traceparent_comes_before_the_trace_id_and_is_the_parent(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    headers = {"traceparent": f"00-{OTHER}-b7ad6b7169203331-01"}
    trace = tracing.recording(TRACE, headers, {}, seconds=0)
    trace.end()
    assert trace.id == OTHER
    tracing.close()
    (root,) = exporter.get_finished_spans()
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert root.context is not None
    assert trace.headers["traceparent"] == f"00-{OTHER}-{root.context.span_id:016x}-01"


def test_an_error_is_named_without_its_traceback_and_masked(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = tracing.recording(TRACE, {}, {}, seconds=0)
    with pytest.raises(ValueError, match="x"), trace.room("fetch"):
        raise ValueError("x http://vault/a?signature=hidden")
    ended = trace.later("settle")
    ended(None)
    trace.end()
    trace.room("remove").__enter__()  # after the end: no error
    tracing.close()
    fetch, settle, root, *_ = exporter.get_finished_spans()
    assert [span.status.is_ok for span in (fetch, settle, root)] == [False, True, False]
    assert fetch.attributes == {"error.type": "ValueError"}
    assert "hidden" not in str(fetch.status.description)
    assert not fetch.events


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracing = tracing_to(f"http://127.0.0.1:{silent.getsockname()[1]}", version="1")
        tracing.recording(TRACE, {}, {}, seconds=0).end()
        started = time.monotonic()
        tracing.close()
        # A second is what it may take; an export alone may take five.
        assert time.monotonic() - started < 4


def test_without_opentelemetry_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(ConfigError, match=r"pip install 'vault-ml\[tracing\]'"):
        tracing_to("http://127.0.0.1:4318", version="1")


@pytest.mark.parametrize("wrong", ["collector:4318", "grpc://collector:4317", ""])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT: must be http"):
        tracing_to(wrong, version="1")


def test_without_a_collector_nothing_is_recorded() -> None:
    tracing = NoTracing()
    trace = tracing.recording(TRACE, {}, {}, seconds=0)
    assert trace is NO_TRACE
    with trace.room("fetch"):
        trace.later("settle")(None)
    trace.past("parse", 1)
    trace.note(objects=1)
    trace.end()
    tracing.close()
    assert trace.id is None
    assert trace.headers == {}
