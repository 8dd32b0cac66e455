"""Decoding a recording of which only ranges are fetched, and what happens when that fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import video_clips as clips
from byte_sources import CountingSource, decode_ranged
from open_files import open_files, opened_since
from vault_ml.errors import (
    DecoderFailed,
    RecordingIncomplete,
    SignedUrlExpired,
    UndecodableRecording,
    VaultUnavailable,
)
from vault_ml.video import decoder_pool as pool_module
from vault_ml.video.decoder_pool import DecodeLimits, DecoderPool
from vault_ml.video.source import SparseCopy


@pytest.fixture(scope="module")
def clip() -> bytes:
    return clips.encode("mp4", frames=50, gop=10)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1, DecodeLimits(max_seconds=20, max_wait_s=20)) as pool:
        yield pool


def pid(pool: DecoderPool) -> int:
    (worker,) = pool._workers
    return worker.child.pid


def test_the_same_frames_come_from_ranges_as_from_the_whole(pool: DecoderPool, clip: bytes) -> None:
    source = CountingSource(clip)
    with (
        decode_ranged(pool, source, keep_pictures=True) as ranged,
        DecoderPool(1) as other,
    ):
        fd = os.memfd_create("recording")
        os.write(fd, clip)
        with other.decode(
            fd, frames=5, sampling=pool_module.Sampling.KEYFRAME, net_wh=(64, 64)
        ) as whole:
            assert whole.bytes_read == len(clip)
            for one, two in zip(ranged.frames, whole.frames, strict=True):
                assert one.timestamp_s == two.timestamp_s
                np.testing.assert_array_equal(one.pixels, two.pixels)
        os.close(fd)
        assert ranged.picture(2).shape == (64, 96, 3)
    assert ranged.bytes_read == source.bytes_read <= len(clip)
    assert source.thread is threading.current_thread()


def test_an_empty_recording_and_noise_are_refused_as_ever(pool: DecoderPool) -> None:
    before = pid(pool)
    with pytest.raises(UndecodableRecording, match="is empty"):
        decode_ranged(pool, CountingSource(b""))
    with pytest.raises(UndecodableRecording, match="cannot be opened"):
        decode_ranged(pool, CountingSource(bytes(400_000)))
    assert pid(pool) == before


class Interrupted(BaseException):
    """What ends a thread that must not go on."""


@pytest.mark.parametrize("reads_before", [0, 1])
@pytest.mark.parametrize(
    "failure",
    [
        VaultUnavailable("the Vault is away", retry_after_s=7),
        SignedUrlExpired(),
        RecordingIncomplete(),
        ValueError("a bug"),
        Interrupted(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_the_source_raises_is_raised_and_the_child_stays(
    pool: DecoderPool, clip: bytes, failure: BaseException, reads_before: int
) -> None:
    before, files = pid(pool), open_files()
    source = CountingSource(clip)

    def fail() -> None:
        if len(source.reads) > reads_before:
            raise failure

    source.before = fail
    with pytest.raises(type(failure)) as caught:
        decode_ranged(pool, source)
    assert caught.value is failure
    assert len(source.reads) == reads_before + 1
    with decode_ranged(pool, CountingSource(clip)) as recording:
        assert len(recording.frames) == 5
    del recording
    assert pid(pool) == before
    assert opened_since(files) == []


def test_the_time_that_fetching_takes_is_not_the_decoder_s(clip: bytes) -> None:
    source = CountingSource(clip)
    source.before = lambda: time.sleep(0.4)  # as a slow link would
    with DecoderPool(1, DecodeLimits(max_seconds=0.6)) as pool:
        began = time.monotonic()
        with decode_ranged(pool, source) as recording:
            assert len(recording.frames) == 5
        assert time.monotonic() - began > 0.4 * len(source.reads)


GREEDY = """
from vault_ml.child import connect
channel, _ = connect()
channel.send({{"jail": {{"seccomp": True, "landlock": 0}}}}, timeout_s=5)
channel.receive(timeout_s=None)
while True:
    channel.send({ask}, timeout_s=5)
    channel.receive(timeout_s=None)
"""


@pytest.mark.parametrize(
    "ask",
    ["{'read': [0, 4096]}", "{'read': [0, 2**40]}", "{'read': [-1, 5]}", "{'read': 'all'}"],
)
def test_a_child_that_asks_for_too_much_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: bytes, ask: str
) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY.format(ask=ask))
    source = CountingSource(clip)
    with DecoderPool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(pool_module, "_MODULE", "greedy")
            patch.setenv("PYTHONPATH", str(tmp_path))
            pool.discard(next(iter(pool._workers)))
        with pytest.raises(DecoderFailed, match="nonsense"):
            decode_ranged(pool, source)
        assert source.bytes_read <= len(clip)
        with decode_ranged(pool, CountingSource(clip)) as recording:
            assert len(recording.frames) == 5


DEAF = """
from vault_ml.child import connect
channel, _ = connect()
channel.send({"jail": {"seccomp": True, "landlock": 0}}, timeout_s=5)
channel.receive(timeout_s=None)
channel.send({"read": [0, 4096]}, timeout_s=5)
channel.receive(timeout_s=None)
channel.receive(timeout_s=None)
"""


def test_a_child_that_does_not_let_go_is_replaced_and_the_failure_stays_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: bytes
) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    monkeypatch.setattr(pool_module, "_ABANDON_TIMEOUT_S", 0.2)
    source = CountingSource(clip)

    def fail() -> None:
        raise VaultUnavailable

    source.before = fail
    with DecoderPool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(pool_module, "_MODULE", "deaf")
            patch.setenv("PYTHONPATH", str(tmp_path))
            pool.discard(next(iter(pool._workers)))
        with pytest.raises(VaultUnavailable):
            decode_ranged(pool, source)
        with decode_ranged(pool, CountingSource(clip)) as recording:
            assert len(recording.frames) == 5


def test_a_source_without_room_for_its_copy_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    def no_room(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("os.memfd_create", no_room)
    with pytest.raises(Exception, match="no room in memory"):
        SparseCopy(CountingSource(clip))
