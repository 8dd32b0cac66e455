"""The same worker on a broker with transactions: nothing is seen before the event is settled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.said_log import SaidLog
from unit.test_worker import QUEUE, Bench
from vault_ml.brokers import dead_letter
from vault_ml.brokers.memory import MemoryBroker
from vault_ml.brokers.port import Message
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import DecoderFailed, SinkUnavailable, UndecodableRecording
from vault_ml.outcomes.finished import FinishedRuns
from vault_ml.outcomes.sqlite import SqliteOutcomes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with EmbeddedVault(tmp_path, "access", "secret") as vault:
        broker = MemoryBroker()
        yield Bench(broker, broker, vault, transactional=True)


def sent(bench: Bench, sink: str) -> float | None:
    return bench.metrics.registry.get_sample_value("vault_ml_sent_total", {"sink": sink})


def test_result_is_seen_after_the_forwards_and_with_the_settlement(bench: Bench) -> None:
    seen_at_forward: list[tuple[int, bool]] = []
    bench.forward.before = lambda _key: seen_at_forward.append(
        (len(bench.results), bench.is_settled)
    )
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    assert seen_at_forward == [(0, False)]
    assert bench.forward.sent == [key]
    assert [message.headers["vault-ml-run-id"] for message in bench.results] == [key]
    assert sent(bench, "publish") == 1


def test_nothing_is_published_while_a_forward_fails(bench: Bench) -> None:
    bench.forward.script = [SinkUnavailable("away")] * 10_000
    bench.store()
    bench.run(lambda: "dependency_away" in "".join(bench.log_lines))
    assert bench.results == []
    assert not bench.is_settled


def test_recording_is_removed_after_the_transaction(bench: Bench) -> None:
    bench.options = {"remove": True, "remove_forwarded": True}
    key = bench.store()
    bench.run(lambda: not bench.vault.has(key))
    assert len(bench.results) == 1
    assert bench.is_settled


def test_dead_letter_goes_with_the_settlement(bench: Bench) -> None:
    bench.pipeline.script = [DecoderFailed("it died")] * 3
    key = bench.store()
    bench.run(lambda: "delivery_dead_lettered" in "".join(bench.log_lines))
    (letter,) = bench.letters
    assert key.encode() in letter.body
    assert letter.headers[dead_letter.ATTEMPTS] == "3"
    assert bench.is_settled
    assert bench.results == []


def test_event_is_kept_while_neither_result_nor_letter_can_be_published(bench: Bench) -> None:
    bench.forward.before = lambda _key: setattr(bench.broker, "max_message_bytes", 5)
    bench.options = {"remove": True, "remove_forwarded": True}
    key = bench.store()
    bench.run(lambda: "dead_letter_refused" in "".join(bench.log_lines))
    assert bench.results == bench.letters == []
    assert not bench.is_settled, "not without its dead letter"
    bench.broker.max_message_bytes = None
    bench.stop.clear()
    bench.forward.before = lambda _key: None
    bench.run(lambda: bench.is_settled)
    assert len(bench.results) == 1
    assert set(bench.forward.sent) == {key}


def test_result_that_is_too_large_is_a_dead_letter_that_says_so(bench: Bench) -> None:
    bench.broker.max_message_bytes = 2000  # the event fits, the result does not
    bench.pipeline.result = b"x" * 2001
    key = bench.store()
    bench.run(lambda: "delivery_dead_lettered" in "".join(bench.log_lines))
    (letter,) = bench.letters
    assert letter.headers[dead_letter.STAGE] == "publish"
    assert letter.headers[dead_letter.ERROR_CLASS] == "MessageTooLarge"
    assert key.encode() in letter.body
    assert bench.results == []
    assert bench.vault.has(key)


def test_poison_and_the_others_do_not_hinder_each_other(bench: Bench) -> None:
    bench.pipeline.script = [UndecodableRecording("noise")]
    bench.store(1)
    bench.store(2)
    bench.run(lambda: bench.is_settled)
    assert len(bench.letters) == len(bench.results) == 1


def test_a_run_is_remembered_only_when_its_result_could_be_seen(
    bench: Bench, tmp_path: Path
) -> None:
    store = SqliteOutcomes(tmp_path / "outcomes.db", max_age_s=60, max_count=9)
    try:
        bench.finished = FinishedRuns(store, frozenset(), on_failure=lambda: None, log=SaidLog())
        bench.forward.before = lambda _key: bench.broker.set_down()
        key = bench.store()
        bench.run(lambda: bool(bench.forward.sent))
        assert store.find(key) is None, "acknowledged, and not settled"
        bench.broker.set_up()
        bench.stop.clear()
        bench.forward.before = lambda _key: None
        bench.run(lambda: bench.is_settled)
        assert store.find(key) is not None
        assert len(bench.results) == 1
        # The same event once more, from whoever sends it: known by now.
        bench.broker.producer().publish(QUEUE, Message(bench.vault.event(key)), timeout_s=1)
        bench.stop.clear()
        bench.run(lambda: bench.is_settled)
        assert len(bench.results) == 1
    finally:
        store.close()
