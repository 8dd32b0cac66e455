"""Adaptive sampling through a decoder child: order, reasons, what is left out, bytes fetched."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest

from brief_events import Clip, Material, make_clip
from byte_sources import CountingSource, decode_ranged
from conftest import SHARED, shared_file
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1) as running:
        yield running


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Nothing in the sizes tells of its events: they are found by looking at more keyframes."""
    shared_file("images/darknet/dog.jpg")
    material = Material.read(SHARED / "data", (320, 180))
    return make_clip(material, 5, seconds=20, events=4, control="cbr", event_s=(2.0, 3.0))


def test_what_was_found_by_a_second_look_comes_in_order_of_time(
    pool: DecoderPool, clip: Clip
) -> None:
    with RecordingReader(io.BytesIO(clip.recording), DecodeLimits()) as reader:
        expected = list(reader.pictures(5, Sampling.ADAPTIVE))
        left_out = tuple(reader.left_out)
    assert [picture.number for picture in expected] != sorted(p.number for p in expected)
    expected.sort(key=lambda picture: picture.number)
    source = CountingSource(clip.recording)
    with decode_ranged(pool, source, sampling=Sampling.ADAPTIVE, keep_pictures=True) as decoded:
        assert [(f.number, f.why) for f in decoded.frames] == [(p.number, p.why) for p in expected]
        assert {frame.why for frame in decoded.frames} >= {"spread", "change"}
        assert decoded.left_out == left_out
        assert len(left_out) >= 2
        for frame, picture in zip(decoded.frames, expected, strict=True):
            np.testing.assert_array_equal(decoded.picture(frame.index), picture.rgb())
            # The letterboxed pixels moved along with their pictures.
            inside = frame.pixels[frame.letterbox.offset_xy[1] :]
            assert abs(float(inside[:30].mean()) - float(picture.rgb().mean())) < 25
    assert source.bytes_read < 0.6 * len(clip.recording)


def test_the_cameras_region_goes_along(pool: DecoderPool, clip: Clip) -> None:
    with pool.decode(
        CountingSource(clip.recording), frames=5, sampling=Sampling.ADAPTIVE, net_wh=(64, 64),
        region=(0, 0, 320, 180),
    ) as closely, decode_ranged(
        pool, CountingSource(clip.recording), sampling=Sampling.ADAPTIVE
    ) as decoded:  # fmt: skip
        assert len(closely.left_out) <= len(decoded.left_out)


def test_other_samplings_give_no_reasons(pool: DecoderPool, clip: Clip) -> None:
    with decode_ranged(pool, CountingSource(clip.recording)) as decoded:
        assert [frame.why for frame in decoded.frames] == [None] * 5
        assert decoded.left_out == ()
