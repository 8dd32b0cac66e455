"""The child's side of a sparse copy: a file for FFmpeg whose bytes come when they are read.

FFmpeg reads through a buffer and would ask for far more than it looks at, in many small pieces.
So what is fetched is decided here: little after a jump, more and more while reading goes on.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence

from vault_ml.video.source import BLOCK_BYTES, MAX_READ_BYTES, max_reads

# A jump leads to the header of a box, or to an index: a fragment's has 1 to 4 kB.
_FIRST_BYTES = 8 * 1024
# Ranges nearer than this are fetched in one: a round trip costs more than these bytes.
_GAP_BYTES = 16 * 1024


class SourceFailed(Exception):
    """The parent cannot give the bytes; it knows why."""


class Spans:
    """A set of half-open byte ranges, sorted and apart."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add [start, end), which may touch or overlap what is there."""
        if start >= end:
            return
        first = bisect_right(self._ends, start - 1)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_of(self, at: int) -> int:
        """Where the range that holds `at` ends; `at` itself where none does."""
        i = bisect_right(self._starts, at) - 1
        return self._ends[i] if i >= 0 and self._ends[i] > at else at

    def ranges(self) -> list[tuple[int, int]]:
        """All of them, (start, end) each, rising."""
        return list(zip(self._starts, self._ends, strict=True))

    def next_start(self, at: int, default: int) -> int:
        """Where the next range after `at` begins."""
        i = bisect_right(self._starts, at)
        return self._starts[i] if i < len(self._starts) else default


class SparseFile:
    """A recording that is fetched as it is read; `SeekableFile` for FFmpeg.

    Parts of it can be hidden: FFmpeg reads zeros there, and nothing is fetched. An MP4 keeps the
    pictures apart from the tables that describe them, so the tables alone tell all about every
    picture; the few pictures that are wanted are then fetched by `bytes_at`.

    Attributes:
        size_bytes: length of the whole recording.
        has_failed: bytes could not be had; whatever was made of the recording since is void.
    """

    def __init__(self, fd: int, size_bytes: int, ask: Callable[[int, int], bool]) -> None:
        """Read the sparse copy `fd`, which stays the caller's.

        Args:
            fd: the sparse copy.
            size_bytes: length of the recording.
            ask: has a range (offset, size) put into the copy; False where that fails.
        """
        self.size_bytes = size_bytes
        self.has_failed = False
        self._fd = fd
        self._ask = ask
        self._position = 0
        self._present = Spans()
        self._hidden = Spans()
        self._asked = 0
        self._sequential_end = -1
        self._ahead = _FIRST_BYTES

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes from the position on; empty at the end, or if they cannot be had.

        Nothing is raised, because FFmpeg stands between us and our caller: it swallows errors,
        and PyAV would raise them at some later call.
        """
        start = self._position
        size = min(size, self.size_bytes - start)
        if size <= 0:
            return b""
        hidden_end = self._hidden.end_of(start)
        if hidden_end > start:
            data = bytes(min(size, hidden_end - start))
        else:
            end = min(start + size, self._hidden.next_start(start, self.size_bytes))
            try:
                data = self._some(start, end)
            except SourceFailed:
                return b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte; the new position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def hide(self, ranges: Sequence[tuple[int, int]]) -> None:
        """From now on `read` gives zeros in `ranges`, (start, end) each."""
        self._hidden = Spans()
        for start, end in ranges:
            self._hidden.add(start, min(end, self.size_bytes))

    def bytes_at(self, offset: int, size: int) -> bytes:
        """The true bytes of a range, hidden or not; fewer at the end of the recording.

        Raises:
            SourceFailed: they cannot be had.
        """
        self.fetch([(offset, offset + size)])
        return os.pread(self._fd, size, offset)

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Have `ranges` in the copy, (start, end) each; near ones are fetched together.

        Raises:
            SourceFailed: they cannot be had.
        """
        wanted = Spans()
        last_end = -1
        for start, end in sorted(ranges):
            near = last_end >= 0 and start - last_end <= _GAP_BYTES
            wanted.add(last_end if near else start, end)
            last_end = max(last_end, end)
        for start, end in wanted.ranges():
            self._fetch(start, end)

    def fetch_all(self) -> None:
        """Have the whole recording in the copy, and hide nothing any more.

        Raises:
            SourceFailed: it cannot be had.
        """
        self._hidden = Spans()
        self._fetch(0, self.size_bytes)

    def _some(self, start: int, end: int) -> bytes:
        """At least one byte of [start, end): what is there, or else a little or much more."""
        present_end = self._present.end_of(start)
        if present_end <= start:
            is_sequential = start == self._sequential_end
            self._ahead = min(2 * self._ahead, MAX_READ_BYTES) if is_sequential else _FIRST_BYTES
            limit = self._hidden.next_start(start, self.size_bytes)
            self._fetch(start, min(start + self._ahead, limit))
            present_end = self._sequential_end = self._present.end_of(start)
        return os.pread(self._fd, min(end, present_end) - start, start)

    def _fetch(self, start: int, end: int) -> None:
        at, end = start, min(end, self.size_bytes)
        while at < end:
            there = self._present.end_of(at)
            if there > at:
                at = there
                continue
            low = at - at % BLOCK_BYTES
            gap_end = self._present.next_start(at, self.size_bytes)
            # After many small pieces whole gaps are fetched: there are not more gaps than pieces.
            high = gap_end if self._asked > max_reads(self.size_bytes) // 2 else min(end, gap_end)
            high = -(-high // BLOCK_BYTES) * BLOCK_BYTES
            high = min(high, self.size_bytes, low + MAX_READ_BYTES)
            if not self.has_failed:
                self._asked += 1
                self.has_failed = not self._ask(low, high - low)
            if self.has_failed:  # FFmpeg may try again and again
                raise SourceFailed
            self._present.add(low, high)
            at = high
