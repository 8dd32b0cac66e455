"""What KAFKA_TRANSACTIONS costs: the worker with and without, in turns, on Apache Kafka.

The worker's own loop, broker adapters and settling; in place of Vault, decoder and detector a fixed
answer after a fixed time, so that the broker is what is measured. A round is measured from the
first event in a worker's hands until a reader of committed messages has every result.

usage: PYTHONPATH=tests python -m benchmarks.transactions [--events 1000] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from connected.apache_kafka_system import ApacheKafkaSystem
from connected.kafka_worker import CONCURRENCY, worker_on_kafka
from connected.start_kafka import VERSION, ApacheKafka
from fixed_results import one_person
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.event import RecordingEvent
from vault_ml.pipeline import Progress
from vault_ml.sinks.port import Processed
from vault_ml.telemetry.logs import configure
from vault_ml.worker import Worker

FLOOR = 0.9
PARTITIONS = 3
WORK_MS = (0.0, 10.0, 50.0)
WAIT_S = 120.0


class FixedPipeline:
    """One person in one frame, after a fixed time."""

    def __init__(self, work_s: float) -> None:
        self._work_s = work_s
        self.began_at = 0.0

    def process(self, event: RecordingEvent, message: Message, progress: Progress) -> Processed:
        self.began_at = self.began_at or time.perf_counter()
        if self._work_s:
            time.sleep(self._work_s)
        return one_person(event, message.body, progress)


def event_body(number: int) -> bytes:
    """An event of Kerberos Vault's, with about as much in it as a result has."""
    key = f"youruser/{1630567591 + number}_6-967003_highway4_200-200-400-400_24_769.mp4"
    return json.dumps({"source": "local", "payload": {"key": key}, "more": "x" * 1500}).encode()


def worker_on(
    system: ApacheKafkaSystem, queue: str, target: str, pipeline: FixedPipeline, *, with_them: bool
) -> tuple[Worker, threading.Event, KafkaProducer]:
    """The worker with the fixed pipeline, with transactions or without."""
    log = configure("json", "ERROR", stream=sys.stderr)
    options = replace(system.options(), transactions=with_them)
    consumer = KafkaConsumer(options, queue, log=log)
    producer = KafkaProducer(options, log=log)
    stop = threading.Event()
    worker = worker_on_kafka(
        consumer,
        producer,
        pipeline,
        queue=queue,
        target=target,
        letters=f"{queue}.dlq",
        transactions=with_them,
        drain_s=10.0,
        stop=stop,
        log=log,
    )
    return worker, stop, producer


def one_round(server: ApacheKafka, events: int, work_s: float, *, with_them: bool) -> float:
    """Events per second."""
    system = ApacheKafkaSystem(server.address("PLAINTEXT"), server)
    system.transactions = True  # the reader's: it sees what is committed
    queue, target = system.new_queue(PARTITIONS), system.new_queue(PARTITIONS)
    fill(system, queue, events)
    reader = KafkaConsumer(
        replace(system.options(), group=f"{system.group}-reader", transactions=False,
                extra={"isolation.level": "read_committed"}),
        target, log=system.log,
    )  # fmt: skip
    while not system.log.events("partitions_assigned"):
        reader.receive(0.1)
    pipeline = FixedPipeline(work_s)
    worker, stop, producer = worker_on(system, queue, target, pipeline, with_them=with_them)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        seen = 0
        while seen < events:
            delivery = reader.receive(WAIT_S)
            if delivery is None:
                raise SystemExit(f"only {seen} of {events} results came")
            delivery.ack()
            seen += 1
        return events / (time.perf_counter() - pipeline.began_at)
    finally:
        stop.set()
        thread.join()
        producer.close(5)
        reader.close(5)


def fill(system: ApacheKafkaSystem, queue: str, events: int) -> None:
    """Publish the events, many at once."""
    producer = KafkaProducer(replace(system.options(), transactions=False), log=system.log)
    with ThreadPoolExecutor(16) as pool:
        for sent in [
            pool.submit(
                producer.publish, queue, Message(event_body(n), b"%d" % n), timeout_s=WAIT_S
            )
            for n in range(events)
        ]:
            sent.result()
    producer.close(10)


def main() -> int:
    """Measure, print, and say by the exit code whether the floor is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transactions")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    rows = []
    server = ApacheKafka()
    try:
        server.start()
        one_round(server, 50, 0.0, with_them=True)  # topics of the coordinator, warm code
        for work_ms in WORK_MS:
            events = words.events if work_ms < WORK_MS[-1] else words.events // 4
            rates: dict[bool, list[float]] = {False: [], True: []}
            for number in range(words.rounds):
                for with_them in (False, True) if number % 2 else (True, False):
                    rate = one_round(server, events, work_ms / 1000, with_them=with_them)
                    rates[with_them].append(rate)
            rows.append(row_of(work_ms, rates))
            print_row(rows[-1])
    finally:
        server.close()
    if words.json:
        words.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(float(row["ratio_median"]) >= FLOOR for row in rows) else 1


def row_of(work_ms: float, rates: dict[bool, list[float]]) -> dict[str, float]:
    """Medians, and the ratios of the pairs that ran one after the other."""
    ratios = sorted(with_ / without for without, with_ in zip(*rates.values(), strict=True))
    return {
        "work_ms": work_ms,
        "without_per_s": round(statistics.median(rates[False]), 1),
        "with_per_s": round(statistics.median(rates[True]), 1),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min": round(ratios[0], 2),
        "ratio_max": round(ratios[-1], 2),
    }


def print_row(row: dict[str, float]) -> None:
    """One line, as the documents show it."""
    print(
        f"Apache Kafka {VERSION}, {os.cpu_count()} processors, {CONCURRENCY} recordings at once, "
        f"{row['work_ms']:g} ms of work each: {row['without_per_s']:g} events/s without, "
        f"{row['with_per_s']:g} with transactions, ratio {row['ratio_median']:g} "
        f"({row['ratio_min']:g}-{row['ratio_max']:g})",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
