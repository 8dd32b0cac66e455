"""Of a recording that was cut off, all that is whole is looked at, and it is called partial."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest

import video_clips as clips
from byte_sources import CountingSource
from vault_ml.errors import UndecodableRecording
from vault_ml.video.claimed_length import claimed_length
from vault_ml.video.limits import DecodeLimits, Refused, error_for
from vault_ml.video.picture import Picture
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling
from vault_ml.video.source import SparseCopy
from vault_ml.video.sparse_file import SparseFile
from video_clips import FRAGMENTED, X264

LIMITS = DecodeLimits()
CUTS = 200
FRAMES = 200
GOP = 25
EBML = b"\x1a\x45\xdf\xa3"
WITH_SIDX = {"movflags": "dash+frag_keyframe+default_base_moof+global_sidx"}


def fragmented(options: dict[str, str], codec: str = "libx264") -> bytes:
    # The agent's way: one fragment per keyframe or few.
    return clips.encode(
        "mp4", codec, frames=FRAMES, gop=GOP, container_options=options,
        codec_options=X264 if codec == "libx264" else {"x265-params": "scenecut=0:keyint=25"},
    )  # fmt: skip


def fragment_ends(data: bytes) -> list[int]:
    """Where each fragment (`moof` and its `mdat`) ends."""
    ends, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        at += size
        if kind == b"mdat":
            ends.append(at)
    return ends


def look(data: bytes, sampling: Sampling, frames: int = 8) -> tuple[list[Picture], RecordingReader]:
    with RecordingReader(io.BytesIO(data), LIMITS) as reader:
        return list(reader.pictures(frames, sampling)), reader


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("options", [FRAGMENTED, WITH_SIDX], ids=["plain", "with sidx"])
def test_every_whole_fragment_is_analysed_wherever_the_file_ends(
    options: dict[str, str], codec: str
) -> None:
    data = fragmented(options, codec)
    ends = fragment_ends(data)
    assert len(ends) >= FRAMES // GOP
    rng = random.Random(11)
    truth = {round(at, 6): frame for at, frame in clips.decode_all(data)}
    seen: set[int] = set()
    refusals: list[Refused] = []
    for size in [*(rng.randrange(len(data)) for _ in range(CUTS)), *ends[:-1], ends[2] - 1]:
        whole = sum(end <= size for end in ends)
        try:
            pictures, reader = look(data[:size], Sampling.EXACT, frames=FRAMES)
        except Refused as refused:
            assert whole == 0, f"{whole} fragments of a file cut at {size} were not looked at"
            refusals.append(refused)
            continue
        seen.add(whole)
        assert reader.duration_s >= whole * GOP / clips.FPS - 1e-6
        assert len(pictures) >= whole * GOP
        # A cut exactly between fragments leaves no trace but in an index of them.
        assert reader.is_partial or size in ends
        if size % 10 == 0:  # each of them is what it is in the whole recording
            for picture in pictures:
                expected = truth[round(picture.timestamp_s, 6)]
                np.testing.assert_array_equal(picture.frame.to_ndarray(), expected.to_ndarray())
    assert {1, 2, 3, 4, 5, 6, 7} <= seen
    for refusal in refusals:
        assert isinstance(error_for(refusal, LIMITS), UndecodableRecording)


def test_an_index_of_fragments_tells_of_those_that_are_missing() -> None:
    data = fragmented(WITH_SIDX)
    _, reader = look(data, Sampling.KEYFRAME)
    assert not reader.is_partial
    _, reader = look(data[: fragment_ends(data)[3]], Sampling.KEYFRAME)
    assert reader.is_partial
    assert reader.duration_s == pytest.approx(4.0)


def test_whole_recordings_are_not_partial() -> None:
    for name in clips.RECIPES:
        _, reader = look(clips.encode_recipe(name), Sampling.KEYFRAME)
        assert not reader.is_partial, name


@pytest.mark.parametrize(
    ("container", "options"),
    [("mp4", {"movflags": "faststart"}), ("avi", {}), ("matroska", {})],
    ids=["mp4", "avi", "mkv"],
)
def test_other_recordings_that_were_cut_off_are_partial(
    container: str, options: dict[str, str]
) -> None:
    data = clips.encode(container, frames=100, container_options=options)
    for percent in (50, 75, 99):
        pictures, reader = look(data[: len(data) * percent // 100], Sampling.KEYFRAME)
        assert pictures
        assert reader.is_partial
        assert reader.duration_s < 4.0 or percent == 99  # an AVI ends with its index


def test_the_picture_that_the_end_cuts_in_two_is_not_looked_at() -> None:
    data = clips.encode("mp4", gop=1, container_options={"movflags": "faststart"})
    pictures, reader = look(data[:-100], Sampling.EXACT, frames=50)
    assert len(pictures) == 49
    assert reader.duration_s == pytest.approx(49 / clips.FPS)


@pytest.mark.parametrize("sampling", list(Sampling))
def test_ranges_of_a_recording_that_was_cut_off_show_the_same(sampling: Sampling) -> None:
    data = fragmented(FRAGMENTED)
    rng = random.Random(12)
    for size in (rng.randrange(len(data) // 4, len(data)) for _ in range(20)):
        expected, whole = look(data[:size], sampling)
        source = CountingSource(data[:size])
        with SparseCopy(source) as copy:
            file = SparseFile(
                copy.fd, size, lambda at, size: copy.answer({"read": [at, size]})["read"]
            )  # fmt: skip
            with RecordingReader(file, LIMITS) as reader:
                pictures = list(reader.pictures(8, sampling))
        assert reader.is_partial == whole.is_partial
        assert reader.index == whole.index
        for one, two in zip(pictures, expected, strict=True):
            assert one.timestamp_s == two.timestamp_s
            np.testing.assert_array_equal(one.frame.to_ndarray(), two.frame.to_ndarray())


@pytest.mark.parametrize(
    ("start", "length"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"RIFF\x10\0\0\0AVI ", 24, id="avi"),
        pytest.param(b"RIFF\x10\0\0\0WEBP", None, id="webp"),
        pytest.param(EBML + b"\x81.\x18\x53\x80\x67\x85", 16, id="mkv"),
        pytest.param(EBML + b"\x81.\x18\x53\x80\x67\x40\x02", 14, id="two octets"),
        pytest.param(EBML + b"\x81.\x18\x53\x80\x67" + b"\x01" + b"\xff" * 7, None, id="live"),
        pytest.param(EBML + b"\x81.\x18\x53\x80\x67\x40", None, id="half a length"),
        pytest.param(EBML + b"\x81.\x18\x53\x80\x67\x00", None, id="no length"),
        pytest.param(EBML + b"\x81.", None, id="no segment"),
        pytest.param(EBML, None, id="nothing more"),
    ],
)
def test_the_length_that_a_file_claims(start: bytes, length: int | None) -> None:
    assert claimed_length(start) == length
