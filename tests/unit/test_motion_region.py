"""Agreement of objects with the motion that an event is about."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vault_ml.detection import Detections
from vault_ml.event import parse
from vault_ml.geometry import FrameXyxy
from vault_ml.interest.motion_region import apart, readings
from vault_ml.tracking.track import Box, Observation, Track
from vault_ml.verdict import Exclusion, Rules, judge

WH = (1280, 720)


def track(number: int, *boxes: Box) -> Track:
    way = [Observation(n, (0,), float(n), box, 0.9) for n, box in enumerate(boxes)]
    return Track(number, 0, "person", tuple(way))


def event(key: str, **metadata: str) -> str | None:
    document = {"source": "s", "payload": {"key": key, "metadata": metadata}}
    return parse(json.dumps(document).encode()).motion_region


def test_an_event_tells_where_motion_was_in_metadata_or_in_the_name() -> None:
    name = "u/1630567591_6-967003_gate_200-200-400-400_{}_769.mp4"
    assert event(name.format(24)) == "200-200-400-400"
    assert event(name.format(24), **{"event-regioncoordinates": "1-2-3-4"}) == "1-2-3-4"
    assert event(name.format(-1)) is None, "a continuous recording is about no motion"
    assert event("imported.mp4") is None


@pytest.mark.parametrize(
    ("region", "boxes"),
    [
        (None, []),
        ("", []),
        ("0-0-0-0", []),
        ("no-re-gi-on", []),
        ("900-400-300-200", [(900, 400, 1200, 600)]),
        ("900-400-1200-600", [(900, 400, 1200, 600)]),
        ("200-200-400-400", [(200, 200, 400, 400), (200, 200, 600, 600)]),
        ("2000-1200-300-200", []),
    ],
)
def test_a_region_is_read_both_ways_that_agents_write_it(
    region: str | None, boxes: list[Box]
) -> None:
    assert readings(region, WH) == boxes


def test_what_touches_neither_reading_is_apart_and_said_to_be() -> None:
    crosses = track(1, (0, 600, 50, 700), (300, 300, 350, 400))
    in_the_other_reading = track(2, (500, 500, 560, 590))
    far = track(3, (1000, 100, 1050, 200), (1100, 100, 1150, 200))
    assert apart("200-200-400-400", [crosses, in_the_other_reading, far], WH) == {
        3: "never touches the motion region 200-200-400-400"
    }
    assert apart("0-0-0-0", [far], WH) == {}


def test_what_is_apart_does_not_count_and_has_its_reason() -> None:
    moved: list[Box] = [(1000, 100, 1050, 200), (1100, 100, 1150, 200)]
    frames = [
        Detections(
            FrameXyxy(np.array([box], np.float32)),
            np.array([0.9], np.float32),
            np.array([0], np.int64),
            ("person",),
        )
        for box in moved
    ]
    tracks = [track(1, *moved)]
    verdict = judge(
        frames,
        tracks,
        [[None], [None]],
        Rules(1),
        frame_wh=WH,
        elsewhere=apart("200-200-400-400", tracks, WH),
    )
    assert (verdict.count, verdict.is_interesting) == (0, False)
    (judged,) = verdict.tracks
    assert judged.exclusion is Exclusion.ELSEWHERE
    assert judged.reason == "never touches the motion region 200-200-400-400"
    assert not judged.is_static
