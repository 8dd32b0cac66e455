"""The ecosystem's own queue client reads what we send, and we read what it sends.

`uugai-python-dynamic-queue` pins an old confluent-kafka, so it lives in a virtual environment of
its own, kept in the user's cache folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem
from contract.broker_contract import receive, settled
from vault_ml.brokers.port import Message

pytestmark = pytest.mark.connected

PACKAGE = "uugai-python-dynamic-queue==1.1.0"

SCRIPT = """
import json, sys
from uugai_python_dynamic_queue.MessageBrokers import Kafka
queue, broker, group, mechanism, security, username, password = sys.argv[1:]
kafka = Kafka(queue, broker, group, mechanism, security, username, password)
message = []
while message == []:
    message = kafka.receive_message()
kafka.send_message(json.dumps({"echo": message}))
kafka.kafka_producer.flush(30)
kafka.kafka_consumer.close()
print(json.dumps(message))
"""


@pytest.fixture(scope="session")
def their_python() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "vault-ml" / PACKAGE.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        installed = subprocess.run(
            [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", PACKAGE],
            capture_output=True,
            text=True,
            check=False,
        )
        if installed.returncode != 0:
            pytest.skip(f"{PACKAGE} cannot be installed here: {installed.stderr[-200:]}")
        (folder / "complete").touch()
    return python


def test_their_client_reads_ours_and_we_read_theirs(
    own_kafka_system: ApacheKafkaSystem, their_python: Path
) -> None:
    kafka_system = own_kafka_system  # their client sends to a topic that others may use
    address = kafka_system.address
    queue = kafka_system.new_queue()
    event = {"events": ["forward"], "payload": {"key": "user/1_6-1_cam_0_0_1.mp4"}, "n": "é"}
    producer = kafka_system.producer()
    # Their client sends to this topic, whatever it was told.
    consumer = kafka_system.consumer("kcloud-analysis-queue")
    try:
        producer.publish(queue, Message(json.dumps(event).encode(), b"cam"), timeout_s=20)
        consumer.receive(0.1)  # makes the topic on the way
        assert consumer.receive(3.0) is None
        theirs = subprocess.run(
            [
                *(their_python, "-c", SCRIPT, queue, address.bootstrap, f"{kafka_system.group}-2"),
                *(address.mechanism, address.security, address.username, address.password),
            ],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert theirs.returncode == 0, theirs.stderr[-2000:]
        assert json.loads(theirs.stdout) == event
        delivery = receive(consumer)
        assert json.loads(delivery.message.body) == {"echo": event}
        assert settled(delivery.ack())
    finally:
        consumer.close(10)
        producer.close(10)
