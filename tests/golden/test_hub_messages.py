"""What Kerberos Hub's services decode: every generation of events, every field's type."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import fixed_results
from golden.go_structs import (
    CLASSIFY_DATA,
    CLASSIFY_DETAILS,
    DETECTIONS,
    PIPELINE_EVENT,
    WORKFLOW_RUN,
    Refused,
    decode,
)
from vault_ml.detection import Detections
from vault_ml.errors import MalformedEvent, MessageTooLarge
from vault_ml.event import parse
from vault_ml.geometry import FrameXyxy
from vault_ml.hub.classify import ClassifyDetails
from vault_ml.result import (
    LookedAtFrame,
    Profile,
    Result,
    ResultOptions,
    block_of,
    build_result,
)
from vault_ml.schemas import hub_result_schema
from vault_ml.tracking.distance import Distance
from vault_ml.tracking.tracker import Tracker
from vault_ml.verdict import JudgedTrack, Rules, judge

EVENTS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "hub_events.json").read_text()
)
LABELS = ("person", "bicycle", "car", "truck", "dog")
FRAME_WH = (1280, 720)
NET_WH = (608, 608)
HUB = ResultOptions(profile=Profile.HUB)
RUN = fixed_results.run(rule="objects that travelled 100 px >= 1", sampling="fps")


def looked_at(count: int = 4) -> tuple[list[LookedAtFrame], tuple[JudgedTrack, ...]]:
    """A person who walks and a truck that stands, in frames 0, 8, 16, ... of a recording."""
    tracker = Tracker(LABELS, FRAME_WH)
    frames = []
    for n in range(count):
        boxes = [[100 + 60 * n, 200, 160 + 60 * n, 360], [800, 100, 1000, 250]]
        seen = Detections(
            FrameXyxy(np.array(boxes, np.float32)),
            np.array([0.9, 0.8], np.float32),
            np.array([0, 3], np.int64),
            LABELS,
        )
        ids = tracker.update(n * 0.4, seen)
        frames.append(LookedAtFrame(n, n * 0.4, seen, 8 * n, tuple(ids)))
    verdict = judge(
        [frame.detections for frame in frames],
        tracker.tracks(),
        [[None, None]] * count,
        Rules(1, move_distance=Distance(100)),
        frame_wh=FRAME_WH,
    )
    return frames, verdict.tracks


def build(event: dict[str, Any], options: ResultOptions = HUB, count: int = 4) -> Result:
    frames, tracks = looked_at(count)
    block = block_of(frames, RUN, tracks, NET_WH)
    return build_result(
        parse(json.dumps(event).encode()), frames, RUN, options, tracks=tracks, block=block
    )


@pytest.mark.parametrize("generation", EVENTS)
def test_hubs_decoders_accept_the_result_of_every_generation_of_events(generation: str) -> None:
    event = EVENTS[generation]
    result = build(event)
    text = result.body.decode()
    assert result.left_out is None
    assert "canary" not in text, "a credential, a link or another stage's result went along"
    document = json.loads(text, parse_constant=pytest.fail)
    decode(document, PIPELINE_EVENT)
    decode(document["data"], CLASSIFY_DATA)
    assert document["operation"] == "classify"
    (block,) = document["payload"]["result"]["blocks"]
    assert block["type"] == "detection"
    decode(block["data"], DETECTIONS)
    # All else of the event is there as it was.
    for name, value in event.items():
        if name not in {"operation", "data", "payload", "monitorStage"}:
            assert document[name] == value
    for name, value in event["payload"].items():
        if name not in {"result", "signedUrl"}:
            assert document["payload"][name] == value
    if "thumby" in event.get("data", {}):
        assert document["data"]["thumby"] == event["data"]["thumby"]


def test_every_field_of_the_details_is_there_with_the_type_of_its_struct() -> None:
    document = json.loads(build(EVENTS["2021 original"]).body)
    ours = {each.name for each in dataclasses.fields(ClassifyDetails)}
    assert set(CLASSIFY_DETAILS) <= ours
    assert ours - set(CLASSIFY_DETAILS) == {"confidence", "confidences", "reason"}
    for detail in document["data"]["details"]:
        assert list(detail) == [each.name for each in dataclasses.fields(ClassifyDetails)]
        assert all(detail[name] is not None for name in CLASSIFY_DETAILS)


def test_the_golden_details() -> None:
    data = json.loads(build(EVENTS["2021 original"]).body)["data"]
    assert (data["objectCount"], data["properties"]) == (1, ["pedestrian"])
    walker, truck = data["details"]
    assert walker == {
        "id": "1",
        "classified": "pedestrian",
        "x": 100.0,
        "y": 200.0,
        "w": 60.0,
        "h": 160.0,
        "frameWidth": 1280.0,
        "frameHeight": 720.0,
        "meanColor": 0.0,
        "frame": 0.0,
        "occurence": 4.0,
        "distance": 180.0,
        "staticDistance": 180.0,
        "isStatic": False,
        "valid": True,
        "colorStr": [],
        "frames": [0, 8, 16, 24],
        "traject": [[100.0 + 60 * n, 200.0, 160.0 + 60 * n, 360.0] for n in range(4)],
        "trajectCentroids": [[130.0 + 60 * n, 280.0] for n in range(4)],
        "confidence": 0.9,
        "confidences": [0.9] * 4,
        "reason": None,
    }
    assert (truck["classified"], truck["isStatic"]) == ("lorry", True)
    assert truck["reason"] == "travelled 0 px of 100"


def test_the_golden_block_of_detections() -> None:
    document = json.loads(build(EVENTS["models now"]).body)
    block = document["payload"]["result"]["blocks"][0]["data"]
    assert block["source"] == {
        "kind": "pipeline",
        "name": "vault-ml",
        "version": "0.1.0",
        "runId": RUN.id,
        "inputWidth": 608,
        "inputHeight": 608,
        "scoreThreshold": 0.5,
        "nmsIou": 0.45,
        "rotationApplied": True,
    }
    assert (block["task"], block["schemaVersion"], block["coordinateSpace"]) == (
        "detection", "1.0", "pixel",
    )  # fmt: skip
    assert block["media"] == {"width": 1280, "height": 720}
    assert block["categories"] == [{"id": 0, "name": "person"}, {"id": 3, "name": "truck"}]
    assert [track["id"] for track in block["tracks"]] == ["1", "2"]
    assert block["tracks"][0]["boxes"][1] == {
        "frame": 8, "timestampMs": 400, "x": 160.0, "y": 200.0, "w": 60.0, "h": 160.0,
        "confidence": 0.9,
    }  # fmt: skip


def test_without_extras_the_data_is_hubs_and_not_a_key_more() -> None:
    options = dataclasses.replace(HUB, extras=False)
    document = json.loads(build(EVENTS["2021 original"], options).body)
    assert list(document["data"]) == ["objectCount", "properties", "details"]
    assert "result" not in document["payload"]


def test_other_words_may_be_used() -> None:
    options = dataclasses.replace(HUB, words={"person": "human"})
    data = json.loads(build(EVENTS["cli"], options).body)["data"]
    assert [detail["classified"] for detail in data["details"]] == ["human", "truck"]


def test_a_message_that_is_too_large_loses_extras_first_then_points_of_ways() -> None:
    left_out = []
    max_bytes = HUB.max_bytes
    while True:
        try:
            result = build(
                EVENTS["2021 original"], dataclasses.replace(HUB, max_bytes=max_bytes), count=300
            )
        except MessageTooLarge:
            break
        assert len(result.body) <= max_bytes
        data = json.loads(result.body)["data"]
        decode(data, CLASSIFY_DATA)
        detail = data["details"][0]
        assert len(detail["frames"]) == len(detail["traject"]) == len(detail["confidences"])
        assert (detail["frames"][0], detail["frames"][-1]) == (0, 8 * 299)
        assert detail["occurence"] == 300
        left_out.append(result.left_out and result.left_out.partition(" was left out")[0])
        max_bytes = len(result.body) - 1
    assert left_out == [
        None,
        "the block of detections",
        "data.run but for its id",
        "data.run",
        "all but 50 points of each object's way",
        "all but 10 points of each object's way",
        "all but 2 points of each object's way",
    ]


def test_the_schema_accepts_what_hub_reads() -> None:
    schema = hub_result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for event in EVENTS.values():
        document = json.loads(build(event).body)
        validator.validate(document)
        assert not validator.is_valid(document | {"operation": "classification"})
    for kind, definition in schema["$defs"].items():
        for name, properties in definition["properties"].items():
            assert "description" in properties or "$ref" in properties, f"{kind}.{name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 7),
        ("frames", [1.5]),
        ("frames", [1.0]),
        ("colorStr", "red"),
        ("valid", 1),
        ("x", "1"),
        ("traject", [[1, None, "2"]]),
        ("properties", "car"),
        ("objectCount", 1.0),
        ("details", {}),
    ],
)
def test_the_decoder_refuses_what_gos_does(name: str, value: object) -> None:
    data = json.loads(build(EVENTS["cli"]).body)["data"]
    decode(data, CLASSIFY_DATA)
    wrong = copy.deepcopy(data)
    target = wrong["details"][0] if name in CLASSIFY_DETAILS else wrong
    target[name] = value
    with pytest.raises(Refused):
        decode(wrong, CLASSIFY_DATA)


# --- workflow runs --------------------------------------------------------------------------------

WORKFLOW: dict[str, Any] = {
    "operation": "vehicles",
    "runId": "run-7",
    "key": "user/1750000000_3-737_key1_10-20-300-200_412_30000.mp4",
    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    "workflowId": "w1",
    "workflowName": "cars at the gate",
    "user": {"username": "u", "storage": {"uri": "https://canary.example", "secret_key": "canary"}},
    "device": {
        "deviceKey": "key1",
        "deviceName": "gate",
        "provider": "azure-1",
        "storageSolution": "kstorage",
        "siteIds": ["s1"],
    },
    "inputs": {"sensitivity": 3},
    "results": {"anpr": {"plates": []}},
    "storage": {
        "uri": "https://canary.example",
        "accessKey": "canary-key",
        "secret": "canary-secret",
        "vaultOverrideUri": "https://override.example",
        "vaultOverrideAccessKey": "canary-own",
        "vaultOverrideSecret": "canary-own-secret",
        "vaultOverrideProvider": "minio",
    },
    "signedUrl": "https://storage.example/canary?sig=canary",
}


def test_a_workflow_run_is_an_event() -> None:
    event = parse(json.dumps(WORKFLOW).encode())
    assert (event.key, event.source, event.provider) == (WORKFLOW["key"], "azure-1", "kstorage")
    assert (event.camera, event.timestamp) == ("key1", 1750000000)
    assert event.trace_id == WORKFLOW["traceId"]
    assert event.signed_url == WORKFLOW["signedUrl"]
    assert event.storage is not None
    assert (event.storage.uri, event.storage.provider) == ("https://override.example", "minio")


@pytest.mark.parametrize(
    ("missing", "sentence"), [("device", "has no device"), ("key", "has no key")]
)
def test_a_workflow_run_that_names_no_recording_says_what_it_lacks(
    missing: str, sentence: str
) -> None:
    run = {name: value for name, value in WORKFLOW.items() if name != missing}
    with pytest.raises(MalformedEvent, match=sentence):
        parse(json.dumps(run).encode())


@pytest.mark.parametrize("profile", list(Profile))
def test_a_workflow_run_is_answered_with_its_envelope_and_a_block(profile: Profile) -> None:
    result = build(WORKFLOW, ResultOptions(profile=profile))
    assert b"canary" not in result.body
    document = json.loads(result.body)
    decode(document, WORKFLOW_RUN)
    for name in set(WORKFLOW) - {"user", "storage", "signedUrl"}:
        assert document[name] == WORKFLOW[name], "all else is echoed"
    assert document["user"] == {"username": "u"}
    assert not {"storage", "signedUrl", "data"} & set(document)
    (block,) = document["payload"]["blocks"]
    assert block["type"] == "detection"
    decode(block["data"], DETECTIONS)


def test_a_workflow_run_without_objects_or_with_too_many_is_answered_by_its_results() -> None:
    event = parse(json.dumps(WORKFLOW).encode())
    nothing = [LookedAtFrame(0, 0.0, Detections.none(LABELS))]
    document = json.loads(build_result(event, nothing, RUN, HUB).body)
    decode(document, WORKFLOW_RUN)
    assert "payload" not in document, "Hub refuses a block without tracks"
    assert document["results"] == {
        "anpr": {"plates": []},
        "vehicles": {"objectCount": 0, "properties": [], "details": []},
    }
    full = build(WORKFLOW, count=300)
    said = []
    max_bytes = len(full.body)
    for _ in range(4):
        max_bytes -= 1
        less = build(WORKFLOW, dataclasses.replace(HUB, max_bytes=max_bytes), count=300)
        document = json.loads(less.body)
        assert "payload" not in document
        decode(document["results"]["vehicles"], CLASSIFY_DATA)
        said.append(less.left_out and less.left_out.partition(" was left out")[0])
        max_bytes = len(less.body)
    assert said == [
        "the block of detections",
        *(f"all but {points} points of each object's way" for points in (50, 10, 2)),
    ]
    with pytest.raises(MessageTooLarge):
        build(WORKFLOW, dataclasses.replace(HUB, max_bytes=100))
