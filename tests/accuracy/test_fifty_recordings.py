"""Fifty recordings of a street with a parked car: told of once; movers always."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from accuracy.scenes import LABELS, SCALE, Thing, shoot
from contract.said_log import SaidLog
from vault_ml.errors import ConfigError
from vault_ml.event import RecordingEvent, parse
from vault_ml.scene.memory import SceneMemory
from vault_ml.scene.sqlite import SqliteScenes
from vault_ml.tracking.appearance import describe
from vault_ml.tracking.tracker import Tracker
from vault_ml.verdict import Exclusion, JudgedTrack, Rules, judge

WH = (1280, 720)
SECONDS, FRAMES = 15.0, 5
DAY = 1_800_000_000


def parked(x: float, colour: tuple[int, int, int], *, comes: bool = False) -> Thing:
    """A car in a parking space; one that comes drives in from the left."""
    way = [[0.0, x, 180.0], [SECONDS, x, 180.0]]
    if comes:
        way = [[0.0, x - 700, 480.0], [SECONDS * 0.5, x, 180.0], [SECONDS, x, 180.0]]
    return Thing(1, (150.0, 80.0), np.array([colour, colour], np.float64), np.array(way))


def walker(number: int) -> Thing:
    """Somebody who crosses the picture, each in clothes of their own."""
    rng = np.random.default_rng((number, 5))
    y = rng.uniform(350, 600)
    way = [[0.0, 60.0, y], [SECONDS, 1220.0, y]]
    return Thing(0, (44.0, 110.0), rng.uniform(0, 255, (2, 3)), np.array(way))


def event(number: int) -> RecordingEvent:
    metadata = {"event-instancename": "street", "event-timestamp": str(DAY + 60 * number)}
    document = {"source": "s", "payload": {"key": f"u/{number}.mp4", "metadata": metadata}}
    return parse(json.dumps(document).encode())


def look(memory: SceneMemory, number: int, things: list[Thing]) -> list[JudgedTrack]:
    """One recording: five frames, three seconds apart."""
    shots = shoot(things, number, (np.arange(FRAMES) + 0.5) * SECONDS / FRAMES)
    tracker = Tracker(LABELS, WH)
    for shot in shots:
        boxes = np.asarray(shot.seen.xyxy / SCALE, np.float32)
        tracker.update(shot.timestamp_s, shot.seen, describe(shot.picture, boxes))
    tracks = tracker.tracks()
    seen = [shot.seen for shot in shots]
    known = memory.known(event(number), tracks, WH)
    nothing = [[None] * len(each) for each in seen]
    return list(judge(seen, tracks, nothing, Rules(1), frame_wh=WH, known=known).tracks)


def test_a_parked_car_is_told_of_once_and_movers_always(tmp_path: Path) -> None:
    red, blue = (200, 30, 30), (30, 60, 200)
    memory = SceneMemory(SqliteScenes(tmp_path / "scenes.db", max_age_s=3600), log=SaidLog())
    told: list[list[JudgedTrack]] = []
    for number in range(50):
        things = [parked(300, red), walker(number)]
        if number >= 20:
            things.append(parked(800, blue, comes=number == 20))
        judged = look(memory, number, things)
        told.append([each for each in judged if each.exclusion is None])
    memory.close()
    excluded = [each for each in judged if each.exclusion is Exclusion.KNOWN]
    cars = [
        (number, each.track.observations[-1].xyxy[0] < 550, each.travelled_px > 0)
        for number, judged in enumerate(told)
        for each in judged
        if each.track.label in {"car", "truck"}
    ]
    assert [number for number, is_red, _ in cars if is_red] == [0], "the parked car, once"
    assert [(number, moved) for number, is_red, moved in cars if not is_red] == [(20, True)]
    missed = [
        number
        for number, judged in enumerate(told)
        if not any(each.track.label == "person" and each.travelled_px > 100 for each in judged)
    ]
    assert missed == [], "movers missed"
    reasons = [str(each.reason) for each in excluded]
    assert len(reasons) == 2
    assert all(
        re.fullmatch(r"same (car|truck) as 0\d:\d\d:\d\d, IoU 0.\d\d", each) for each in reasons
    )


def cars(judged: list[JudgedTrack]) -> list[Exclusion | None]:
    return [each.exclusion for each in judged if each.track.label in {"car", "truck"}]


def test_the_same_event_again_says_the_same(tmp_path: Path) -> None:
    memory = SceneMemory(SqliteScenes(tmp_path / "scenes.db", max_age_s=3600), log=SaidLog())
    things = [parked(300, (200, 30, 30))]
    assert [cars(look(memory, 0, things)) for _ in range(3)] == [[None]] * 3
    assert cars(look(memory, 1, things)) == [Exclusion.KNOWN]
    assert cars(look(memory, 0, things)) == [None]
    memory.close()


def test_another_car_in_the_same_space_is_told_of(tmp_path: Path) -> None:
    memory = SceneMemory(SqliteScenes(tmp_path / "scenes.db", max_age_s=3600), log=SaidLog())
    assert cars(look(memory, 0, [parked(300, (200, 30, 30))])) == [None]
    assert cars(look(memory, 1, [parked(300, (30, 60, 200))])) == [None]
    memory.close()


def test_a_car_that_was_away_for_a_drive_is_told_of_when_it_is_back(tmp_path: Path) -> None:
    memory = SceneMemory(SqliteScenes(tmp_path / "scenes.db", max_age_s=3600), log=SaidLog())
    red = (200, 30, 30)
    stays, leaves = parked(300, red), parked(300, red)
    way = np.array([[0.0, 300, 180.0], [7.0, 300, 180.0], [15.0, 1000, 480.0]])
    leaves = Thing(1, stays.wh, stays.colours, way)
    assert cars(look(memory, 0, [stays])) == [None]
    assert cars(look(memory, 1, [leaves])) == [None]
    assert cars(look(memory, 2, [stays])) == [None]
    memory.close()


def test_a_damaged_file_stops_nothing_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    log = SaidLog()
    memory = SceneMemory(SqliteScenes(tmp_path / "scenes.db", max_age_s=3600), log=log)
    memory.close()
    assert memory.known(event(0), [], WH) == {}
    assert [fields["key"] for fields in log.events("scene_away")] == ["u/0.mp4"]
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    with pytest.raises(ConfigError, match=r"STATIC_MEMORY: .* another program"):
        SqliteScenes(tmp_path / "foreign.db", max_age_s=1)
    with pytest.raises(ConfigError, match=r"STATIC_MEMORY: .* cannot be opened"):
        SqliteScenes(tmp_path / "missing" / "scenes.db", max_age_s=1)


def test_the_memory_is_bounded(tmp_path: Path) -> None:
    now = [1000.0]
    store = SqliteScenes(tmp_path / "scenes.db", max_age_s=50, max_cameras=10, clock=lambda: now[0])
    said: list[str | None] = []

    def change(text: str | None) -> str:
        said.append(text)
        return "[]"

    for number in range(400):
        now[0] += 0.01
        store.change(f"camera {number}", change)
    store.change("camera 399", change)
    store.change("camera 0", change)
    now[0] += 60
    store.change("camera 399", change)
    store.close()
    assert said[-3:] == ["[]", None, None]
