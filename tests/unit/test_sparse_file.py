"""A recording that is fetched as it is read gives its bytes, and asks for few of them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from byte_sources import CountingSource
from vault_ml.errors import RecordingIncomplete, VaultUnavailable
from vault_ml.video.source import (
    BLOCK_BYTES,
    MAX_READ_BYTES,
    AskedTooMuch,
    SparseCopy,
    max_reads,
)
from vault_ml.video.sparse_file import SourceFailed, Spans, SparseFile

DATA = random.Random(4).randbytes(3_000_001)


@pytest.fixture
def source() -> CountingSource:
    return CountingSource(DATA)


@pytest.fixture
def copy(source: CountingSource) -> Iterator[SparseCopy]:
    with SparseCopy(source) as copy:
        yield copy


@pytest.fixture
def file(copy: SparseCopy) -> SparseFile:
    return SparseFile(
        copy.fd, copy.size_bytes, lambda at, size: copy.answer({"read": [at, size]})["read"]
    )


def read(file: SparseFile, offset: int, size: int) -> bytes:
    file.seek(offset)
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# Spans --------------------------------------------------------------------------------------


def test_no_spans_hold_nothing() -> None:
    spans = Spans()
    assert spans.ranges() == []
    assert spans.end_of(0) == 0
    assert spans.next_start(0, 99) == 99


def test_spans_are_the_set_of_their_bytes() -> None:
    rng = random.Random(1)
    for _ in range(200):
        spans, expected = Spans(), set[int]()
        for _ in range(rng.randrange(12)):
            start = rng.randrange(60)
            end = start + rng.randrange(-2, 12)
            spans.add(start, end)
            expected |= set(range(start, end))
        assert {at for start, end in spans.ranges() for at in range(start, end)} == expected
        starts = [start for start, _ in spans.ranges()]
        ends = [end for _, end in spans.ranges()]
        assert all(end < start for end, start in zip(ends, starts[1:], strict=False))
        for at in range(-1, 75):
            end = at
            while end in expected:
                end += 1
            assert spans.end_of(at) == end
            assert spans.next_start(at, 99) == min((s for s in starts if s > at), default=99)


# The file -----------------------------------------------------------------------------------


def test_an_empty_recording_is_read_without_asking() -> None:
    with SparseCopy(CountingSource(b"")) as copy:
        file = SparseFile(copy.fd, 0, lambda *_: pytest.fail("asked"))
        assert file.read(10) == b""
        file.fetch_all()


def test_it_is_the_recording_wherever_one_reads(
    file: SparseFile, source: CountingSource, copy: SparseCopy
) -> None:
    rng = random.Random(2)
    for _ in range(60):
        at, size = rng.randrange(len(DATA) + 10), rng.randrange(90_000)
        assert read(file, at, size) == DATA[at : at + size]
    assert copy.bytes_read == source.bytes_read <= len(DATA)


def test_no_byte_is_asked_for_twice(file: SparseFile, source: CountingSource) -> None:
    for at in (100_000, 0, 99_990, 2_999_999, 50_000):
        read(file, at, 60_000)
    file.fetch_all()
    file.fetch_all()
    covered = sorted((at, at + size) for at, size in source.reads)
    assert all(end <= start for (_, end), (start, _) in pairwise(covered))
    assert source.bytes_read == len(DATA)


def test_a_jump_costs_little_and_reading_on_costs_few_requests(
    file: SparseFile, source: CountingSource
) -> None:
    read(file, 1_000_000, 16)
    assert source.bytes_read <= 3 * BLOCK_BYTES
    assert read(file, 0, len(DATA)) == DATA
    assert len(source.reads) < 25


def test_it_behaves_as_a_file(file: SparseFile) -> None:
    assert file.seek(0, os.SEEK_END) == len(DATA)
    assert file.read(1) == b""
    assert file.seek(-4, os.SEEK_CUR) == file.tell() == len(DATA) - 4
    assert file.read(99) == DATA[-4:]
    assert file.seek(-5) == 0


def test_what_is_hidden_reads_as_zeros_and_is_not_fetched(
    file: SparseFile, source: CountingSource
) -> None:
    file.hide([(50_000, 2_900_000), (2_950_000, 9_999_999)])
    shown = bytearray(DATA)
    shown[50_000:2_900_000] = bytes(2_850_000)
    shown[2_950_000:] = bytes(len(DATA) - 2_950_000)
    assert read(file, 0, len(DATA)) == shown
    assert source.bytes_read < 120_000
    assert file.bytes_at(1_000_000, 77) == DATA[1_000_000:1_000_077]
    assert read(file, 1_000_000, 77) == bytes(77)
    file.fetch_all()
    assert read(file, 1_000_000, 77) == DATA[1_000_000:1_000_077]


def test_near_ranges_are_fetched_together(file: SparseFile, source: CountingSource) -> None:
    file.fetch([(20_000, 21_000), (0, 4_000), (30_000, 40_000), (900_000, 900_001)])
    assert source.reads == [(0, 40_960), (BLOCK_BYTES * 219, BLOCK_BYTES)]


def test_many_small_pieces_become_few_large_ones(
    file: SparseFile, source: CountingSource, copy: SparseCopy
) -> None:
    # Every second block, from the end: more ranges than a parent would stand.
    for at in range(len(DATA) - 1, 0, -2 * BLOCK_BYTES):
        assert file.bytes_at(at, 1) == DATA[at : at + 1]
    small = CountingSource(bytes(60_000_000))
    with SparseCopy(small) as large:
        other = SparseFile(
            large.fd,
            large.size_bytes,
            lambda at, size: large.answer({"read": [at, size]})["read"],
        )
        for at in range(0, len(small.data), 2 * BLOCK_BYTES):
            assert other.bytes_at(at, 1) == b"\0"
        assert len(small.reads) <= max_reads(len(small.data))


# The parent's side --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param([-BLOCK_BYTES, BLOCK_BYTES], id="before the start"),
        pytest.param([0, 0], id="nothing"),
        pytest.param([0, MAX_READ_BYTES + BLOCK_BYTES], id="too much at once"),
        pytest.param([1, BLOCK_BYTES], id="no block"),
        pytest.param([0, 17], id="part of a block"),
        pytest.param([len(DATA) // BLOCK_BYTES * BLOCK_BYTES, BLOCK_BYTES], id="beyond the end"),
        pytest.param([2**70, BLOCK_BYTES], id="far away"),
        pytest.param(["0", "4096"], id="text"),
        pytest.param([0], id="one number"),
        pytest.param(None, id="null"),
        pytest.param({"offset": 0}, id="an object"),
    ],
)
def test_a_range_that_no_honest_child_asks_for_is_refused(
    copy: SparseCopy, source: CountingSource, asked: object
) -> None:
    with pytest.raises(AskedTooMuch):
        copy.answer({"read": asked})
    assert source.reads == []


def test_more_bytes_than_there_are_cannot_be_had(copy: SparseCopy, source: CountingSource) -> None:
    most = len(DATA) // BLOCK_BYTES
    for _ in range(most):
        assert copy.answer({"read": [0, BLOCK_BYTES]}) == {"read": True}
    with pytest.raises(AskedTooMuch):
        copy.answer({"read": [0, BLOCK_BYTES]})
    assert source.bytes_read <= len(DATA)


def test_there_is_an_end_to_asking(source: CountingSource) -> None:
    source.data = bytes(100 * 1024**2)
    with SparseCopy(source) as copy:
        for i in range(max_reads(len(source.data))):
            copy.answer({"read": [i * BLOCK_BYTES, BLOCK_BYTES]})
        with pytest.raises(AskedTooMuch, match="number"):
            copy.answer({"read": [0, BLOCK_BYTES]})


def test_a_failure_is_kept_and_nothing_more_is_fetched(
    copy: SparseCopy, source: CountingSource, file: SparseFile
) -> None:
    away = VaultUnavailable("it is away")

    def fail() -> None:
        raise away

    source.before = fail
    assert file.read(10) == b""
    assert copy.failure is away
    with pytest.raises(SourceFailed):
        file.bytes_at(500_000, 10)
    assert len(source.reads) == 1


def test_a_source_that_gives_less_than_it_has_is_incomplete(
    copy: SparseCopy, source: CountingSource, file: SparseFile
) -> None:
    source.before = lambda: setattr(source, "data", DATA[:5000])
    with pytest.raises(SourceFailed):
        file.fetch_all()
    assert isinstance(copy.failure, RecordingIncomplete)
    assert "5000 came" in str(copy.failure)


def test_a_child_cannot_write_to_the_copy(copy: SparseCopy) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(copy.fd, b"x", 0)
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(copy.fd, 0)


def test_closing_twice_is_fine(source: CountingSource) -> None:
    copy = SparseCopy(source)
    copy.close()
    copy.close()
