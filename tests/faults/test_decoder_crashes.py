"""A content that crashes decoders is given up after the second time, and every crash is told."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import video_clips as clips
from byte_sources import CountingSource, decode_ranged
from vault_ml.errors import DecoderFailed, PoisonError, UndecodableRecording
from vault_ml.video import decoder_pool as pool_module
from vault_ml.video.crashes import CrashMemory, digest_of
from vault_ml.video.decoder_pool import DecodedRecording, DecodeLimits, DecoderPool, Sampling

# A real decoder, but for recordings that begin with BOOM: it dies of them, as FFmpeg might.
FRAGILE = """
import os, signal, time
from vault_ml.video import decoder_child

class Fragile(decoder_child.RecordingReader):
    def __init__(self, file, limits):
        start = file.read(8)
        file.seek(0)
        if start[:4] == b"BOOM":
            os.abort()
        if start[:4] == b"HANG":
            while True:
                pass
        super().__init__(file, limits)

warm_up = decoder_child.warm_up
def warm_up_first():
    warm_up()
    decoder_child.RecordingReader = Fragile
decoder_child.warm_up = warm_up_first
decoder_child.main()
"""


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[str]) -> Iterator[DecoderPool]:
    (tmp_path / "fragile_decoder.py").write_text(FRAGILE)
    monkeypatch.setattr(pool_module, "_MODULE", "fragile_decoder")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with DecoderPool(1, DecodeLimits(max_seconds=5), on_restart=told.append) as pool:
        yield pool


@pytest.fixture(scope="module")
def clip() -> bytes:
    return clips.encode("mp4", frames=10)


def decode(pool: DecoderPool, data: bytes) -> DecodedRecording:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, data)
        return pool.decode(fd, frames=2, sampling=Sampling.KEYFRAME, net_wh=(64, 64))
    finally:
        os.close(fd)


def test_the_second_crash_on_one_content_is_the_last(
    pool: DecoderPool, told: list[str], clip: bytes
) -> None:
    with pytest.raises(DecoderFailed, match="was killed by"):
        decode(pool, b"BOOM, one")
    with pytest.raises(DecoderFailed, match="was killed by"):
        decode(pool, b"BOOM, two")  # another content
    with decode(pool, clip):
        pass
    for times in (2, 3):
        with pytest.raises(UndecodableRecording, match="decoder crashed twice") as caught:
            decode(pool, b"BOOM, one")
        assert isinstance(caught.value, PoisonError)
        assert len(told) == 1 + times
    assert all("was killed by" in reason for reason in told)


def test_the_same_holds_where_only_ranges_are_read(pool: DecoderPool) -> None:
    with pytest.raises(DecoderFailed):
        decode_ranged(pool, CountingSource(b"BOOM" + bytes(50_000)))
    with pytest.raises(DecoderFailed):
        decode_ranged(pool, CountingSource(b"BOOM" + b"\1" * 50_000))
    with pytest.raises(UndecodableRecording, match="decoder crashed twice"):
        decode_ranged(pool, CountingSource(b"BOOM" + bytes(50_000)))


def test_a_content_that_hangs_decoders_is_given_up_too(
    pool: DecoderPool, told: list[str], clip: bytes
) -> None:
    with pytest.raises(DecoderFailed, match="had not finished within 5 s"):
        decode(pool, b"HANG")
    with pytest.raises(UndecodableRecording, match="had not finished within 5 s"):
        decode(pool, b"HANG")
    assert len(told) == 2
    with decode(pool, clip):
        pass


def test_a_decoder_that_is_killed_from_outside_says_nothing_of_the_content(
    pool: DecoderPool, told: list[str], clip: bytes
) -> None:
    for _ in range(4):
        source = CountingSource(clip)
        source.before = lambda: os.kill(only_worker(pool).child.pid, signal.SIGKILL)
        with pytest.raises(DecoderFailed, match="was killed by SIGKILL"):
            decode_ranged(pool, source)
        assert source.reads
    assert len(told) == 4


def test_a_decoder_that_dies_before_it_read_anything_says_nothing_of_the_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All recordings are alike as long as nothing of them is read: none may pay for another."""
    at_once = FRAGILE.replace("start = file.read(8)", "os.abort()")
    (tmp_path / "dying_decoder.py").write_text(at_once)
    monkeypatch.setattr(pool_module, "_MODULE", "dying_decoder")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with DecoderPool(1) as pool:
        for _ in range(4):
            with pytest.raises(DecoderFailed, match="was killed by SIG"):
                decode_ranged(pool, CountingSource(bytes(50_000)))


def test_a_decoder_that_is_replaced_as_planned_is_no_crash(clip: bytes, told: list[str]) -> None:
    with DecoderPool(1, DecodeLimits(max_recordings_per_child=1), on_restart=told.append) as pool:
        for _ in range(3):
            with decode(pool, clip):
                pass
        with pytest.raises(UndecodableRecording):
            decode(pool, b"nothing that can be decoded")
    assert told == []


def test_a_decoder_that_dies_while_idle_is_told_of(clip: bytes, told: list[str]) -> None:
    with DecoderPool(1, on_restart=told.append) as pool:
        worker = next(iter(pool._workers))
        os.kill(worker.child.pid, signal.SIGKILL)
        worker.child.process.wait()
        with decode(pool, clip):
            pass
    assert told == ["the decoder was killed by SIGKILL while it was idle"]


def test_closing_the_pool_crashes_nothing(pool: DecoderPool, told: list[str]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            decode(pool, b"HANG")
        except BaseException as error:  # noqa: BLE001  # looked at below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    worker = only_worker(pool)
    while not any(
        "recording" in link for link in links(worker.child.pid)
    ):  # it has the recording in hand
        assert time.monotonic() < deadline
    pool.close()
    thread.join(60)
    assert [type(failure) for failure in failures] == [DecoderFailed]
    assert told == []


def only_worker(pool: DecoderPool) -> pool_module._Worker:
    (worker,) = pool._workers
    return worker


def links(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


# The memory ---------------------------------------------------------------------------------


def test_the_oldest_contents_are_forgotten() -> None:
    memory = CrashMemory(capacity=2)
    assert memory.count(b"a") == 1
    assert memory.count(b"a") == 2
    assert memory.count(b"b") == 1
    assert memory.count(b"a") == 3  # and is the newest again
    assert memory.count(b"c") == 1
    assert memory.count(b"b") == 1
    assert memory.count(b"a") == 1


def test_a_content_is_known_by_its_bytes_and_where_they_stand() -> None:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, b"abcabc")
        assert digest_of(fd, 6, [(0, 3)]) == digest_of(fd, 6, [(0, 3)])
        assert digest_of(fd, 6, [(0, 3)]) != digest_of(fd, 6, [(3, 3)])
        assert digest_of(fd, 6, [(0, 6)]) != digest_of(fd, 6, [(0, 3), (3, 3)])
        assert digest_of(fd, 6, [(0, 99)]) != digest_of(fd, 6, [(0, 6)])  # a claim is part of it
        assert digest_of(fd, 7, [(0, 3)]) != digest_of(fd, 6, [(0, 3)])
    finally:
        os.close(fd)
