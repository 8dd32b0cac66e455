"""What a decoder child says is believed only where it can be true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vault_ml.video.answer import Nonsense, checked
from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.shared_frames import SharedFrames

LIMITS = DecodeLimits()


@pytest.fixture
def shared() -> Iterator[SharedFrames]:
    with SharedFrames.create(3, (64, 32)) as shared:
        yield shared


def frame(
    timestamp_s: object = 0.0, size_wh: object = (96, 64), number: object = 0
) -> dict[str, object]:
    as_json = list(size_wh) if isinstance(size_wh, tuple) else size_wh
    return {"timestamp_s": timestamp_s, "number": number, "size_wh": as_json}


def test_frames_get_their_place_in_the_memory_and_their_letterbox(shared: SharedFrames) -> None:
    shared.pixels[1] = 7
    seen = checked(
        {"frames": [frame(0, (96, 64)), frame(1.5, (64, 96))], "duration_s": 2.0}, shared, LIMITS
    )
    frames = seen.frames
    assert seen.duration_s == 2.0
    assert not seen.is_partial
    assert [(f.index, f.timestamp_s, f.size_wh) for f in frames] == [
        (0, 0.0, (96, 64)),
        (1, 1.5, (64, 96)),
    ]
    assert frames[1].letterbox.net_wh == (64, 32)
    assert (frames[1].pixels == 7).all()


def test_an_unknown_duration_is_none(shared: SharedFrames) -> None:
    assert checked({"frames": [frame()]}, shared, LIMITS).duration_s is None


@pytest.mark.parametrize(("said", "partial"), [(True, True), (False, False), ("yes", False)])
def test_a_recording_that_was_cut_off_is_partial(
    shared: SharedFrames, said: object, partial: bool
) -> None:
    assert checked({"frames": [frame()], "is_partial": said}, shared, LIMITS).is_partial is partial


def test_reasons_and_what_was_left_out_are_told(shared: SharedFrames) -> None:
    answer = {"frames": [frame() | {"why": "motion"}], "left_out": [[3.5, 0.0]]}
    seen = checked(answer, shared, LIMITS)
    assert (seen.frames[0].why, seen.left_out) == ("motion", ((3.5, 0.0),))


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refusal_is_raised_with_its_facts(shared: SharedFrames, reason: Reason) -> None:
    answer = {"refused": reason.value, "codec": "vp9", "size_wh": [9, 8], "seconds": 7}
    with pytest.raises(Refused) as caught:
        checked(answer, shared, LIMITS)
    assert caught.value.reason is reason
    assert caught.value.size_wh == ((9, 8) if reason is Reason.PIXELS else (0, 0))
    assert caught.value.seconds == (7 if reason is Reason.DURATION else 0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"frames": []}, id="no frame"),
        pytest.param({"frames": [frame() | {"why": "<script>"}]}, id="a reason of its own"),
        pytest.param({"frames": [frame()], "left_out": 5}, id="left out is a number"),
        pytest.param({"frames": [frame()], "left_out": [[1]]}, id="left out without another"),
        pytest.param({"frames": [frame()], "left_out": [[1, "x"]]}, id="left out of a word"),
        pytest.param({"frames": [frame()], "left_out": [[1, 0]] * 9}, id="more left out than room"),
        pytest.param({"frames": 5}, id="frames is a number"),
        pytest.param({"frames": ["x"]}, id="a frame is a string"),
        pytest.param({"frames": [frame(i) for i in range(4)]}, id="more than there is room for"),
        pytest.param({"frames": [frame(1), frame(1)]}, id="the same time twice"),
        pytest.param({"frames": [frame(2), frame(1)]}, id="times fall"),
        pytest.param({"frames": [frame(-1.0)]}, id="before the beginning"),
        pytest.param({"frames": [frame(float("nan"))]}, id="nan"),
        pytest.param({"frames": [frame(float("inf"))]}, id="infinite"),
        pytest.param({"frames": [frame(10**400)]}, id="beyond a float"),
        pytest.param({"frames": [frame(True)]}, id="time is a truth value"),
        pytest.param({"frames": [frame("1")]}, id="time is a string"),
        pytest.param({"frames": [frame(None)]}, id="no time"),
        pytest.param({"frames": [frame(0, None)]}, id="no size"),
        pytest.param({"frames": [frame(0, (96, 0))]}, id="no height"),
        pytest.param({"frames": [frame(0, (-96, -64))]}, id="negative size"),
        pytest.param({"frames": [frame(0, (96, 64, 3))]}, id="three sides"),
        pytest.param({"frames": [frame(0, (96.0, 64))]}, id="half a pixel"),
        pytest.param({"frames": [frame(0, "xy")]}, id="size is a string"),
        pytest.param({"frames": [frame(0, (9000, 9000))]}, id="above the limit"),
        pytest.param({"frames": [frame()], "duration_s": -1}, id="negative duration"),
        pytest.param({"refused": "because"}, id="unknown reason"),
        pytest.param({"refused": ["empty"]}, id="reason is a list"),
        pytest.param({"refused": "pixels", "size_wh": None}, id="refused size is none"),
        pytest.param({"refused": "duration", "seconds": "long"}, id="refused duration in words"),
    ],
)
def test_what_cannot_be_true_is_nonsense(shared: SharedFrames, answer: dict[str, Any]) -> None:
    with pytest.raises(Nonsense):
        checked(answer, shared, LIMITS)
