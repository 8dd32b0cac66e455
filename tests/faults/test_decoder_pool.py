"""Decoder children that die, hang, lie or run out of room cost their recording a retry, no more."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import video_clips as clips
from byte_sources import CountingSource, decode_ranged
from conftest import shared_file
from vault_ml.errors import ConfigError, DecoderFailed, RecordingTooLarge, UndecodableRecording
from vault_ml.geometry import DARKNET_PLACING
from vault_ml.video import decoder_pool as pool_module
from vault_ml.video.decoder_pool import DecodedRecording, DecodeLimits, DecoderPool, Sampling

NET_WH = (64, 64)
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def clip() -> bytes:
    return clips.encode("mp4", frames=50, gop=10)


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def decode(
    pool: DecoderPool, data: bytes, *, frames: int = 5, keep_pictures: bool = False
) -> DecodedRecording:
    with as_file(data) as fd:
        return pool.decode(
            fd,
            frames=frames,
            sampling=Sampling.KEYFRAME,
            net_wh=NET_WH,
            keep_pictures=keep_pictures,
        )


def works(pool: DecoderPool, data: bytes) -> bool:
    with decode(pool, data) as recording:
        return len(recording.frames) == 5


def pids(pool: DecoderPool) -> set[int]:
    return {worker.child.pid for worker in pool._workers}


def only_pid(pool: DecoderPool) -> int:
    (pid,) = pids(pool)
    return pid


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.005)


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1, DecodeLimits(max_seconds=20, max_wait_s=20)) as pool:
        yield pool


# What it gives ------------------------------------------------------------------------------


def test_frames_are_letterboxed_into_the_shared_memory(pool: DecoderPool, clip: bytes) -> None:
    first = clips.decode_all(clip)[0][1].to_ndarray(format="rgb24", interpolation="BICUBIC")
    with decode(pool, clip, frames=50) as recording:
        assert recording.duration_s == pytest.approx(2.0)
        frame = recording.frames[0]
        assert frame.size_wh == (96, 64)
        assert frame.letterbox.inner_wh == (64, 42)
        assert np.shares_memory(frame.pixels, recording.shared.pixels)
        np.testing.assert_array_equal(
            frame.pixels[11:53], cv2.resize(first, (64, 42), interpolation=cv2.INTER_LINEAR)
        )
        assert (frame.pixels[:11] == DARKNET_PLACING.fill).all()
        assert (frame.pixels[53:] == DARKNET_PLACING.fill).all()
    with pytest.raises(ValueError, match="closed"):
        _ = recording.shared.pixels


def test_times_and_indices_rise(pool: DecoderPool, clip: bytes) -> None:
    with decode(pool, clip) as recording:
        assert [frame.index for frame in recording.frames] == [0, 1, 2, 3, 4]
        assert [frame.timestamp_s for frame in recording.frames] == [0, 0.4, 0.8, 1.2, 1.6]


def test_whole_pictures_are_kept_until_the_recording_is_closed(
    pool: DecoderPool, clip: bytes
) -> None:
    everything = [frame for _, frame in clips.decode_all(clip)]
    with decode(pool, clip, keep_pictures=True) as recording:
        for i in (3, 0, 3):
            expected = everything[10 * i].to_ndarray(format="rgb24", interpolation="BICUBIC")
            np.testing.assert_array_equal(recording.picture(i), expected)
        with pytest.raises(IndexError, match=r"0\.\.4"):
            recording.picture(5)
        with pytest.raises(IndexError, match=r"0\.\.4"):
            recording.picture(-1)
    with pytest.raises(ValueError, match="no pictures are held"):
        recording.picture(0)
    assert works(pool, clip)


def test_a_child_is_free_again_at_once_where_no_pictures_are_kept(
    pool: DecoderPool, clip: bytes
) -> None:
    with decode(pool, clip) as first, decode(pool, clip) as second:
        assert len(first.frames) == len(second.frames) == 5
        with pytest.raises(ValueError, match="no pictures are held"):
            first.picture(0)


def test_a_photo_of_the_shared_data_is_one_frame(pool: DecoderPool) -> None:
    data = shared_file("images/darknet/dog.jpg").read_bytes()
    with decode(pool, data, keep_pictures=True) as recording:
        (frame,) = recording.frames
        assert frame.size_wh == (768, 576)
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        assert np.abs(recording.picture(0).astype(int) - bgr[..., ::-1]).mean() < 0.5


# Recordings that are refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(os.urandom(50_000), "cannot be opened", id="garbage"),
        pytest.param(b"\0" * 4_000_000, "cannot be opened", id="zeros"),
    ],
)
def test_what_is_no_recording_is_refused_with_a_sentence(
    pool: DecoderPool, clip: bytes, data: bytes, sentence: str
) -> None:
    before = only_pid(pool)
    with pytest.raises(UndecodableRecording, match=sentence):
        decode(pool, data)
    assert only_pid(pool) == before  # a refusal is no reason to distrust the child
    assert works(pool, clip)


def test_a_recording_cut_before_its_index_is_refused(pool: DecoderPool, clip: bytes) -> None:
    with pytest.raises(UndecodableRecording, match="cut off"):
        decode(pool, clip[: len(clip) // 2])


def test_a_recording_without_video_is_refused(pool: DecoderPool) -> None:
    with pytest.raises(UndecodableRecording, match="no video"):
        decode(pool, clips.sound_only())


def test_a_codec_that_is_not_served_is_named(pool: DecoderPool) -> None:
    with pytest.raises(UndecodableRecording, match="mpeg2video"):
        decode(pool, clips.encode("matroska", "mpeg2video", frames=3))


def test_too_many_pixels_and_too_long_are_refused_with_the_numbers(clip: bytes) -> None:
    with (
        DecoderPool(1, DecodeLimits(max_pixels=6000, max_duration_s=5)) as pool,
    ):
        with pytest.raises(RecordingTooLarge, match="96 x 64"):
            decode(pool, clip)
        with pytest.raises(RecordingTooLarge, match="10 s"):
            decode(pool, clips.encode("mp4", size_wh=(64, 64), times=[0, 5000, 10_000]))


def test_a_recording_that_needs_too_much_memory_is_refused(clip: bytes) -> None:
    large = clips.encode("mp4", "mjpeg", frames=2, size_wh=(4096, 3072), pixel_format="yuvj420p")
    with DecoderPool(1, DecodeLimits(max_memory_bytes=24 * 1024**2)) as pool:
        before = only_pid(pool)
        with pytest.raises(RecordingTooLarge, match="24 MiB"):
            decode(pool, large)
        wait_until(lambda: len(pids(pool)) == 1)
        assert only_pid(pool) != before  # it is replaced
        assert works(pool, clip)
    with DecoderPool(1) as pool, decode(pool, large) as recording:
        assert len(recording.frames) == 2


# Children that die, hang or lie -------------------------------------------------------------


def test_a_child_that_died_while_idle_is_replaced_unnoticed(pool: DecoderPool, clip: bytes) -> None:
    worker = next(iter(pool._workers))
    os.kill(worker.child.pid, signal.SIGKILL)
    worker.child.process.wait()
    assert works(pool, clip)
    assert only_pid(pool) != worker.child.pid


def decode_in_thread(pool: DecoderPool, data: bytes, frames: int) -> tuple[threading.Thread, list]:  # type: ignore[type-arg]  # the outcome, whatever it is
    outcome: list[object] = []

    def run() -> None:
        try:
            with decode(pool, data, frames=frames) as recording:
                outcome.append(len(recording.frames))
        except Exception as error:  # noqa: BLE001  # handed to the test
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def open_files(pid: int | str) -> list[str]:
    """What the descriptors of a process refer to."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(link.readlink()))
    return links


