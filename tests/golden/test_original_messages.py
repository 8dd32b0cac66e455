"""The two message pairs that the README of the first vault-ml prints."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fixed_results
from vault_ml import json_text
from vault_ml.detection import Detections
from vault_ml.event import parse
from vault_ml.geometry import FrameXyxy
from vault_ml.result import (
    LookedAtFrame,
    ResultOptions,
    RunRecording,
    build_result,
)

LABELS = ("person", "car", "traffic light")
PAIRS = sorted(Path(__file__).parent.glob("original_pair_*.json"))
RUN = fixed_results.run(
    count=2,
    recording=RunRecording(6189104, 6189104, "cd" * 32, [(0, 6189103)], 1280, 720, False, 30.0),
)


def frames_of(data: dict[str, Any]) -> list[LookedAtFrame]:
    """What the original's network must have seen, among frames in which it saw nothing."""
    seen = [
        Detections(
            FrameXyxy(np.array(boxes, np.float32)),
            np.array(probabilities, np.float32),
            np.array([LABELS.index(label) for label in labels], np.int64),
            LABELS,
        )
        for probabilities, labels, boxes in zip(
            data["probabilities"], data["labels"], data["boxes"], strict=True
        )
    ]
    nothing = Detections.none(LABELS)
    return [
        LookedAtFrame(index, index * 6.0, detections)
        for index, detections in enumerate([nothing, *seen, nothing, nothing, nothing])
    ]


def test_there_are_two_pairs() -> None:
    assert len(PAIRS) == 2


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_without_extras_the_message_is_the_originals(path: Path) -> None:
    pair = json.loads(path.read_text())
    event = parse(json.dumps(pair["event"]).encode())
    frames = frames_of(pair["result"]["data"])
    result = build_result(event, frames, RUN, ResultOptions(extras=False))
    assert result.left_out is None
    assert json.loads(result.body) == pair["result"]
    # Not only equal as JSON: every member is written with the same characters. The order of the
    # original's members was that of its hash table; ours is the event's.
    ours = {part.name: part.value_text for part in json_text.members(result.body.decode())}
    printed = {part.name: part.value_text for part in json_text.members(pair["result_printed"])}
    assert ours == printed
    assert list(ours) == [*pair["event"], "data", "operation"]


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_with_extras_the_message_is_the_originals_but_for_the_run(path: Path) -> None:
    pair = json.loads(path.read_text())
    event = parse(json.dumps(pair["event"]).encode())
    frames = frames_of(pair["result"]["data"])
    document = json.loads(build_result(event, frames, RUN, ResultOptions()).body)
    run = document["data"].pop("run")
    assert document == pair["result"]
    assert run["id"] == RUN.id
    assert run["looked_at"] == 5
    assert run["frames"] == [1]
    assert run["timestamps_s"] == [6.0]


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_the_golden_files_hold_what_was_printed(path: Path) -> None:
    pair = json.loads(path.read_text())
    assert ast.literal_eval(pair["event_printed"]) == pair["event"]
    assert json.loads(pair["result_printed"]) == pair["result"]
