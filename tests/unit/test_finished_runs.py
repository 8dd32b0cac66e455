"""Finished runs and the worker: what is delivered again is settled, and done no second time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unit.test_worker import QUEUE, Bench, ScriptedSink
from vault_ml.brokers.memory import MemoryBroker
from vault_ml.brokers.port import Message
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import DecoderFailed, OutcomesUnavailable, SinkUnavailable
from vault_ml.outcomes.finished import FinishedRuns
from vault_ml.outcomes.port import Outcome, OutcomeStore

STEPS = frozenset({"publish ml-results", "forward_media"})


@dataclass
class DictStore:
    """Outcomes in a dict; away when told so."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    is_away: bool = False
    asked: int = 0
    events: list[str] = field(default_factory=list)

    def _check(self) -> None:
        self.asked += 1
        if self.is_away:
            raise OutcomesUnavailable("The store is away.")

    def find(self, run_id: str) -> Outcome | None:
        self._check()
        return self.outcomes.get(run_id)

    def remember(self, run_id: str, outcome: Outcome) -> None:
        self._check()
        self.events.append("remembered")
        self.outcomes[run_id] = outcome

    def mark_removed(self, run_id: str) -> None:
        self._check()
        self.events.append("removed")

    def ping(self) -> None:
        self._check()

    def close(self) -> None: ...


@dataclass
class Lines:
    """A log."""

    said: list[str] = field(default_factory=list)

    def info(self, event: str, **fields: object) -> None:
        self.said.append(event)

    warning = error = info


def finished_in(
    store: OutcomeStore | None, log: Lines | None = None, steps: frozenset[str] = STEPS
) -> FinishedRuns:
    return FinishedRuns(
        store, steps, on_failure=lambda: None, log=log or Lines(), clock=lambda: 1_772_000_000.0
    )


# By itself.


def test_without_a_store_nothing_is_remembered() -> None:
    runs = finished_in(None)
    runs.finish("run", b"result", is_forwarded=False)
    runs.removed("run")
    assert runs.outcome_of("run") is None


def test_a_finished_run_is_found_with_what_was_done() -> None:
    runs = finished_in(DictStore())
    assert runs.outcome_of("run") is None
    runs.finish("run", b"result", is_forwarded=True)
    assert runs.outcome_of("run") == Outcome(
        STEPS, hashlib.sha256(b"result").hexdigest(), True, 1_772_000_000.0
    )


def test_a_run_for_which_less_was_done_than_is_asked_for_now_is_not_finished() -> None:
    store = DictStore()
    finished_in(store).finish("run", b"result", is_forwarded=False)
    assert finished_in(store, steps=STEPS - {"forward_media"}).outcome_of("run") is not None
    assert finished_in(store, steps=STEPS | {"forward_metadata"}).outcome_of("run") is None
    moved = frozenset({"publish other-results", "forward_media"})
    assert finished_in(store, steps=moved).outcome_of("run") is None


def test_a_store_that_is_away_is_said_once_left_alone_and_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vault_ml.outcomes.finished._LEAVE_ALONE_S", 60.0)
    store, log, failures = DictStore(is_away=True), Lines(), []
    runs = FinishedRuns(store, STEPS, on_failure=lambda: failures.append(1), log=log)
    for _ in range(5):
        assert runs.outcome_of("run") is None
        runs.finish("run", b"", is_forwarded=False)
    assert (store.asked, len(failures), log.said) == (1, 10, ["outcomes_away"])
    monkeypatch.setattr("vault_ml.outcomes.finished._LEAVE_ALONE_S", 0.0)
    runs._try_again_at = 0.0
    runs.finish("run", b"", is_forwarded=False)
    store.is_away = False
    runs.finish("run", b"", is_forwarded=False)
    assert runs.outcome_of("run") is not None
    assert log.said == ["outcomes_away", "outcomes_back"]


def test_a_bug_of_the_store_costs_no_recording() -> None:
    class Broken(DictStore):
        def find(self, run_id: str) -> Outcome | None:
            raise ZeroDivisionError

    log, failures = Lines(), []
    runs = FinishedRuns(Broken(), STEPS, on_failure=lambda: failures.append(1), log=log)
    assert runs.outcome_of("run") is None
    assert (log.said, failures) == (["bug"], [1])


