"""Recordings of every kind are read, and what is looked at is what a full decode shows."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

import video_clips as clips
from byte_sources import CountingSource
from conftest import shared_file
from vault_ml.errors import PoisonError, RecordingTooLarge, UndecodableRecording
from vault_ml.video import demuxer as demuxer_module
from vault_ml.video.cursor import Cursor
from vault_ml.video.files import RecordingFile
from vault_ml.video.limits import DecodeLimits, Reason, Refused, error_for
from vault_ml.video.picture import Picture, scaled
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling
from vault_ml.video.source import SparseCopy
from vault_ml.video.sparse_file import SparseFile
from video_clips import FRAGMENTED, RECIPES, X264

LIMITS = DecodeLimits()


def look(
    recording: bytes, frames: int = 5, sampling: Sampling = Sampling.KEYFRAME
) -> list[Picture]:
    with RecordingReader(io.BytesIO(recording), LIMITS) as reader:
        return list(reader.pictures(frames, sampling))


def times_of(pictures: list[Picture]) -> list[float]:
    return [round(picture.timestamp_s, 3) for picture in pictures]


def refusal_of(recording: bytes, limits: DecodeLimits = LIMITS) -> Refused:
    with pytest.raises(Refused) as caught, RecordingReader(io.BytesIO(recording), limits) as reader:
        list(reader.pictures(5, Sampling.KEYFRAME))
    return caught.value


def assert_same_as_full_decode(pictures: list[Picture], everything: dict[float, Any]) -> None:
    for picture in pictures:
        at = round(picture.timestamp_s, 6)
        assert at in everything, f"{at} s is not the time of a frame"
        expected = everything[at]
        assert picture.frame.format.name == expected.format.name
        np.testing.assert_array_equal(picture.frame.to_ndarray(), expected.to_ndarray())


@pytest.fixture(scope="session", params=list(RECIPES))
def recording(request: pytest.FixtureRequest) -> bytes:
    return clips.encode_recipe(request.param)


def test_looked_at_frames_are_those_of_a_full_decode_to_the_last_bit(recording: bytes) -> None:
    everything = {round(at, 6): frame for at, frame in clips.decode_all(recording)}
    for sampling in Sampling:
        for count in (1, 3, 7, len(everything)):
            pictures = look(recording, count, sampling)
            times = times_of(pictures)
            assert len(times) == len(set(times))
            # A second look brings what lies between; the child puts all in order.
            assert times == sorted(times) or sampling is Sampling.ADAPTIVE
            assert_same_as_full_decode(pictures, everything)
    assert len(look(recording, len(everything), Sampling.EXACT)) > 0.6 * len(everything)


@pytest.mark.parametrize(
    "name",
    ["vtest_6s_768x576_10fps", "one_person_5s_768x432_10fps", "empty_scene_3s_768x432_10fps"],
)
@pytest.mark.parametrize("sampling", list(Sampling))
def test_real_clips_are_read_as_a_full_decode_reads_them(name: str, sampling: Sampling) -> None:
    data = shared_file(f"video/{name}.mp4").read_bytes()
    everything = {round(at, 6): frame for at, frame in clips.decode_all(data)}
    pictures = look(data, 5, sampling)
    # Of the empty scene some show nothing new.
    assert len(pictures) == 5 or (sampling is Sampling.ADAPTIVE and "empty" in name)
    assert_same_as_full_decode(pictures, everything)


def test_b_frames_of_h264_in_avi_get_rising_times_by_counting() -> None:
    # The container cannot say when such a picture is shown: PyAV's own times go back and forth.
    data = clips.encode("avi", b_frames=2, codec_options=X264)
    in_order = [frame for _, frame in clips.decode_all(data)]
    for sampling in Sampling:
        pictures = look(data, 50, sampling)
        assert times_of(pictures) == [round(i / clips.FPS, 3) for i in range(50)]
        for picture, expected in zip(pictures, in_order, strict=True):
            np.testing.assert_array_equal(picture.frame.to_ndarray(), expected.to_ndarray())


def packets_decoded(
    monkeypatch: pytest.MonkeyPatch, data: bytes, frames: int, sampling: Sampling
) -> int:
    sent = []
    real = Cursor._decode

    def counting(self: Any, packet: Any) -> None:
        sent.append(packet)
        real(self, packet)

    with monkeypatch.context() as patch:
        patch.setattr(Cursor, "_decode", counting)
        assert len(look(data, frames, sampling)) == frames
    return sum(packet is not None for packet in sent)


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpegts"])
def test_keyframe_sampling_decodes_the_keyframes_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    data = clips.encode(container, "mpeg4", gop=10)
    assert packets_decoded(monkeypatch, data, 5, Sampling.KEYFRAME) == 5


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("options", [{}, FRAGMENTED], ids=["plain", "fragmented"])
def test_exact_sampling_starts_at_the_keyframe_before_and_not_a_group_earlier(
    monkeypatch: pytest.MonkeyPatch, b_frames: int, options: dict[str, str]
) -> None:
    data = clips.encode(
        "mp4", frames=100, gop=25, b_frames=b_frames, codec_options=X264, container_options=options
    )
    # Two frames, at 1 s (a keyframe) and 3 s (another one): nothing else is needed.
    assert packets_decoded(monkeypatch, data, 2, Sampling.EXACT) <= 2 * (1 + b_frames)


@pytest.mark.parametrize("sampling", list(Sampling))
def test_a_demuxer_that_seeks_badly_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    data = clips.encode("mpegts", b_frames=2, codec_options=X264)
    monkeypatch.setattr(demuxer_module, "_SEEKABLE", frozenset({"mpegts"}))  # it lands too late
    seeks: list[bool] = []
    real = Cursor._seek

    def watched(self: Any, time: int, start: int) -> bool:
        seeks.append(real(self, time, start))
        return seeks[-1]

    monkeypatch.setattr(Cursor, "_seek", watched)
    pictures = look(data, 5, sampling)
    assert False in seeks
    assert len(pictures) == 5
    assert_same_as_full_decode(pictures, {round(t, 6): f for t, f in clips.decode_all(data)})


def test_a_fragmented_mp4_that_claims_no_duration_has_the_duration_of_its_packets() -> None:
    data = clips.encode("mp4", container_options=FRAGMENTED)
    at = data.index(b"mdhd") + 4
    assert struct.unpack(">I", data[at + 16 : at + 20]) == (0,)  # what the agent writes
    with RecordingReader(io.BytesIO(data), LIMITS) as reader:
        assert reader.duration_s == pytest.approx(2.0)


def test_a_claimed_duration_that_is_wrong_is_not_believed() -> None:
    data = bytearray(clips.encode("mp4", frames=50))
    for box in (b"mvhd", b"mdhd"):
        at = data.index(box) + 4
        data[at + 16 : at + 20] = struct.pack(">I", 0x7FFFFFFF)
    pictures = look(bytes(data))
    assert pictures[-1].timestamp_s < 2.0


def test_times_count_from_the_first_frame_whatever_the_clock_says() -> None:
    data = clips.encode("mpegts", times=[100_000 + 40 * i for i in range(50)])
    assert times_of(look(data, 1, Sampling.EXACT)) == [1.0]


def test_a_pause_in_the_recording_counts_as_time() -> None:
    data = clips.encode("mp4", gop=600, times=[*range(0, 1000, 40), *range(9000, 10000, 40)])
    # The centres of four spans of 2.5 s; the second and third see the picture that stands still.
    assert times_of(look(data, 4, Sampling.EXACT)) == [0.96]
    assert times_of(look(data, 20, Sampling.EXACT)) == [0.24, 0.72, 0.96, 9.24, 9.72]


def test_frames_hidden_by_an_edit_list_are_not_looked_at() -> None:
    data = clips.encode("mp4", gop=600)
    # The edit list begins 10 frames in; the frames before it are decoded, but never shown.
    at = data.index(b"elst") + 4
    version_and_count = data[at : at + 8]
    assert version_and_count == struct.pack(">II", 0, 1)
    edited = bytearray(data)
    (media_time,) = struct.unpack(">i", data[at + 12 : at + 16])
    timescale = struct.unpack(">I", data[data.index(b"mdhd") + 16 : data.index(b"mdhd") + 20])[0]
    edited[at + 12 : at + 16] = struct.pack(">i", media_time + 10 * timescale // clips.FPS)
    everything = clips.decode_all(bytes(edited))
    assert len(everything) == 40
    pictures = look(bytes(edited), 40, Sampling.EXACT)
    assert len(pictures) == 40
    assert_same_as_full_decode(pictures, {round(t, 6): frame for t, frame in everything})


@pytest.mark.parametrize("sampling", list(Sampling))
def test_an_edit_list_that_hides_everything_hides_nothing(sampling: Sampling) -> None:
    # What FFmpeg writes where a clock started at minus two seconds.
    data = clips.encode("mp4", times=[-2000 + 40 * i for i in range(50)], gop=10, b_frames=2)
    shown = clips.encode("mp4", times=[40 * i for i in range(50)], gop=10, b_frames=2)
    pictures = look(data, 5, sampling)
    assert times_of(pictures) == times_of(look(shown, 5, sampling))
    everything = {round(at, 6): frame for at, frame in clips.decode_all(shown)}
    assert_same_as_full_decode(pictures, everything)


# Colours ------------------------------------------------------------------------------------


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("matrix", "tag"),
    [
        pytest.param(BT601, 6, id="bt601"),
        pytest.param(BT709, 1, id="bt709"),
        pytest.param(BT601, 2, id="untagged means bt601"),
    ],
)
@pytest.mark.parametrize("rgb", [(200, 40, 30), (20, 180, 60), (30, 60, 220), (255, 255, 255)])
def test_colours_come_out_as_the_recording_tags_them(
    rgb: tuple[int, int, int], matrix: tuple[float, float], tag: int, full: bool
) -> None:
    data = clips.encode(
        "mp4",
        size_wh=(64, 64),
        pictures=[clips.solid(rgb, *matrix, full=full)] * 3,
        colorspace=tag,
        color_range=2 if full else 1,
        codec_options={"qp": "0"},
    )
    picture = look(data, 1)[0]
    for seen in (picture.rgb(), picture.rgb_at((32, 18)), picture.rgb_at((17, 31))):
        assert np.abs(seen.reshape(-1, 3).mean(axis=0) - rgb).max() <= 2.5


@pytest.mark.parametrize("size_wh", [(208, 118), (118, 208), (33, 57), (1, 1)])
@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_another_size_is_near_the_whole_picture_scaled(
    size_wh: tuple[int, int], rotation: int
) -> None:
    y, x = np.mgrid[0:360, 0:640]
    smooth = np.stack([x * 0.39, y * 0.7, 255 - (x + y) * 0.25], axis=2).astype(np.uint8)
    pictures = [VideoFrame.from_ndarray(smooth, format="rgb24")] * 3
    data = clips.encode("mp4", size_wh=(640, 360), pictures=pictures, rotation=rotation)
    picture = look(data, 1)[0]
    seen, wanted = picture.rgb_at(size_wh), scaled(picture.rgb(), size_wh)
    assert seen.shape == (*size_wh[::-1], 3)
    difference = np.abs(seen.astype(int) - wanted)
    assert difference.mean() < 1.5
    assert difference.max() < 12
    # Other formats go by the whole picture.
    ten_bit = look(clips.encode("mp4", "libx265", pixel_format="yuv420p10le"), 1)[0]
    np.testing.assert_array_equal(ten_bit.rgb_at((30, 20)), scaled(ten_bit.rgb(), (30, 20)))


def test_ten_bit_video_becomes_the_same_colours() -> None:
    eight, ten = (
        look(clips.encode("mp4", "libx265", pixel_format=f, codec_options={"crf": "2"}), 1)[0].rgb()
        for f in ("yuv420p", "yuv420p10le")
    )
    assert np.abs(eight.mean(axis=(0, 1)) - ten.mean(axis=(0, 1))).max() < 1


def test_video_is_equal_to_what_opencv_reads(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clips.encode("mp4", size_wh=(320, 240)))
    capture = cv2.VideoCapture(str(path))
    _, bgr = capture.read()
    capture.release()
    first = look(path.read_bytes(), 50, Sampling.EXACT)[0]
    np.testing.assert_array_equal(first.rgb(), bgr[..., ::-1])


# Turned pictures, photos --------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_camera_gives_upright_pictures(degrees: int) -> None:
    upright = look(clips.encode("mp4"), 1)[0]
    turned = look(clips.encode("mp4", rotation=degrees), 1)[0]
    expected = np.rot90(upright.rgb(), degrees // 90)
    assert turned.size_wh == expected.shape[1::-1]
    np.testing.assert_array_equal(turned.rgb(), expected)


def photo(format_name: str, orientation: int = 1) -> bytes:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC))
    exif = Image.Exif()
    exif[0x112] = orientation
    buffer = io.BytesIO()
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "exif": exif},
        "WEBP": {"lossless": True},
    }
    image.save(buffer, format_name, **options.get(format_name, {}))
    return buffer.getvalue()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("sampling", list(Sampling))
def test_a_photo_is_a_recording_of_one_frame(format_name: str, sampling: Sampling) -> None:
    data = photo(format_name)
    (picture,) = look(data, 5, sampling)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    assert picture.timestamp_s == 0
    assert np.abs(picture.rgb().astype(int) - expected[..., ::-1]).mean() < 1.0


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_is_turned_upright_by_its_exif(orientation: int) -> None:
    data = photo("JPEG", orientation)
    (picture,) = look(data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    assert picture.size_wh == expected.shape[1::-1]
    assert np.abs(picture.rgb().astype(int) - expected[..., ::-1]).mean() < 1.0


def test_photos_look_as_opencv_reads_them() -> None:
    folder = shared_file("images")
    photos = sorted(folder.rglob("*.jpg"))
    assert len(photos) >= 30
    for path in photos:
        (picture,) = look(path.read_bytes())
        expected = cv2.imread(str(path))
        assert expected is not None
        difference = np.abs(picture.rgb().astype(int) - expected[..., ::-1])
        assert difference.mean() < 0.5, path.name


# What cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", Reason.EMPTY, id="empty file"),
        pytest.param(b"\0", Reason.UNKNOWN_FORMAT, id="one byte"),
        pytest.param(b"no video " * 5000, Reason.UNKNOWN_FORMAT, id="text"),
        pytest.param(os.urandom(100_000), Reason.UNKNOWN_FORMAT, id="noise"),
        pytest.param(b"Salted__" + os.urandom(100_000), Reason.UNKNOWN_FORMAT, id="encrypted"),
        pytest.param(
            b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
            Reason.UNKNOWN_FORMAT,
            id="playlist",
        ),
        pytest.param(b"ffconcat version 1.0\nfile x\n", Reason.UNKNOWN_FORMAT, id="concat script"),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes, reason: Reason) -> None:
    refused = refusal_of(data)
    assert refused.reason is reason
    assert isinstance(error_for(refused, LIMITS), UndecodableRecording)


def test_a_recording_without_video_is_refused() -> None:
    assert refusal_of(clips.sound_only()).reason is Reason.NO_VIDEO


def test_a_container_that_is_not_served_is_refused() -> None:
    assert refusal_of(clips.encode("flv", "flv")).reason is Reason.UNKNOWN_FORMAT


def test_a_codec_that_is_not_served_is_refused_by_name() -> None:
    refused = refusal_of(clips.encode("matroska", "mpeg2video", frames=5))
    assert refused.reason is Reason.CODEC
    assert "mpeg2video" in str(error_for(refused, LIMITS))


def test_a_recording_cut_before_its_index_is_refused() -> None:
    data = clips.encode("mp4")
    assert refusal_of(data[: len(data) // 2]).reason is Reason.UNKNOWN_FORMAT


def test_a_recording_whose_pictures_are_all_damaged_is_refused() -> None:
    data = bytearray(clips.encode("mp4", container_options={"movflags": "faststart"}))
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    assert refusal_of(bytes(data)).reason is Reason.NOTHING_DECODES


@pytest.mark.parametrize(
    ("container", "options"),
    [("mp4", {"movflags": "faststart"}), ("mp4", FRAGMENTED), ("matroska", {}), ("mpegts", {})],
    ids=["index first", "fragmented", "mkv", "ts"],
)
@pytest.mark.parametrize("sampling", list(Sampling))
def test_of_a_recording_that_was_cut_off_all_that_decodes_is_used(
    container: str, options: dict[str, str], sampling: Sampling
) -> None:
    data = clips.encode(container, container_options=options, frames=100, b_frames=2)
    for percent in (95, 80, 60, 40):
        cut = data[: len(data) * percent // 100]
        with RecordingReader(io.BytesIO(cut), LIMITS) as reader:
            assert 0.5 * 4.0 * percent / 100 < reader.duration_s < 4.0
            pictures = list(reader.pictures(5, sampling))
        assert len(pictures) == 5
        assert pictures[-1].timestamp_s > 0.6 * reader.duration_s


def test_a_cut_anywhere_gives_frames_or_a_reason() -> None:
    data = clips.encode("mp4", b_frames=2, container_options=FRAGMENTED)
    outcomes: set[bool | Reason] = set()
    for size in range(0, len(data), len(data) // 60):
        try:
            outcomes.add(bool(look(data[:size])))
        except Refused as refused:
            outcomes.add(refused.reason)
    assert True in outcomes
    assert outcomes <= {True, Reason.EMPTY, Reason.UNKNOWN_FORMAT, Reason.NO_VIDEO,
                        Reason.NOTHING_DECODES}  # fmt: skip


def test_a_damaged_picture_is_replaced_by_the_next_that_decodes() -> None:
    data = bytearray(clips.encode("avi", "mjpeg", pixel_format="yuvj420p"))
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        packets = [(p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size]
    at, size = next((pos, size) for pts, pos, size in packets if pts == 25)
    assert at is not None
    start = bytes(data).index(b"\xff\xd8", at)
    data[start : start + size] = bytes(size)
    assert times_of(look(bytes(data), 1, Sampling.EXACT)) == [1.04]


# Limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_a_frame_above_the_limit_is_refused_by_size(codec: str) -> None:
    data = clips.encode(
        "mp4", codec, frames=3, pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p"
    )
    limits = DecodeLimits(max_pixels=96 * 64 - 1)
    refused = refusal_of(data, limits)
    assert refused.reason is Reason.PIXELS
    error = error_for(refused, limits)
    assert isinstance(error, RecordingTooLarge)
    assert "96 x 64" in str(error)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_photo_above_the_limit_is_refused_by_size(format_name: str) -> None:
    limits = DecodeLimits(max_pixels=160 * 120 - 1)
    refused = refusal_of(photo(format_name), limits)
    assert refused.reason is Reason.PIXELS
    assert refused.size_wh == (160, 120)


def test_a_photo_that_claims_to_be_huge_is_refused_from_its_header() -> None:
    data = bytearray(photo("PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    refused = refusal_of(bytes(data))
    assert refused.reason is Reason.PIXELS
    assert "60000 x 60000" in str(error_for(refused, LIMITS))


def announcing(recording: bytes, width: int, height: int) -> bytes:
    """An MP4 whose tables claim another size: `tkhd` in 16.16 numbers, `stsd` in 16 bits."""
    lying = bytearray(recording)
    entry = lying.index(b"stsd") + 16
    struct.pack_into(">HH", lying, entry + 28, width, height)
    struct.pack_into(">II", lying, lying.index(b"tkhd") + 80, width << 16, height << 16)
    return bytes(lying)


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, FRAGMENTED],
                         ids=["index last", "index first", "fragmented"])  # fmt: skip
def test_an_mp4_that_claims_huge_frames_is_refused_from_its_header(options: dict[str, str]) -> None:
    bomb = announcing(clips.encode("mp4", container_options=options), 60_000, 60_000)
    source = CountingSource(bomb)
    with SparseCopy(source) as copy:
        file = SparseFile(
            copy.fd, len(bomb), lambda at, size: copy.answer({"read": [at, size]})["read"]
        )
        with pytest.raises(Refused) as caught:
            RecordingReader(file, LIMITS)  # not even its index is read
    assert caught.value.reason is Reason.PIXELS
    assert "60000 x 60000" in str(error_for(caught.value, LIMITS))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("options", [{"movflags": "faststart"}, FRAGMENTED],
                         ids=["index first", "fragmented"])  # fmt: skip
def test_pictures_that_are_larger_than_their_mp4_claims_are_refused_by_size(
    codec: str, options: dict[str, str]
) -> None:
    large = clips.encode(
        "mp4", codec, frames=2, size_wh=(640, 480), container_options=options,
        pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
    )  # fmt: skip
    refused = refusal_of(announcing(large, 64, 64), DecodeLimits(max_pixels=200_000))
    assert (refused.reason, refused.size_wh) == (Reason.PIXELS, (640, 480))


def test_a_recording_that_lasts_too_long_is_refused() -> None:
    data = clips.encode("mp4", times=[0, 1000, 5_000])
    refused = refusal_of(data, DecodeLimits(max_duration_s=4.5))
    assert refused.reason is Reason.DURATION
    assert "4 s" in str(error_for(refused, DecodeLimits(max_duration_s=4)))


def test_frames_may_change_their_size_within_a_recording() -> None:
    small = clips.encode("mpegts", size_wh=(96, 64), times=[40 * i for i in range(25)])
    large = clips.encode("mpegts", size_wh=(128, 96), times=[1000 + 40 * i for i in range(25)])
    sizes = {picture.size_wh for picture in look(small + large, 4, Sampling.EXACT)}
    assert sizes == {(96, 64), (128, 96)}


def test_a_recording_that_grows_beyond_the_limit_midway_is_refused() -> None:
    small = clips.encode("mpegts", size_wh=(96, 64), times=[40 * i for i in range(25)])
    large = clips.encode("mpegts", size_wh=(640, 480), times=[1000 + 40 * i for i in range(25)])
    limits = DecodeLimits(max_pixels=100 * 100)
    for sampling in Sampling:
        with RecordingReader(io.BytesIO(small + large), limits) as reader:
            with pytest.raises(Refused) as caught:
                list(reader.pictures(4, sampling))
            assert caught.value.reason is Reason.PIXELS
            assert caught.value.size_wh == (640, 480)


# The file -----------------------------------------------------------------------------------


def test_a_descriptor_is_read_without_moving_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clips.encode("mp4"))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 17, os.SEEK_SET)
        with RecordingReader(RecordingFile(fd), LIMITS) as reader:
            assert len(list(reader.pictures(5, Sampling.EXACT))) == 5
        assert os.lseek(fd, 0, os.SEEK_CUR) == 17
    finally:
        os.close(fd)


def test_closing_twice_is_fine() -> None:
    reader = RecordingReader(io.BytesIO(clips.encode("mp4", frames=3)), LIMITS)
    reader.close()
    reader.close()


def test_every_reason_has_a_sentence_that_says_more_than_its_name() -> None:
    for reason in Reason:
        error = error_for(Refused(reason, codec="x" * 99), LIMITS)
        assert isinstance(error, PoisonError)
        assert len(str(error).split()) > 5
        assert "xxx" not in str(error)  # too long to be a codec's name: the child made it up


@pytest.mark.parametrize("name", ["max_pixels", "max_duration_s", "max_seconds"])
def test_a_limit_that_is_not_positive_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        DecodeLimits(**{name: 0})