def test_a_child_killed_at_work_costs_its_recording_a_retry(pool: DecoderPool, clip: bytes) -> None:
    victim, source = only_pid(pool), CountingSource(clip)
    # It is at work for certain while it waits for bytes that it has asked for.
    source.before = lambda: os.kill(victim, signal.SIGKILL)
    with pytest.raises(DecoderFailed, match="was killed by SIGKILL"):
        decode_ranged(pool, source)
    assert len(source.reads) == 1
    assert works(pool, clip)
    assert only_pid(pool) != victim


def test_a_stuck_child_is_killed_at_the_deadline_and_replaced(clip: bytes) -> None:
    with DecoderPool(1, DecodeLimits(max_seconds=0.5)) as pool:
        assert works(pool, clip)
        victim = only_pid(pool)
        os.kill(victim, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(DecoderFailed, match=r"had not finished within 0\.5 s"):
            decode(pool, clip)
        assert time.monotonic() - began < 5
        assert not Path(f"/proc/{victim}").exists()
        assert works(pool, clip)


def test_a_child_that_dies_with_the_pictures_fails_the_picture_only(
    pool: DecoderPool, clip: bytes
) -> None:
    with decode(pool, clip, keep_pictures=True) as recording:
        os.kill(only_pid(pool), signal.SIGKILL)
        with pytest.raises(DecoderFailed, match="SIGKILL"):
            recording.picture(0)
        assert recording.frames[0].pixels.any()  # what was decoded stays
        with pytest.raises(ValueError, match="no pictures are held"):
            recording.picture(0)
        assert works(pool, clip)


def test_a_child_that_dies_before_the_pictures_are_released_is_replaced(
    pool: DecoderPool, clip: bytes
) -> None:
    worker = next(iter(pool._workers))
    with decode(pool, clip, keep_pictures=True):
        os.kill(worker.child.pid, signal.SIGKILL)
        worker.child.process.wait()
    assert works(pool, clip)


LIAR = """
import os, sys
sys.path.insert(0, {tests!r})
from vault_ml.child import connect
channel, _ = connect()
channel.send({{"jail": {{"seccomp": True, "landlock": 0}}}}, timeout_s=5)
message, fds = channel.receive(timeout_s=None)
channel.send({answer}, [0, 0], timeout_s=5)
channel.receive(timeout_s=None)
"""


def answering(monkeypatch: pytest.MonkeyPatch, folder: Path, answer: str) -> None:
    """The pool's next children are taken over: they answer `answer` to everything."""
    (folder / "liar.py").write_text(LIAR.format(tests=str(folder), answer=answer))
    monkeypatch.setattr(pool_module, "_MODULE", "liar")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize("answer", ["{}", "{'refused': 'because'}", "{'picture': 0}"])
def test_an_answer_that_cannot_be_true_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: bytes, answer: str
) -> None:
    with DecoderPool(1) as pool:
        with monkeypatch.context() as patch:
            answering(patch, tmp_path, answer)
            pool.discard(next(iter(pool._workers)))  # its replacement is the liar
        with pytest.raises(DecoderFailed, match="nonsense"):
            decode(pool, clip)
        assert works(pool, clip)


