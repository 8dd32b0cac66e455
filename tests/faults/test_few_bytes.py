"""The way from the Vault to the pictures, by ranges: few bytes, and the same pictures."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import video_clips as clips
from encrypted_files import encrypted
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import VaultUnavailable
from vault_ml.vault.client import VaultClient
from vault_ml.vault.encrypted import RecordingKeys
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.sampling import Sampling

KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
KEYS = RecordingKeys(["wrong", "right"])


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(1) as pool:
        yield pool


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[EmbeddedVault]:
    with EmbeddedVault(tmp_path, "access", "secret") as embedded:
        yield embedded


def look(vault: EmbeddedVault, decoders: DecoderPool, *, by_ranges: bool) -> tuple[Any, float, int]:
    """Times and pixels of five frames, the share of bytes fetched, and the requests it took."""
    with VaultClient(vault.url, "access", "secret") as client:
        fetch = client.open if by_ranges else client.fetch
        with (
            fetch(KEY, "local") as recording,
            decoders.decode(
                KEYS.unlocked(recording.source),
                frames=5, sampling=Sampling.KEYFRAME, net_wh=(416, 416),
            ) as decoded,
        ):  # fmt: skip
            seen = [(frame.timestamp_s, frame.pixels.copy()) for frame in decoded.frames]
            return seen, recording.fetched_bytes / recording.size_bytes, recording.requests


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


@functools.cache
def camera_recording(layout: str) -> bytes:
    recording = clips.camera_recording()
    if layout == "index first":
        return recording
    return clips.remux(recording, clips.FRAGMENTED if layout == "fragmented" else {})


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("layout", ["index last", "index first", "fragmented"])
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
def test_five_key_frames_cost_an_eighth_of_a_cameras_recording_at_most(
    vault: EmbeddedVault, decoders: DecoderPool, layout: str, is_encrypted: bool
) -> None:
    content = camera_recording(layout)
    vault.put(KEY, encrypted(content, "right") if is_encrypted else content)
    whole, all_of_it, _ = look(vault, decoders, by_ranges=False)
    seen, share, requests = look(vault, decoders, by_ranges=True)
    print(f"{layout}: {share:.1%} in {requests} requests")
    assert all_of_it == 1
    assert len(seen) == 5
    assert share <= 0.12
    assert same(seen, whole)


@pytest.mark.parametrize("recipe", ["h264 with B-frames in mp4", "h264 with B-frames, fragmented",
                                    "h264 with B-frames in mkv", "mjpeg in avi"])  # fmt: skip
def test_every_container_shows_the_same_by_ranges(
    vault: EmbeddedVault, decoders: DecoderPool, recipe: str
) -> None:
    content = clips.encode_recipe(recipe)
    for stored in (content, encrypted(content, "right")):
        vault.put(KEY, stored)
        whole, _, _ = look(vault, decoders, by_ranges=False)
        seen, _, _ = look(vault, decoders, by_ranges=True)
        assert same(seen, whole)


def test_a_storage_that_goes_away_while_it_is_decoded_is_an_outage(
    vault: EmbeddedVault, decoders: DecoderPool
) -> None:
    content = clips.encode("mp4", frames=100, size_wh=(640, 360))
    vault.put(KEY, content)
    with (
        VaultClient(vault.url, "access", "secret") as client,
        client.open(KEY, "local") as recording,
    ):
        assert recording.fetched_bytes < recording.size_bytes
        vault.stop()
        with pytest.raises(VaultUnavailable):
            decoders.decode(
                recording.source, frames=5, sampling=Sampling.KEYFRAME, net_wh=(416, 416)
            )
    vault.start()
    assert len(look(vault, decoders, by_ranges=True)[0]) == 5
