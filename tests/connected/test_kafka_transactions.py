"""KAFKA_TRANSACTIONS=true against everything that may happen to a worker, on Apache Kafka."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connected.apache_kafka_system import QUIET, ApacheKafkaSystem
from connected.meddling import meddle
from connected.transaction_worker import EXTRA, event_body
from contract.broker_contract import JOIN_S, receive, wait_for
from vault_ml.brokers import dead_letter
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer, codes
from vault_ml.brokers.kafka.cluster import Cluster
from vault_ml.brokers.kafka.connection import Connection
from vault_ml.brokers.port import Message

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


class Stage:
    """A queue with its results and dead letters, and the workers on it."""

    def __init__(self, system: ApacheKafkaSystem, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.queue = self.system.group
        self.admin = AdminClient(self.system.options().connection(), logger=QUIET)
        made = self.admin.create_topics(
            [NewTopic(self.queue, 3), NewTopic(self.results, 2), NewTopic(self.letters, 1)]
        )
        for future in made.values():
            future.result(20)
        options = self.system.options()
        self._cluster = Cluster(
            options, Connection(options, self.system.log, "test"), self.system.log
        )
        self.producer = self.system.producer()
        self.sent: list[bytes] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def results(self) -> str:
        return f"{self.queue}-results"

    @property
    def letters(self) -> str:
        return f"{self.queue}-letters"

    def send(self, count: int) -> None:
        for _ in range(count):
            number = len(self.sent)
            self.sent.append(event_body(number))
            self.producer.publish(
                self.queue, Message(self.sent[-1], b"%d" % number), timeout_s=JOIN_S
            )

    def worker(self, *fate: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"worker-{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "connected.transaction_worker"),
                    *(
                        json.dumps(asdict(self.system.address)),
                        self.system.group,
                        self.queue,
                        *fate,
                    ),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._processes.append(process)
        return process

    def log_of(self, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        path = self.folder / f"worker-{self._processes.index(process)}.log"
        lines = path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def read(self, topic: str, isolation: str = "read_committed") -> list[Any]:
        """Everything in a topic, by partition and offset."""
        client = Consumer(
            {
                **self.system.options().connection(),
                "group.id": "reader",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            },
            logger=QUIET,
        )
        try:
            numbers = client.list_topics(topic, timeout=10).topics[topic].partitions
            client.assign([TopicPartition(topic, number, 0) for number in numbers])
            unread, messages = set(numbers), []
            while unread:
                message = client.poll(20)
                assert message is not None, "the topic does not end: a transaction is open"
                if error := message.error():
                    assert error.code() == codes.PARTITION_EOF
                    unread.discard(message.partition())
                else:
                    messages.append(message)
        finally:
            client.close()
        return messages

    def is_done(self) -> bool:
        """Everything that was sent is settled."""
        time.sleep(0.3)  # two cores, and the workers need them
        committed = self._cluster.committed(self.system.group, self.queue, range(3), 10)
        done = sum(max(0, offset) for offset, _ in committed.values())
        # Every message takes one offset: what is sent to the queue is not sent in transactions.
        return done == len(self.sent)

    def assert_each_is_seen_once_and_in_order(self) -> None:
        events = self.read(self.queue)
        place = {one.value(): (one.partition(), one.offset()) for one in events}
        assert len(place) == len(self.sent)
        results, letters = self.read(self.results), self.read(self.letters)
        deadline = time.monotonic() + 10
        # The commit may be known to the group a moment before it is to the results.
        while len(results + letters) < len(self.sent) and time.monotonic() < deadline:
            results, letters = self.read(self.results), self.read(self.letters)
        seen = [one.value() for one in results + letters]
        assert sorted(seen) == sorted(self.sent), "not each once"
        assert all(b"poison" in one.value() for one in letters)
        assert not any(b"poison" in one.value() for one in results)
        for one in letters:
            headers = dict(one.headers())
            assert headers[dead_letter.ERROR_CLASS] == b"UndecodableRecording"
        # A result topic's partition keeps the order in which the events' partition has them.
        last: dict[tuple[int, int], int] = {}
        for one in results:
            partition, offset = place[one.value()]
            assert offset > last.get((one.partition(), partition), -1)
            last[one.partition(), partition] = offset

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.producer.close(5)


@pytest.fixture
def stage(kafka_system: ApacheKafkaSystem, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(kafka_system, tmp_path)
    yield stage
    stage.close()


def test_results_are_seen_once_whenever_workers_are_killed(stage: Stage) -> None:
    kills, chance = 24, random.Random(20261122)
    workers = [stage.worker() for _ in range(3)]
    stage.send(20)
    wait_for(lambda: bool(stage.read(stage.results)), "the first result")
    for _ in range(kills):
        stage.send(13)
        time.sleep(chance.uniform(0.1, 1.6))  # the random moment
        victim = chance.randrange(len(workers))
        workers[victim].send_signal(signal.SIGKILL)
        workers[victim].wait()
        workers[victim] = stage.worker()
    assert len(stage.sent) > 300
    wait_for(stage.is_done, "everything is settled", 90)
    stage.assert_each_is_seen_once_and_in_order()
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    # One that has just been started dies of the signal.
    assert {worker.wait(20) for worker in workers} <= {0, -signal.SIGTERM}


def test_results_are_seen_once_when_a_worker_dies_within_a_transaction(stage: Stage) -> None:
    steps = ("begin_transaction", "produce", "flush", "send_offsets_to_transaction",
             "commit_transaction")  # fmt: skip
    for when, step in itertools.product(("before", "after"), steps):
        stage.send(3)
        worker = stage.worker(when, step, "SIGKILL")
        assert worker.wait(60) == -signal.SIGKILL, f"{when} {step}"
    stage.send(3)
    last = stage.worker()
    wait_for(stage.is_done, "everything is settled", 60)
    stage.assert_each_is_seen_once_and_in_order()
    raw = stage.read(stage.results, "read_uncommitted")
    assert len(raw) > len(stage.read(stage.results)), "some had been published, and aborted"
    last.send_signal(signal.SIGTERM)
    assert last.wait(20) == 0


@pytest.mark.parametrize("stop_at", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_worker_that_slept_through_its_expulsion_commits_nothing(
    stage: Stage, stop_at: str
) -> None:
    stage.send(12)
    zombie = stage.worker("before", stop_at, "SIGSTOP")
    wait_for(lambda: is_stopped(zombie), "it stopped itself in mid-transaction")
    open_ones = len(stage.read(stage.results, "read_uncommitted"))
    assert open_ones > 0, "it had published, and not committed"
    other = stage.worker()
    wait_for(stage.is_done, "the other did the work", 60)
    zombie.send_signal(signal.SIGCONT)
    wait_for(
        lambda: any(line["event"] == "transaction_aborted" for line in stage.log_of(zombie)),
        "its transaction was refused",
    )
    stage.send(6)
    wait_for(stage.is_done, "all go on")
    stage.assert_each_is_seen_once_and_in_order()
    raw = stage.read(stage.results, "read_uncommitted")
    assert len(raw) >= len(stage.read(stage.results)) + open_ones, "the aborted ones are there"
    for worker in (zombie, other):
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def test_sharing_out_anew_while_a_transaction_is_open_repeats_nothing(
    kafka_system: ApacheKafkaSystem,
) -> None:
    kafka_system.transactions = True
    kafka_system.extra = EXTRA
    partitions, sent, committed = 6, 20, 10
    queue = kafka_system.new_queue(partitions)
    connection = kafka_system.options().connection()
    plain = Producer(connection, logger=QUIET)
    for number, offset in itertools.product(range(partitions), range(sent)):
        plain.produce(queue, b"%d@%d" % (number, offset), partition=number)
    assert plain.flush(20) == 0

    def places(offset: int) -> list[TopicPartition]:
        return [TopicPartition(queue, number, offset) for number in range(partitions)]

    # A worker that is gone has settled ten of each; the transaction of its last ones is open.
    last = Consumer({**connection, "group.id": kafka_system.group}, logger=QUIET)
    last.commit(offsets=places(committed), asynchronous=False)
    dead = Producer(
        {**connection, "transactional.id": f"{queue}-dead", "transaction.timeout.ms": "60000"},
        logger=QUIET,
    )
    dead.init_transactions(20)
    dead.begin_transaction()
    dead.send_offsets_to_transaction(places(15), last.consumer_group_metadata(), 20)
    joined: list[KafkaConsumer] = []
    try:
        for _ in range(4):  # each of them has the group shared out anew
            joined.append(kafka_system.consumer(queue))
            time.sleep(1.5)
        assert all(consumer.receive(0.1) is None for consumer in joined), "they wait"
        dead.abort_transaction(20)
        seen: list[bytes] = []
        deadline = time.monotonic() + JOIN_S
        while len(seen) < partitions * (sent - committed) and time.monotonic() < deadline:
            for consumer in joined:
                while (delivery := consumer.receive(0.1)) is not None:
                    seen.append(delivery.message.body)
        wanted = [b"%d@%d" % each for each in itertools.product(range(6), range(committed, sent))]
        assert sorted(seen) == sorted(wanted)
    finally:
        last.close()
        for consumer in joined:
            consumer.close(10)


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def lost_answer() -> None:
    raise KafkaException(KafkaError(codes.TIMED_OUT, "the answer got lost", fatal=True))


def refused_by_rebalance() -> None:
    raise KafkaException(
        KafkaError(KafkaError.ILLEGAL_GENERATION, "another generation", txn_requires_abort=True)
    )


def never_back() -> None:
    """As far as we are concerned."""
    time.sleep(60)


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        ("commit_transaction", lambda: None, lost_answer),
        ("commit_transaction", lost_answer, lambda: None),
        ("send_offsets_to_transaction", lambda: None, lost_answer),
        ("send_offsets_to_transaction", refused_by_rebalance, lambda: None),
        ("send_offsets_to_transaction", never_back, lambda: None),
        ("begin_transaction", lost_answer, lambda: None),
        ("init_transactions", lost_answer, lambda: None),
    ],
    ids=["committed, unsaid", "not committed, unsaid", "offsets unsaid", "offsets refused",
         "offsets never back", "begin", "init"],
)  # fmt: skip
def test_what_nobody_knows_is_found_out(
    kafka_system: ApacheKafkaSystem,
    method: str,
    before: Callable[[], None],
    after: Callable[[], None],
) -> None:
    kafka_system.transactions = True
    queue, target = kafka_system.new_queue(), kafka_system.new_queue()
    producer: KafkaProducer = kafka_system.producer()
    undo = meddle(method, before=before, after=after, times=3)
    consumer: KafkaConsumer | None = None
    reader: KafkaConsumer | None = None
    try:
        for number in range(5):
            producer.publish(queue, Message(b"%d" % number), timeout_s=JOIN_S)
        consumer, reader = kafka_system.consumer(queue), kafka_system.consumer(target)
        for _ in range(5):
            delivery = receive(consumer)
            delivery.ack([(target, delivery.message)]).result(JOIN_S)
        assert [receive(reader).message.body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert reader.receive(1.0) is None
        if method != "init_transactions":
            assert kafka_system.log.events("transaction_aborted")
    finally:
        undo()
        for one in (consumer, reader, producer):
            if one is not None:
                one.close(10)


def test_extra_options_of_the_tests_are_taken(kafka_system: ApacheKafkaSystem) -> None:
    kafka_system.transactions = True
    options = kafka_system.options(EXTRA)
    assert options.transactional_producer("x")["message.timeout.ms"] == 3000
