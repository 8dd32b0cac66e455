"""The loop around the pipeline: receive, look, send, settle, remove; retry, dead-letter, drain.

The steps of one recording, numbered as in the design and in docs/adr/0004-delivery-order.md:

 1 receive · 2 parse · 3 fetch · 4 sample and decode · 5 detect · 6 judge · 7 publish, wait for the
 broker's confirmation · 8 forward, wait for the other side's answer · 9 (keep for review: a later
 step) · 10 settle, wait until it is really settled · 11 remove

No step starts before the one before it is confirmed, so a crash anywhere leaves the event on the
queue and the recording in the Vault. Where a store of finished runs is set (OUTCOMES), it is asked
after 2 and written between 8 and 10: a run that is finished goes straight to 10.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from vault_ml import event as events
from vault_ml.backoff import Backoff
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.port import Consumer, Delivery, Outgoing
from vault_ml.errors import PoisonError, RetryableError, VaultMLError
from vault_ml.event import RecordingEvent
from vault_ml.failpoints import reach
from vault_ml.outage import Outages, Stopping
from vault_ml.outcomes.finished import FinishedRuns
from vault_ml.outcomes.port import Outcome
from vault_ml.pipeline import Pipeline, Progress
from vault_ml.removal import Removals
from vault_ml.sinks.port import Processed, Sink
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.logs import Logger, RecordingLog
from vault_ml.telemetry.metrics import Metrics
from vault_ml.telemetry.tracing import NoTracing, Trace, Tracing

# How long a recording thread waits for an event before it looks whether it should stop.
_RECEIVE_S = 0.2
# An exception that is none of ours is a bug: once more, in case it was a freak, then dead letter.
_BUG_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        concurrency: recordings in flight at once, one thread each.
        max_attempts: tries for one event before it becomes a dead letter.
        retry: the wait between two tries of one event.
        drain_s: after a stop, this long to finish what is in flight; the rest goes back.
        remove: remove a recording after its event is settled.
        remove_forwarded: also one whose forwarding the Vault has only queued.
    """

    concurrency: int
    max_attempts: int
    retry: Backoff
    drain_s: float
    remove: bool
    remove_forwarded: bool


def _nothing(_processed: Processed) -> Sequence[Outgoing]:
    return ()


