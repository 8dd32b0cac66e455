"""Whether decoding can start at a packet, by its own bytes.

An index may call every picture a keyframe. H.264's decoder shows nothing until it meets one; the
one of H.265 makes up what it lacks and shows that.
"""

from __future__ import annotations

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

# H.265, table 7-1: slices have types below 32, those of random access points 16 to 23.
_SLICES = range(32)
_RANDOM_ACCESS = range(16, 24)
# hvcC (ISO/IEC 14496-15, 8.3.3): version 1, and in byte 21 the length of lengths less one.
_CONFIGURATION_VERSION = 1
_LENGTH_SIZE_AT = 21
# Parameter sets and messages come before the slices; more of them than this is no picture.
_MAX_UNITS = 64


def can_start_at(packet: Packet[VideoStream], codec: VideoCodecContext) -> bool:
    """False where `packet` certainly needs pictures before it; True also where it does not tell."""
    if codec.name != "hevc":
        return True
    configuration = codec.extradata or b""
    if len(configuration) <= _LENGTH_SIZE_AT or configuration[0] != _CONFIGURATION_VERSION:
        return True  # units are separated by start codes, as in MPEG-TS
    length_size = (configuration[_LENGTH_SIZE_AT] & 3) + 1
    return _first_slice_is_random_access(memoryview(packet), length_size)


def _first_slice_is_random_access(units: memoryview, length_size: int) -> bool:
    at = 0
    for _ in range(_MAX_UNITS):
        if at + length_size >= len(units):
            break
        unit_type = units[at + length_size] >> 1 & 0x3F
        if unit_type in _SLICES:
            return unit_type in _RANDOM_ACCESS
        at += length_size + int.from_bytes(units[at : at + length_size])
    return True
