"""Ways to damage a recording: blindly, and where it hurts."""

from __future__ import annotations

import random
import struct

# Numbers at the edges of what a field can hold.
_EDGES = (0, 1, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_KINDS = tuple(
    kind.encode()
    for kind in [
        "moov",
        "trak",
        "mdia",
        "minf",
        "stbl",
        "stsz",
        "stts",
        "ctts",
        "stsc",
        "stco",
        "co64",
        "stss",
        "stsd",
        "mvhd",
        "mdhd",
        "tkhd",
        "hdlr",
        "elst",
        "avcC",
        "hvcC",
        "moof",
        "traf",
        "trun",
        "tfhd",
        "tfdt",
        "sidx",
        "mdat",
        "free",
        "dref",
    ]
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to eight damages."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if damaged:
            rng.choice(_MUTATIONS)(damaged, rng)
    return bytes(damaged)


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at : at + 16] = rng.randbytes(min(16, len(data) - at))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 4, 8, 100, 1000))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((4, 8, 64, 1000))]


def _zero(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    size = min(rng.choice((4, 64, 2000)), len(data) - at)
    data[at : at + size] = bytes(size)


def _edge_in_header(data: bytearray, rng: random.Random) -> None:
    """An extreme number near the start, where containers keep their tables."""
    at = rng.randrange(min(len(data), 2048))
    _put(data, at, rng)


def _edge_in_box(data: bytearray, rng: random.Random) -> None:
    """An extreme number in, or as the size of, a box of a kind that matters."""
    places = _places(data, rng.choice(_KINDS))
    if places:
        _put(data, rng.choice(places) + rng.choice((-4, 4, 8, 12, 16, 20, 24, 32)), rng)


def _rename_box(data: bytearray, rng: random.Random) -> None:
    places = _places(data, rng.choice(_KINDS))
    if places:
        at = rng.choice(places)
        data[at : at + 4] = rng.choice(_KINDS)


def _places(data: bytearray, kind: bytes) -> list[int]:
    places: list[int] = []
    at = data.find(kind)
    while at >= 0 and len(places) < 64:
        places.append(at)
        at = data.find(kind, at + 4)
    return places


def _put(data: bytearray, at: int, rng: random.Random) -> None:
    at = max(0, min(at, len(data) - 4))
    data[at : at + 4] = struct.pack(rng.choice((">I", "<I")), rng.choice(_EDGES))[: len(data) - at]


_MUTATIONS = (_flip, _overwrite, _truncate, _remove, _repeat, _zero, _edge_in_header, _edge_in_box,
              _edge_in_box, _edge_in_box, _rename_box)  # fmt: skip
