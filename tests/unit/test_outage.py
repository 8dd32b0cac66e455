"""An outage pauses receiving, is said once, and costs no attempt."""

from __future__ import annotations

import threading

import pytest

from vault_ml.backoff import Backoff
from vault_ml.errors import (
    CredentialsRejected,
    RecordingNotFound,
    RetryableError,
    VaultUnavailable,
)
from vault_ml.outage import Outages, Stopping


class Gate:
    """Records what the worker would be told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lines: list[tuple[str, dict[str, object]]] = []
        self.stop = threading.Event()
        self.outages = Outages(
            backoff=Backoff(0.001, 0.002),
            stop=self.stop,
            on_pause=lambda: self.calls.append("pause"),
            on_resume=lambda: self.calls.append("resume"),
            log=self,
        )

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))


@pytest.fixture
def gate() -> Gate:
    return Gate()


class FailsFirst:
    """A step that raises `error` so many times and then answers."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left = times
        self.error = error

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_healthy_step_touches_nothing(gate: Gate) -> None:
    assert gate.outages.patiently("vault", FailsFirst(0, VaultUnavailable())) == "done"
    assert gate.calls == []
    assert gate.lines == []


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(VaultUnavailable("no answer"), id="away"),
        pytest.param(CredentialsRejected("no answer"), id="rejected-while-running"),
    ],
)
def test_outage_pauses_is_said_once_and_resumes(gate: Gate, error: Exception) -> None:
    assert gate.outages.patiently("vault", FailsFirst(20, error)) == "done"
    assert gate.calls == ["pause", "resume"]
    assert [event for event, _ in gate.lines] == ["dependency_away", "dependency_back"]
    assert gate.lines[0][1]["reason"] == "no answer"
    assert gate.outages.reasons() == {}


def test_reason_is_readable_while_it_lasts(gate: Gate) -> None:
    seen: list[dict[str, str]] = []
    fails = FailsFirst(2, VaultUnavailable("no answer"))

    def step() -> str:
        seen.append(gate.outages.reasons())
        return fails()

    gate.outages.patiently("vault", step)
    assert seen == [{}, {"vault": "no answer"}, {"vault": "no answer"}]


def test_event_own_trouble_passes_through(gate: Gate) -> None:
    with pytest.raises(RecordingNotFound):
        gate.outages.patiently("vault", FailsFirst(1, RecordingNotFound()))
    assert gate.calls == []


def test_step_that_fails_beside_a_healthy_dependency_becomes_the_event_own_trouble(
    gate: Gate,
) -> None:
    with pytest.raises(RetryableError, match="only this event"):
        gate.outages.patiently(
            "vault", FailsFirst(99, VaultUnavailable("answered 500")), probe=lambda: None
        )
    assert gate.calls == ["pause", "resume"]
    assert gate.outages.reasons() == {}


def test_probe_that_fails_too_keeps_waiting(gate: Gate) -> None:
    def probe() -> None:
        raise VaultUnavailable

    step = FailsFirst(20, VaultUnavailable())
    assert gate.outages.patiently("vault", step, probe=probe) == "done"


def test_stop_ends_the_wait_and_does_not_resume(gate: Gate) -> None:
    def step() -> None:
        gate.stop.set()
        raise VaultUnavailable("no answer", retry_after_s=600)

    with pytest.raises(Stopping):
        gate.outages.patiently("vault", step)
    assert gate.calls == ["pause"]


def test_last_of_several_threads_resumes(gate: Gate) -> None:
    both_wait = threading.Barrier(2, timeout=10)
    order: list[str] = []

    def step(name: str, first: FailsFirst) -> str:
        answer = first()
        order.append(name)
        return answer

    def run(name: str) -> None:
        fails = FailsFirst(1, VaultUnavailable("no answer"))

        def once() -> str:
            if not fails.left:
                both_wait.wait()
            return step(name, fails)

        gate.outages.patiently("vault", once)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(order) == ["a", "b"]
    assert gate.calls == ["pause", "resume"]


def test_backoff_grows_to_its_cap() -> None:
    backoff = Backoff(1.0, 10.0)
    for attempt, full in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 10.0), (5000, 10.0)):
        waits = [backoff.wait_s(attempt) for _ in range(50)]
        assert full / 2 <= min(waits) <= max(waits) <= full
        assert len(set(waits)) > 1
