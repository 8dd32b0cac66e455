"""Five adaptive frames see what ten evenly spread ones see, and lose nothing on real clips."""

from __future__ import annotations

import io

import pytest

from brief_events import Clip, Material, found, looked_at, make_clip
from conftest import SHARED, shared_file
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling

pytestmark = pytest.mark.timeout(300)

VIDEOS = (
    "empty_scene_3s_768x432_10fps",
    "one_person_5s_768x432_10fps",
    "vtest_6s_768x576_10fps",
)


@pytest.fixture(scope="module")
def material() -> Material:
    shared_file("images/darknet/dog.jpg")
    return Material.read(SHARED / "data", (160, 90))


def clips(material: Material, control: str, gop: int) -> list[Clip]:
    return [
        make_clip(material, seed, seconds=20, events=1 + seed % 2, gop=gop, control=control)
        for seed in range(4)
    ]


@pytest.mark.parametrize(
    ("control", "gop"), [("crf", 20), ("crf", 100), ("cbr", 20)], ids=["crf", "long-gop", "cbr"]
)
def test_five_adaptive_frames_see_what_ten_even_ones_see(
    material: Material, control: str, gop: int
) -> None:
    made = clips(material, control, gop)
    seen = {
        (frames, sampling): sum(
            found(clip, looked_at(clip.recording, frames, sampling)) for clip in made
        )
        for frames, sampling in (
            (10, Sampling.KEYFRAME), (10, Sampling.EXACT), (5, Sampling.KEYFRAME),
            (5, Sampling.ADAPTIVE),
        )
    }  # fmt: skip
    assert seen[5, Sampling.ADAPTIVE] >= seen[10, Sampling.EXACT]
    assert seen[5, Sampling.ADAPTIVE] >= seen[10, Sampling.KEYFRAME]
    assert seen[5, Sampling.ADAPTIVE] > seen[5, Sampling.KEYFRAME]


def test_an_empty_recording_costs_one_look() -> None:
    shared_file("images/darknet/dog.jpg")
    material = Material.read(SHARED / "data", (640, 360))
    quiet = make_clip(material, 0, seconds=10, events=0)
    assert len(looked_at(quiet.recording, 5, Sampling.ADAPTIVE)) == 1


@pytest.mark.parametrize("name", VIDEOS)
def test_on_real_clips_what_is_left_out_shows_nothing_else(name: str) -> None:
    recording = shared_file(f"video/{name}.mp4").read_bytes()
    with RecordingReader(io.BytesIO(recording), DecodeLimits()) as reader:
        pictures = list(reader.pictures(5, Sampling.ADAPTIVE))
        left_out = reader.left_out
    assert len(pictures) + len(left_out) >= 5
    times = {picture.timestamp_s for picture in pictures}
    assert all(same in times for _, same in left_out)
    assert all(picture.why is not None for picture in pictures)
    if "empty" not in name:
        assert left_out == []
