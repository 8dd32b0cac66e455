"""`vault-ml dlq` as a person types it, on Kafka's protocol over a socket."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from e2e.stand import FAST_GROUP, bare_environment
from vault_ml.brokers import dead_letter
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.kafka import KafkaBrowser, KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.demo.kafka_server import EmbeddedKafka
from vault_ml.errors import DecoderFailed, MalformedEvent, VaultMLError

pytestmark = pytest.mark.timeout(180)

SECRET = "canary-7f3a"


def event(number: int, camera: str = "highway4") -> bytes:
    key = f"youruser/{1630567591 + number}_6-967003_{camera}_200-200-400-400_24_{number}.mp4"
    document = {
        "provider": "kstorage",
        "source": "local",
        "payload": {"key": key, "signedUrl": f"https://minio/{SECRET}?X={SECRET}"},
        "data": {"storage_secret": SECRET},
    }
    return json.dumps(document).encode()


@dataclass
class Office:
    """A queue with dead letters, and the command."""

    options: KafkaOptions
    queue: str
    producer: KafkaProducer

    @property
    def dead(self) -> str:
        return f"{self.queue}.dlq"

    def variables(self) -> dict[str, str]:
        return {
            **bare_environment(),
            "QUEUE_NAME": self.queue,
            "KAFKA_BROKER": self.options.brokers,
            "KAFKA_OPTIONS": json.dumps(FAST_GROUP),
            # A worker's environment, so that one command fits into its container.
            "VAULT_API_URL": "http://127.0.0.1:9",
            "VAULT_ACCESS_KEY": "a",
            "VAULT_SECRET_KEY": "s",
        }

    def dlq(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vault_ml", "dlq", *words], env=self.variables(), text=True,
            capture_output=True, timeout=60, check=False, stdin=stdin, errors="surrogateescape",
        )  # fmt: skip

    def rows(self, *words: str) -> list[dict[str, Any]]:
        done = self.dlq(*words, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def die(self, body: bytes, error: VaultMLError, stage: str, *, of: str = "") -> None:
        letter = DeadLetters(
            self.producer, self.dead, queue=of or self.queue, host="pod-1", version="1.2"
        )

        class Held:
            message = Message(body, b"highway4", {"traceparent": "00-1"})
            attempt = 5
            first_received_at = 1_760_000_000.0
            id = f"{self.queue}[0]@1"

        letter.send(Held(), error, stage)  # type: ignore[arg-type]

    def waiting(self, topic: str) -> list[Message]:
        browser = KafkaBrowser(self.options, topic, log=structlog.get_logger())
        try:
            return [delivery.message for delivery in browser.deliveries()]
        finally:
            browser.close(5)


@pytest.fixture
def office(kafka: EmbeddedKafka) -> Iterator[Office]:
    queue = f"ml-queue-{uuid.uuid4().hex[:8]}"
    for topic in (queue, f"{queue}.dlq"):
        kafka.create_topic(topic)
    options = KafkaOptions(kafka.bootstrap, "vault-ml", extra=FAST_GROUP)
    producer = KafkaProducer(options, log=structlog.get_logger())
    yield Office(options, queue, producer)
    producer.close(5)


@pytest.fixture
def full(office: Office) -> Office:
    """Four letters: three of two cameras, one that is no event."""
    office.die(event(1), DecoderFailed("the decoder was killed"), "decode")
    office.die(event(2, "porch"), DecoderFailed("the decoder was killed"), "decode")
    office.die(event(3), VaultMLError(f"GET https://minio/x?sig={SECRET} failed"), "fetch")
    office.die(b"password=" + SECRET.encode() + b"\x1b[2J\xff", MalformedEvent("no JSON"), "parse")
    return office


def test_an_empty_queue_is_said_to_be_empty(office: Office) -> None:
    done = office.dlq("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"vault-ml: {office.dead} is empty\n"
    done = office.dlq("redrive")
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 of 0 letters" in done.stderr


def test_list_shows_why_and_what_and_no_secret(full: Office) -> None:
    done = full.dlq("list")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12
    assert "DecoderFailed  decode x5" in done.stdout
    assert "youruser/1630567592_6-967003_highway4_200-200-400-400_24_1.mp4" in done.stdout
    assert "the decoder was killed" in done.stdout
    assert f"4 of 4 letters in {full.dead}" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    rows = full.rows("list")
    assert [row["error"] for row in rows] == [
        "DecoderFailed", "DecoderFailed", "VaultMLError", "MalformedEvent",
    ]  # fmt: skip
    assert {row["attempts"] for row in rows} == {5}
    assert SECRET not in json.dumps(rows)
    assert len({row["id"] for row in rows}) == 4
    assert full.rows("list") == rows, "looking changes nothing"


def test_options_are_the_selection(full: Office) -> None:
    """What each of them selects is tested with `Selection`."""
    everything = [row["id"] for row in full.rows("list")]
    both = full.rows(
        "list", "--error", "DecoderFailed", "--stage", "decode", "--reason", "KILLED",
        "--key", "*_highway4_*", "--since", "1h", "--before", "2100-01-01",
    )  # fmt: skip
    assert [row["id"] for row in both] == everything[:1]
    assert [row["id"] for row in full.rows("list", "--limit", "2")] == everything[:2]


def test_show_prints_headers_and_event_without_secrets(full: Office) -> None:
    ids = [row["id"] for row in full.rows("list")]
    done = full.dlq("show", ids[0][:6])
    assert done.returncode == 0, done.stderr
    assert "vault-ml-reason: the decoder was killed" in done.stdout
    assert "traceparent: 00-1" in done.stdout
    assert '"provider": "kstorage"' in done.stdout
    assert SECRET not in done.stdout
    (row,) = full.rows("show", ids[3])
    assert SECRET not in json.dumps(row)
    done = full.dlq("show", ids[3])
    assert "\x1b" not in done.stdout
    missing = full.dlq("show", "zzzz")
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[-1].endswith("has an id like that.")


def test_raw_writes_the_original_bytes_and_says_so(full: Office) -> None:
    ids = [row["id"] for row in full.rows("list")]
    done = full.dlq("show", "--raw", ids[3])
    assert done.stdout.encode(errors="surrogateescape") == (
        b"password=" + SECRET.encode() + b"\x1b[2J\xff"
    )
    assert "may hold credentials" in done.stderr
    assert full.dlq("show", "--raw", ids[0], ids[1]).returncode == 2


def test_dry_run_does_nothing(full: Office) -> None:
    for words in (["redrive"], ["drop"]):
        done = full.dlq(*words, "--stage", "decode", "--dry-run")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 6
        assert "2 letters would be" in done.stderr
    assert len(full.waiting(full.dead)) == 4
    assert full.waiting(full.queue) == []


def test_redrive_sends_the_selected_back_and_leaves_the_rest(full: Office) -> None:
    done = full.dlq("redrive", "--error", "DecoderFailed")
    assert done.returncode == 0, done.stderr
    assert f"2 of 2 letters sent back to {full.queue}" in done.stderr
    assert full.waiting(full.queue) == [
        Message(body, b"highway4", {"traceparent": "00-1", dead_letter.REDRIVEN: "1"})
        for body in (event(1), event(2, "porch"))
    ]
    assert [row["error"] for row in full.rows("list")] == ["VaultMLError", "MalformedEvent"]
    again = full.dlq("redrive", "--error", "DecoderFailed", "--json")
    assert (again.returncode, again.stdout) == (0, "")
    consumer = KafkaConsumer(full.options, full.queue, log=structlog.get_logger())
    delivery = consumer.receive(30)
    consumer.close(5)
    assert delivery is not None
    assert delivery.attempt == 1


def test_letters_of_another_queue_stay_unless_asked_for(full: Office) -> None:
    full.die(event(9), DecoderFailed("elsewhere"), "decode", of="another-queue")
    done = full.dlq("redrive", "--stage", "decode")
    assert "2 of 2 letters" in done.stderr
    assert "1 more fit, but came from another queue" in done.stderr
    assert full.rows("redrive", "--stage", "decode", "--any-queue")[0]["outcome"] == "redriven"
    assert len(full.waiting(full.queue)) == 3


def test_drop_asks_first(full: Office) -> None:
    refused = full.dlq("drop", "--stage", "parse")
    assert refused.returncode == 2
    assert (
        refused.stderr == "vault-ml: Nobody can be asked here whether to drop letters; add --yes.\n"
    )
    for answer, left in ((b"n\n", 4), (b"y\n", 3)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        done = full.dlq("drop", "--stage", "parse", stdin=theirs)
        os.close(ours)
        os.close(theirs)
        assert done.returncode == (1 if left == 4 else 0), done.stderr
        assert f"Drop 1 letter of {full.dead} for good?" in done.stderr
        assert len(full.waiting(full.dead)) == left
    done = full.dlq("drop", "--yes")
    assert "3 of 3 letters dropped" in done.stderr
    assert full.waiting(full.dead) == full.waiting(full.queue) == []


def test_a_broker_that_is_away_is_said_in_a_sentence(full: Office, kafka: EmbeddedKafka) -> None:
    kafka.set_down()
    try:
        done = full.dlq("list")
    finally:
        kafka.set_up()
    assert done.returncode == 3
    assert "does not answer" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["list", "--since", "soon"], id="time"),
        pytest.param(["list", "--limit", "0"], id="limit"),
        pytest.param(["list", "--nonsense"], id="option"),
        pytest.param(["nonsense"], id="command"),
        pytest.param(["show"], id="no-id"),
    ],
)
def test_wrong_words_are_said_in_a_sentence(office: Office, words: list[str]) -> None:
    done = office.dlq(*words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
