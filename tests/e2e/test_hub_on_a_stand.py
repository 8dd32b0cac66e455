"""The worker in Kerberos Hub's pipeline, and what it remembers of a scene, on a stand."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from conftest import shared_file
from e2e.stand import Stand, recording_name, wait_for
from golden.go_structs import CLASSIFY_DATA, DETECTIONS, PIPELINE_EVENT, WORKFLOW_RUN, decode
from scripted_http import Ask, Line, ScriptedServer, reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ONE_PERSON = "video/one_person_5s_768x432_10fps.mp4"
STREET = "video/vtest_6s_768x576_10fps.mp4"
VEHICLES = {"car", "truck", "bus"}


def with_keys(stand: Stand, key: str, uri: str) -> dict[str, Any]:
    """The event of a stored recording as Hub's stages send it: with address and keys."""
    document: dict[str, Any] = json.loads(stand.vault.event(key))
    account = stand.vault.account
    document["data"] = {
        "storage_uri": uri,
        "storage_access_key": account.access_key,
        "storage_secret": account.secret_key,
        "thumby": {"filename": "t.jpg", "provider": "p", "base64": "", "interval": 1},
    }
    return document


def test_a_worker_in_hubs_pipeline_says_what_hubs_decoders_read(
    stand: Stand, tiny_model: str
) -> None:
    results, letters = stand.reader(stand.target), stand.reader(f"{stand.queue}.dlq")
    clip = shared_file(STREET).read_bytes()
    good, foreign, run = recording_name(1), recording_name(2), recording_name(3)
    for key in (good, foreign, run):
        stand.vault.put(key, clip)
    worker = stand.worker(
        VAULT_API_URL="",
        VAULT_ACCESS_KEY="",
        VAULT_SECRET_KEY="",
        MESSAGE_VAULT_ORIGINS=stand.vault.url.removesuffix("/api"),
        RESULT_PROFILE="hub",
        FRAME_SAMPLING="fps",
        CLASSIFICATION_FPS="3",
        NUMBER_OF_PREDICTIONS="30",
        MOVE_DISTANCE="4%",
        MODEL=tiny_model,
    )
    stand.send(json.dumps(with_keys(stand, foreign, "https://vault.foreign.example")).encode())
    stand.send(json.dumps(with_keys(stand, good, stand.vault.url)).encode())
    account = stand.vault.account
    workflow = {
        "operation": "classify", "runId": "run-7", "key": run, "traceId": "", "user": {},
        "device": {"deviceKey": "highway4", "provider": "local", "storageSolution": "kstorage"},
        "storage": {
            "uri": stand.vault.url, "accessKey": account.access_key, "secret": account.secret_key,
        },
    }  # fmt: skip
    stand.send(json.dumps(workflow).encode())
    wait_for(lambda: len(results.messages) == 2, 240, f"two results; {worker.output()}")
    wait_for(lambda: len(letters.messages) == 1, 120, f"a dead letter; {worker.output()}")
    assert json.loads(letters.messages[0].body)["payload"]["key"] == foreign

    by_kind = {"runId" in document: document for document in results.documents()}
    event, answer = by_kind[False], by_kind[True]
    decode(event, PIPELINE_EVENT)
    decode(event["data"], CLASSIFY_DATA)
    assert event["operation"] == "classify"
    assert set(event["data"]) == {"thumby", "objectCount", "properties", "details", "run"}
    assert set(event["data"]["properties"]) == {"pedestrian"}, "who walks, and no parked car"
    assert event["data"]["objectCount"] == len(event["data"]["properties"]) >= 2
    still = [each for each in event["data"]["details"] if each["isStatic"]]
    assert {each["classified"] for each in still} & {"car", "lorry"}
    assert all(each["reason"] for each in still)
    assert event["data"]["run"]["sampling"] == "fps"
    assert event["data"]["run"]["looked_at"] == 18, "six seconds, three a second"
    decode(event["payload"]["result"]["blocks"][0]["data"], DETECTIONS)

    decode(answer, WORKFLOW_RUN)
    assert (answer["runId"], answer["key"]) == ("run-7", run)
    decode(answer["payload"]["blocks"][0]["data"], DETECTIONS)
    assert worker.stop() == 0


def test_a_parked_car_is_reported_once_by_a_worker_that_remembers(
    stand: Stand, tiny_model: str, tmp_path: Path
) -> None:
    results = stand.reader(stand.target)
    worker = stand.worker(
        MODEL=tiny_model,
        FRAME_SAMPLING="exact",
        STATIC_MEMORY=f"sqlite:{tmp_path / 'scenes.db'}",
        WORKER_CONCURRENCY="1",
    )
    clip = shared_file(STREET).read_bytes()
    for number in range(5):
        stand.store(recording_name(number), clip)
    wait_for(lambda: len(results.messages) == 5, 240, f"five results; {worker.output()}")
    documents = sorted(results.documents(), key=lambda each: str(each["payload"]["key"]))
    vehicles = [
        [each["reason"] for each in document["data"]["run"]["tracks"] if each["label"] in VEHICLES]
        for document in documents
    ]
    assert None in vehicles[0], "at first it is news"
    for reasons in vehicles[1:]:
        assert reasons
        assert all(str(each).startswith("same ") and "IoU" in each for each in reasons)
    for document in documents:
        walkers = [each for each in document["data"]["run"]["tracks"] if each["travelled_px"] > 0]
        assert walkers
        assert all(each["reason"] is None for each in walkers), "what moves always counts"
    assert worker.stop() == 0


def test_nothing_is_removed_before_hub_has_taken_it(stand: Stand, small_model: str) -> None:
    stand.secrets.add("cloud-key-canary")
    taken: list[bytes] = []
    may_take = threading.Event()

    def queue(ask: Ask, line: Line) -> None:
        if may_take.is_set():
            taken.append(ask.body)
        (reply(200) if may_take.is_set() else reply(503))(ask, line)

    with ScriptedServer({"POST /queue": queue}) as hub:
        worker = stand.worker(
            MODEL=small_model,
            CONFIDENCE_THRESHOLD="0.3",
            FORWARDING_HUB="true",
            HUB_API_URL=hub.url,
            HUB_CLOUD_KEY="cloud-key-canary",
            REMOVE_AFTER_PROCESSED="true",
        )
        key = stand.store(recording_name(5), shared_file(ONE_PERSON).read_bytes())
        wait_for(lambda: hub.paths().count("/queue") >= 3, 240, f"tries; {worker.output()}")
        assert stand.vault.has(key), "Hub has not taken it yet"
        assert not [ask for ask in stand.vault.requests if ask.method == "DELETE"]
        may_take.set()
        wait_for(lambda: not stand.vault.has(key), 120, f"removal; {worker.output()}")
        (body,) = taken
        assert json.loads(body)["message"]["payload"]["key"] == key
        assert worker.stop() == 0