def test_a_child_that_is_no_decoder_stops_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool_module, "_MODULE", "no_such_module")
    pool = DecoderPool(1)
    with pytest.raises(ConfigError, match="does not start"):
        pool.start()
    pool.close()
    assert "no_such_module" in capfd.readouterr().err


def test_three_children_in_a_row_that_do_not_start_are_no_accident(
    clip: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    with DecoderPool(1, on_hopeless=said.append) as pool:

        def no_child_starts(times: int) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(pool_module, "_MODULE", "no_such_module")
                pool.discard(next(iter(pool._workers)))
                for _ in range(times):
                    with pytest.raises(DecoderFailed):
                        decode(pool, clip)

        no_child_starts(2)
        assert said == [], "two in a row may be an accident"
        assert works(pool, clip), "one that starts in between makes it an accident"
        no_child_starts(3)
    (reason,) = said
    assert reason.startswith("no decoder starts")
    assert "no_such_module" in capfd.readouterr().err


# The jail -----------------------------------------------------------------------------------


def test_a_child_is_limited_in_memory_files_and_dumps(pool: DecoderPool) -> None:
    pid = only_pid(pool)
    memory, _ = resource.prlimit(pid, resource.RLIMIT_AS)
    assert 2 * 1024**3 < memory < 5 * 1024**3
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] <= 64
    assert resource.prlimit(pid, resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY


def test_a_child_sees_no_secrets_and_holds_no_descriptor_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VAULT_SECRET_KEY", "canary-7b1f")
    with (tmp_path / "secret").open("w") as secret, DecoderPool(1) as pool:
        os.set_inheritable(secret.fileno(), True)
        pid = only_pid(pool)
        assert b"canary-7b1f" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert str(tmp_path / "secret") in open_files("self")
        assert str(tmp_path / "secret") not in open_files(pid)


def test_a_taken_over_child_cannot_cut_the_frame_memory_short(
    pool: DecoderPool, clip: bytes
) -> None:
    with decode(pool, clip) as recording:
        with pytest.raises(PermissionError):
            os.ftruncate(recording.shared.fd, 0)
        assert recording.frames[0].pixels.any()


# The pool -----------------------------------------------------------------------------------


def test_a_pool_without_children_is_refused() -> None:
    with pytest.raises(ValueError, match="positive number of decoders"):
        DecoderPool(0)


def test_a_child_is_replaced_after_its_share_of_recordings(clip: bytes) -> None:
    with DecoderPool(1, DecodeLimits(max_recordings_per_child=2)) as pool:
        seen = [only_pid(pool)]
        for _ in range(4):
            assert works(pool, clip)
            seen.append(only_pid(pool))
    assert len(set(seen)) == 3
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]


