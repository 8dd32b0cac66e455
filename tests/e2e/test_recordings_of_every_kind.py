"""Recordings that the configured Vault does not simply hand out: named by events, encrypted, large,
still growing. And that no secret of any of them gets out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import shared_file
from e2e.stand import Stand, bare_environment, recording_name, wait_for
from encrypted_files import encrypted
from vault_ml.brokers import dead_letter
from vault_ml.demo.vault_server import EmbeddedVault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ONE_PERSON = "video/one_person_5s_768x432_10fps.mp4"
FAST = {"RETRY_BACKOFF_S": "0.2", "RETRY_MAX_ATTEMPTS": "2", "LOG_FORMAT": "json"}


def hub_event(stand: Stand, vault: EmbeddedVault, key: str, **more: Any) -> bytes:
    """An event as Kerberos Hub sends it to its stages: with the Vault's address and keys."""
    event = json.loads(vault.event(key))
    event["operation"] = "event"
    event["data"] = {
        "storage_uri": vault.url + "/api",
        "storage_access_key": vault.account.access_key,
        "storage_secret": vault.account.secret_key,
        **more,
    }
    stand.secrets |= {vault.account.access_key, vault.account.secret_key}
    return json.dumps(event).encode()


# The variables of the original's Hub command that say which Vault: none.
NO_VAULT = {"VAULT_API_URL": "", "VAULT_ACCESS_KEY": "", "VAULT_SECRET_KEY": ""}


def test_the_hub_command_fetches_from_the_vault_that_each_event_names(
    stand: Stand, small_model: str, tmp_path: Path
) -> None:
    results = stand.reader(stand.target)
    clip = shared_file(ONE_PERSON).read_bytes()
    with EmbeddedVault(tmp_path / "hub", "canary-hub-access", "canary-hub-secret") as hub:
        worker = stand.worker(
            MODEL=small_model,
            MESSAGE_VAULT_ORIGINS=f"{stand.vault.url},{hub.url}",
            REMOVE_AFTER_PROCESSED="true",
            FORWARDING_MEDIA="true",
            FORWARDING_OBJECT_THRESHOLD="0",
            REMOVE_AFTER_FORWARD_QUEUED="true",
            **NO_VAULT,
            **FAST,
        )
        keys = [recording_name(1), recording_name(2, "yard")]
        for vault, key in zip((stand.vault, hub), keys, strict=True):
            vault.put(key, clip)
            stand.send(hub_event(stand, vault, key))
        wait_for(lambda: results.keys() == set(keys), 90, f"both; {worker.output()}")
        for document in results.documents():
            assert not {"storage_uri", "storage_access_key", "storage_secret"} & set(
                document["data"]
            )
        wait_for(lambda: not stand.vault.has(keys[0]) and not hub.has(keys[1]), 30, "removed")
        assert hub.forwarded == (keys[1],), "forwarded by the Vault that holds it"
        assert stand.vault.forwarded == (keys[0],)


def test_the_hub_command_as_printed_starts_and_calls_no_private_address(
    stand: Stand, small_model: str
) -> None:
    letters = stand.reader(f"{stand.queue}.dlq")
    worker = stand.worker(MODEL=small_model, **NO_VAULT, **FAST)
    worker.wait_ready()
    key = recording_name(3)
    stand.vault.put(key, b"recording")
    stand.send(hub_event(stand, stand.vault, key))
    stand.send(stand.vault.event(key))
    wait_for(lambda: len(letters.messages) == 2, 60, worker.output())
    errors = {letter.headers[dead_letter.ERROR_CLASS] for letter in letters.messages}
    assert errors == {"AddressRefused", "MalformedEvent"}
    assert stand.vault.requests == ()


def test_a_forged_event_gets_neither_our_keys_nor_a_call(
    stand: Stand, small_model: str, tmp_path: Path
) -> None:
    results = stand.reader(stand.target)
    clip = shared_file(ONE_PERSON).read_bytes()
    with EmbeddedVault(tmp_path / "evil", "evil-access", "evil-secret") as evil:
        worker = stand.worker(MODEL=small_model, **FAST)
        key = recording_name(4)
        stand.vault.put(key, clip)
        for data in (
            {"storage_uri": evil.url},
            {"storage_uri": evil.url, "storage_access_key": "evil-access"},
            {"storage_uri": evil.url, "storage_access_key": "evil-access",
             "storage_secret": "evil-secret"},
        ):  # fmt: skip
            event = json.loads(stand.vault.event(key))
            event["data"] = data
            event["payload"]["signedUrl"] = f"{evil.url}/storage/signed?s=1"
            stand.send(json.dumps(event).encode())
        wait_for(lambda: len(results.messages) == 3, 90, worker.output())
        assert evil.requests == ()


