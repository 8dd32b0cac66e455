"""A recording read in ranges gives the same pictures as the whole, from fewer of its bytes."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import video_clips as clips
from byte_sources import CountingSource
from conftest import shared_file
from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.picture import Picture
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling
from vault_ml.video.source import SparseCopy
from vault_ml.video.sparse_file import SparseFile
from video_clips import FRAGMENTED, RECIPES, X264

LIMITS = DecodeLimits()


@contextlib.contextmanager
def ranged(source: CountingSource) -> Iterator[SparseFile]:
    with SparseCopy(source) as copy:
        yield SparseFile(
            copy.fd, copy.size_bytes, lambda at, size: copy.answer({"read": [at, size]})["read"]
        )


def look(file: Any, frames: int, sampling: Sampling) -> tuple[list[Picture], float]:
    with RecordingReader(file, LIMITS) as reader:
        return list(reader.pictures(frames, sampling)), reader.duration_s


def look_ranged(source: CountingSource, frames: int, sampling: Sampling) -> list[Picture]:
    """What ranges show, which must be what the whole file shows."""
    expected, expected_s = look(io.BytesIO(source.data), frames, sampling)
    with ranged(source) as file:
        pictures, duration_s = look(file, frames, sampling)
    assert duration_s == expected_s
    assert [p.timestamp_s for p in pictures] == [p.timestamp_s for p in expected]
    for one, two in zip(pictures, expected, strict=True):
        assert one.frame.format.name == two.frame.format.name
        np.testing.assert_array_equal(one.frame.to_ndarray(), two.frame.to_ndarray())
    return pictures


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_ranges_show_what_the_whole_shows(recipe: str) -> None:
    data = clips.encode_recipe(recipe)
    for sampling in Sampling:
        for frames in (1, 3, 7, 50):
            source = CountingSource(data)
            assert look_ranged(source, frames, sampling)
            assert source.bytes_read <= len(data)


@pytest.mark.parametrize("sampling", list(Sampling))
@pytest.mark.parametrize("name", ["vtest_6s_768x576_10fps", "one_person_5s_768x432_10fps"])
def test_real_clips_too(name: str, sampling: Sampling) -> None:
    data = shared_file(f"video/{name}.mp4").read_bytes()
    assert len(look_ranged(CountingSource(data), 5, sampling)) == 5


@pytest.fixture(scope="module")
def large() -> bytes:
    """Noise, so that a picture has some 60 kB; 8 s with a keyframe every 2 s."""
    return clips.encode("mp4", frames=200, size_wh=(480, 320), gop=50, codec_options=X264)


def share_fetched(data: bytes, frames: int, sampling: Sampling) -> float:
    source = CountingSource(data)
    assert len(look_ranged(source, frames, sampling)) == frames
    assert len(source.reads) < 8 + 3 * frames
    return source.bytes_read / len(data)


ARRANGEMENTS: dict[str, dict[str, str]] = {
    "index last": {},
    "index first": {"movflags": "faststart"},
    "fragmented": FRAGMENTED,
    "fragmented, with sidx": {"movflags": "dash+frag_keyframe+default_base_moof+global_sidx"},
}


@pytest.mark.parametrize("arrangement", list(ARRANGEMENTS))
def test_keyframes_cost_their_own_bytes_and_little_more(arrangement: str) -> None:
    data = clips.encode(
        "mp4", frames=200, size_wh=(480, 320), gop=50, codec_options=X264,
        container_options=ARRANGEMENTS[arrangement],
    )  # fmt: skip
    # Four of two hundred pictures, each somewhat larger than the others.
    assert share_fetched(data, 4, Sampling.KEYFRAME) < 0.08


@pytest.mark.parametrize("arrangement", list(ARRANGEMENTS))
def test_exact_frames_cost_the_pictures_since_their_keyframe(arrangement: str) -> None:
    data = clips.encode(
        "mp4", frames=200, size_wh=(320, 240), gop=50, b_frames=2, codec_options=X264,
        container_options=ARRANGEMENTS[arrangement],
    )  # fmt: skip
    # At 1.33, 4 and 6.67 s: 34, 1 and 17 of 200 pictures.
    assert share_fetched(data, 3, Sampling.EXACT) < 0.36


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("sampling", list(Sampling))
def test_an_index_that_calls_every_picture_a_keyframe_is_not_believed(
    codec: str, sampling: Sampling
) -> None:
    data = clips.encode(
        "mp4", codec, frames=50, gop=25,
        codec_options={"x265-params": "bframes=0:scenecut=0"} if codec == "libx265" else X264,
        container_options={"movflags": "faststart"},
    )  # fmt: skip
    lying = data.replace(b"stss", b"free", 1)  # without it every picture is one
    assert lying != data
    truth = {round(at, 6): frame for at, frame in clips.decode_all(data)}
    for picture in look_ranged(CountingSource(lying), 7, sampling):
        expected = truth[round(picture.timestamp_s, 6)]
        np.testing.assert_array_equal(picture.frame.to_ndarray(), expected.to_ndarray())


def test_parameter_sets_may_come_with_the_pictures() -> None:
    # Some cameras send them so, and their table has none.
    data = clips.encode(
        "mp4", "libx265", codec_options={"x265-params": "repeat-headers=1:keyint=20"},
        container_options={"movflags": "faststart"},
    )  # fmt: skip
    bare = bytearray(data)
    bare[data.index(b"hvcC") + 4 + 22] = 0  # the number of arrays of parameter sets
    for sampling in Sampling:
        assert len(look_ranged(CountingSource(bytes(bare)), 5, sampling)) == 5


def test_a_recording_without_codec_parameters_is_looked_at_as_a_whole() -> None:
    data = clips.encode("mp4", "libx265", frames=20, container_options={"movflags": "faststart"})
    source = CountingSource(data.replace(b"hvcC", b"free", 1))
    with pytest.raises(Refused) as caught:
        look(io.BytesIO(source.data), 3, Sampling.KEYFRAME)
    reason = caught.value.reason
    with ranged(source) as file:
        with pytest.raises(Refused) as caught:
            look(file, 3, Sampling.KEYFRAME)
        assert caught.value.reason is reason
    assert source.bytes_read == len(data)


def test_a_file_that_only_begins_like_an_mp4_is_read_as_a_whole() -> None:
    mkv = clips.encode("matroska", frames=20)
    source = CountingSource(struct.pack(">I4s", 16, b"free") + bytes(8) + mkv)
    with pytest.raises(Refused) as caught, ranged(source) as file:
        RecordingReader(file, LIMITS)
    assert caught.value.reason in (Reason.UNKNOWN_FORMAT, Reason.NO_VIDEO)


@pytest.mark.parametrize("container", ["matroska", "avi", "mpegts"])
def test_other_containers_are_fetched_whole_and_in_one_piece(container: str) -> None:
    data = clips.encode(container, frames=100, size_wh=(480, 320))
    source = CountingSource(data)
    assert look_ranged(source, 5, Sampling.KEYFRAME)
    assert source.bytes_read == len(data)
    assert len(source.reads) <= 2


def test_a_damaged_keyframe_is_replaced_as_in_the_whole(large: bytes) -> None:
    data = bytearray(large)
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle - 60_000 : middle + 200_000] = bytes(260_000)
    for sampling in Sampling:
        look_ranged(CountingSource(bytes(data)), 5, sampling)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_five_keyframes_of_a_camera_s_recording_cost_an_eighth_of_it_at_most() -> None:
    progressive = clips.camera_recording()
    assert 15e6 < len(progressive) < 30e6
    every_3_s = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "3000000"}
    for data in (
        progressive,
        clips.remux(progressive, FRAGMENTED),
        clips.remux(progressive, every_3_s),
    ):
        source = CountingSource(data)
        assert len(look_ranged(source, 5, Sampling.KEYFRAME)) == 5
        print(f"{source.bytes_read / len(data):.1%} in {len(source.reads)} requests")
        assert source.bytes_read <= 0.12 * len(data)
