"""Traces: where the time of one recording went, as spans that OpenTelemetry's collectors take.

One trace per recording, under the trace id that its event carries, so that upload, detection and
whatever comes next stand in one picture. A recording has one root span, `recording`, and one span
per room below it, from `parse` to `remove`. Without a collector nothing is recorded, and
OpenTelemetry is not imported.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from vault_ml.errors import ConfigError
from vault_ml.telemetry.redaction import redact_text

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger(__name__)

Attribute = str | int | float | bool

# Of the event. W3C: 32 hexadecimal digits, not all of them 0.
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
# At the end of a worker, spans that are not out yet get so long: a collector that is away must
# not hold up a drain.
_FLUSH_S = 1.0
_EXPORT_S = 5.0
# A collector that is away is told of so often, whatever its client says in between.
_TELL_EVERY_S = 60.0


class Trace(Protocol):
    """Of one recording. Methods may be called from any thread, also after `end`."""

    @property
    def id(self) -> str | None:
        """32 hexadecimal digits; None when nothing is recorded."""

    @property
    def headers(self) -> Mapping[str, str]:
        """W3C's `traceparent` for whoever reads the result; empty when nothing is recorded."""

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        """A span as long as the block; one that ends with an error says so."""

    def past(self, name: str, seconds: float) -> None:
        """A span that ends now and began `seconds` ago."""

    def later(self, name: str) -> Callable[[BaseException | None], None]:
        """A span that begins now and ends when the answer is called, with the error if any."""

    def note(self, **attributes: Attribute) -> None:
        """Write down about the recording what is known only at the end."""

    def end(self) -> None:
        """The recording thread is done with it."""


class Tracing(Protocol):
    """Where traces come from."""

    def recording(
        self,
        trace_id: str | None,
        headers: Mapping[str, str],
        attributes: Mapping[str, Attribute],
        *,
        seconds: float,
    ) -> Trace:
        """Begin the trace of a recording.

        Args:
            trace_id: of the event; None, or what is no trace id, begins a new one.
            headers: of the event's message; a `traceparent` comes before `trace_id`.
            attributes: what is known of the recording.
            seconds: how long ago it began.
        """

    def close(self) -> None:
        """Send what is left, for a second at most."""


class NoTrace:
    """Records nothing."""

    id: str | None = None
    headers: Mapping[str, str] = {}

    @contextmanager
    def room(self, name: str) -> Iterator[None]:  # noqa: ARG002, D102
        yield

    def past(self, name: str, seconds: float) -> None: ...  # noqa: D102

    def later(self, name: str) -> Callable[[BaseException | None], None]:  # noqa: ARG002, D102
        return lambda _error: None

    def note(self, **attributes: Attribute) -> None: ...  # noqa: D102

    def end(self) -> None: ...  # noqa: D102


class NoTracing:
    """Makes traces that record nothing."""

    def recording(  # noqa: D102
        self,
        trace_id: str | None,  # noqa: ARG002
        headers: Mapping[str, str],  # noqa: ARG002
        attributes: Mapping[str, Attribute],  # noqa: ARG002
        *,
        seconds: float,  # noqa: ARG002
    ) -> Trace:
        return NO_TRACE

    def close(self) -> None: ...  # noqa: D102


NO_TRACE: Trace = NoTrace()


class _SpanTrace:
    """One recording's spans."""

    def __init__(self, tracer: Tracer, root: Span) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._root = root
        self._below: Context = set_span_in_context(root)

    @property
    def id(self) -> str | None:
        return f"{self._root.get_span_context().trace_id:032x}"

    @property
    def headers(self) -> Mapping[str, str]:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, self._below)
        return carrier

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        ended = self.later(name)
        try:
            yield
        except BaseException as error:
            ended(error)
            raise
        ended(None)

    def past(self, name: str, seconds: float) -> None:
        now = time.time_ns()
        span = self._tracer.start_span(name, self._below, start_time=now - int(seconds * 1e9))
        span.end(now)

    def later(self, name: str) -> Callable[[BaseException | None], None]:
        span = self._tracer.start_span(name, self._below)

        def end(error: BaseException | None) -> None:
            if error is not None:
                self._fail(span, error)
                self._fail(self._root, error)
            span.end()

        return end

    def note(self, **attributes: Attribute) -> None:
        self._root.set_attributes(attributes)

    def end(self) -> None:
        self._root.end()

    @staticmethod
    def _fail(span: Span, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode

        # Not `record_exception`: it takes the traceback along, and what a library put into it.
        if span.is_recording():
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, redact_text(str(error))))


class OpenTelemetry:
    """Traces that go to a collector, from a thread of OpenTelemetry's own.

    A collector that is away costs spans, never a recording.
    """

    def __init__(self, exporter: SpanExporter, *, version: str) -> None:
        """Send to `exporter`. `OTEL_` variables that its SDK knows (service name, sampler) hold."""
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        wanted: contextvars.ContextVar[int | None] = contextvars.ContextVar("wanted", default=None)

        class FromEvents(RandomIdGenerator):
            """The ids of events where they have one."""

            def generate_trace_id(self) -> int:
                return wanted.get() or super().generate_trace_id()

        named = Resource({SERVICE_NAME: "vault-ml", SERVICE_VERSION: version})
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes first.
        from_environment = {
            name: value
            for name, value in Resource.create().attributes.items()
            if not (name == SERVICE_NAME and str(value).startswith("unknown_service"))
        }
        self._wanted = wanted
        self._provider: TracerProvider = TracerProvider(
            resource=named.merge(Resource(from_environment)),
            id_generator=FromEvents(),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("vault_ml", version)

    def recording(
        self,
        trace_id: str | None,
        headers: Mapping[str, str],
        attributes: Mapping[str, Attribute],
        *,
        seconds: float,
    ) -> Trace:
        """See `Tracing`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract(dict(headers), Context())
        text = (trace_id or "").lower()
        token = self._wanted.set(int(text, 16) if _TRACE_ID.fullmatch(text) else None)
        try:
            root = self._tracer.start_span(
                "recording",
                above,
                SpanKind.CONSUMER,
                attributes,
                start_time=time.time_ns() - int(seconds * 1e9),
            )
        finally:
            self._wanted.reset(token)
        return _SpanTrace(self._tracer, root)

    def close(self) -> None:
        """See `Tracing`."""
        # Its own time-outs are kept only between two attempts, so it is waited for from outside.
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_FLUSH_S)


def tracing_to(endpoint: str, *, version: str) -> Tracing:
    """Traces to the collector at `endpoint`, by OTLP over HTTP.

    Args:
        endpoint: OTEL_EXPORTER_OTLP_ENDPOINT, such as `http://collector:4318`.
        version: of vault-ml.

    Raises:
        ConfigError: OpenTelemetry is not installed, or the address is none.
    """
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    if urlsplit(endpoint).scheme not in {"http", "https"}:
        raise ConfigError(f"{name}: must be http://host:port or https://..., without a path")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk import trace as _sdk  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{name} is set and OpenTelemetry is not installed: pip install 'vault-ml[tracing]', "
            "or unset it"
        ) from error
    _be_brief()
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
    return OpenTelemetry(exporter, version=version)


class _Brief(logging.Handler):
    """Passes complaints of OpenTelemetry on once a minute, in one sentence."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told_at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            logger.warning("traces may be lost: %s", record.getMessage())


def _be_brief() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    theirs.handlers[:] = [_Brief()]
