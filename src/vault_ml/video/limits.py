"""What looking at one recording may cost, and the sentences for one that is refused.

A decoder child answers with a `Reason` from a closed set and at most a few numbers or a codec's
name, never with prose: it parses hostile bytes and is not believed. The sentence a person reads
is made here, in the parent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from vault_ml.errors import PoisonError, RecordingTooLarge, UndecodableRecording

CONTAINERS = "MP4, MOV, MKV, AVI, MPEG-TS, JPEG, PNG, WebP and BMP"
"""The file formats served, in words; `reader` has FFmpeg's names for them."""
CODECS = "H.264, H.265, AV1, MJPEG, MPEG-4, PNG, WebP and BMP"
"""The video codecs served, in words."""

_CODEC_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds on one recording and on the child that decodes it.

    Attributes:
        max_pixels: pixels of one frame. The default lets 8K (33 megapixels) and the largest
            fisheye cameras through; a picture that claims more is refused from its header.
        max_duration_s: presentation time of a whole recording, seconds. Agents cut after 30 s,
            continuous recorders after an hour; more than this is a broken clock or an attack.
        max_seconds: wall clock for one recording. A child that takes longer is killed and the
            recording is tried again later. One 4K recording of 30 s with a single keyframe needs
            about 20 s of one core; lower it and such cameras end in the dead letters.
        max_memory_bytes: address space of a child beyond what it needs to run at all. 8K H.264
            with 16 reference frames needs 0.9 GB; lower it and large frames are refused.
        max_wait_s: how long a recording waits for a free child.
        max_recordings_per_child: a child is replaced after so many, in case FFmpeg leaks.
        max_fragments: fragments of an MP4. Agents write one every 3 s: 7200 in six hours.
        max_samples: pictures, and pieces of sound, that an index may announce. Six hours at
            120 frames per second are half of the default.
    """

    max_pixels: int = 8192 * 8192
    max_duration_s: float = 6 * 3600.0
    max_seconds: float = 120.0
    max_memory_bytes: int = 2 * 1024**3
    max_wait_s: float = 300.0
    max_recordings_per_child: int = 500
    max_fragments: int = 100_000
    max_samples: int = 5_000_000

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: one of them is not positive.
        """
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")


class Reason(StrEnum):
    """Why a recording is refused."""

    EMPTY = "empty"
    UNKNOWN_FORMAT = "unknown_format"
    NO_VIDEO = "no_video"
    CODEC = "codec"
    NOTHING_DECODES = "nothing_decodes"
    PIXELS = "pixels"
    DURATION = "duration"
    MEMORY = "memory"
    FRAGMENTS = "fragments"
    SAMPLES = "samples"
    NESTING = "nesting"
    EDITS = "edits"


class Refused(Exception):
    """A recording is refused; `error_for` says it in a sentence."""

    def __init__(
        self,
        reason: Reason,
        *,
        codec: str = "",
        size_wh: tuple[int, int] = (0, 0),
        seconds: float = 0,
    ) -> None:
        """Keep the reason and the facts its sentence needs."""
        super().__init__(reason.value)
        self.reason = reason
        self.codec = codec
        self.size_wh = size_wh
        self.seconds = seconds


def error_for(refused: Refused, limits: DecodeLimits) -> PoisonError:
    """The error, with its sentence, that a refusal means for the recording.

    A codec's name that does not look like one is left out: it came from the child.
    """
    match refused.reason:
        case Reason.EMPTY:
            return UndecodableRecording("the recording is empty: 0 bytes were stored")
        case Reason.UNKNOWN_FORMAT:
            return UndecodableRecording(
                "the recording cannot be opened: it is damaged, cut off before its index, "
                f"encrypted, or in another format than {CONTAINERS}"
            )
        case Reason.NO_VIDEO:
            return UndecodableRecording("the recording holds no video, only sound or other data")
        case Reason.CODEC:
            name = refused.codec if _CODEC_NAME.fullmatch(refused.codec) else "an unknown one"
            return UndecodableRecording(
                f"the recording's video codec is {name}; served are {CODECS}. "
                "Let the camera record H.264 or H.265"
            )
        case Reason.NOTHING_DECODES:
            return UndecodableRecording(
                "no frame of the recording can be decoded: it is damaged, cut off before its "
                "first frame, or lacks its codec parameters"
            )
        case Reason.PIXELS:
            width, height = refused.size_wh
            return RecordingTooLarge(
                f"the recording's frames are {width} x {height} pixels, the limit is "
                f"{limits.max_pixels / 1e6:.3g} megapixels"
            )
        case Reason.DURATION:
            return RecordingTooLarge(
                f"the recording lasts {refused.seconds:.0f} s, "
                f"the limit is {limits.max_duration_s:.0f} s"
            )
        case Reason.MEMORY:
            return RecordingTooLarge(
                "decoding the recording needs more memory than the limit of "
                f"{limits.max_memory_bytes / 1024**2:.0f} MiB"
            )
        case Reason.FRAGMENTS:
            return RecordingTooLarge(
                f"the recording has more than {limits.max_fragments} fragments, the limit"
            )
        case Reason.SAMPLES:
            return RecordingTooLarge(
                "the recording's index announces more pictures than a file of its size can hold, "
                f"or more than {limits.max_samples}, the limit"
            )
        case Reason.NESTING:
            return UndecodableRecording(
                "the recording's boxes are nested more deeply, or are more in number, than "
                "those of any recording: it is damaged or made to do harm"
            )
        case Reason.EDITS:
            return UndecodableRecording(
                "the recording's edit list shows parts of it over and over: it is damaged or made "
                "to do harm"
            )
        case _ as never:
            assert_never(never)
