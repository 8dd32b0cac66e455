"""The outline of an MP4 is what its boxes say, as far as that can be true."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

import video_clips as clips
from vault_ml.errors import PoisonError
from vault_ml.video.boxes import Outline, may_be_mp4, outline
from vault_ml.video.limits import DecodeLimits, Reason, Refused, error_for
from video_clips import FRAGMENTED

LIMITS = DecodeLimits()


def reading(data: bytes) -> Callable[[int, int], bytes]:
    def read_at(offset: int, size: int) -> bytes:
        assert 0 <= offset <= len(data)
        assert size >= 0
        return data[offset : offset + size]

    return read_at


def outline_of(data: bytes, limits: DecodeLimits = LIMITS) -> Outline:
    return outline(reading(data), len(data), limits)


def reason_of(data: bytes, limits: DecodeLimits = LIMITS) -> Reason:
    with pytest.raises(Refused) as caught:
        outline_of(data, limits)
    assert isinstance(error_for(caught.value, limits), PoisonError)
    return caught.value.reason


def box(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *numbers: int) -> bytes:
    return box(kind, bytes(4) + b"".join(struct.pack(">I", number) for number in numbers))


def track(*tables: bytes, handler: bytes = b"vide") -> bytes:
    hdlr = box(b"hdlr", bytes(8) + handler + bytes(12))
    return box(b"trak", box(b"mdia", hdlr + box(b"minf", box(b"stbl", b"".join(tables)))))


def test_an_empty_file_has_no_outline_to_speak_of() -> None:
    assert outline_of(b"") == Outline((), 0, is_cut=False, has_index=False, fragments=0)


def test_pictures_lie_where_the_index_says_they_do() -> None:
    for options in ({}, {"movflags": "faststart"}, FRAGMENTED):
        data = clips.encode("mp4", container_options=options)
        found = outline_of(data)
        assert found.has_index
        assert not found.is_cut
        assert found.usable_bytes == len(data)
        assert found.fragments == data.count(b"moof")
        assert len(found.pictures) == max(1, found.fragments)
        for start, end in found.pictures:
            size, kind = struct.unpack(">I4s", data[start - 8 : start])
            assert (kind, size) == (b"mdat", end - start + 8)


def test_a_size_of_64_bits_and_one_to_the_end_are_understood() -> None:
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 5) + b"abcde"
    rest = struct.pack(">I4s", 0, b"mdat") + b"xyz"
    found = outline_of(box(b"moov") + large + rest)
    assert found.pictures == ((24, 29), (37, 40))
    assert not found.is_cut


@pytest.mark.parametrize(
    ("tail", "usable", "cut"),
    [
        pytest.param(b"", 28, False, id="whole"),
        pytest.param(b"\0\0\0", 28, True, id="half a header"),
        pytest.param(box(b"moof", bytes(50))[:30], 28, True, id="half a table"),
        pytest.param(box(b"mdat", bytes(50))[:30], 58, True, id="half the pictures"),
        pytest.param(struct.pack(">I4sQ", 1, b"mdat", 2**63) + b"123", 47, True, id="exabytes"),
        pytest.param(struct.pack(">I4sQ", 1, b"free", 2**64 - 1), 28, True, id="all of 64 bits"),
        pytest.param(struct.pack(">I4s", 1, b"mdat"), 28, True, id="no room for 64 bits"),
        pytest.param(struct.pack(">I4s", 7, b"mdat"), 28, True, id="smaller than its header"),
        pytest.param(struct.pack(">I4sQ", 1, b"mdat", 15), 28, True, id="smaller, with 64 bits"),
    ],
)
def test_where_a_file_ends_early_is_seen(tail: bytes, usable: int, cut: bool) -> None:
    found = outline_of(box(b"moov") + box(b"mdat", bytes(12)) + tail)
    assert (found.usable_bytes, found.is_cut) == (usable, cut)


@pytest.mark.parametrize("version", [0, 1])
def test_a_segment_index_that_promises_more_than_there_is_tells_of_a_cut(version: int) -> None:
    def index(*sizes: int) -> bytes:
        times = struct.pack(">II" if version == 0 else ">QQ", 0, 0)
        entries = b"".join(struct.pack(">III", size, 3000, 0x90000000) for size in sizes)
        head = bytes([version, 0, 0, 0]) + struct.pack(">II", 1, 1000) + times
        return box(b"sidx", head + struct.pack(">HH", 0, len(sizes)) + entries)

    fragment = box(b"moof") + box(b"mdat", bytes(84))
    assert not outline_of(box(b"moov") + index(100, 100) + 2 * fragment).is_cut
    assert outline_of(box(b"moov") + index(100, 100) + fragment).is_cut
    for length in range(40):  # damaged: no reason to doubt the recording
        assert not outline_of(box(b"moov") + box(b"sidx", bytes([version]) + bytes(length))).is_cut


def test_few_bytes_are_read() -> None:
    data = clips.encode("mp4", frames=200, size_wh=(320, 240), container_options=FRAGMENTED)
    sizes: list[int] = []

    def read_at(offset: int, size: int) -> bytes:
        sizes.append(size)
        return data[offset : offset + size]

    found = outline(read_at, len(data), LIMITS)
    assert len(sizes) <= found.fragments + 3
    assert sum(sizes) < 4096 * (found.fragments + 3)


@pytest.mark.parametrize(
    ("start", "expected"),
    [(b"", False), (b"\0\0\0\x18ftypisom", True), (b"\0\0\0\x08wide\0\0\0\0", True),
     (b"\x1aE\xdf\xa3" + bytes(8), False), (b"\xff\xd8\xff\xe0\0\x10JFIF\0\0", False)],
)  # fmt: skip
def test_an_mp4_is_known_by_its_first_box(start: bytes, expected: bool) -> None:
    assert may_be_mp4(start) is expected


# Bombs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param([full(b"stsz", 1, 0xFFFFFFFF)], id="equal sizes"),
        pytest.param([full(b"stz2", 8, 0xFFFFFFFF)], id="compact sizes"),
        pytest.param([full(b"stts", 1, 0xFFFFFFFF, 1)], id="times"),
        pytest.param([full(b"ctts", 2, 0x7FFFFFFF, 1, 0x7FFFFFFF, 1)], id="shifts"),
        pytest.param([full(b"stsz", 0, 3000)], id="more than bytes"),
    ],
)
def test_an_index_of_more_pictures_than_bytes_is_refused(tables: list[bytes]) -> None:
    assert reason_of(box(b"moov", track(*tables)) + box(b"mdat", bytes(500))) is Reason.SAMPLES


def test_fragments_that_announce_too_much_are_refused_together() -> None:
    moof = box(b"moof", box(b"traf", full(b"trun", 400)))
    data = box(b"moov") + moof + box(b"mdat", bytes(500))
    assert outline_of(data).fragments == 1
    assert reason_of(data, DecodeLimits(max_samples=399)) is Reason.SAMPLES
    assert reason_of(box(b"moov") + 40 * moof) is Reason.SAMPLES


def test_sound_may_have_more_samples_than_that() -> None:
    # Sound without compression: two bytes are a sample, and sizes are not tabulated.
    table = full(b"stsz", 2, 0x7FFFFFFF)
    assert outline_of(box(b"moov", track(table, handler=b"soun"))).has_index


def test_too_many_fragments_are_refused() -> None:
    data = box(b"moov") + 11 * (box(b"moof") + box(b"mdat"))
    assert outline_of(data).fragments == 11
    assert reason_of(data, DecodeLimits(max_fragments=10)) is Reason.FRAGMENTS


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(40):
        data = box(b"trak", data)
    assert reason_of(box(b"moov", data)) is Reason.NESTING


def edits(count: int) -> bytes:
    return box(b"edts", full(b"elst", count, *count * (1000, 0, 0x10000)))


def edited(count: int, samples: int) -> bytes:
    tables = box(b"mdia", box(b"minf", box(b"stbl", full(b"stsz", 1, samples))))
    return box(b"moov", box(b"trak", edits(count) + tables)) + box(b"mdat", bytes(samples))


def test_an_edit_list_that_shows_a_recording_over_and_over_is_refused() -> None:
    limits = DecodeLimits(max_samples=10_000)
    for count, samples in ((0, 5000), (1, 10_000), (2, 10_000), (64, 10)):
        assert outline_of(edited(count, samples), limits).has_index
    for count, samples in ((65, 10), (100_000, 1), (3, 5001), (64, 500)):
        assert reason_of(edited(count, samples), limits) is Reason.EDITS


def test_edits_that_are_only_announced_are_none() -> None:
    liar = box(b"moov", box(b"trak", box(b"edts", full(b"elst", 0xFFFFFFFF))))
    assert outline_of(liar).has_index


def test_a_compressed_index_is_refused() -> None:
    assert reason_of(box(b"moov", box(b"cmov", bytes(40)))) is Reason.UNKNOWN_FORMAT


def test_a_flood_of_empty_boxes_is_refused() -> None:
    assert reason_of(box(b"moov") + 20_000 * box(b"free")) is Reason.NESTING
    assert reason_of(box(b"moov", 20_000 * box(b"free"))) is Reason.NESTING


def test_a_huge_index_is_not_read() -> None:
    def read_at(offset: int, size: int) -> bytes:
        assert size <= 4096
        return (struct.pack(">I4s", 0xFFFFFFF0, b"moov") + bytes(size))[:size]

    with pytest.raises(Refused) as caught:
        outline(read_at, 0xFFFFFFF0, LIMITS)
    assert caught.value.reason is Reason.SAMPLES


def test_whatever_the_bytes_there_is_an_outline_or_a_reason() -> None:
    rng = random.Random(3)
    originals = [
        clips.encode("mp4", frames=10, container_options=options)
        for options in ({"movflags": "faststart"}, FRAGMENTED)
    ]
    for _ in range(3000):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(min(len(data), 2000))
            data[at : at + 4] = rng.choice(
                [rng.randbytes(4), bytes(4), b"\xff" * 4, b"moov", b"trak", b"\0\0\0\1"]
            )
        del data[rng.randrange(len(data)) :]
        try:
            found = outline_of(bytes(data))
        except Refused:
            continue
        assert 0 <= found.usable_bytes <= len(data)
        edges = [edge for pair in found.pictures for edge in pair]
        assert edges == sorted(edges)
        assert not edges or edges[-1] <= found.usable_bytes
