"""Every cell of the table of formats is what decoding it gives today."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from formats import matrix
from vault_ml.video.decoder_pool import DecoderPool


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1) as pool:
        yield pool


@pytest.mark.parametrize(("codec", "container"), matrix.combinations())
def test_a_codec_in_a_container_is_as_documented(
    pool: DecoderPool, codec: str, container: str
) -> None:
    documented = matrix.documented()[codec, container]
    assert matrix.outcome(pool, codec, container) == documented, (
        "run PYTHONPATH=tests python -m formats.matrix and read the difference"
    )


@pytest.mark.parametrize(
    "trait",
    [pytest.param(name, marks=pytest.mark.slow if name == "4K" else ()) for name in matrix.TRAITS],
)
def test_what_cameras_do_is_understood(pool: DecoderPool, trait: str) -> None:
    _, verify = matrix.TRAITS[trait]
    verify(pool)


def test_the_document_is_what_the_matrix_writes() -> None:
    assert matrix.DOCUMENT.read_text() == matrix.render(matrix.documented())


def test_the_common_formats_are_served() -> None:
    table = matrix.documented()
    assert set(table) == set(matrix.combinations())
    for codec in ("H.264", "H.265, 8 bit", "H.265, 10 bit", "MPEG-4"):
        for container in ("MP4", "fragmented MP4", "MOV", "MKV"):
            assert table[codec, container] == matrix.YES, (codec, container)
    for codec in ("AV1", "MJPEG"):
        assert table[codec, "MP4"] == table[codec, "MKV"] == matrix.YES