# In the worker.


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with EmbeddedVault(tmp_path, "access", "secret") as vault:
        yield Bench(MemoryBroker(), MemoryBroker(), vault, finished=finished_in(DictStore()))


def store_of(bench: Bench) -> DictStore:
    assert bench.finished is not None
    assert isinstance(bench.finished._store, DictStore)
    return bench.finished._store


def again(bench: Bench, key: str) -> None:
    """The Vault's event of a recording once more."""
    bench.broker.producer().publish(QUEUE, Message(bench.vault.event(key)), timeout_s=1)
    bench.stop.clear()


def duplicates(bench: Bench) -> float:
    return bench.metrics.registry.get_sample_value("vault_ml_duplicates_total") or 0.0


def test_redelivery_of_a_finished_run_does_nothing_but_settle(bench: Bench) -> None:
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    assert duplicates(bench) == 0
    again(bench, key)
    bench.run(lambda: bench.is_settled)
    assert bench.pipeline.calls == len(bench.results) == len(bench.forward.sent) == 1
    assert duplicates(bench) == 1
    assert "duplicate_skipped" in "".join(bench.log_lines)


def test_outcome_is_written_after_the_forward_and_before_the_settlement(bench: Bench) -> None:
    store = store_of(bench)
    seen: list[tuple[bool, int]] = []
    bench.forward.before = lambda _key: store.events.append("forwarded")
    remember = store.remember

    def watched(run_id: str, outcome: Outcome) -> None:
        seen.append((bench.is_settled, len(bench.results)))
        remember(run_id, outcome)

    store.remember = watched  # type: ignore[method-assign]
    bench.store()
    bench.run(lambda: bench.is_settled)
    assert store.events == ["forwarded", "remembered"]
    assert seen == [(False, 1)]


def test_a_run_that_failed_is_not_remembered(bench: Bench) -> None:
    bench.pipeline.script = [DecoderFailed("it died")]
    key = bench.store()
    bench.run(lambda: "delivery_retried" in "".join(bench.log_lines) and bench.is_settled)
    assert bench.pipeline.calls == 2
    assert store_of(bench).events == ["remembered"]
    assert duplicates(bench) == 0
    assert bench.forward.sent == [key]


def test_a_run_whose_forward_is_not_confirmed_is_not_remembered(bench: Bench) -> None:
    bench.forward = ScriptedSink("forward_media", [SinkUnavailable("away")] * 10_000)
    bench.store()
    bench.run(lambda: "dependency_away" in "".join(bench.log_lines))
    assert len(bench.results) == 1
    assert store_of(bench).outcomes == {}


def test_a_removal_that_is_still_due_is_done_at_the_redelivery(bench: Bench) -> None:
    """The worker died between settling and removing, and the broker delivered once more."""
    bench.options = {"remove": True, "remove_forwarded": True}
    assert bench.finished is not None
    key = bench.store()
    bench.finished.finish(key, b"result", is_forwarded=True)
    bench.run(lambda: not bench.vault.has(key))
    assert bench.pipeline.calls == 0
    assert store_of(bench).events == ["remembered", "removed"]


def test_a_recording_whose_forward_is_only_queued_is_kept_at_the_redelivery_too(
    bench: Bench,
) -> None:
    bench.options = {"remove": True}
    assert bench.finished is not None
    key = bench.store()
    bench.finished.finish(key, b"result", is_forwarded=True)
    bench.run(lambda: bench.is_settled)
    assert bench.vault.has(key)


def test_a_recording_that_is_gone_is_not_removed_again(bench: Bench) -> None:
    bench.options = {"remove": True}
    store = store_of(bench)
    key = bench.store()
    store.outcomes[key] = Outcome(STEPS, "", False, 1_772_000_000.0, is_removed=True)
    bench.run(lambda: bench.is_settled)
    assert not any(request.method == "DELETE" for request in bench.vault.requests)


def test_work_goes_on_while_the_store_is_away(bench: Bench) -> None:
    store_of(bench).is_away = True
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    again(bench, key)
    bench.run(lambda: bench.is_settled)
    first, second = bench.results
    assert first == second, "the repeat carries the same run id and content"
    assert bench.letters == []
