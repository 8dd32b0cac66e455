"""The original's example, end to end, on Apache Kafka itself: SASL_PLAINTEXT and PLAIN."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import shared_file
from connected.apache_kafka_system import ApacheKafkaSystem
from e2e.stand import Stand, make_stand, recording_name, wait_for
from vault_ml.brokers import dead_letter
from vault_ml.brokers.kafka import KafkaOptions

pytestmark = [pytest.mark.connected, pytest.mark.timeout(240)]


@pytest.fixture
def stand(kafka_system: ApacheKafkaSystem, tmp_path: Path) -> Iterator[Stand]:
    def options_for(group: str) -> KafkaOptions:
        options = kafka_system.options()
        return KafkaOptions(
            options.brokers, group, options.username, options.password, options.mechanism,
            options.security, options.extra,
        )  # fmt: skip

    queue = f"vault-ml-test-{uuid.uuid4().hex[:8]}"
    with make_stand(options_for, tmp_path, queue) as made:
        yield made


def test_original_example_works_as_printed(stand: Stand) -> None:
    """Its variables, a login, topics that nobody made before: a result and a dead letter."""
    variables = stand.variables()
    assert variables["KAFKA_SECURITY"] == "SASL_PLAINTEXT"
    assert variables["KAFKA_MECHANISM"] == "PLAIN"
    shared_file("models/yolov3-tiny/yolov3-tiny.weights")
    worker = stand.worker(MODEL=str(shared_file("models/yolov3-tiny/yolov3-tiny.cfg")))
    worker.wait_ready()
    clip = shared_file("video/vtest_6s_768x576_10fps.mp4").read_bytes()
    keys = {stand.store(recording_name(n), clip) for n in range(6)}
    stand.send(b"not an event")
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")
    wait_for(lambda: results.keys() == keys, 90, f"six results; {worker.output()}")
    wait_for(lambda: len(letters.messages) == 1, 60, f"a dead letter; {worker.output()}")
    assert letters.messages[0].body == b"not an event"
    assert letters.messages[0].headers[dead_letter.ERROR_CLASS] == "MalformedEvent"
    for document in results.documents():
        assert {"person", "car"} <= {x for frame in document["data"]["labels"] for x in frame}
    assert worker.stop() == 0


def test_wrong_password_is_one_sentence_and_exit_2(stand: Stand) -> None:
    worker = stand.worker(
        MODEL=str(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg")), KAFKA_PASSWORD="wrong"
    )
    assert worker.process.wait(60) == 2
    *_, last = worker.output().splitlines()
    assert last.startswith("vault-ml: ")
    assert "KAFKA_PASSWORD" in last
    assert "Traceback" not in worker.output()
    # Once in the log, once as the last words; librdkafka tries some fifteen times a second.
    assert worker.output().count("KAFKA_PASSWORD") <= 2
    assert '"wrong"' not in worker.output()
