"""The size in a photo's header, against what Pillow wrote there."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vault_ml.video.photo import claimed_size_wh


def photo(format_name: str, size_wh: tuple[int, int] = (231, 77), **options: Any) -> bytes:
    buffer = io.BytesIO()
    mode = options.pop("mode", "RGB")
    Image.new(mode, size_wh, 90).save(buffer, format_name, **options)
    return buffer.getvalue()


FORMS: dict[str, dict[str, Any]] = {
    "jpeg": {"format_name": "JPEG"},
    "progressive jpeg": {"format_name": "JPEG", "progressive": True},
    "jpeg with a profile": {"format_name": "JPEG", "icc_profile": bytes(150_000)},
    "png": {"format_name": "PNG"},
    "bmp": {"format_name": "BMP"},
    "webp, lossy": {"format_name": "WEBP"},
    "webp, lossless": {"format_name": "WEBP", "lossless": True},
    "webp, extended": {"format_name": "WEBP", "icc_profile": b"profile"},
}


@pytest.mark.parametrize("data", [b"", b"x", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"])
def test_nothing_is_claimed_by_what_ends_too_early(data: bytes) -> None:
    assert claimed_size_wh(data) is None


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("size_wh", [(1, 1), (231, 77), (3000, 2000)])
def test_the_size_is_that_of_the_picture(form: str, size_wh: tuple[int, int]) -> None:
    assert claimed_size_wh(photo(size_wh=size_wh, **FORMS[form])) == size_wh


def test_rows_from_the_top_are_rows_too() -> None:
    data = bytearray(photo("BMP"))
    data[22:26] = (-77).to_bytes(4, "little", signed=True)
    assert claimed_size_wh(bytes(data)) == (231, 77)


def test_padding_between_segments_is_passed_over() -> None:
    data = photo("JPEG")
    assert claimed_size_wh(data[:2] + b"\xff\xff" + data[2:]) == (231, 77)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8\x00\x00\x00\x00", id="jpeg without a marker"),
        pytest.param(b"\xff\xd8\xff\xda\x00\x02" + bytes(50), id="jpeg without a frame header"),
        pytest.param(b"RIFF\0\0\0\0WEBPXXXX" + bytes(50), id="webp of an unknown kind"),
        pytest.param(b"RIFF\0\0\0\0AVI " + bytes(50), id="no photo at all"),
    ],
)
def test_nothing_is_claimed_where_no_size_stands(data: bytes) -> None:
    assert claimed_size_wh(data) is None


@given(st.sampled_from(list(FORMS)), st.binary(max_size=64), st.integers(2, 64))
def test_damage_gives_a_size_or_none_and_ends(form: str, damage: bytes, at: int) -> None:
    data = bytearray(photo(**FORMS[form]))
    data[at : at + len(damage)] = damage
    size = claimed_size_wh(bytes(data))
    assert size is None or min(size) >= 0
