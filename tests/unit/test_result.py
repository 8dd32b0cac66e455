from __future__ import annotations

import dataclasses
import json
from typing import Any

import jsonschema
import numpy as np
import pytest

import fixed_results
from vault_ml.detection import Detections
from vault_ml.errors import MessageTooLarge
from vault_ml.event import parse
from vault_ml.geometry import FrameXyxy
from vault_ml.result import (
    LookedAtFrame,
    Result,
    ResultOptions,
    RunRecording,
    build_result,
    choice_of,
    message_headers,
    message_key,
)
from vault_ml.schemas import result_schema

LABELS = ("person", "car")
NOTHING = LookedAtFrame(0, 0.5, Detections.none(LABELS))
RUN = fixed_results.run(
    recording=RunRecording(1000, 4000, "cd" * 32, [(0, 499), (800, 1299)], 1920, 1080, False, 4.0)
)
EVENT = b'{"source": "s", "payload": {"key": "k"}}'
PLAIN = ResultOptions(extras=False)


def frame(
    index: int, *objects: tuple[str, float, tuple[float, float, float, float]]
) -> LookedAtFrame:
    return LookedAtFrame(
        index,
        index * 1.1,
        Detections(
            FrameXyxy(np.array([box for _, _, box in objects], np.float32).reshape(-1, 4)),
            np.array([confidence for _, confidence, _ in objects], np.float32),
            np.array([LABELS.index(label) for label, _, _ in objects], np.int64),
            LABELS,
        ),
    )


CAR = frame(2, ("car", 0.9, (1.0, 2.0, 30.0, 40.0)))


def build(body: bytes, *frames: LookedAtFrame, options: ResultOptions = PLAIN) -> dict[str, Any]:
    document = json.loads(build_result(parse(body), frames, RUN, options).body)
    assert isinstance(document, dict)
    return document


def test_without_a_looked_at_frame_there_is_no_result() -> None:
    with pytest.raises(ValueError, match="no frame"):
        build_result(parse(EVENT), [], RUN, PLAIN)


def test_when_nothing_was_seen_the_lists_are_empty() -> None:
    assert build(EVENT, NOTHING, NOTHING) == {
        "source": "s",
        "payload": {"key": "k"},
        "data": {"probabilities": [], "labels": [], "boxes": []},
        "operation": "classification",
    }
    run = build(EVENT, NOTHING, NOTHING, options=ResultOptions())["data"]["run"]
    assert (run["looked_at"], run["frames"], run["timestamps_s"]) == (2, [], [])


def test_frames_without_objects_are_left_out_and_the_others_say_which_they_are() -> None:
    frames = [
        NOTHING,
        frame(1),
        CAR,
        frame(3, ("person", 0.8, (0, 0, 1, 1)), ("car", 0.7, CAR_BOX)),
    ]
    data = build(EVENT, *frames, options=ResultOptions())["data"]
    assert data["labels"] == [["car"], ["person", "car"]]
    assert data["boxes"] == [[[1, 2, 30, 40]], [[0, 0, 1, 1], [1, 2, 30, 40]]]
    assert data["probabilities"][0] == [float(np.float32(0.9))]
    assert data["run"]["frames"] == [2, 3]
    assert data["run"]["timestamps_s"] == [2.2, 3.3]
    assert data["run"]["looked_at"] == 4


CAR_BOX = (1.0, 2.0, 30.0, 40.0)


def test_the_run_says_how_it_was_looked_at() -> None:
    run = build(EVENT, CAR, options=ResultOptions())["data"]["run"]
    for name, value in json.loads(json.dumps(dataclasses.asdict(RUN))).items():
        assert run[name] == value


def test_boxes_are_rounded_to_the_nearest_pixel() -> None:
    (((box,),),) = [
        build(EVENT, frame(0, ("car", 0.9, (0.4, 0.6, 1919.51, 1080.0))))["data"]["boxes"]
    ]
    assert box == [0, 1, 1920, 1080]
    assert all(isinstance(side, int) for side in box)


def test_order_unknown_fields_and_spelling_of_the_event_survive() -> None:
    body = (
        '{"zeta":1.10, "source": "s", "payload": {"key":"k", "x": 1e2, "x": 2},'
        ' "n": 12345678901234567890, "ü": "\\u00fc", "operation": "event", "a": null}'
    )
    result = build_result(parse(body.encode()), [NOTHING], RUN, PLAIN).body.decode()
    assert result == (
        '{"zeta": 1.10, "source": "s", "payload": {"key":"k", "x": 1e2, "x": 2},'
        ' "n": 12345678901234567890, "ü": "\\u00fc", "operation": "classification", "a": null,'
        ' "data": {"probabilities": [], "labels": [], "boxes": []}}'
    )


def test_what_other_services_put_into_data_stays_and_credentials_do_not() -> None:
    body = (
        b'{"source": "s", "data": {"storage_uri": "canary", "storage_access_key": "canary",'
        b' "storage_secret": "canary", "thumby": {"interval": 1.0}, "labels": "old",'
        b' "run": {"id": "old"}}, "payload": {"key": "k", "signedUrl": "https://canary"}}'
    )
    result = build_result(parse(body), [NOTHING], RUN, PLAIN).body.decode()
    assert "canary" not in result
    assert "old" not in result
    assert result == (
        '{"source": "s", "data": {"thumby": {"interval": 1.0}, "probabilities": [], "labels": [],'
        ' "boxes": []}, "payload": {"key": "k"}, "operation": "classification"}'
    )


