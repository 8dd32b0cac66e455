"""Hub's typed block of detections, where it is not the ordinary case."""

from __future__ import annotations

from dataclasses import replace

from vault_ml.hub.classify import thinned
from vault_ml.hub.detection_block import BlockSource, detection_block
from vault_ml.tracking.track import Observation, Track
from vault_ml.verdict import JudgedTrack

SOURCE = BlockSource("run", "0.1.0", (416, 416), 0.5, 0.45)
WAY = tuple(
    Observation(frame, (0,), 2.0 * frame, (10.0, 10.0, 30.0, 50.0), 0.9) for frame in range(5)
)
PERSON = JudgedTrack(Track(1, 0, "person", WAY), 12.5, 10.0, is_static=False)


def test_nothing_seen_is_no_block() -> None:
    """Hub refuses a block without tracks."""
    assert detection_block([], [], (100, 100), SOURCE) is None


def test_boxes_without_area_are_left_out_and_so_is_who_has_no_other() -> None:
    flat = WAY[1]._replace(xyxy=(10.0, 10.0, 10.02, 50.0))
    some = replace(PERSON, track=replace(PERSON.track, observations=(WAY[0], flat, WAY[2])))
    none = replace(PERSON, track=replace(PERSON.track, observations=(flat,)))
    block = detection_block([some, none], range(5), (100, 100), SOURCE)
    assert block is not None
    (told,) = block["tracks"]
    assert [box["frame"] for box in told["boxes"]] == [0, 2]
    assert detection_block([none], range(5), (100, 100), SOURCE) is None


def test_why_an_object_does_not_count_is_told() -> None:
    static = replace(PERSON, is_static=True, reason="stood still")
    block = detection_block([PERSON, static], range(5), (100, 100), SOURCE)
    assert block is not None
    assert ["reason" in track["meta"] for track in block["tracks"]] == [False, True]
    assert block["tracks"][1]["meta"]["reason"] == "stood still"


def test_a_long_way_is_thinned_and_keeps_its_ends() -> None:
    assert thinned(WAY, None) == list(WAY)
    assert thinned(WAY, 5) == list(WAY)
    assert thinned(WAY, 3) == [WAY[0], WAY[2], WAY[4]]
    assert thinned(WAY, 2) == [WAY[0], WAY[4]]
    assert thinned(WAY, 1) == [WAY[0]]
