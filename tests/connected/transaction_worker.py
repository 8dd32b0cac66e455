"""A worker with transactions and a fast pipeline, as a process that may be killed or stopped.

usage: python -m connected.transaction_worker ADDRESS GROUP QUEUE [WHEN METHOD SIGNAL]

ADDRESS is an `Address` as JSON. It reads QUEUE, publishes to QUEUE-results and QUEUE-letters, and
says what it logs, a JSON object a line. With `before commit_transaction SIGKILL`, it sends itself
this signal before (or `after`) it calls this method of its transactional client for the first time.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import Any, cast

from connected.apache_kafka_system import kafka_options
from connected.meddling import meddle
from connected.start_kafka import Address
from fixed_results import one_person
from vault_ml.backoff import Backoff
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.errors import UndecodableRecording
from vault_ml.event import RecordingEvent
from vault_ml.outage import Outages
from vault_ml.pipeline import Pipeline, Progress
from vault_ml.removal import Removals
from vault_ml.sinks.port import Processed
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.logs import RecordingLog, configure
from vault_ml.telemetry.metrics import Metrics
from vault_ml.vault.clients import VaultClients
from vault_ml.worker import Worker, WorkerOptions

# The shortest that Apache Kafka takes in the tests, so that a dead member is missed soon.
EXTRA = {
    "session.timeout.ms": "1500",
    "heartbeat.interval.ms": "300",
    "transaction.timeout.ms": "3000",
    "reconnect.backoff.max.ms": "500",
}


def event_body(number: int) -> bytes:
    """An event as Kerberos Vault sends it; every 29th cannot be decoded."""
    name = "poison" if number % 29 == 28 else "clip"
    key = f"youruser/{name}/1630567{number:03d}_6-967003_highway4_200-200-400-400_24_769.mp4"
    return json.dumps({"source": "local", "payload": {"key": key}}).encode()


class FastPipeline:
    """Looks at nothing, for a moment."""

    def process(self, event: RecordingEvent, message: Message, progress: Progress) -> Processed:
        with progress.room("decode"):
            time.sleep(random.random() * 0.03)  # so that events of a partition overtake each other
            if "poison" in event.key:
                raise UndecodableRecording("noise")
        return one_person(event, message.body, progress)


def main(address: str, group: str, queue: str, *fate: str) -> None:
    """Work until SIGTERM, or meet an earlier fate."""
    if fate:
        when, method, name = fate
        number = signal.Signals[name]
        # To this very thread: one sent to the process may find another first, and this goes on.
        meet_it = lambda: signal.pthread_kill(threading.get_ident(), number)  # noqa: E731
        meddle(method, **{when: meet_it})  # type: ignore[arg-type]
    log = configure("json", "INFO", stream=sys.stdout)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    options = replace(
        kafka_options(Address(**json.loads(address)), group, EXTRA), transactions=True
    )
    consumer = KafkaConsumer(options, queue, log=log, prefetch=20)
    producer = KafkaProducer(options, log=log)
    outages = Outages(
        backoff=Backoff(0.1, 0.5),
        stop=stop,
        on_pause=consumer.pause,
        on_resume=consumer.resume,
        log=log,
    )
    metrics = Metrics()
    target = f"{queue}-results"
    Worker(
        consumer,
        cast("Pipeline", FastPipeline()),
        [],
        DeadLetters(
            producer, f"{queue}-letters", queue=queue, host="h", version="0", with_settlement=True
        ),
        Removals(cast("VaultClients", None), outages, on_removed=metrics.removed, log=log),
        outages,
        WorkerOptions(
            concurrency=3,
            max_attempts=3,
            retry=Backoff(0.1, 0.5),
            drain_s=5.0,
            remove=False,
            remove_forwarded=False,
        ),
        stop=stop,
        metrics=metrics,
        health=Health(),
        log=log,
        recording_log=RecordingLog("json", log),
        settles_with=lambda processed: [(target, processed.message)],
    ).run()
    producer.close(1.0)


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    main(*arguments)