def test_an_encrypted_recording_gives_the_same_boxes(stand: Stand, small_model: str) -> None:
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")
    clip = shared_file(ONE_PERSON).read_bytes()
    keys = "canary-wrong-key,canary-right-key"
    stand.secrets |= set(keys.split(","))
    worker = stand.worker(
        MODEL=small_model, RECORDING_KEYS=keys, REMOVE_AFTER_PROCESSED="true",
        CONFIDENCE_THRESHOLD="0.3", FETCH="ranges", **FAST,
    )  # fmt: skip
    plain = stand.store(recording_name(5), clip)
    secret = stand.store(recording_name(6), encrypted(clip, "canary-right-key"))
    locked = stand.store(recording_name(7), encrypted(clip, "a key nobody has"))
    wait_for(lambda: results.keys() == {plain, secret}, 90, worker.output())
    one, other = (document["data"] for document in results.documents())
    assert one["boxes"]
    for name in ("boxes", "labels", "probabilities"):
        assert one[name] == other[name]
    wait_for(lambda: len(letters.messages) == 1, 30, worker.output())
    assert letters.messages[0].headers[dead_letter.ERROR_CLASS] == "RecordingEncrypted"
    assert letters.messages[0].headers[dead_letter.ATTEMPTS] == "2"
    wait_for(lambda: not stand.vault.has(secret), 30, "the readable ones are removed")
    assert stand.vault.has(locked), "what could not be looked at is never removed"


def test_a_growing_recording_is_waited_for(stand: Stand, small_model: str) -> None:
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")
    clip = shared_file(ONE_PERSON).read_bytes()
    worker = stand.worker(MODEL=small_model, **{**FAST, "RETRY_MAX_ATTEMPTS": "1"})
    key = recording_name(8)
    stand.vault.put(key, clip)
    whole = stand.vault.event(key)
    stand.vault.put(key, clip[:20_000])
    stand.send(whole)
    wait_for(lambda: bool(worker.lines("delivery_retried")), 90, worker.output())
    assert "not ready yet" in worker.lines("delivery_retried")[0]["reason"]
    stand.vault.put(key, clip)
    wait_for(lambda: results.keys() == {key}, 60, worker.output())
    (document,) = results.documents()
    assert document["data"]["run"]["recording"]["size_bytes"] == len(clip)
    assert letters.messages == []


def test_no_secret_gets_out_whatever_happens(
    stand: Stand, small_model: str, tmp_path: Path
) -> None:
    """A canary in every input; every output is read. `Stand.leaks` looks again at the end."""
    canaries = {
        "CANARY-of-the-recording-key", "CANARY-in-the-event", "CANARY-of-a-stage",
        "CANARY-in-a-url", "CANARY-of-a-run", "CANARY-of-librdkafka",
    }  # fmt: skip
    stand.secrets |= canaries
    variables = {
        "MODEL": small_model,
        "RECORDING_KEYS": "CANARY-of-the-recording-key",
        "MESSAGE_VAULT_ORIGINS": stand.vault.url,
        "KAFKA_OPTIONS": "ssl.key.password=CANARY-of-librdkafka",
        **FAST,
        "LOG_LEVEL": "DEBUG",
    }
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")
    worker = stand.worker(**variables)
    clip = shared_file(ONE_PERSON).read_bytes()
    storage = {"storage_uri": stand.vault.url, "storage_access_key": "CANARY-in-the-event",
               "storage_secret": "CANARY-in-the-event"}  # fmt: skip
    stage = {"uri": "https://CANARY-of-a-stage.example", "access_key": "CANARY-of-a-stage",
             "secret_key": "CANARY-of-a-stage"}  # fmt: skip
    run = {"uri": "http://user:CANARY-of-a-run@v.example", "accessKey": "CANARY-of-a-run",
           "secret": "CANARY-of-a-run"}  # fmt: skip
    numbers = iter(range(20, 100))

    def send(content: bytes, **more: Any) -> None:
        key = recording_name(next(numbers))
        stand.vault.put(key, content)
        event = json.loads(stand.vault.event(key))
        event["payload"]["signedUrl"] = f"{stand.vault.url}/storage/signed?x=CANARY-in-a-url"
        stand.send(json.dumps({**event, **more}).encode())

    send(clip)
    send(clip, monitorStage={"user": {"storage": stage}})
    send(clip, storage=run)
    send(clip, data=storage)  # wrong keys: the Vault's refusal repeats them
    send(b"noise" * 1000, data={"storage_secret": "CANARY-in-the-event"})
    send(encrypted(clip, "CANARY-of-the-recording-key"))
    send(encrypted(clip, "another"), storage=run)
    stand.send(b'{"data": {"storage_secret": "CANARY-in-the-event"}')
    stand.send(json.dumps({"source": "CANARY-in-the-event\r\n", "payload": {}}).encode())
    wait_for(lambda: len(results.messages) == 4, 120, worker.output())
    wait_for(lambda: len(letters.messages) == 5, 60, worker.output())

    pages = [httpx.get(f"http://{worker.web}{path}").text for path in ("/metrics", "/readyz")]
    environment = {**bare_environment(), **stand.variables(**variables)}
    commands = [
        ["config"], ["config", "--json"], ["check"], ["dlq", "list"], ["dlq", "list", "--json"],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "vault_ml", *command],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        pages += [done.stdout, done.stderr]
    cmdlines = [
        (child / "cmdline").read_text()
        for child in Path("/proc").glob("[0-9]*")
        if _is_ours(child, worker.process.pid)
    ]
    assert len(cmdlines) >= 3, "the worker, a decoder, the detector"
    environments = [
        (child / "environ").read_text()
        for child in Path("/proc").glob("[0-9]*")
        if _is_ours(child, worker.process.pid) and child.name != str(worker.process.pid)
    ]
    account = stand.vault.account
    for text in [*pages, *cmdlines, *environments]:
        for secret in canaries | {account.access_key, account.secret_key}:
            assert secret not in text
    assert stand.leaks() == []


def _is_ours(process: Path, worker: int) -> bool:
    """Whether it is the worker or a child of it."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False
    return worker in {int(process.name), parent}
