"""The outline of an MP4: where its tables and its pictures lie, and whether it ends early.

A bounded walk over the boxes of ISO/IEC 14496-12, done before FFmpeg sees the file. It believes
nothing: sizes are checked against what is there, and numbers that a file of its size cannot hold
are refused. It reads the headers of boxes and the tables, never a picture.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vault_ml.video.limits import DecodeLimits, Reason, Refused

MAGIC_BYTES = 12
"""So many bytes tell whether a file can be an MP4."""

# What the first box of an MP4 or MOV may be.
_FIRST = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
# Boxes that hold boxes, as far as tables of samples can lie in them: in the last two they do not,
# but FFmpeg would read them there.
_CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"edts", b"dinf"}
    | {b"udta", b"tref"}
)
# The standard nests tables six deep; FFmpeg gives up at ten.
_MAX_DEPTH = 10
# Boxes besides fragments, of which a recording has a few dozen.
_MAX_BOXES = 10_000
_BOXES_PER_FRAGMENT = 64  # usually 5, and 4 more for sound
# Cameras write one or two: a pause before the beginning, and where it is. Each may show the whole
# recording again, and FFmpeg makes an index of all that is shown.
_MAX_EDITS = 64
# The tables of six hours at 30 frames per second have 20 MB.
_MAX_TABLE_BYTES = 64 * 1024**2
# A fragment's table and the header of its pictures: usually one read.
_READ_BYTES = 4096

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Outline:
    """What the boxes of a file tell.

    Attributes:
        pictures: the byte ranges [start, end) that hold pictures and sound, rising.
        usable_bytes: how much of the file can be given to a demuxer: a table that is cut off at
            the end would make it refuse the whole file.
        is_cut: the file ends before it says it does.
        has_index: there is a table of tracks (`moov`).
        fragments: how many tables of fragments (`moof`) there are.
    """

    pictures: tuple[tuple[int, int], ...]
    usable_bytes: int
    is_cut: bool
    has_index: bool
    fragments: int


def may_be_mp4(start: bytes) -> bool:
    """True where a file that begins with these `MAGIC_BYTES` may be an MP4 or MOV."""
    return start[4:8] in _FIRST


def outline(read_at: ReadAt, size_bytes: int, limits: DecodeLimits) -> Outline:
    """Walk over the boxes of a file.

    Args:
        read_at: gives up to `size` bytes from `offset`, fewer at the end of the file.
        size_bytes: length of the file.
        limits: numbers of fragments and samples.

    Raises:
        Refused: more fragments, samples or nesting than a recording has.
    """
    return _Walk(read_at, size_bytes, limits).outline()


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a file.

    Attributes:
        kind: such as `moov`; of a `uuid` box the sixteen bytes behind its header tell more.
        at: where it begins, bytes.
        body_at: where its content begins.
        end: where it ends.
    """

    kind: bytes
    at: int
    body_at: int
    end: int


def boxes_between(
    read_at: ReadAt, start: int, end: int, limits: DecodeLimits | None = None
) -> Iterator[Box]:
    """The boxes that stand one behind another, up to the first that is cut off or none.

    Args:
        read_at: as `outline`.
        start: where the first begins.
        end: where the last ends at the latest.
        limits: the default ones where None.

    Raises:
        Refused: there are more than a recording has.
    """
    walk = _Walk(read_at, end, limits or DecodeLimits())
    at = start
    while at < end:
        kind, header, size = walk.header(at)
        if size < header or at + size > end:
            return
        if kind == b"moof":
            walk.fragments += 1
        walk.count_box()
        yield Box(kind, at, at + header, at + size)
        at += size


@dataclass(slots=True)
class _Track:
    """What is counted in one `trak`."""

    handler: bytes = b""
    samples: int = 0
    edits: int = 0


