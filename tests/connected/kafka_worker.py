"""The worker on Kafka as `app` wires it, with any pipeline in place of Vault, decoder, detector."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, cast

from vault_ml.backoff import Backoff
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.event import RecordingEvent
from vault_ml.outage import Outages
from vault_ml.pipeline import Pipeline, Progress
from vault_ml.removal import Removals
from vault_ml.sinks.port import Processed, Sink
from vault_ml.sinks.publish import Publish
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.logs import Logger, RecordingLog
from vault_ml.telemetry.metrics import Metrics
from vault_ml.vault.clients import VaultClients
from vault_ml.worker import Worker, WorkerOptions

CONCURRENCY = 3


class Looks(Protocol):
    """What the worker calls of a `Pipeline`."""

    def process(self, event: RecordingEvent, message: Message, progress: Progress) -> Processed: ...


def worker_on_kafka(
    consumer: KafkaConsumer,
    producer: KafkaProducer,
    pipeline: Looks,
    *,
    queue: str,
    target: str,
    letters: str,
    transactions: bool,
    drain_s: float,
    stop: threading.Event,
    log: Logger,
) -> Worker:
    """A worker that removes nothing, and tries each event three times.

    Args:
        consumer: of `queue`, with the same `transactions` as `producer`.
        producer: stays the caller's to close.
        pipeline: what looks at an event.
        queue: where the events come from.
        target: where results go.
        letters: where dead letters go.
        transactions: results and letters go with the settlement of their event.
        drain_s: how long work in hand may go on once `stop` is set.
        stop: ends `run`.
        log: told everything.
    """
    outages = Outages(
        backoff=Backoff(0.1, 0.5),
        stop=stop,
        on_pause=consumer.pause,
        on_resume=consumer.resume,
        log=log,
    )
    metrics = Metrics()
    sinks: Sequence[Sink] = [] if transactions else [Publish(producer, target, timeout_s=30.0)]
    return Worker(
        consumer,
        cast("Pipeline", pipeline),
        sinks,
        DeadLetters(
            producer, letters, queue=queue, host="h", version="0", with_settlement=transactions
        ),
        Removals(cast("VaultClients", None), outages, on_removed=metrics.removed, log=log),
        outages,
        WorkerOptions(
            concurrency=CONCURRENCY,
            max_attempts=3,
            retry=Backoff(0.1, 0.5),
            drain_s=drain_s,
            remove=False,
            remove_forwarded=False,
        ),
        stop=stop,
        metrics=metrics,
        health=Health(),
        log=log,
        recording_log=RecordingLog("json", log),
        settles_with=lambda done: [(target, done.message)] if transactions else (),
    )
