"""Logs: one line per thing that happened, secrets masked at the last gate.

Everything goes to standard error, as lines for people on a terminal and as JSON elsewhere.
`LOG_FORMAT=classic` prints to standard output what the first vault-ml printed, and only troubles
to standard error.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from vault_ml import json_text
from vault_ml.telemetry.redaction import redact, redact_text

Logger = FilteringBoundLogger
"""A structlog logger: `log.info("recording_fetched", key=..., bytes=...)`."""

_SECONDS_DIGITS = 4
_FIRST = ("event", "level", "timestamp")


class Lines:
    """A stream that whole lines are written to, from any thread.

    A log that cannot be written (a closed pipe, a full disk) must not stop the work: it is dropped.
    """

    def __init__(self, stream: TextIO | None = None, *, name: str = "stderr") -> None:
        """Write to `stream`, or to what `sys.<name>` is at the time."""
        self._stream = stream
        self._name = name
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Write `text` and a line break, at once."""
        stream: TextIO = self._stream or getattr(sys, self._name)
        with self._lock:
            try:
                stream.write(text + "\n")
                stream.flush()
            except (OSError, ValueError):
                pass

    # structlog calls the method named after the level.
    debug = info = warning = error = critical = exception = msg = write


def configure(log_format: str, log_level: str, *, stream: TextIO | None = None) -> Logger:
    """The logger of the process. What libraries log at WARNING and above goes through it too.

    Args:
        log_format: LOG_FORMAT: `auto`, `console`, `json` or `classic`.
        log_level: LOG_LEVEL.
        stream: where lines go; standard error by default.
    """
    level = logging.getLevelNamesMapping()[log_level]
    if log_format == "classic":
        level = max(level, logging.WARNING)
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redacted,
        _ordered,
        _renderer(log_format, stream or sys.stderr),
    ]
    logger: Logger = structlog.wrap_logger(
        Lines(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    ).bind()
    _listen_to_libraries(logger)
    return logger


def is_for_people(log_format: str, stream: TextIO) -> bool:
    """Whether lines are for a person to read, and not for a log collector."""
    if log_format == "auto":
        return stream.isatty()
    return log_format in {"console", "classic"}


def _renderer(log_format: str, stream: TextIO) -> Any:
    if is_for_people(log_format, stream):
        return structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            pad_event_to=28,
            sort_keys=False,  # as they were given: the recording before the seconds
            # Never local variables: they hold credentials.
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.processors.JSONRenderer(default=_as_text)


def _as_text(value: object) -> str:
    return redact_text(str(value))


def _redacted(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    masked = redact(line)
    assert isinstance(masked, dict)
    return masked


def _ordered(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """What happened, how grave it is and when come first; a person reads lines from the left."""
    first = {name: line[name] for name in _FIRST if name in line}
    return {**first, **line}


class _Libraries(logging.Handler):
    """Hands records of the standard library's logging to our logger."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments do not fit the library's own text
            message = str(record.msg)
        self._logger.log(record.levelno, "library_logged", library=record.name, message=message)


def _listen_to_libraries(logger: Logger) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Libraries):
            root.removeHandler(handler)
    root.addHandler(_Libraries(logger))


# --- the line of a recording ---------------------------------------------------------------------


class Event(Protocol):
    """What is needed of an event."""

    @property
    def key(self) -> str:
        """Name of the recording."""

    @property
    def source(self) -> str:
        """Its storage provider."""

    def without_credentials(self) -> str:
        """The event as JSON text."""


class Seen(Protocol):
    """What is needed of a looked-at frame."""

    @property
    def detections(self) -> Sized:
        """The objects."""


class Body(Protocol):
    """What is needed of a message."""

    @property
    def body(self) -> bytes:
        """UTF-8 JSON."""


class Counted(Protocol):
    """What is needed of a verdict."""

    @property
    def count(self) -> int:
        """Objects of interest."""

    @property
    def is_interesting(self) -> bool:
        """Whether the threshold was reached."""


class ProcessedRecording(Protocol):
    """What is needed of a recording that was looked at; `sinks.port.Processed` fits."""

    @property
    def event(self) -> Event: ...  # noqa: D102
    @property
    def frames(self) -> Sequence[Seen]: ...  # noqa: D102
    @property
    def verdict(self) -> Counted: ...  # noqa: D102
    @property
    def message(self) -> Body: ...  # noqa: D102
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def bytes_fetched(self) -> int: ...  # noqa: D102
    @property
    def left_out(self) -> str | None: ...  # noqa: D102


class RecordingLog:
    """What is told of each recording: one line, or the first vault-ml's block of lines.

    In the classic format a recording is printed when it is done, in one piece: several are in
    flight at once, and their lines would be mixed up otherwise.
    """

    def __init__(
        self, log_format: str, log: Logger, *, stdout: TextIO | None = None, publishes: bool = True
    ) -> None:
        """Tell in `log_format`.

        Args:
            log_format: LOG_FORMAT.
            log: the logger of the process.
            stdout: where the classic lines go; standard output by default.
            publishes: whether results go to a target queue.
        """
        self._is_classic = log_format == "classic"
        self._is_for_people = is_for_people(log_format, sys.stderr)
        self._log = log
        self._lines = Lines(stdout, name="stdout")
        self._publishes = publishes
        self._lock = threading.Lock()
        self._is_checking = False

    def layer_table(self, table: str) -> None:
        """Tell the network's layers; '' (a model that is no darknet one) is passed over."""
        if not table:
            return
        if self._is_classic:
            self._lines.write(table)
        elif self._is_for_people:
            Lines().write(table)
        else:
            self._log.info("model_layers", table=table)

    def checking(self) -> None:
        """Say that the queue is looked at; not again until a recording came in between."""
        if not self._is_classic:
            return
        with self._lock:
            if not self._is_checking:
                self._lines.write("checking..")
            self._is_checking = True

    def received(self, event: Event) -> None:
        """Say that an event came."""
        self._log.debug("recording_received", key=event.key, provider=event.source)

    def processed(self, log: Logger, processed: ProcessedRecording, *, seconds: float) -> None:
        """Tell what became of a recording, in one line.

        Args:
            log: bound to the delivery.
            processed: the outcome.
            seconds: all of its time, waiting included.
        """
        if processed.left_out is not None:
            log.warning("result_shortened", key=processed.event.key, reason=processed.left_out)
        if self._is_classic:
            self._print(processed)
            return
        rooms = {
            f"{name}_s": round(spent, _SECONDS_DIGITS) for name, spent in processed.seconds.items()
        }
        log.info(
            "recording_processed",
            key=processed.event.key,
            provider=processed.event.source,
            frames=len(processed.frames),
            detections=sum(len(frame.detections) for frame in processed.frames),
            objects=processed.verdict.count,
            outcome="interesting" if processed.verdict.is_interesting else "not_interesting",
            bytes_fetched=processed.bytes_fetched,
            run_id=processed.run_id,
            seconds=round(seconds, _SECONDS_DIGITS),
            **rooms,
        )

    def _print(self, processed: ProcessedRecording) -> None:
        lines = [classic_event(processed.event), classic_result(processed.message.body)]
        if self._publishes:
            lines.append("Sending to footages")
        lines.append("next..")
        with self._lock:
            if not self._is_checking:
                lines.insert(0, "checking..")
            self._lines.write("\n".join(lines))
            self._is_checking = False


def classic_event(event: Event) -> str:
    """An event as the first vault-ml printed it: a Python dict. Without its credentials."""
    return repr(redact(json_text.decode(event.without_credentials())))


def classic_result(body: bytes) -> str:
    """A result as the first vault-ml printed it: its JSON on one line."""
    # Line breaks of JSON stand between its tokens only.
    return " ".join(body.decode().splitlines())