@pytest.mark.parametrize("data", ["null", "[1]", '"text"', "5", "{}"])
def test_data_that_is_no_object_gives_way(data: str) -> None:
    body = f'{{"source": "s", "data": {data}, "payload": {{"key": "k"}}}}'
    assert list(build(body.encode(), NOTHING)) == ["source", "data", "payload", "operation"]
    assert build(body.encode(), NOTHING)["data"]["labels"] == []


def test_of_two_equal_names_of_ours_none_is_left_over() -> None:
    body = (
        b'{"data": {"a": 1}, "source": "s", "operation": "x", "data": {"b": 2},'
        b' "payload": {"key": "k"}, "operation": "y"}'
    )
    result = build_result(parse(body), [NOTHING], RUN, PLAIN).body.decode()
    assert result.count('"data"') == result.count('"operation"') == 1
    assert '"b": 2' in result


def test_a_message_above_the_limit_loses_its_extras_first_and_says_so() -> None:
    full = build_result(parse(EVENT), [CAR], RUN, ResultOptions())
    plain = build_result(parse(EVENT), [CAR], RUN, PLAIN)
    assert full.left_out is None

    def limited(max_bytes: int) -> Result:
        return build_result(parse(EVENT), [CAR], RUN, ResultOptions(max_bytes=max_bytes))

    assert limited(len(full.body)) == full
    shorter = limited(len(full.body) - 1)
    assert shorter.left_out is not None
    assert "RESULT_MAX_BYTES" in shorter.left_out
    assert str(len(full.body)) in shorter.left_out
    run = json.loads(shorter.body)["data"]["run"]
    assert run == {"id": RUN.id, "left_out": "everything else, to keep the size limit"}
    bare = limited(len(plain.body))
    assert bare.body == plain.body
    assert bare.left_out is not None
    assert bare.left_out.startswith("data.run was left out")
    with pytest.raises(MessageTooLarge, match=f"{len(plain.body)} bytes without extras"):
        limited(len(plain.body) - 1)


def test_a_message_without_extras_has_nothing_to_lose() -> None:
    with pytest.raises(MessageTooLarge, match="RESULT_MAX_BYTES"):
        build_result(parse(EVENT), [CAR], RUN, ResultOptions(extras=False, max_bytes=10))


def test_the_message_keeps_its_key_else_gets_the_camera() -> None:
    event = parse('{"source": "s", "payload": {"key": "k", "deviceName": "Tür"}}'.encode())
    assert message_key(event, b"incoming") == b"incoming"
    assert message_key(event, None) == "Tür".encode()
    assert message_key(event, b"") == "Tür".encode()
    assert message_key(parse(EVENT), None) is None


def test_the_run_id_is_always_in_the_headers_and_trace_context_goes_on() -> None:
    assert message_headers(RUN.id, "0.1.0", {}) == {
        "content-type": "application/json",
        "vault-ml-run-id": RUN.id,
        "vault-ml-version": "0.1.0",
    }
    incoming = {"traceparent": "00-a-b-01", "authorization": "canary", "vault-ml-run-id": "old"}
    headers = message_headers(RUN.id, "0.1.0", incoming)
    assert headers["traceparent"] == "00-a-b-01"
    assert headers["vault-ml-run-id"] == RUN.id
    assert "authorization" not in headers


def test_a_recording_that_was_cut_off_is_called_partial() -> None:
    cut_off = dataclasses.replace(
        RUN, recording=dataclasses.replace(RUN.recording, partial=True, seconds_covered=6.0)
    )
    body = build_result(parse(EVENT), [CAR], cut_off, ResultOptions()).body
    jsonschema.validate(json.loads(body), result_schema())
    recording = json.loads(body)["data"]["run"]["recording"]
    assert (recording["partial"], recording["seconds_covered"]) == (True, 6.0)


def test_the_schema_accepts_every_result_and_refuses_broken_ones() -> None:
    schema = result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    small = ResultOptions(max_bytes=len(build_result(parse(EVENT), [CAR], RUN, PLAIN).body) + 150)
    for options in (PLAIN, ResultOptions(), small):
        validator.validate(build(EVENT, NOTHING, CAR, options=options))
    result = build(EVENT, CAR, options=ResultOptions())
    for path, value in (
        (("operation",), "classify"),
        (("data", "boxes", 0, 0), [1, 2, 3]),
        (("data", "probabilities", 0, 0), "0.9"),
        (("data", "run", "id"), 5),
    ):
        broken = json.loads(json.dumps(result))
        place = broken
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        assert not validator.is_valid(broken), path


def test_every_property_of_the_schema_is_described() -> None:
    schema = result_schema()
    for kind, definition in schema["$defs"].items():
        for name, properties in definition["properties"].items():
            assert "description" in properties or "$ref" in properties, f"{kind}.{name}"


def test_evenly_spread_frames_need_no_reasons() -> None:
    assert choice_of([NOTHING, CAR], []) is None
    document = build(EVENT, NOTHING, CAR, options=ResultOptions())
    assert document["data"]["run"]["choice"] is None


def test_adaptive_frames_say_what_spoke_for_them() -> None:
    chosen = [dataclasses.replace(NOTHING, why="spread"), dataclasses.replace(CAR, why="motion")]
    run = dataclasses.replace(
        RUN, sampling="adaptive", choice=choice_of(chosen, [(1.00000001, 0.5)])
    )
    document = json.loads(build_result(parse(EVENT), chosen, run, ResultOptions()).body)
    jsonschema.validate(document, result_schema())
    assert document["data"]["run"]["choice"] == {
        "timestamps_s": [0.5, 2.2],
        "reasons": ["spread", "motion"],
        "left_out": [{"timestamp_s": 1.0, "same_as_s": 0.5}],
    }
