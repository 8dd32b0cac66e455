"""Choosing frames by what happens: from sizes alone, and by how pictures differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from vault_ml.video.adaptive import (
    MOTION_LIMIT,
    Choice,
    Likeness,
    Region,
    Why,
    activity,
    choose,
    further,
)
from vault_ml.video.sampling import PacketIndex

QUIET, KEY = 200, 20_000


def index_of(
    length: int = 300,
    *,
    gop: int = 20,
    busy: Sequence[range] = (),
    size: int = 2000,
    sizes: bool = True,
) -> PacketIndex:
    """A still scene of one picture per tick, with larger frames in `busy`."""
    is_keyframe = [at % gop == 0 for at in range(length)]
    packets = [
        KEY if is_keyframe[at] else size if any(at in each for each in busy) else QUIET + at % 7
        for at in range(length)
    ]
    return PacketIndex.from_packets(
        range(length), is_keyframe, [True] * length, [1] * length, packets if sizes else ()
    )


def times(choices: Sequence[Choice], why: Why | None = None) -> list[int]:
    return [choice.time for choice in choices if why is None or choice.why is why]


def test_nothing_shown_is_nothing_chosen() -> None:
    empty = PacketIndex.from_packets([None], [True], [True], [1], [5])
    assert choose(empty, 5) == []


@pytest.mark.parametrize("frames", [0, -1])
def test_a_number_of_frames_is_positive(frames: int) -> None:
    with pytest.raises(ValueError, match="positive number of frames"):
        choose(index_of(), frames)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(index_of(), id="quiet"),
        pytest.param(index_of(sizes=False), id="sizes-unknown"),
        pytest.param(index_of(gop=1), id="keyframes-only"),
        pytest.param(index_of(busy=[range(300)]), id="always-busy"),
    ],
)
def test_where_nothing_stands_out_the_choice_is_evenly_spread(index: PacketIndex) -> None:
    chosen = choose(index, 5)
    assert {choice.why for choice in chosen} == {Why.SPREAD}
    for at, choice in enumerate(chosen):
        assert 60 * at <= choice.time < 60 * (at + 1)
        assert choice.time in index.keyframe_times()


def test_quiet_spans_without_keyframes_are_looked_at_in_their_middle() -> None:
    assert times(choose(index_of(gop=1000), 3)) == [0, 150, 250]  # 0 is the only keyframe


@pytest.mark.parametrize("start", [25, 101, 187, 260])
def test_a_brief_event_is_looked_at_in_its_middle(start: int) -> None:
    busy = range(start, start + 15)
    chosen = choose(index_of(busy=[busy]), 5)
    motion = times(chosen, Why.MOTION)
    assert any(start + 1 <= time < start + 14 for time in motion)
    assert all(start - 8 <= time < start + 23 for time in motion)


def test_several_events_are_looked_at_each() -> None:
    busy = [range(40, 55), range(140, 152), range(222, 240)]
    motion = times(choose(index_of(busy=busy), 5), Why.MOTION)
    assert all(any(time in each for time in motion) for each in busy)


def test_no_part_is_left_without_frames() -> None:
    """An event draws frames, but a span is never more than twice as long as an even one."""
    chosen = times(choose(index_of(1000, busy=[range(500, 520)]), 10))
    gaps = np.diff([0, *chosen, 1000])
    assert gaps.max() <= 2 * 2 * 100
    assert sum(480 <= time < 540 for time in chosen) <= 4


def test_a_keyframe_in_the_middle_of_an_event_is_preferred() -> None:
    assert times(choose(index_of(busy=[range(94, 107)]), 1), Why.MOTION) == [100]


def test_one_large_frame_and_a_bad_beginning_are_no_event() -> None:
    sizes = [KEY if at % 20 == 0 else QUIET for at in range(300)]
    sizes[1:8] = [4000] * 7
    sizes[150] = 600
    index = PacketIndex.from_packets(
        range(300), [at % 20 == 0 for at in range(300)], [True] * 300, [1] * 300, sizes
    )
    assert {choice.why for choice in choose(index, 5)} == {Why.SPREAD}


def test_pictures_of_skipped_blocks_are_no_scene_to_compare_with() -> None:
    """20 bytes against 40: both are nothing beside a keyframe of 20,000."""
    sizes = [KEY if at % 20 == 0 else 40 if 100 <= at < 120 else 20 for at in range(300)]
    index = PacketIndex.from_packets(
        range(300), [at % 20 == 0 for at in range(300)], [True] * 300, [1] * 300, sizes
    )
    assert not activity(index)[1].any()


def test_activity_is_in_order_of_presentation() -> None:
    """With B-frames the packets of an event come in another order."""
    order = [0, 4, 2, 1, 3]
    pts = [base + at for base in range(0, 300, 5) for at in order]
    is_keyframe = [time % 50 == 0 for time in pts]
    sizes = [
        KEY if key else 3000 if 120 <= time < 140 else QUIET
        for time, key in zip(pts, is_keyframe, strict=True)
    ]
    index = PacketIndex.from_packets(pts, is_keyframe, [True] * 300, [1] * 300, sizes)
    found, active = activity(index)
    assert found == list(range(300))
    assert active[120:140].min() > 1
    assert not active[:110].any()


def test_more_frames_than_pictures_are_each_picture_once() -> None:
    chosen = times(choose(index_of(30), 50))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 30


def test_same_recording_gives_the_same_choice() -> None:
    index = index_of(busy=[range(40, 55)])
    assert choose(index, 5) == choose(index, 5)


# --- a second look ---------------------------------------------------------------------------


def test_further_keyframes_are_those_that_were_not_looked_at() -> None:
    assert further(index_of(100), [0, 40], 10) == [20, 60, 80]
    assert further(index_of(100), [0, 20, 40, 60, 80], 10) == []


def test_of_many_further_keyframes_some_are_taken_evenly() -> None:
    found = further(index_of(1000), [], 5)
    assert found == [100, 300, 500, 700, 900]


# --- pictures --------------------------------------------------------------------------------


def scene(*changes: tuple[int, int, float]) -> NDArray[np.float32]:
    cells = np.full((36, 64), 100, np.float32)
    cells += np.random.default_rng(0).normal(0, 30, cells.shape).astype(np.float32)
    for row, column, by in changes:
        cells[row, column] += by
    return cells


def test_first_picture_is_new_and_its_like_is_not() -> None:
    likeness = Likeness()
    assert likeness.see(5, scene()) is None
    assert likeness.see(9, scene((3, 4, 5.0))) == 5
    assert likeness.see(11, scene((3, 4, 7.0))) is None
    assert likeness.see(12, scene((3, 4, 7.5))) == 11


def test_light_over_all_of_the_picture_is_nothing_new() -> None:
    likeness = Likeness()
    likeness.see(0, scene())
    assert likeness.see(1, scene() + 20) == 0


def test_where_motion_is_expected_less_is_something() -> None:
    change = scene((3, 4, 4.0))
    for limit, expected in ((1.0, 0), (MOTION_LIMIT, None)):
        likeness = Likeness()
        likeness.see(0, scene())
        assert likeness.see(1, change, limit=limit) == expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((40, 20, 80, 60), None, id="inside"),
        pytest.param((400, 200, 500, 300), 0, id="elsewhere"),
    ],
)
def test_the_cameras_region_is_looked_at_more_closely(
    box: tuple[int, int, int, int], expected: int | None
) -> None:
    likeness = Likeness(Region.of(box, (640, 360)))
    likeness.see(0, scene())
    assert likeness.see(1, scene((3, 5, 4.0))) == expected


@pytest.mark.parametrize(
    ("box", "region"),
    [
        pytest.param((0, 0, 50, 50), Region(0, 0, 0.5, 1), id="whole-height"),
        pytest.param((50, 25, 150, 75), Region(0.5, 0.5, 1, 1), id="cut"),
        pytest.param((100, 0, 150, 50), None, id="beside"),
        pytest.param((0, 60, 50, 70), None, id="below"),
    ],
)
def test_a_region_is_cut_to_the_picture(
    box: tuple[int, int, int, int], region: Region | None
) -> None:
    assert Region.of(box, (100, 50)) == region


def test_pictures_of_another_size_are_new() -> None:
    likeness = Likeness()
    assert likeness.difference(scene(), scene()[:10]) == math.inf
