"""A recording that is read where it is looked at: HTTP ranges, kept in a nameless sparse file.

What was fetched is kept until the recording is closed, so nothing is fetched twice and the digest
can be taken over all of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from vault_ml.errors import (
    RecordingIncomplete,
    SignedUrlExpired,
)
from vault_ml.vault.recording import nameless_file, room_or_unavailable, too_large

# Parts begin and end at multiples of this. How far to read ahead is the decoder's affair.
BLOCK_BYTES = 4 * 1024
# The first part: the headers of every container, and the whole index of a fragmented MP4.
HEAD_BYTES = 32 * 1024
# A hole this small between two wanted stretches is fetched with them: one exchange less.
_BRIDGED_BLOCKS = 4
_MOST_RENEWALS = 3
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a recording as it came.

    Attributes:
        content: the bytes.
        total_bytes: the recording's length.
        etag, last_modified: the storage's words for which version it is; nothing where it says
            nothing.
    """

    content: bytes
    total_bytes: int
    etag: str
    last_modified: str


class PartRefused(Exception):
    """No part came: the address has expired, or another recording is there now."""

    def __init__(self, *, is_changed: bool) -> None:
        """Say which of the two."""
        super().__init__("changed" if is_changed else "expired")
        self.is_changed = is_changed


class WholeInstead(Exception):
    """The server's ranges cannot be used."""


class RangeSource(Protocol):
    """Where the parts come from."""

    def part(self, first: int, size: int, guard: Mapping[str, bytes]) -> Part:
        """`size` bytes from `first` on, or up to the end; raises `PartRefused` and our errors."""
        ...

    def renew(self) -> bool:
        """Get a fresh address; False when there is none."""
        ...


class RangedRecording:
    """A recording that is fetched as far as it is read. For one thread at a time.

    Attributes:
        size_bytes: length of the whole recording, as it is stored.
        fetched_bytes: what came over the wire so far.
        requests: how many parts it came in.
        route: always `ranges`.
    """

    route = "ranges"

    def __init__(
        self, source: RangeSource, head: Part, *, who: str, max_bytes: int, work_dir: Path | None
    ) -> None:
        """Begin with the first part.

        Raises:
            RecordingTooLarge: the recording is larger than `max_bytes`.
            UnavailableError: there is no room for the part.
        """
        self.size_bytes = head.total_bytes
        if self.size_bytes > max_bytes:
            raise too_large(who, max_bytes)
        self._source = source
        self._who = who
        self._work_dir = work_dir
        self._etag = head.etag
        self._guard = _guard(head)
        self._has = bytearray(-(-self.size_bytes // BLOCK_BYTES))
        self._renewals = 0
        self.fetched_bytes = 0
        self.requests = 0
        with room_or_unavailable(work_dir):
            self._fd = nameless_file(work_dir)
        try:
            self._keep(0, head)
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Self:
        """What a decoder reads from."""
        return self

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer at the end, none behind it.

        Raises:
            RecordingIncomplete: the recording was replaced, or did not come in time.
            SignedUrlExpired: its address expired and there is no fresh one that works.
            VaultUnavailable: the storage is away.
            ValueError: closed, or a negative number.
        """
        if self._fd < 0 or offset < 0 or size < 0:
            raise ValueError(f"cannot read {size} bytes at {offset}")
        end = min(offset + size, self.size_bytes)
        if offset >= end:
            return b""
        for first, last in self._missing(offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES):
            part = self._part(first * BLOCK_BYTES, (last - first + 1) * BLOCK_BYTES)
            self._keep(first, part)
        return os.pread(self._fd, end - offset, offset)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last byte of every stretch that was fetched, in order."""
        return tuple(
            (first * BLOCK_BYTES, min((last + 1) * BLOCK_BYTES, self.size_bytes) - 1)
            for first, last in _runs(i for i, has in enumerate(self._has) if has)
        )

    @property
    def sha256(self) -> str:
        """Digest of the fetched bytes in the order of the recording: of `ranges`, one by one."""
        digest = hashlib.sha256()
        for first, last in self.ranges:
            for offset in range(first, last + 1, _PIECE_BYTES):
                digest.update(os.pread(self._fd, min(_PIECE_BYTES, last + 1 - offset), offset))
        return digest.hexdigest()

    def close(self) -> None:
        """Free what was fetched. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- fetching --------------------------------------------------------------------------------

    def _missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Stretches of blocks to fetch for these, small holes bridged."""
        wanted = (block for block in range(first, last + 1) if not self._has[block])
        return _runs(wanted, bridged=_BRIDGED_BLOCKS)

    def _part(self, offset: int, size: int) -> Part:
        while True:
            try:
                part = self._source.part(offset, size, self._guard)
            except PartRefused as refused:
                if refused.is_changed:
                    raise self._changed() from None
                self._renewals += 1
                if self._renewals > _MOST_RENEWALS or not self._source.renew():
                    raise SignedUrlExpired(
                        f"{self._who} refuses the signed URL in the middle of a recording, and a "
                        "fresh one does not help; it is fetched again later."
                    ) from None
                continue
            if part.total_bytes != self.size_bytes or part.etag != self._etag:
                raise self._changed()
            return part

    def _changed(self) -> RecordingIncomplete:
        return RecordingIncomplete(
            f"{self._who} has another recording there now than when reading began; "
            "it is fetched again later."
        )

    def _keep(self, first_block: int, part: Part) -> None:
        with room_or_unavailable(self._work_dir):
            view, offset = memoryview(part.content), first_block * BLOCK_BYTES
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        blocks = -(-len(part.content) // BLOCK_BYTES)
        self._has[first_block : first_block + blocks] = b"\x01" * blocks
        self.fetched_bytes += len(part.content)
        self.requests += 1


def _guard(head: Part) -> dict[str, bytes]:
    """The header that makes a server say when it has another recording there now (RFC 9110)."""
    if head.etag and not head.etag.startswith("W/"):
        return {"If-Range": head.etag.encode("latin-1")}
    if head.last_modified and not head.etag:
        return {"If-Range": head.last_modified.encode("latin-1")}
    return {}


def _runs(blocks: Iterator[int], *, bridged: int = 0) -> Iterator[tuple[int, int]]:
    """Rising numbers -> first and last of each unbroken stretch.

    >>> list(_runs(iter([0, 1, 4, 9])))
    [(0, 1), (4, 4), (9, 9)]
    >>> list(_runs(iter([0, 1, 4, 9]), bridged=2))
    [(0, 4), (9, 9)]
    """
    first = last = None
    for block in blocks:
        if last is not None and first is not None and block > last + 1 + bridged:
            yield first, last
            first = block
        first = block if first is None else first
        last = block
    if first is not None and last is not None:
        yield first, last
