"""A whole stand for end-to-end tests: Kafka on a socket, an HTTP Vault, the real command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import structlog

from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.demo.worker_process import free_port

# The mock cluster's group coordinator answers a second member within one session.
FAST_GROUP = {"session.timeout.ms": "6000", "fetch.wait.max.ms": "50"}


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


def bare_environment() -> dict[str, str]:
    """What a program needs of the machine; no variable of ours."""
    kept = ("PATH", "HOME", "LANG", "XDG_CACHE_HOME",
            "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")  # fmt: skip
    return {name: os.environ[name] for name in kept if name in os.environ}


class WorkerUnderTest:
    """`vault-ml run` as a subprocess, its output in a file."""

    def __init__(self, variables: Mapping[str, str], log: Path) -> None:
        self.web = f"127.0.0.1:{free_port()}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vault_ml", "run"],
                env={
                    **bare_environment(), "WEB_ADDRESS": self.web,
                    "RUNTIME": "onnxruntime",  # nothing here is about the fastest
                    **variables,
                },
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The JSON log lines of one event."""
        found = []
        for line in self.output().splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                if row.get("event") == event:
                    found.append(row)
        return found

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self.web}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self, timeout_s: float = 150) -> None:
        def ready_or_dead() -> bool:
            assert self.process.poll() is None, self.output()
            return self.is_ready()

        wait_for(ready_or_dead, timeout_s, "the worker is ready")

    def children(self, module: str = "") -> list[int]:
        """Process ids of its children, those that run `module`."""
        found: list[int] = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            # Threads and children end while they are looked at.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for pid in (task / "children").read_text().split():
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        if module in Path(f"/proc/{pid}/cmdline").read_text():
                            found.append(int(pid))
        return found

    def metrics(self) -> str:
        return httpx.get(f"http://{self.web}/metrics", timeout=5).text

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 40) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@dataclass
class Reader:
    """Reads a topic to memory in the background, in the order of the broker."""

    consumer: KafkaConsumer
    messages: list[Message] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    topic: str = ""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            delivery = self.consumer.receive(0.2)
            if delivery is not None:
                self.arrived_at.append(time.time())
                self.messages.append(delivery.message)
                delivery.ack()

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in list(self.messages)]

    def keys(self) -> set[str]:
        return {document["payload"]["key"] for document in self.documents()}

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self.consumer.close(5)


@dataclass
class Stand:
    """Broker and Vault, and the variables of the original that reach them."""

    options_for: Callable[[str], KafkaOptions]
    vault: EmbeddedVault
    producer: KafkaProducer
    folder: Path
    queue: str
    target: str
    events: dict[str, bytes] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)
    workers: list[WorkerUnderTest] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def variables(self, **more: str) -> dict[str, str]:
        """What the original's `docker run` sets, and nothing else."""
        options = self.options_for("group-of-" + self.queue)
        login = {
            "KAFKA_USERNAME": options.username,
            "KAFKA_PASSWORD": options.password,
            "KAFKA_MECHANISM": options.mechanism,
            "KAFKA_SECURITY": options.security,
        }
        return {
            "QUEUE_SYSTEM": "KAFKA",
            "QUEUE_NAME": self.queue,
            "QUEUE_TARGET": self.target,
            "KAFKA_BROKER": options.brokers,
            "KAFKA_GROUP": options.group,
            **login,
            "VAULT_API_URL": self.vault.url,
            "VAULT_ACCESS_KEY": self.vault.account.access_key,
            "VAULT_SECRET_KEY": self.vault.account.secret_key,
            "NUMBER_OF_PREDICTIONS": "5",
            "FORWARDING_MEDIA": "false",
            "FORWARDING_METADATA": "false",
            "FORWARDING_OBJECT_THRESHOLD": "1",
            "REMOVE_AFTER_PROCESSED": "false",
            **more,
        }

    def worker(self, name: str = "worker", **more: str) -> WorkerUnderTest:
        worker = WorkerUnderTest(self.variables(**more), self.folder / f"{name}.log")
        self.workers.append(worker)
        return worker

    def reader(self, topic: str) -> Reader:
        options = self.options_for(f"reader-{len(self.readers)}-{topic}")
        consumer = KafkaConsumer(options, topic, log=structlog.get_logger())
        reader = Reader(consumer, topic=topic)
        self.readers.append(reader)
        return reader

    def announce(self, key: str) -> None:
        """Publish the event of a stored recording, and remember it in `events`."""
        self.events[key] = self.vault.event(key)
        self.send(self.events[key])

    def send(self, body: bytes, key: bytes | None = None) -> None:
        self.producer.publish(self.queue, Message(body, key), timeout_s=20)

    def store(self, key: str, content: bytes) -> str:
        self.vault.put(key, content)
        self.announce(key)
        return key

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        for reader in self.readers:
            reader.close()
        self.producer.close(5)
        self.vault.stop()
        assert self.leaks() == [], "a secret got out"

    def leaks(self) -> list[str]:
        """Where a secret of this stand stands that must not: every test is looked through.

        The secrets are both keys of the Vault, the signatures of its URLs, and what a test put
        into `secrets`. The body of a dead letter alone may hold what the event held.
        """
        outputs = {worker.log.name: worker.output() for worker in self.workers}
        for reader in self.readers:
            for number, message in enumerate(reader.messages):
                outputs[f"{reader.topic}[{number}] headers"] = str(message.headers)
                if reader.topic == self.target:
                    outputs[f"{reader.topic}[{number}]"] = message.body.decode()
        account = self.vault.account
        secrets = {account.access_key, account.secret_key} | self.secrets
        return [
            f"{name}: {text[max(0, at - 100) : at + 20]!r}"
            for name, text in outputs.items()
            for at in [*map(text.find, sorted(secrets)), _signature_at(text)]
            if at >= 0
        ]


def _signature_at(text: str) -> int:
    found = re.search(r"[?&]s=[0-9a-f]{64}", text)
    return found.start() if found else -1


@contextmanager
def make_stand(
    options_for: Callable[[str], KafkaOptions], folder: Path, queue: str
) -> Iterator[Stand]:
    """A Vault beside the broker that `options_for(group)` reaches."""
    vault = EmbeddedVault(folder / "vault", "access!@#$%12345", "secret!@#$%67890").start()
    producer = KafkaProducer(options_for("stand"), log=structlog.get_logger())
    stand = Stand(options_for, vault, producer, folder, queue, f"{queue}-results")
    try:
        yield stand
    finally:
        stand.close()


def recording_name(number: int, camera: str = "highway4") -> str:
    """A name as an Agent gives it."""
    return f"youruser/{1630567591 + number}_6-967003_{camera}_200-200-400-400_24_{number}.mp4"