class Worker:
    """N recording threads on one consumer."""

    def __init__(
        self,
        consumer: Consumer,
        pipeline: Pipeline,
        sinks: Sequence[Sink],
        dead_letters: DeadLetters,
        removals: Removals,
        outages: Outages,
        options: WorkerOptions,
        *,
        stop: threading.Event,
        metrics: Metrics,
        health: Health,
        log: Logger,
        recording_log: RecordingLog,
        finished: FinishedRuns | None = None,
        settles_with: Callable[[Processed], Sequence[Outgoing]] = _nothing,
        tracing: Tracing | None = None,
    ) -> None:
        """Wire it; nothing starts before `run`.

        `settles_with` tells what is published by the transaction that settles an event, where the
        broker has them; nothing of it is published at step 7 then.
        """
        self._consumer = consumer
        self._pipeline = pipeline
        self._sinks = sinks
        self._dead_letters = dead_letters
        self._removals = removals
        self._outages = outages
        self._options = options
        self._stop = stop
        self._metrics = metrics
        self._health = health
        self._log = log
        self._recording_log = recording_log
        self._finished = finished
        self._settles_with = settles_with
        self._tracing = tracing or NoTracing()
        # What follows a transaction may take a moment, and the next one must not wait for it.
        self._afterwards = ThreadPoolExecutor(1, thread_name_prefix="settled")
        self._bug: Exception | None = None

    def run(self) -> None:
        """Work until the stop event is set, then drain.

        Raises:
            Exception: what killed a recording thread outside the care of an event; a bug.
        """
        self._removals.start()
        threads = [
            threading.Thread(target=self._receive_until_stopped, name=f"recording-{n}", daemon=True)
            for n in range(1, self._options.concurrency + 1)
        ]
        for thread in threads:
            thread.start()
        while not self._stop.wait(1.0):
            pass
        self._drain(threads)
        if self._bug is not None:
            raise self._bug

    def _drain(self, threads: Sequence[threading.Thread]) -> None:
        self._health.drain()
        deadline = time.monotonic() + self._options.drain_s
        self._log.info("worker_draining", grace_s=self._options.drain_s)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        unfinished = sum(thread.is_alive() for thread in threads)
        # Settles what was acked and gives back the rest; what was settled may still be removed.
        self._consumer.close(max(2.0, deadline - time.monotonic()))
        self._afterwards.shutdown()
        self._removals.close(max(1.0, deadline - time.monotonic()))
        if unfinished:
            self._log.warning(
                "recordings_given_back",
                recordings=unfinished,
                reason="they did not finish within DRAIN_TIMEOUT_S; they will be delivered again",
            )

    def _receive_until_stopped(self) -> None:
        try:
            while not self._stop.is_set():
                self._health.beat()
                self._recording_log.checking()
                # 1 receive
                delivery = self._outages.patiently(
                    "broker", lambda: self._consumer.receive(_RECEIVE_S)
                )
                if delivery is not None:
                    with self._metrics.in_flight():
                        self._handle(delivery)
        except Stopping:
            pass
        except Exception as error:  # noqa: BLE001  # kept, and raised again by `run`
            self._bug = error
            self._log.exception("recording_thread_died")
            self._stop.set()

    def _handle(self, delivery: Delivery) -> None:
        log = self._log.bind(delivery=delivery.id, attempt=delivery.attempt)
        progress = Progress()
        started = time.perf_counter()
        reach("receive.after")
        try:
            event = self._parse(delivery, progress)
            progress.trace = self._trace(event, delivery, progress)
            repeat = self._repeat(event)
            processed = None if repeat else self._process(event, delivery, progress)
        except Stopping:
            delivery.retry(0.0, burn_attempt=False)
            self._metrics.outcome("given_back")
        except PoisonError as error:
            self._give_up(delivery, error, progress)
        except RetryableError as error:
            self._try_later(delivery, error, progress, self._options.max_attempts)
        except Exception as error:
            log.exception("bug", stage=progress.stage, **_named(progress))
            self._try_later(delivery, error, progress, _BUG_ATTEMPTS)
        else:
            if progress.trace.id is not None:
                log = log.bind(trace_id=progress.trace.id)
            if repeat is not None:
                self._settle_again(delivery, event, repeat, progress, log)
            if processed is not None:
                self._finish(delivery, processed, progress)
                self._metrics.outcome("processed")
                self._metrics.rooms(progress.seconds)
                self._metrics.looked_at(len(processed.frames))
                self._recording_log.processed(log, processed, seconds=time.perf_counter() - started)
                progress.trace.note(
                    run_id=processed.run_id,
                    frames=len(processed.frames),
                    objects=processed.verdict.count,
                    bytes_fetched=processed.bytes_fetched,
                )
        finally:
            progress.trace.end()

    def _parse(self, delivery: Delivery, progress: Progress) -> RecordingEvent:
        # 2 parse
        with progress.room("parse"):
            event = events.parse(delivery.message.body)
            progress.key = event.key
        if event.timestamp is not None:
            self._metrics.received(time.time() - event.timestamp)
        reach("parse.after")
        self._recording_log.received(event)
        return event

    def _trace(self, event: RecordingEvent, delivery: Delivery, progress: Progress) -> Trace:
        spent_s = progress.seconds["parse"]
        trace = self._tracing.recording(
            event.trace_id,
            delivery.message.headers,
            {"key": event.key, "delivery": delivery.id, "attempt": delivery.attempt},
            seconds=spent_s,
        )
        trace.past("parse", spent_s)
        return trace

    def _process(self, event: RecordingEvent, delivery: Delivery, progress: Progress) -> Processed:
        # 3 to 6
        processed = self._pipeline.process(event, delivery.message, progress)
        reach("judge.after")
        # 7 publish, 8 forward: each confirmed before the next
        for sink in self._sinks:
            if sink.wants(processed):
                reach(f"{sink.name}.before")
                with progress.room(sink.name):
                    self._outages.patiently(sink.name, lambda sink=sink: sink.send(processed))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                self._metrics.sent(sink.name)
                reach(f"{sink.name}.after")
        return processed

    def _repeat(self, event: RecordingEvent) -> _Repeat | None:
        """The outcome of an earlier delivery, when there is nothing left to do but to settle."""
        if self._finished is None:
            return None
        run_id = self._pipeline.run_id(event)
        outcome = self._finished.outcome_of(run_id)
        return None if outcome is None else _Repeat(run_id, outcome)

    def _settle_again(
        self,
        delivery: Delivery,
        event: RecordingEvent,
        repeat: _Repeat,
        progress: Progress,
        log: Logger,
    ) -> None:
        outcome = repeat.outcome
        self._metrics.duplicate()
        log.info(
            "duplicate_skipped",
            key=event.key,
            run_id=repeat.run_id,
            finished_at=datetime.fromtimestamp(outcome.finished_at, UTC).isoformat(),
            result_sha256=outcome.result_sha256,
        )
        remove = self._is_removal_due(outcome.is_forwarded) and not outcome.is_removed
        self._settle(delivery, event, repeat.run_id, progress.trace, remove=remove)

    def _finish(self, delivery: Delivery, processed: Processed, progress: Progress) -> None:
        is_forwarded = any(
            sink.name == "forward_media" and sink.wants(processed) for sink in self._sinks
        )
        remove = self._is_removal_due(is_forwarded)
        if publishing := self._settles_with(processed):
            settled = self._settle(
                delivery,
                processed.event,
                processed.run_id,
                progress.trace,
                remove=remove,
                publishing=publishing,
            )
            self._then(
                settled, partial(self._on_published, delivery, processed, progress, is_forwarded)
            )
            return
        # All is confirmed. Before the settlement, because no event comes again after it.
        self._remember(processed, is_forwarded)
        self._settle(delivery, processed.event, processed.run_id, progress.trace, remove=remove)

    def _on_published(
        self,
        delivery: Delivery,
        processed: Processed,
        progress: Progress,
        is_forwarded: bool,
        error: BaseException | None,
    ) -> None:
        """The transaction with a result has ended. Only now could it be seen by anybody."""
        if error is None:
            self._metrics.sent("publish")
            self._remember(processed, is_forwarded)
        elif isinstance(error, PoisonError):
            progress.stage = "publish"
            self._give_up(delivery, error, progress)

    def _remember(self, processed: Processed, is_forwarded: bool) -> None:
        if self._finished is not None:
            self._finished.finish(
                processed.run_id, processed.message.body, is_forwarded=is_forwarded
            )

    def _then(self, settled: Future[None], follow: Callable[[BaseException | None], None]) -> None:
        """Call `follow` with the outcome of a transaction, on a thread of ours."""

        def run(error: BaseException | None) -> None:
            try:
                follow(error)
            except Exception:  # noqa: BLE001  logged; there is nobody to raise it to
                self._log.exception("bug", stage="settle")

        def pass_on(done: Future[None]) -> None:
            # After the end there is nothing to follow: the event comes again, or is settled.
            with contextlib.suppress(RuntimeError):
                self._afterwards.submit(run, done.exception())

        settled.add_done_callback(pass_on)

    def _is_removal_due(self, is_forwarded: bool) -> bool:
        return self._options.remove and (self._options.remove_forwarded or not is_forwarded)

    def _settle(
        self,
        delivery: Delivery,
        event: RecordingEvent,
        run_id: str,
        trace: Trace,
        *,
        remove: bool,
        publishing: Sequence[Outgoing] = (),
    ) -> Future[None]:
        # 10 settle
        reach("settle.before")
        ended = trace.later("settle")
        settled = delivery.ack(publishing)
        settled.add_done_callback(lambda done: ended(_trouble(done)))
        reach("settle.after")
        # 11 remove, when that is done
        if remove:
            self._removals.after(
                settled, event, then=partial(self._was_removed, run_id), trace=trace
            )
        return settled

    def _was_removed(self, run_id: str) -> None:
        if self._finished is not None:
            self._finished.removed(run_id)

    def _try_later(
        self, delivery: Delivery, error: Exception, progress: Progress, max_attempts: int
    ) -> None:
        age_s = time.time() - delivery.first_received_at
        is_patient = isinstance(error, RetryableError) and age_s < error.patience_s
        if isinstance(error, RetryableError) and error.max_attempts is not None:
            max_attempts = min(max_attempts, error.max_attempts)
        if delivery.attempt >= max_attempts and not is_patient:
            self._give_up(delivery, error, progress)
            return
        wait_s = self._options.retry.wait_s(delivery.attempt)
        if is_patient:
            # The attempts stand still, so the age makes the wait grow.
            wait_s = max(wait_s, min(age_s / 2, self._options.retry.cap_s))
        reach("retry.before")
        delivery.retry(wait_s, burn_attempt=not is_patient)
        reach("retry.after")
        self._metrics.outcome("retried")
        self._log.warning(
            "delivery_retried",
            delivery=delivery.id,
            **_named(progress),
            attempt=delivery.attempt,
            of=max_attempts,
            stage=progress.stage,
            again_in_s=round(wait_s, 1),
            reason=str(error),
        )

    def _give_up(
        self, delivery: Delivery, error: Exception, progress: Progress, *, is_brief: bool = False
    ) -> None:
        reach("dead_letter.before")
        try:
            publishing = self._outages.patiently(
                "dead_letter",
                lambda: self._dead_letters.send(
                    delivery, error, stage=progress.stage, is_brief=is_brief
                ),
            )
        except Stopping:
            # It could not be written, so nothing is settled: the event comes again.
            delivery.retry(0.0, burn_attempt=False)
            self._metrics.outcome("given_back")
            return
        except VaultMLError as refusal:
            self._keep(delivery, refusal)
            return
        reach("dead_letter.after")
        settled = delivery.ack(publishing)
        if not publishing:
            self._gave_up(delivery, error, progress)
            return

        def on_settled(refusal: BaseException | None) -> None:
            if refusal is None:
                self._gave_up(delivery, error, progress)
            elif not isinstance(refusal, PoisonError):
                self._metrics.outcome("given_back")
            elif is_brief:
                self._keep(delivery, refusal)
            else:
                self._give_up(delivery, error, progress, is_brief=True)

        self._then(settled, on_settled)

    def _keep(self, delivery: Delivery, refusal: VaultMLError) -> None:
        """Never settle without the dead letter. Loud, slow, and harmless to the others."""
        delivery.retry(self._options.retry.cap_s, burn_attempt=False)
        self._metrics.outcome("retried")
        self._log.error("dead_letter_refused", delivery=delivery.id, reason=str(refusal))

    def _gave_up(self, delivery: Delivery, error: Exception, progress: Progress) -> None:
        self._metrics.outcome("dead_lettered")
        self._log.error(
            "delivery_dead_lettered",
            delivery=delivery.id,
            **_named(progress),
            attempt=delivery.attempt,
            stage=progress.stage,
            error=type(error).__name__,
            reason=str(error),
        )


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A run that an earlier delivery has finished."""

    run_id: str
    outcome: Outcome


def _trouble(done: Future[None]) -> BaseException | None:
    return CancelledError() if done.cancelled() else done.exception()


def _named(progress: Progress) -> dict[str, str]:
    """The recording for a log line; an event that is not understood names none."""
    return {} if progress.key is None else {"key": progress.key}
