"""Which frames are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from vault_ml.video.sampling import PacketIndex, Sampling, choose_targets, frames_at


def index_of(
    pts: Sequence[int | None],
    keyframes: Sequence[int] = (0,),
    hidden: Sequence[int] = (),
    durations: Sequence[int | None] | None = None,
) -> PacketIndex:
    return PacketIndex.from_packets(
        pts,
        [i in keyframes for i in range(len(pts))],
        [i not in hidden for i in range(len(pts))],
        durations if durations is not None else [1] * len(pts),
    )


@pytest.mark.parametrize("sampling", list(Sampling))
def test_nothing_is_chosen_from_a_recording_without_packets(sampling: Sampling) -> None:
    assert choose_targets(index_of([], keyframes=()), 5, sampling) == []


def test_nothing_is_chosen_from_packets_without_times() -> None:
    assert choose_targets(index_of([None, None]), 5, Sampling.EXACT) == []


@pytest.mark.parametrize("frames", [0, -1])
def test_a_number_of_frames_that_is_not_positive_is_refused(frames: int) -> None:
    with pytest.raises(ValueError, match="positive number of frames"):
        choose_targets(index_of([0]), frames, Sampling.EXACT)


def test_exact_takes_the_frame_on_screen_at_the_centre_of_each_span() -> None:
    assert choose_targets(index_of(range(100)), 5, Sampling.EXACT) == [10, 30, 50, 70, 90]


def test_one_frame_is_the_middle_of_the_recording() -> None:
    assert choose_targets(index_of(range(11)), 1, Sampling.EXACT) == [5]


def test_a_span_takes_the_keyframe_nearest_to_its_centre() -> None:
    keys = [0, 8, 13, 35, 50, 55]
    chosen = choose_targets(index_of(range(100), keyframes=keys), 5, Sampling.KEYFRAME)
    assert chosen == [8, 35, 50, 70, 90]  # the last two spans hold no keyframe


def test_of_two_equally_near_keyframes_the_earlier_is_taken() -> None:
    assert choose_targets(index_of(range(20), keyframes=[0, 8, 12]), 1, Sampling.KEYFRAME) == [8]


def test_a_keyframe_on_a_border_belongs_to_the_span_that_begins_there() -> None:
    assert choose_targets(index_of(range(20), keyframes=[0, 10]), 2, Sampling.KEYFRAME) == [0, 10]


def test_exact_does_not_snap_to_keyframes() -> None:
    assert choose_targets(index_of(range(100), keyframes=[0, 49]), 1, Sampling.EXACT) == [50]


@pytest.mark.parametrize("sampling", list(Sampling))
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_recording_with_fewer_frames_than_wanted_gives_each_once(
    count: int, sampling: Sampling
) -> None:
    assert choose_targets(index_of(range(count)), 5, sampling) == list(range(count))


def test_a_picture_that_stands_still_is_looked_at_once() -> None:
    still = index_of([0, 1, 2, 100], durations=[1, 1, 98, 1])
    assert choose_targets(still, 5, Sampling.EXACT) == [2]


def test_times_need_not_begin_at_zero() -> None:
    assert choose_targets(index_of(range(1000, 1100)), 2, Sampling.EXACT) == [1025, 1075]


def test_times_may_be_negative() -> None:
    assert choose_targets(index_of(range(-50, 50)), 2, Sampling.EXACT) == [-25, 25]


def test_decode_order_does_not_matter_for_the_choice() -> None:
    reordered = [0, 3, 1, 2, 6, 4, 5]
    assert choose_targets(index_of(reordered), 7, Sampling.EXACT) == list(range(7))


def test_the_length_of_the_last_frame_is_estimated_where_the_container_does_not_say() -> None:
    assert index_of([0, 10, 20], durations=[None, None, None]).end == 30
    assert index_of([0, 10, 20], durations=[10, 10, 0]).end == 30


def test_a_single_picture_without_a_duration_lasts_a_tick() -> None:
    assert index_of([7], durations=[None]).end == 8


def test_the_length_of_the_last_frame_is_believed_where_given() -> None:
    assert index_of([0, 10, 20], durations=[10, 10, 500]).end == 520


def test_hidden_packets_are_never_chosen_but_stay_in_decode_order() -> None:
    index = index_of([0, 1, 2, 3], hidden=[0, 1])
    assert index.shown_times() == [2, 3]
    assert index.decode_start(2) == 0


def test_what_comes_before_the_first_keyframe_is_not_shown() -> None:
    index = index_of([0, 1, 5, 3, 4, 6], keyframes=[2])
    assert index.shown_times() == [5, 6]  # 3 and 4 are presented before the keyframe they follow
    assert index.keyframe_times() == [5]


def test_a_first_keyframe_with_a_wrong_time_does_not_hide_the_recording_behind_it() -> None:
    index = index_of([50, *range(1, 50)], keyframes=[0, 20])
    assert index.shown_times() == list(range(17, 51))
    index = index_of([50, *range(1, 50)], keyframes=[0, 1, 20])
    assert index.shown_times() == list(range(1, 51))


def test_without_any_keyframe_decoding_starts_at_the_first_packet() -> None:
    index = index_of([0, 1, 2], keyframes=())
    assert index.keyframe_times() == [0]
    assert index.decode_start(2) == 0


def test_decoding_starts_at_the_last_keyframe_not_presented_after_the_target() -> None:
    # Open groups: 4 and 5 follow keyframe 6 in decode order, but need the group before it.
    index = index_of([0, 3, 1, 2, 6, 4, 5, 9, 7, 8], keyframes=[0, 4])
    assert index.decode_start(3) == 0
    assert index.decode_start(5) == 0
    assert index.decode_start(6) == 4
    assert index.decode_start(8) == 4


def test_packets_without_a_time_are_passed_over() -> None:
    index = index_of([0, None, 2, None], keyframes=[0, 1])
    assert index.shown_times() == [0, 2]
    assert index.decode_start(2) == 0


def test_a_first_keyframe_without_a_time_is_still_where_decoding_starts() -> None:
    index = index_of([None, 1, 2], keyframes=[0])
    assert index.decode_start(2) == 0


@pytest.mark.parametrize(
    ("length_s", "frames_per_s", "most", "frames"),
    [(10.0, 3.0, 100, 30), (10.0, 3.0, 20, 20), (0.1, 1.0, 100, 1), (0.0, 3.0, 100, 1)],
)
def test_so_many_frames_a_second_but_one_at_least(
    length_s: float, frames_per_s: float, most: int, frames: int
) -> None:
    assert frames_at(length_s, frames_per_s, most) == frames
