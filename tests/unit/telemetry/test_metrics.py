from __future__ import annotations

import math

import pytest

from vault_ml.telemetry.metrics import OUTCOMES, ROOMS, SINKS, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_everything_starts_at_zero_so_that_rates_are_right_from_the_first_event() -> None:
    metrics = Metrics()
    for outcome in OUTCOMES:
        assert value(metrics, "vault_ml_recordings_total", outcome=outcome) == 0
    for room in ROOMS:
        assert value(metrics, "vault_ml_room_seconds_count", room=room) == 0
    for sink in SINKS:
        assert value(metrics, "vault_ml_sent_total", sink=sink) == 0
    assert value(metrics, "vault_ml_in_flight") == 0


def test_what_happens_is_counted() -> None:
    metrics = Metrics()
    metrics.outcome("processed")
    metrics.outcome("retried")
    metrics.outcome("retried")
    metrics.rooms({"fetch": 0.5, "decode": 0.25})
    metrics.sent("publish")
    metrics.fetched(1000, 4000)
    metrics.removed()
    metrics.decoder_restarted()
    metrics.detector_restarted()
    assert value(metrics, "vault_ml_recordings_total", outcome="retried") == 2
    assert value(metrics, "vault_ml_recordings_total", outcome="processed") == 1
    assert value(metrics, "vault_ml_room_seconds_sum", room="fetch") == 0.5
    assert value(metrics, "vault_ml_sent_total", sink="publish") == 1
    assert value(metrics, "vault_ml_fetched_bytes_total") == 1000
    assert value(metrics, "vault_ml_recording_bytes_total") == 4000
    assert value(metrics, "vault_ml_removed_total") == 1
    assert value(metrics, "vault_ml_decoder_restarts_total") == 1
    assert value(metrics, "vault_ml_detector_restarts_total") == 1


def test_a_recording_is_in_flight_until_it_is_done_or_failed() -> None:
    metrics = Metrics()
    with metrics.in_flight(), metrics.in_flight():
        assert value(metrics, "vault_ml_in_flight") == 2
    with pytest.raises(RuntimeError), metrics.in_flight():
        raise RuntimeError
    assert value(metrics, "vault_ml_in_flight") == 0


def test_the_queue_is_asked_whenever_the_metrics_are_read() -> None:
    metrics = Metrics()
    assert math.isnan(value(metrics, "vault_ml_queue_lag") or 0.0)
    lags = [3, None]
    metrics.watch_queue(lambda: lags.pop(0))
    assert value(metrics, "vault_ml_queue_lag") == 3
    assert math.isnan(value(metrics, "vault_ml_queue_lag") or 0.0)


def test_the_age_of_events_is_recorded_and_never_negative() -> None:
    metrics = Metrics()
    for age_s in (3.0, 50_000.0, -7.0):  # a camera's clock may be ahead
        metrics.received(age_s)
    assert value(metrics, "vault_ml_event_age_seconds_count") == 3
    assert value(metrics, "vault_ml_event_age_seconds_sum") == 50_003.0
    assert value(metrics, "vault_ml_event_age_seconds_bucket", le="5.0") == 2


def test_labels_stay_a_closed_set() -> None:
    metrics = Metrics()
    for n in range(100):
        metrics.outcome(f"outcome-{n}")
        metrics.sent(f"sink-{n}")
        metrics.rooms({f"room-{n}": 1.0})
    assert value(metrics, "vault_ml_recordings_total", outcome="other") == 100
    body, _ = metrics.render()
    assert body.count(b"vault_ml_recordings_total{") == len(OUTCOMES) + 1


def test_what_runs_is_told_once() -> None:
    metrics = Metrics()
    first = {"version": "1", "model": "m", "runtime": "r", "device": "cpu", "precision": "fp32"}
    metrics.runs(**first)
    metrics.runs(**(first | {"device": "cuda:0"}))
    assert value(metrics, "vault_ml_info", **first) is None
    assert value(metrics, "vault_ml_info", **(first | {"device": "cuda:0"})) == 1


def test_two_workers_in_one_process_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.fetched(5, 5)
    assert value(other, "vault_ml_fetched_bytes_total") == 0


def test_it_is_prometheus_text_and_tells_memory() -> None:
    body, content_type = Metrics().render()
    assert content_type.startswith("text/plain")
    assert b"process_resident_memory_bytes" in body
    assert b"_created" not in body


def test_a_scrape_tells_what_is_away_and_whether_the_worker_is_ready() -> None:
    metrics = Metrics()
    away: dict[str, str] = {}
    metrics.watch(lambda: away, lambda: away)
    assert value(metrics, "vault_ml_ready") == 1
    assert value(metrics, "vault_ml_dependency_away", dependency="vault") == 0
    away["vault"] = "connection refused"
    away["something new"] = "gone"
    assert value(metrics, "vault_ml_ready") == 0
    assert value(metrics, "vault_ml_dependency_away", dependency="vault") == 1
    assert value(metrics, "vault_ml_dependency_away", dependency="broker") == 0
    assert value(metrics, "vault_ml_dependency_away", dependency="other") == 1


def test_frames_and_runs_of_the_network_are_counted() -> None:
    metrics = Metrics()
    metrics.looked_at(5)
    metrics.batch(4)
    metrics.batch(1)
    assert value(metrics, "vault_ml_frames_total") == 5
    assert value(metrics, "vault_ml_batch_frames_count") == 2
    assert value(metrics, "vault_ml_batch_frames_sum") == 5
    assert value(metrics, "vault_ml_batch_frames_bucket", le="1.0") == 1
