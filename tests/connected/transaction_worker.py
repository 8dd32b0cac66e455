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
from typing import Any

from connected.apache_kafka_system import kafka_options
from connected.kafka_worker import worker_on_kafka
from connected.meddling import meddle
from connected.start_kafka import Address
from fixed_results import one_person
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.errors import UndecodableRecording
from vault_ml.event import RecordingEvent
from vault_ml.pipeline import Progress
from vault_ml.sinks.port import Processed
from vault_ml.telemetry.logs import configure

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
    worker_on_kafka(
        consumer,
        producer,
        FastPipeline(),
        queue=queue,
        target=f"{queue}-results",
        letters=f"{queue}-letters",
        transactions=True,
        drain_s=5.0,
        stop=stop,
        log=log,
    ).run()
    producer.close(1.0)


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    main(*arguments)
