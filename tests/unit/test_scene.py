"""What stood at a camera before, and its text for a store."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vault_ml.scene.recall import recall
from vault_ml.scene.standing import Standing, dump, load
from vault_ml.tracking.track import Observation, Track

FRAME_WH = (200, 100)
BOX = (20.0, 40.0, 80.0, 80.0)
COLOURS = np.array([0.0, 0.8, 0.6], np.float32)


def parked(
    *, colours: np.ndarray[tuple[int], np.dtype[np.float32]] | None = COLOURS, label: str = "car"
) -> Track:
    """Seen twice in one place."""
    observations = tuple(Observation(frame, (0,), 2.0 * frame, BOX, 0.9) for frame in (0, 1))
    return Track(1, 2, label, observations, colours)


def stood(first_at: int, **changes: object) -> Standing:
    """What an earlier recording left behind of `parked`."""
    (left,) = recall([], [parked()], key="first", at=first_at, frame_wh=FRAME_WH).standing
    return replace(left, **changes)  # type: ignore[arg-type]  # names of its fields


def said(standing: Standing, track: Track, at: int) -> str | None:
    return recall([standing], [track], key="now", at=at, frame_wh=FRAME_WH).known.get(track.id)


def test_nothing_is_known_at_first_and_the_same_car_afterwards() -> None:
    first = recall([], [parked()], key="first", at=36_000, frame_wh=FRAME_WH)
    assert first.known == {}
    assert said(first.standing[0], parked(), 36_060) == "same car as 10:00:00, IoU 1.00"


@pytest.mark.parametrize(
    ("first_at", "at", "when"),
    [
        (36_000, 36_000 + 86_399, "10:00:00"),
        (36_000, 36_000 + 86_400, "1970-01-01 10:00:00"),
        (36_000, 35_000, "1970-01-01 10:00:00"),  # events come in any order
        (0, 36_000, "in an earlier recording"),
    ],
)
def test_it_is_told_when_it_was_first_seen(first_at: int, at: int, when: str) -> None:
    assert said(stood(first_at), parked(), at) == f"same car as {when}, IoU 1.00"


def test_where_colours_are_not_known_the_place_decides() -> None:
    blind = parked(colours=None)
    assert said(stood(36_000), blind, 36_060) is not None
    left = recall([], [blind], key="first", at=36_000, frame_wh=FRAME_WH).standing[0]
    assert left.colours == {}
    assert said(left, parked(), 36_060) is not None


def test_other_colours_in_the_same_place_are_another_car() -> None:
    assert said(stood(36_000), parked(colours=np.array([1, 0, 0], np.float32)), 36_060) is None


def test_what_stands_is_the_same_after_a_store() -> None:
    objects = [stood(36_000), stood(0, label="truck", missed=3)]
    (one, two) = load(dump(objects))
    assert (one.label, two.label, two.missed) == ("car", "truck", 3)
    assert said(one, parked(), 36_060) == "same car as 10:00:00, IoU 1.00"


@pytest.mark.parametrize("text", [None, "", "[]", "{", "5", '["a"]', '[{"label": "car"}]', "[5]"])
def test_a_text_that_nobody_wrote_is_nothing(text: str | None) -> None:
    assert load(text) == []
