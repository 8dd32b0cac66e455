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


def test_the_originals_hub_command_works_as_printed(stand: Stand, small_model: str) -> None:
    """No Vault and no target: what is seen is said in the log, and an event is worked on once."""
    stand.queue = "kcloud-analysis-queue.fifo"
    printed = {
        **dict.fromkeys(("QUEUE_TARGET", "VAULT_API_URL"), ""),
        **dict.fromkeys(("VAULT_ACCESS_KEY", "VAULT_SECRET_KEY", "NUMBER_OF_PREDICTIONS"), ""),
        # Beside what is printed: the Vault of this test is not on the Internet.
        "MESSAGE_VAULT_ORIGINS": stand.vault.url.removesuffix("/api"),
        "CONFIDENCE_THRESHOLD": "0.3",
        "MODEL": small_model,
    }

    def work(number: int) -> None:
        key = recording_name(number)
        stand.vault.put(key, shared_file(ONE_PERSON).read_bytes())
        stand.send(json.dumps(with_keys(stand, key, stand.vault.url)).encode())
        worker = stand.worker(f"worker-{number}", **printed)
        wait_for(lambda: bool(worker.lines("recording_processed")), 240, worker.output())
        assert worker.stop() == 0
        (line,) = worker.lines("recording_processed")
        assert line["key"] == key, "what was done before does not come again"
        assert line["objects"] >= 1
        assert "Traceback" not in worker.output()

    work(1)
    work(2)


def test_the_variables_of_hub_pipeline_classifier_work_as_it_documents(
    stand: Stand, tiny_model: str
) -> None:
    results = stand.reader(stand.target)
    vault = {name: stand.variables()[f"VAULT_{name}"] for name in ("ACCESS_KEY", "SECRET_KEY")}
    worker = stand.worker(
        **dict.fromkeys(("QUEUE_TARGET", "VAULT_API_URL", "NUMBER_OF_PREDICTIONS"), ""),
        **dict.fromkeys(("VAULT_ACCESS_KEY", "VAULT_SECRET_KEY"), ""),
        TARGET_QUEUE_NAME=stand.target,
        STORAGE_URI=stand.vault.url,
        STORAGE_ACCESS_KEY=vault["ACCESS_KEY"],
        STORAGE_SECRET_KEY=vault["SECRET_KEY"],
        RESULT_PROFILE="hub",
        CLASSIFICATION_FPS="5",
        CLASSIFICATION_THRESHOLD="0.3",
        MAX_NUMBER_OF_PREDICTIONS="20",
        MIN_DISTANCE="50",
        MIN_STATIC_DISTANCE="50",
        MIN_DETECTIONS="5",
        ALLOWED_CLASSIFICATIONS="0, 1, 2, 3, 5, 7",
        MODEL=tiny_model,
    )
    stand.store(recording_name(1), shared_file(STREET).read_bytes())
    wait_for(lambda: len(results.messages) == 1, 240, f"a result; {worker.output()}")
    (document,) = results.documents()
    decode(document["data"], CLASSIFY_DATA)
    run, details = document["data"]["run"], document["data"]["details"]
    assert (run["sampling"], run["looked_at"]) == ("fps", 20)
    counted = [each for each in run["tracks"] if each["reason"] is None]
    assert counted
    for track in counted:
        assert track["label"] == "person"
        assert track["travelled_px"] >= 50
        assert len(track["frames"]) >= 5
    left_out = [each["reason"] for each in run["tracks"] if each["reason"] is not None]
    assert any("MIN_DETECTIONS is 5" in reason for reason in left_out)
    assert {each["isStatic"] for each in details} == {True, False}
    assert {each["classified"] for each in details} <= {
        "pedestrian", "cyclist", "car", "motorbike", "bus", "lorry",
    }  # fmt: skip
    assert document["data"]["objectCount"] == len(counted)
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
