"""How long an AVI or Matroska file says it is, from its first bytes: a shorter one was cut off."""

from __future__ import annotations

import struct

HEADER_BYTES = 4096
"""Enough for the headers of both; Matroska's first element may be padded."""

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def claimed_length(start: bytes) -> int | None:
    """Bytes that a file beginning with `start` claims to have at least.

    Returns:
        None where it is neither AVI nor Matroska, was written without knowing, or is damaged.

    Source: RFC 8794 (EBML) sections 4 and 5; RIFF, a length of 32 bits after the first four bytes.
    """
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        length: int = struct.unpack_from("<I", start, 4)[0]
        return 8 + length
    if start[:4] == _EBML:
        head = _element(start, 4)
        if head is None:
            return None
        segment = sum(head)
        if start[segment : segment + 4] != _SEGMENT:
            return None
        body = _element(start, segment + 4)
        return None if body is None else sum(body)
    return None


def _element(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the content of an element begins and its length, from the length's place `at`."""
    if at >= len(data) or data[at] == 0:
        return None
    octets = 9 - data[at].bit_length()
    raw = data[at : at + octets]
    value = int.from_bytes(raw) & (1 << 7 * octets) - 1
    if len(raw) < octets or value == (1 << 7 * octets) - 1:  # all ones: not known when written
        return None
    return at + octets, value
