"""What holds for every recording and every number of frames."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from vault_ml.video.sampling import PacketIndex, Sampling, choose_targets


@st.composite
def indexes(draw: st.DrawFn) -> PacketIndex:
    gaps = draw(st.lists(st.integers(1, 50), min_size=1, max_size=60))
    start = draw(st.integers(-1000, 1000))
    times = [start]
    for gap in gaps[:-1]:
        times.append(times[-1] + gap)
    keys = draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times)))
    keys[0] = True
    durations = draw(
        st.lists(st.none() | st.integers(0, 60), min_size=len(times), max_size=len(times))
    )
    return PacketIndex.from_packets(times, keys, [True] * len(times), durations)


@given(indexes(), st.integers(1, 40), st.sampled_from(list(Sampling)))
def test_targets_are_distinct_rising_and_frames_of_the_recording(
    index: PacketIndex, frames: int, sampling: Sampling
) -> None:
    targets = choose_targets(index, frames, sampling)
    assert 1 <= len(targets) <= frames
    assert targets == sorted(set(targets))
    assert set(targets) <= set(index.shown_times())


@given(indexes(), st.integers(1, 40))
def test_every_span_with_a_keyframe_is_represented_by_a_keyframe_of_its_own(
    index: PacketIndex, frames: int
) -> None:
    targets = choose_targets(index, frames, Sampling.KEYFRAME)
    start, keys = index.shown_times()[0], index.keyframe_times()
    length = Fraction(index.end - start, frames)
    for span in range(frames):
        low, high = start + span * length, start + (span + 1) * length
        inside = [key for key in keys if low <= key < high]
        if inside:
            best = min(abs(key - (low + high) / 2) for key in inside)
            assert any(t in inside and abs(t - (low + high) / 2) == best for t in targets)


@given(indexes(), st.integers(1, 40))
def test_exact_is_what_a_person_sees_when_pausing_at_the_centres(
    index: PacketIndex, frames: int
) -> None:
    shown = index.shown_times()
    length = Fraction(index.end - shown[0], frames)
    on_screen = [
        max(t for t in shown if t <= shown[0] + (span + Fraction(1, 2)) * length)
        for span in range(frames)
    ]
    assert choose_targets(index, frames, Sampling.EXACT) == sorted(set(on_screen))


@given(indexes(), st.sampled_from(list(Sampling)))
def test_as_many_frames_as_an_even_recording_has_are_all_found(
    index: PacketIndex, sampling: Sampling
) -> None:
    count = len(index.pts)
    even = PacketIndex.from_packets(
        range(0, 40 * count, 40),
        [i in index.keyframes for i in range(count)],
        [True] * count,
        [40] * count,
    )
    assert choose_targets(even, count, sampling) == list(range(0, 40 * count, 40))
