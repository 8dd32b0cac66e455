"""Five workers, of which one after the other is told to go, in the middle of the work.

STORM_EVENTS=2000 is the long form, for a machine that has nothing else to do.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import shared_file
from connected.apache_kafka_system import ApacheKafkaSystem
from e2e.stand import Stand, WorkerUnderTest, make_stand, recording_name, wait_for
from vault_ml.brokers.kafka import KafkaOptions

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(3600)]

EVENTS = int(os.environ.get("STORM_EVENTS", "120"))
WORKERS = 5
EVERY_S = 4.0
DRAIN_S = 20.0


@pytest.fixture
def stand(kafka_system: ApacheKafkaSystem, tmp_path: Path) -> Iterator[Stand]:
    def options_for(group: str) -> KafkaOptions:
        return replace(kafka_system.options(), group=group)

    queue = kafka_system.new_queue(partitions=2 * WORKERS)
    with make_stand(options_for, tmp_path, queue) as made:
        yield made


def test_workers_that_are_told_to_go_lose_nothing_and_go_in_time(stand: Stand) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    chosen = random.Random(seed)
    shared_file("models/yolo-fastest/yolo-fastest-1.1.weights")
    model = str(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg"))
    clip = shared_file("video/one_person_5s_768x432_10fps.mp4").read_bytes()
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")

    def hired(number: int) -> WorkerUnderTest:
        return stand.worker(f"worker-{number}", MODEL=model, DRAIN_TIMEOUT_S=f"{DRAIN_S:g}",
                            WORKER_CONCURRENCY="2", OMP_NUM_THREADS="1")  # fmt: skip

    at_work = [hired(number) for number in range(WORKERS)]
    at_work[0].wait_ready(120)
    keys = {stand.store(recording_name(n), clip) for n in range(EVENTS)}
    went_s: list[float] = []
    deadline = time.monotonic() + 3000
    while results.keys() != keys and time.monotonic() < deadline:
        time.sleep(EVERY_S)
        leaving = at_work.pop(chosen.randrange(WORKERS))
        told_at = time.monotonic()
        assert leaving.stop(2 * DRAIN_S) == 0, leaving.output()[-2000:]
        went_s.append(time.monotonic() - told_at)
        at_work.append(hired(WORKERS + len(went_s)))
    assert results.keys() == keys, f"{len(keys - results.keys())} lost"
    assert letters.messages == []
    # Not a measure of speed: the platform kills who outlasts the grace period (kubernetes.yaml).
    assert max(went_s) < DRAIN_S + 30
    runs = Counter(document["data"]["run"]["id"] for document in results.documents())
    assert len(runs) == EVENTS, "the same recording has the same run, whoever looks at it"
    again = sum(runs.values()) - EVENTS
    print(f"{EVENTS} events, {len(went_s)} workers sent away, {again} results twice; "
          f"seconds to go: {min(went_s):.1f} to {max(went_s):.1f}")  # fmt: skip
    wait_for(lambda: all(worker.process.poll() is None for worker in at_work), 5, "the rest works")
