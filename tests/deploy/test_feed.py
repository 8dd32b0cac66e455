"""What docker-compose.yaml runs beside the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import structlog

from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions
from vault_ml.demo.kafka_server import EmbeddedKafka
from vault_ml.demo.worker_process import free_port
from vault_ml.event import parse
from vault_ml.vault.client import VaultClient


def test_an_event_comes_for_a_clip_that_the_vault_then_hands_out() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with EmbeddedKafka() as kafka:
        kafka.create_topic("ml-queue")
        feed = subprocess.Popen(
            [sys.executable, "-m", "vault_ml.demo.feed"],
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                "QUEUE_NAME": "ml-queue",
                "KAFKA_BROKER": kafka.bootstrap,
                "VAULT_API_URL": url,
                "VAULT_ACCESS_KEY": "demo",
                "VAULT_SECRET_KEY": "hidden",
            },
        )
        try:
            consumer = KafkaConsumer(
                KafkaOptions(kafka.bootstrap, "test"), "ml-queue", log=structlog.get_logger()
            )
            deadline = time.monotonic() + 60
            delivery = None
            while delivery is None and time.monotonic() < deadline:
                assert feed.poll() is None, "the feed ended"
                delivery = consumer.receive(0.5)
            assert delivery is not None
            event = parse(delivery.message.body)
            delivery.ack()
            consumer.close(5.0)
            with (
                VaultClient(url, "demo", "hidden") as vault,
                vault.fetch(event.key, event.source) as recording,
            ):
                assert recording.size_bytes == event.file_size
        finally:
            feed.send_signal(signal.SIGTERM)
            code = feed.wait(60)
        assert code == 0
