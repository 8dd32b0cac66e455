"""The size that a photo's header claims, read before any decoder sees the file.

FFmpeg learns the size of a photo only by decoding it, which for a picture of 50000 x 50000 pixels
in a few kilobytes is the wrong order.
"""

from __future__ import annotations

import struct

HEADER_BYTES = 1 << 20
"""Enough for what stands before a JPEG's frame header: camera data, a colour profile, a preview."""

MAGIC_BYTES = 12
"""So many bytes tell whether a file can be a photo."""

# Start-of-frame markers of JPEG. The gaps are Huffman tables, an extension, arithmetic coding.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


def may_be_photo(start: bytes) -> bool:
    """True where a file that begins with these `MAGIC_BYTES` may be a photo of a known format."""
    is_webp = start.startswith(b"RIFF") and start[8:12] == b"WEBP"
    return is_webp or start.startswith((b"\xff\xd8", b"\x89PNG", b"BM"))


def claimed_size_wh(header: bytes) -> tuple[int, int] | None:
    """Width and height in pixels that the beginning of a JPEG, PNG, BMP or WebP file claims.

    Returns:
        None where it is none of these, or too damaged to tell.
    """
    try:
        if header.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", header, 16)
            return width, height
        if header.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", header, 18)
            return abs(width), abs(height)  # a negative height means rows from the top
        if header.startswith(b"RIFF") and header[8:12] == b"WEBP":
            return _webp_size_wh(header)
        if header.startswith(b"\xff\xd8"):
            return _jpeg_size_wh(header)
    except struct.error:  # it ends too early
        pass
    return None


def _webp_size_wh(header: bytes) -> tuple[int, int] | None:
    match header[12:16]:
        case b"VP8X":
            low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", header, 24)
            return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", header, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", header, 26)
            return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_size_wh(header: bytes) -> tuple[int, int] | None:
    at = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", header, at)
        if fill != 0xFF or marker == _START_OF_SCAN:
            return None
        if marker == 0xFF:  # padding between segments
            at += 1
        elif marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", header, at + 5)
            return width, height
        else:
            at += 2 + max(2, length)