def test_recordings_share_the_children(clip: bytes) -> None:
    with DecoderPool(2) as pool:
        threads = [decode_in_thread(pool, clip, 5) for _ in range(8)]
        for thread, _ in threads:
            thread.join(PATIENCE_S)
        assert [outcome for _, outcome in threads] == [[5]] * 8
        assert 1 <= len(pids(pool)) <= 2


def test_waiting_for_a_child_has_an_end(clip: bytes) -> None:
    with (
        DecoderPool(1, DecodeLimits(max_wait_s=0.1)) as pool,
        decode(pool, clip, keep_pictures=True),
        pytest.raises(DecoderFailed, match="no decoder became free"),
    ):
        decode(pool, clip)


def test_closing_ends_the_children_and_the_work(clip: bytes) -> None:
    pool = DecoderPool(1)
    pool.start()
    pid, source = only_pid(pool), CountingSource(clip)
    source.before = pool.close  # the child waits for bytes by then
    with pytest.raises(DecoderFailed):
        decode_ranged(pool, source)
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(DecoderFailed, match="pool is closed"):
        decode(pool, clip)
    pool.close()


def test_a_recording_outlives_the_pool(clip: bytes) -> None:
    pool = DecoderPool(1)
    recording = decode(pool, clip, keep_pictures=True)
    pool.close()
    assert recording.frames[0].pixels.any()
    recording.close()
    recording.close()


def test_no_descriptor_is_left_behind(pool: DecoderPool, clip: bytes) -> None:
    assert works(pool, clip)
    pid = only_pid(pool)
    ours, its = len(open_files("self")), len(open_files(pid))
    for i in range(50):
        if i % 5 == 0:
            with pytest.raises(UndecodableRecording):
                decode(pool, clip[:2000])
        elif i % 5 == 1:
            with decode(pool, clip, keep_pictures=True) as recording:
                recording.picture(0)
            del recording  # its frames are views of the mapping, which holds a descriptor
        else:
            assert works(pool, clip)
    assert only_pid(pool) == pid
    assert len(open_files("self")) == ours
    wait_until(lambda: len(open_files(pid)) <= its)