@dataclass(slots=True)
class _Walk:
    read_at: ReadAt
    size_bytes: int
    limits: DecodeLimits
    pictures: list[tuple[int, int]] = field(default_factory=list)
    has_index: bool = False
    is_cut: bool = False
    fragments: int = 0
    samples: int = 0
    boxes: int = 0
    _buffer: bytes = b""
    _buffer_at: int = 0

    def outline(self) -> Outline:
        at = 0
        while at < self.size_bytes:
            kind, header, size = self.header(at)
            if size < header:
                self.is_cut = True  # no box begins here
                break
            end = at + size
            if end > self.size_bytes:
                self.is_cut = True
                if kind != b"mdat":
                    break
                end = self.size_bytes
            self._look_into(kind, at, header, end)
            at = end
        return Outline(tuple(self.pictures), at, self.is_cut, self.has_index, self.fragments)

    def header(self, at: int) -> tuple[bytes, int, int]:
        """Kind, length of the header and of the whole box; a length of 0 where there is none."""
        start = self._read(at, 16)
        if len(start) < 8:
            return b"", 8, 0
        size, kind = struct.unpack_from(">I4s", start)
        if size == 0:  # to the end of the file
            return kind, 8, self.size_bytes - at
        if size == 1:
            return kind, 16, struct.unpack_from(">Q", start, 8)[0] if len(start) == 16 else 0
        return kind, 8, size

    def _look_into(self, kind: bytes, at: int, header: int, end: int) -> None:
        if kind == b"moof":
            self.fragments += 1
            if self.fragments > self.limits.max_fragments:
                raise Refused(Reason.FRAGMENTS)
        else:
            self.count_box()
        if kind == b"mdat":
            self.pictures.append((at + header, end))
        elif kind in {b"moov", b"moof", b"sidx"}:
            if end - at > _MAX_TABLE_BYTES:
                raise Refused(Reason.SAMPLES)
            body = memoryview(self._read(at + header, end - at - header))
            if kind == b"sidx":
                self.is_cut |= end + _referenced(body) > self.size_bytes
            else:
                self.has_index |= kind == b"moov"
                self._tables(body, _Track(), 1)

    def _tables(self, body: memoryview, track: _Track, depth: int) -> None:
        """Count what the tables in `body` announce. What is damaged in them is left to FFmpeg."""
        if depth > _MAX_DEPTH:
            raise Refused(Reason.NESTING)
        at = 0
        while at + 8 <= len(body):
            size, kind = struct.unpack_from(">I4s", body, at)
            if size < 8 or at + size > len(body):
                return
            self.count_box()
            inner = body[at + 8 : at + size]
            if kind == b"trak":
                own = _Track()
                self._tables(inner, own, depth + 1)
                if own.handler in {b"vide", b""}:
                    self._count_samples(own.samples)
                    self._check_edits(own)
            elif kind in _CONTAINERS:
                self._tables(inner, track, depth + 1)
            elif kind == b"hdlr":
                track.handler = bytes(inner[8:12])
            elif kind in {b"stsz", b"stz2"} and len(inner) >= 12:
                track.samples = max(track.samples, _number(inner, 8))
            elif kind == b"elst" and len(inner) >= 8:
                track.edits += min(_number(inner, 4), (len(inner) - 8) // 12)
            elif kind == b"cmov":
                # A compressed index: nothing that is announced in it can be seen from here.
                raise Refused(Reason.UNKNOWN_FORMAT)
            elif kind in {b"stts", b"ctts"}:
                track.samples = max(track.samples, _sum_of_runs(inner))
            elif kind == b"trun" and len(inner) >= 8:
                self._count_samples(_number(inner, 4))
            at += size

    def count_box(self) -> None:
        """Count a box that is no fragment's. Raises `Refused` for one too many."""
        self.boxes += 1
        if self.boxes > _MAX_BOXES + _BOXES_PER_FRAGMENT * self.fragments:
            raise Refused(Reason.NESTING)

    def _count_samples(self, samples: int) -> None:
        self.samples += samples
        # No picture takes less than a byte.
        if self.samples > min(self.limits.max_samples, self.size_bytes):
            raise Refused(Reason.SAMPLES)

    def _check_edits(self, track: _Track) -> None:
        is_repeating = (track.edits - 1) * track.samples > self.limits.max_samples
        if track.edits > _MAX_EDITS or is_repeating:
            raise Refused(Reason.EDITS)

    def _read(self, at: int, size: int) -> bytes:
        """From a small buffer: headers stand close to the tables before them."""
        start = at - self._buffer_at
        if start < 0 or start + min(size, self.size_bytes - at) > len(self._buffer):
            wanted = min(max(size, _READ_BYTES), self.size_bytes - at)
            self._buffer, self._buffer_at, start = self.read_at(at, wanted), at, 0
        return self._buffer[start : start + size]


def _number(box: memoryview, at: int) -> int:
    number: int = struct.unpack_from(">I", box, at)[0]
    return number


def _sum_of_runs(box: memoryview) -> int:
    """How many samples a table of (number of samples, value) tells about."""
    if len(box) < 8:
        return 0
    runs = min(_number(box, 4), (len(box) - 8) // 8)
    return sum(count for count, _ in struct.iter_unpack(">II", box[8 : 8 + 8 * runs]))


def _referenced(sidx: memoryview) -> int:
    """How many bytes after itself a segment index says there are; 0 where it is damaged."""
    head = 24 if len(sidx) and sidx[0] == 0 else 32
    if len(sidx) < head:
        return 0
    first = _number(sidx, 16) if head == 24 else struct.unpack_from(">Q", sidx, 20)[0]
    (count,) = struct.unpack_from(">H", sidx, head - 2)
    count = min(count, (len(sidx) - head) // 12)
    sizes = (
        entry[0] & 0x7FFFFFFF for entry in struct.iter_unpack(">III", sidx[head:][: 12 * count])
    )
    total: int = first + sum(sizes)
    return total
