"""The numbered steps, each confirmed before the next; and what follows when one fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixed_results import one_person
from vault_ml.backoff import Backoff
from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.memory import MemoryBroker
from vault_ml.brokers.port import Message
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import (
    DecoderFailed,
    MessageTooLarge,
    RecordingEncrypted,
    RecordingIncomplete,
    RecordingNotFound,
    SinkUnavailable,
    UndecodableRecording,
)
from vault_ml.event import RecordingEvent
from vault_ml.outage import Outages
from vault_ml.outcomes.finished import FinishedRuns
from vault_ml.pipeline import Progress
from vault_ml.removal import Removals
from vault_ml.sinks.port import Processed
from vault_ml.sinks.publish import Publish
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.logs import RecordingLog, configure
from vault_ml.telemetry.metrics import Metrics
from vault_ml.vault.client import VaultClient, VaultOptions
from vault_ml.vault.clients import VaultClients
from vault_ml.worker import Worker, WorkerOptions

QUEUE, TARGET, LETTERS = "ml-queue", "ml-results", "ml-queue.dlq"


@dataclass
class ScriptedPipeline:
    """Looks at nothing; says what the script says, once per call."""

    script: list[Exception | None] = field(default_factory=list)
    calls: int = 0
    result: bytes = b'{"result": true}'

    def run_id(self, event: RecordingEvent) -> str:
        return event.key

    def process(self, event: RecordingEvent, message: Message, progress: Progress) -> Processed:
        del message
        self.calls += 1
        with progress.room("decode"):
            trouble = self.script.pop(0) if self.script else None
            if trouble is not None:
                raise trouble
        return one_person(event, self.result, progress)


@dataclass
class ScriptedSink:
    """A forward that says what the script says, once per call."""

    name: str
    script: list[Exception | None] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _key: None

    def wants(self, processed: Processed) -> bool:
        return processed.verdict.is_interesting

    def send(self, processed: Processed) -> None:
        self.before(processed.event.key)
        trouble = self.script.pop(0) if self.script else None
        if trouble is not None:
            raise trouble
        self.sent.append(processed.event.key)


@dataclass
class Bench:
    """A worker on a memory broker and an embedded Vault."""

    broker: MemoryBroker  # the events
    target: MemoryBroker  # results and dead letters
    vault: EmbeddedVault
    pipeline: ScriptedPipeline = field(default_factory=ScriptedPipeline)
    forward: ScriptedSink = field(default_factory=lambda: ScriptedSink("forward_media"))
    options: dict[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    log_lines: list[str] = field(default_factory=list)
    finished: FinishedRuns | None = None
    metrics: Metrics = field(default_factory=Metrics)
    transactional: bool = False  # then the broker of the events takes results and letters, too

    def store(self, number: int = 1) -> str:
        key = f"youruser/163056759{number}_6-967003_highway4_200-200-400-400_24_769.mp4"
        self.vault.put(key, b"recording")
        self.broker.producer().publish(QUEUE, Message(self.vault.event(key)), timeout_s=1)
        return key

    def run(self, until: Callable[[], bool], timeout_s: float = 10) -> None:
        """Run the worker until the condition holds, then drain it."""
        log = configure("json", "DEBUG", stream=self)  # type: ignore[arg-type]
        metrics, health = self.metrics, Health()
        consumer = self.broker.consumer(QUEUE)
        outages = Outages(
            backoff=Backoff(0.01, 0.02), stop=self.stop, on_pause=consumer.pause,
            on_resume=consumer.resume, log=log,
        )  # fmt: skip
        producer = self.target.producer()
        account = self.vault.account
        with VaultClient(self.vault.url, account.access_key, account.secret_key) as client:
            vaults = VaultClients(client, VaultOptions())
            removals = Removals(vaults, outages, on_removed=metrics.removed, log=log)
            options = {
                "concurrency": 2, "max_attempts": 3, "retry": Backoff(0.01, 0.02), "drain_s": 5.0,
                "remove": False, "remove_forwarded": False, **self.options,
            }  # fmt: skip
            worker = Worker(
                consumer,
                self.pipeline,  # type: ignore[arg-type]
                [self.forward]
                if self.transactional
                else [Publish(producer, TARGET, timeout_s=1), self.forward],
                DeadLetters(
                    producer,
                    LETTERS,
                    queue=QUEUE,
                    host="here",
                    version="0",
                    with_settlement=self.transactional,
                ),
                removals,
                outages,
                WorkerOptions(**options),
                stop=self.stop,
                metrics=metrics,
                health=health,
                log=log,
                recording_log=RecordingLog("json", log),
                finished=self.finished,
                settles_with=lambda processed: (
                    [(TARGET, processed.message)] if self.transactional else []
                ),
            )
            thread = threading.Thread(target=worker.run)
            thread.start()
            try:
                deadline = time.monotonic() + timeout_s
                while not until():
                    assert time.monotonic() < deadline, "".join(self.log_lines)
                    time.sleep(0.005)
            finally:
                self.stop.set()
                thread.join(20)
            assert not thread.is_alive()

    # A stream for the log.
    def write(self, text: str) -> None:
        self.log_lines.append(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False

    @property
    def results(self) -> list[Message]:
        return self.target.messages(TARGET)

    @property
    def letters(self) -> list[Message]:
        return self.target.messages(LETTERS)

    @property
    def is_settled(self) -> bool:
        return not self.broker.unsettled(QUEUE)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with EmbeddedVault(tmp_path, "access", "secret") as vault:
        yield Bench(MemoryBroker(), MemoryBroker(), vault)


def test_result_is_published_then_forwarded_then_settled(bench: Bench) -> None:
    seen_at_forward: list[tuple[int, bool]] = []
    bench.forward.before = lambda _key: seen_at_forward.append(
        (len(bench.results), bench.is_settled)
    )
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    assert seen_at_forward == [(1, False)]
    assert bench.forward.sent == [key]
    assert bench.vault.has(key)
    assert bench.letters == []


def test_nothing_is_forwarded_or_settled_before_the_result_is_confirmed(bench: Bench) -> None:
    bench.store()
    bench.target.set_down()
    bench.run(lambda: "dependency_away" in "".join(bench.log_lines))
    assert bench.forward.sent == []
    assert not bench.is_settled
    assert bench.letters == []


def test_forward_that_is_away_is_waited_for_and_published_once(bench: Bench) -> None:
    bench.forward.script = [SinkUnavailable("away")] * 10
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    assert bench.forward.sent == [key]
    assert len(bench.results) == 1
    assert bench.pipeline.calls == 1


def test_forward_that_is_refused_for_now_is_tried_again_as_a_whole(bench: Bench) -> None:
    bench.forward.script = [RecordingNotFound("not yet")]
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    assert bench.forward.sent == [key]
    first, second = bench.results
    assert first == second, "the repeat carries the same run id and content"


def test_recording_is_removed_after_its_event_is_settled(bench: Bench) -> None:
    bench.options = {"remove": True, "remove_forwarded": True}
    key = bench.store()
    bench.run(lambda: not bench.vault.has(key))
    assert bench.is_settled


def test_recording_whose_forward_is_only_queued_is_kept(bench: Bench) -> None:
    bench.options = {"remove": True}
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    assert bench.vault.has(key)
    assert not any(request.method == "DELETE" for request in bench.vault.requests)


def test_failed_recording_is_neither_settled_nor_removed(bench: Bench) -> None:
    bench.options = {"remove": True, "remove_forwarded": True, "retry": Backoff(60, 60)}
    bench.pipeline.script = [DecoderFailed()]
    key = bench.store()
    bench.run(lambda: "delivery_retried" in "".join(bench.log_lines))
    assert bench.vault.has(key)
    assert not bench.is_settled
    assert bench.results == []


def test_attempts_run_out_into_a_dead_letter_with_the_original_bytes(bench: Bench) -> None:
    bench.pipeline.script = [DecoderFailed("it died")] * 3
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    (letter,) = bench.letters
    assert key.encode() in letter.body
    assert letter.headers[dead_letter.ATTEMPTS] == "3"
    assert letter.headers[dead_letter.STAGE] == "decode"
    assert letter.headers[dead_letter.REASON] == "it died"
    assert bench.vault.has(key)


def test_trouble_that_waiting_may_mend_burns_no_attempt_for_a_while(bench: Bench) -> None:
    bench.pipeline.script = [RecordingIncomplete("not ready yet", patience_s=60)] * 8
    bench.store()
    bench.run(lambda: bench.is_settled)
    assert len(bench.results) == 1
    assert bench.letters == []
    assert bench.pipeline.calls == 9


def test_patience_ends_and_attempts_count_from_then_on(bench: Bench) -> None:
    bench.pipeline.script = [RecordingIncomplete("not ready yet", patience_s=0.2)] * 1000
    bench.store()
    bench.run(lambda: bench.is_settled)
    (letter,) = bench.letters
    assert letter.headers[dead_letter.ATTEMPTS] == "3"
    assert bench.pipeline.calls > 4


def test_trouble_that_time_does_not_mend_is_given_up_sooner(bench: Bench) -> None:
    bench.options = {"remove": True, "remove_forwarded": True}
    bench.pipeline.script = [RecordingEncrypted("no key", max_attempts=1)]
    key = bench.store()
    bench.run(lambda: bench.is_settled)
    (letter,) = bench.letters
    assert letter.headers[dead_letter.ERROR_CLASS] == "RecordingEncrypted"
    assert letter.headers[dead_letter.ATTEMPTS] == "1"
    assert bench.results == []
    assert bench.vault.has(key)


def test_poison_is_given_up_at_once_and_the_others_go_on(bench: Bench) -> None:
    bench.pipeline.script = [UndecodableRecording("noise")]
    bench.store(1)
    bench.store(2)
    bench.run(lambda: bench.is_settled)
    assert len(bench.letters) == len(bench.results) == 1
    assert bench.letters[0].headers[dead_letter.ATTEMPTS] == "1"


def test_bug_is_logged_with_its_traceback_and_tried_once_more(bench: Bench) -> None:
    bench.pipeline.script = [ZeroDivisionError("oops"), ZeroDivisionError("oops")]
    bench.store()
    bench.run(lambda: bench.is_settled)
    (letter,) = bench.letters
    assert letter.headers[dead_letter.ERROR_CLASS] == "ZeroDivisionError"
    assert letter.headers[dead_letter.ATTEMPTS] == "2"
    assert "Traceback" in "".join(bench.log_lines)


def test_event_is_not_settled_when_its_dead_letter_cannot_be_written(bench: Bench) -> None:
    bench.pipeline.script = [UndecodableRecording("noise")] * 50
    bench.store()
    bench.target.max_message_bytes = 10
    bench.run(lambda: "dead_letter_refused" in "".join(bench.log_lines))
    assert bench.letters == []
    assert not bench.is_settled


def test_result_that_is_too_large_becomes_a_dead_letter(bench: Bench) -> None:
    bench.pipeline.script = [MessageTooLarge("900 MB")]
    bench.store()
    bench.run(lambda: bench.is_settled)
    assert bench.letters[0].headers[dead_letter.ERROR_CLASS] == "MessageTooLarge"


def test_stop_gives_back_what_waits_for_a_dependency(bench: Bench) -> None:
    bench.forward.script = [SinkUnavailable("away")] * 10_000
    bench.store()
    started = time.monotonic()
    bench.run(lambda: "dependency_away" in "".join(bench.log_lines))
    assert time.monotonic() - started < 8
    assert not bench.is_settled
    assert bench.letters == []
