"""Metrics for Prometheus, on a registry of their own. Labels are closed sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

OUTCOMES = ("processed", "retried", "dead_lettered", "given_back")
SINKS = ("publish", "forward_media", "forward_metadata", "forward_hub", "forward_detections")
ROOMS = ("parse", "fetch", "decode", "detect", "track", "judge", *SINKS)
DEPENDENCIES = ("vault", "broker", "detector", "dead_letter", *SINKS)
_OTHER = "other"
_FRAMES_PER_RUN = (1, 2, 4, 8, 16, 32, 64)
# A fetch of a small clip takes milliseconds, decoding a long one minutes.
# From "at once" to "since yesterday".
_AGES = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """What is counted. Methods may be called from any thread."""

    def __init__(self) -> None:
        """Start all counters at 0, so that a rate can be taken from the first event on."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it untyped
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._recordings = Counter(
            "vault_ml_recordings_total",
            "Deliveries by outcome: processed, retried, dead_lettered, given_back.",
            ["outcome"],
            registry=self.registry,
        )
        self._room_seconds = Histogram(
            "vault_ml_room_seconds",
            "Seconds that a recording spent in each step.",
            ["room"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._sent = Counter(
            "vault_ml_sent_total",
            "Results and forwards that the other side has confirmed.",
            ["sink"],
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "vault_ml_in_flight", "Recordings being worked on.", registry=self.registry
        )
        self._bytes = Counter(
            "vault_ml_fetched_bytes_total",
            "Bytes of recordings that came over the wire.",
            registry=self.registry,
        )
        self._recording_bytes = Counter(
            "vault_ml_recording_bytes_total",
            "Size of the recordings that were fetched, wholly or in part, bytes.",
            registry=self.registry,
        )
        self._removed = Counter(
            "vault_ml_removed_total", "Recordings removed from the Vault.", registry=self.registry
        )
        self._decoder_restarts = Counter(
            "vault_ml_decoder_restarts_total",
            "Decoder processes that died or were stuck, and were replaced.",
            registry=self.registry,
        )
        self._detector_restarts = Counter(
            "vault_ml_detector_restarts_total",
            "Detector processes that died or were stuck, and were replaced.",
            registry=self.registry,
        )
        self._duplicates = Counter(
            "vault_ml_duplicates_total",
            "Deliveries of a recording whose work was finished before; nothing was done again.",
            registry=self.registry,
        )
        self._outcome_failures = Counter(
            "vault_ml_outcome_failures_total",
            "Times that the store of finished runs (OUTCOMES) could not be asked or written.",
            registry=self.registry,
        )
        self._age = Histogram(
            "vault_ml_event_age_seconds",
            "Seconds from the start of a recording, as its event tells, to the receipt of the "
            "event: how far behind the queue is.",
            buckets=_AGES,
            registry=self.registry,
        )
        self._lag = Gauge(
            "vault_ml_queue_lag",
            "Events in the queue that are not settled, about, those in flight among them (Kafka: "
            "of this worker's partitions); NaN while the broker does not tell.",
            registry=self.registry,
        )
        self._lag.set(math.nan)
        self._frames = Counter(
            "vault_ml_frames_total", "Frames that were looked at.", registry=self.registry
        )
        self._batch = Histogram(
            "vault_ml_batch_frames",
            "Frames that the network looked at in one run.",
            buckets=_FRAMES_PER_RUN,
            registry=self.registry,
        )
        self._ready = Gauge(
            "vault_ml_ready",
            "1 while no reason is known why events would not be worked on; as /readyz says.",
            registry=self.registry,
        )
        self._away = Gauge(
            "vault_ml_dependency_away",
            "1 while something that is needed is away and work waits for it.",
            ["dependency"],
            registry=self.registry,
        )
        self._info = Gauge(
            "vault_ml_info",
            "What runs; the value is always 1.",
            ["version", "model", "runtime", "device", "precision"],
            registry=self.registry,
        )
        for outcome in OUTCOMES:
            self._recordings.labels(outcome)
        for room in ROOMS:
            self._room_seconds.labels(room)
        for sink in SINKS:
            self._sent.labels(sink)
        for dependency in DEPENDENCIES:
            self._away.labels(dependency)

    def outcome(self, outcome: str) -> None:
        """Count a delivery that is settled or given back; `outcome` is one of `OUTCOMES`."""
        self._recordings.labels(_one_of(OUTCOMES, outcome)).inc()

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a recording as worked on."""
        with self._in_flight.track_inprogress():
            yield

    def rooms(self, seconds: Mapping[str, float]) -> None:
        """Record how long one recording was in each of `ROOMS`."""
        for room, spent in seconds.items():
            self._room_seconds.labels(_one_of(ROOMS, room)).observe(spent)

    def sent(self, sink: str) -> None:
        """Count what one of `SINKS` has confirmed."""
        self._sent.labels(_one_of(SINKS, sink)).inc()

    def fetched(self, fetched_bytes: int, size_bytes: int) -> None:
        """Count a fetched recording: what came over the wire, and its size."""
        self._bytes.inc(fetched_bytes)
        self._recording_bytes.inc(size_bytes)

    def removed(self) -> None:
        """Count a removed recording."""
        self._removed.inc()

    def decoder_restarted(self) -> None:
        """Count a decoder that was replaced."""
        self._decoder_restarts.inc()

    def detector_restarted(self) -> None:
        """Count a detector that was replaced."""
        self._detector_restarts.inc()

    def duplicate(self) -> None:
        """Count a delivery of a run that was finished before."""
        self._duplicates.inc()

    def outcome_failure(self) -> None:
        """Count that the store of finished runs was of no help."""
        self._outcome_failures.inc()

    def received(self, age_s: float) -> None:
        """Record how old a recording was when its event was received."""
        self._age.observe(max(0.0, age_s))

    def watch_queue(self, lag: Callable[[], int | None]) -> None:
        """Ask `lag` whenever the metrics are read; it returns soon, None for unknown."""

        def value() -> float:
            count = lag()
            return math.nan if count is None else float(count)

        self._lag.set_function(value)

    def looked_at(self, frames: int) -> None:
        """Count the frames of a recording."""
        self._frames.inc(frames)

    def batch(self, frames: int) -> None:
        """Record one run of the network."""
        self._batch.observe(frames)

    def watch(
        self, unready: Callable[[], Mapping[str, str]], away: Callable[[], Collection[str]]
    ) -> None:
        """Ask at each scrape: why the worker is not ready, and what work waits for."""
        self._ready.set_function(lambda: 0.0 if unready() else 1.0)
        for dependency in (*DEPENDENCIES, _OTHER):
            self._away.labels(dependency).set_function(partial(_is_away, away, dependency))

    def runs(self, *, version: str, model: str, runtime: str, device: str, precision: str) -> None:
        """Say what runs, once it does."""
        self._info.clear()
        self._info.labels(version, model, runtime, device, precision).set(1)

    def render(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def _is_away(away: Callable[[], Collection[str]], dependency: str) -> float:
    names = {_one_of(DEPENDENCIES, name) for name in away()}
    return 1.0 if dependency in names else 0.0


def _one_of(labels: tuple[str, ...], label: str) -> str:
    """A label of the closed set. A new name is no reason to fail a recording; a test finds it."""
    return label if label in labels else _OTHER
