"""Recordings that end anywhere, encrypted or not, by ranges and whole, through the jail."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator

import pytest

import video_clips as clips
from byte_sources import CountingSource
from encrypted_files import encrypted
from vault_ml.errors import RecordingIncomplete, UndecodableRecording
from vault_ml.vault.encrypted import RecordingKeys
from vault_ml.video.decoder_pool import DecodedRecording, DecoderPool, Sampling

CUTS = 200
GOP = 10
KEYS = RecordingKeys(["right"])


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1) as pool:
        yield pool


def ends_of_fragments(data: bytes) -> list[int]:
    ends, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        at += size
        if kind == b"mdat":
            ends.append(at)
    return ends


def look(pool: DecoderPool, stored: bytes, *, by_ranges: bool) -> DecodedRecording:
    fd = os.memfd_create("recording")
    try:
        os.write(fd, stored)
        return pool.decode(
            KEYS.unlocked(CountingSource(stored) if by_ranges else fd),
            frames=20, sampling=Sampling.KEYFRAME, net_wh=(64, 64),
        )  # fmt: skip
    finally:
        os.close(fd)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("by_ranges", [False, True], ids=["whole", "ranges"])
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_cut_at_any_byte_gives_what_is_whole_or_a_reason(
    pool: DecoderPool, is_encrypted: bool, by_ranges: bool
) -> None:
    content = clips.encode("mp4", frames=80, gop=GOP, container_options=clips.FRAGMENTED)
    stored = encrypted(content, "right") if is_encrypted else content
    ends = ends_of_fragments(content)
    assert len(ends) == 8
    rng = random.Random(40)
    sentences: list[str] = []
    for size in (rng.randrange(len(stored)) for _ in range(CUTS)):
        readable = max(0, size - 16) // 16 * 16 if is_encrypted else size
        whole = sum(end <= readable for end in ends)
        try:
            seen = look(pool, stored[:size], by_ranges=by_ranges)
        except (UndecodableRecording, RecordingIncomplete) as reason:
            sentences.append(str(reason))
            if whole:
                raise  # fragments that are there were not looked at
            continue
        with seen:
            assert len(seen.frames) >= whole
            assert seen.duration_s is not None
            assert seen.duration_s >= whole * GOP / clips.FPS - 1e-6
            # A cut between two fragments leaves no trace where the sizes are not told.
            assert seen.partial or readable in ends
    assert 0 < len(sentences) < CUTS // 2
    assert all(len(sentence.split()) > 5 for sentence in sentences)
