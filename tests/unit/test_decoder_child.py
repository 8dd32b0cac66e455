"""The decoder child's side of the conversation, held in this process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import pytest

import video_clips as clips
from vault_ml.child import Channel
from vault_ml.geometry import DARKNET_PLACING, Letterbox
from vault_ml.video import decoder_child
from vault_ml.video.decoder_child import serve
from vault_ml.video.files import RecordingFile
from vault_ml.video.jail import Jail
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.picture import Picture, letterbox_into
from vault_ml.video.reader import RecordingReader
from vault_ml.video.shared_frames import SharedFrames

NET_WH = (64, 64)
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def clip() -> bytes:
    return clips.encode("mp4", frames=50, gop=10)


@pytest.fixture
def parent() -> Iterator[Channel]:
    """The parent's end; the child answers in a thread until it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child, channel = Channel(theirs), Channel(ours)
    jail = Jail(seccomp=True, landlock=5)
    thread = threading.Thread(target=serve, args=(child, DecodeLimits(), jail))
    thread.start()
    assert channel.receive(timeout_s=TIMEOUT_S) == (
        {"jail": {"seccomp": True, "landlock": 5}},
        [],
    )
    yield channel
    channel.close()
    thread.join(TIMEOUT_S)
    child.close()
    assert not thread.is_alive(), "the child did not end when its parent hung up"


def ask_to_decode(
    parent: Channel, data: bytes, shared: SharedFrames, **changes: object
) -> dict[str, Any]:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, data)
        job = {
            "frames": 5,
            "sampling": "keyframe",
            "net_wh": NET_WH,
            "placing": asdict(DARKNET_PLACING),
            "keep_pictures": False,
        }
        parent.send({"decode": job | changes}, (fd, shared.fd), timeout_s=TIMEOUT_S)
    finally:
        os.close(fd)
    return parent.receive(timeout_s=TIMEOUT_S)[0]


def test_frames_are_written_to_the_memory_and_described(parent: Channel, clip: bytes) -> None:
    with SharedFrames.create(5, NET_WH) as shared:
        answer = ask_to_decode(parent, clip, shared)
        assert answer["duration_s"] == pytest.approx(2.0)
        assert [frame["timestamp_s"] for frame in answer["frames"]] == [0, 0.4, 0.8, 1.2, 1.6]
        assert answer["frames"][0]["size_wh"] == [96, 64]
        assert len({shared.pixels[i].tobytes() for i in range(5)}) == 5


def test_a_refusal_is_a_reason_and_not_prose(parent: Channel) -> None:
    with SharedFrames.create(5, NET_WH) as shared:
        answer = ask_to_decode(parent, b"nothing at all", shared)
    assert answer == {"refused": "unknown_format", "codec": "", "size_wh": [0, 0], "seconds": 0}


def test_a_whole_picture_is_given_until_released(parent: Channel, clip: bytes) -> None:
    with SharedFrames.create(5, NET_WH) as shared, SharedFrames.create(1, (96, 64)) as whole:
        ask_to_decode(parent, clip, shared, keep_pictures=True)
        parent.send({"picture": 2}, (whole.fd,), timeout_s=TIMEOUT_S)
        assert parent.receive(timeout_s=TIMEOUT_S)[0] == {"picture": 2}
        expected = clips.decode_all(clip)[20][1].to_ndarray(format="rgb24", interpolation="BICUBIC")
        np.testing.assert_array_equal(whole.pixels[0], expected)
        parent.send({"release": True}, timeout_s=TIMEOUT_S)
        assert len(ask_to_decode(parent, clip, shared)["frames"]) == 5


@pytest.mark.parametrize("message", [{}, {"exec": "sh"}])
def test_an_unknown_message_ends_the_child(message: dict[str, str]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        child = decoder_child._Decoder(DecodeLimits(), Channel(theirs))
        with pytest.raises(ValueError, match="unknown message"):
            child.answer(message, [])


@pytest.mark.parametrize("where", ["rgb", "letterbox"])
def test_no_room_for_a_picture_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, parent: Channel, clip: bytes, where: str
) -> None:
    def no_room(*_: object) -> None:
        if where == "rgb":
            raise MemoryError
        error = cv2.error("Failed to allocate")
        error.code = cv2.Error.StsNoMem
        raise error

    if where == "rgb":
        monkeypatch.setattr(Picture, "rgb", no_room)
    else:
        monkeypatch.setattr(decoder_child, "letterbox_into", no_room)
    with SharedFrames.create(5, NET_WH) as shared:
        assert ask_to_decode(parent, clip, shared)["refused"] == "memory"


def test_a_tall_picture_gets_bars_left_and_right() -> None:
    canvas = np.zeros((64, 64, 3), np.uint8)
    rgb = np.full((96, 48, 3), 200, np.uint8)
    letterbox_into(canvas, rgb, Letterbox.fit((48, 96), NET_WH))
    assert (canvas[:, :16] == 127).all()
    assert (canvas[:, 16:48] == 200).all()
    assert (canvas[:, 48:] == 127).all()


def test_a_recording_may_not_open_another_file(clip: bytes) -> None:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, clip)
        file = RecordingFile(fd)
        assert file.seek(10) == 10
        assert file.seek(5, os.SEEK_CUR) == file.tell() == 15
        assert file.seek(0, os.SEEK_END) == len(clip)
        with RecordingReader(file, DecodeLimits()) as reader, pytest.raises(PermissionError):
            reader.demuxer.container.io_open("/etc/hostname", 1, {})
    finally:
        os.close(fd)
