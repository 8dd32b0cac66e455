"""Which frames of a recording to look at, from the presentation times of its packets.

`n` frames spread over the whole recording: the centres of `n` equal spans (design: "Which
frames"). Everything is counted in ticks, the integer time base of the stream, so that two routes
to the same frame can never disagree by a rounding error. Presentation times are the only clock:
frame counts and a container's claimed rate or duration are hints that cameras get wrong.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

# The largest decoded picture buffer of H.264 and H.265, pictures.
_MAX_REORDERED = 16


class Sampling(StrEnum):
    """How close to the centre of its span a looked-at frame must be."""

    KEYFRAME = "keyframe"
    """A keyframe inside the span where there is one, about 20 times less decoding."""
    EXACT = "exact"
    """The frame that is on screen at the centre, decoded forward from the keyframe before it."""
    FPS = "fps"
    """So many frames of each second, for following objects; no more than asked for in all."""
    ADAPTIVE = "adaptive"
    """More of them where something happens: see `adaptive`."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """What demuxing tells about the pictures of a recording, before any of them is decoded.

    Attributes:
        pts: presentation time of each packet in decode order, ticks; None where the container
            does not say.
        keyframes: positions of the packets at which decoding can start, rising.
        is_shown: for each packet, whether its picture is part of the presentation. An edit list
            may hide packets that later ones still need for decoding.
        end: presentation time at which the last picture ends, ticks.
        sizes: bytes of each packet; empty where they were not asked for.
    """

    pts: tuple[int | None, ...]
    keyframes: tuple[int, ...]
    is_shown: tuple[bool, ...]
    end: int
    sizes: tuple[int, ...] = ()

    @classmethod
    def from_packets(
        cls,
        pts: Sequence[int | None],
        is_keyframe: Sequence[bool],
        is_shown: Sequence[bool],
        durations: Sequence[int | None],
        sizes: Sequence[int] = (),
    ) -> PacketIndex:
        """Describe packets in decode order; sequences of one length, times in ticks.

        What comes before the first keyframe cannot be decoded, and of what follows it the pictures
        that are shown before it cannot either (a stream cut in the middle of an open group of
        pictures): both count as not shown. Without any keyframe the first packet is the only
        place to start.
        """
        keyframes = tuple(i for i, is_key in enumerate(is_keyframe) if is_key) or (0,)
        hidden = {*range(keyframes[0]), *_leading(pts, is_keyframe, keyframes[0])}
        shown = tuple(
            is_shown[i] and time is not None and i not in hidden for i, time in enumerate(pts)
        )
        ends = sorted(
            (time, durations[i] or 0) for i, time in enumerate(pts) if time is not None and shown[i]
        )
        return cls(tuple(pts), keyframes, shown, _end_of(ends), tuple(sizes))

    def shown_times(self) -> list[int]:
        """Presentation times of the pictures, rising, each once."""
        return self._times(range(len(self.pts)))

    def keyframe_times(self) -> list[int]:
        """Presentation times of the pictures that decode without any other, rising, each once."""
        return self._times(self.keyframes if self.pts else ())

    def decode_start(self, target: int) -> int:
        """Position of the packet at which decoding must start to get the picture of `target`.

        It is the last keyframe, in decode order, that is not presented after the target: a
        picture presented before a keyframe may refer to pictures before that keyframe (B-frames
        of an open group of pictures).
        """
        for position in reversed(self.keyframes):
            time = self.pts[position]
            if time is not None and time <= target:
                return position
        return self.keyframes[0]

    def _times(self, positions: Iterable[int]) -> list[int]:
        shown = (self.pts[i] for i in positions if self.is_shown[i])
        return sorted({time for time in shown if time is not None})


def _leading(
    pts: Sequence[int | None], is_keyframe: Sequence[bool], keyframe: int
) -> Iterator[int]:
    """Positions of the packets after `keyframe` that are shown before it.

    There are at most as many as pictures can be reordered. More mean that the keyframe's own time
    is wrong, which must not hide the recording behind it.
    """
    first = pts[keyframe] if pts else None
    for position in range(keyframe + 1, min(keyframe + 1 + _MAX_REORDERED, len(pts))):
        time = pts[position]
        if first is None or time is None or time >= first or is_keyframe[position]:
            return
        yield position


def _end_of(ends: Sequence[tuple[int, int]]) -> int:
    """When the last of (time, duration) pairs in rising order ends; a duration of 0 is unknown."""
    if not ends:
        return 0
    first, (last, duration) = ends[0][0], ends[-1]
    if duration <= 0 and len(ends) > 1:
        duration = (last - first) // (len(ends) - 1)
    return last + max(duration, 1)


def frames_at(length_s: float, frames_per_s: float, most: int) -> int:
    """How many frames of a recording are looked at, at so many a second; at least 1.

    Where that is more than `most`, they are `most` frames of all of it, further apart: what happens
    at the end is as likely the event as what happens at the beginning.

    >>> frames_at(10.0, 3.0, 100)
    30
    """
    return max(1, min(most, round(length_s * frames_per_s)))


def choose_targets(index: PacketIndex, frames: int, sampling: Sampling) -> list[int]:
    """Choose the frames to look at.

    Args:
        index: the packets of the recording.
        frames: how many frames are wanted, `NUMBER_OF_PREDICTIONS`; with `FPS` what
            `frames_at` says.
        sampling: with `KEYFRAME` a span that holds keyframes is represented by the one nearest
            to its centre (the earlier of two); a span without any by the frame on screen at its
            centre, as with `EXACT`.

    Returns:
        Presentation times in ticks, rising, each once. Fewer than `frames` where spans share a
        frame: the recording is too short, or one picture stands still for longer than a span.

    Raises:
        ValueError: `frames` is not positive.
    """
    if frames <= 0:
        raise ValueError(f"expected a positive number of frames, got {frames}")
    shown = index.shown_times()
    if not shown:
        return []
    keyframes = index.keyframe_times() if sampling is Sampling.KEYFRAME else []
    start, length = shown[0], index.end - shown[0]
    targets: list[int] = []
    for span in range(frames):
        # In units of 1 / (2 * frames) tick, so that all bounds are integers.
        centre = 2 * frames * start + (2 * span + 1) * length
        target = _nearest(keyframes, centre, length, 2 * frames)
        if target is None:
            target = shown[bisect_right(shown, centre // (2 * frames)) - 1]
        if not targets or target > targets[-1]:
            targets.append(target)
    return targets


def _nearest(times: Sequence[int], centre: int, half: int, unit: int) -> int | None:
    """The time nearest to `centre` in [centre - half, centre + half), in 1 / `unit` tick."""
    low = bisect_left(times, -((half - centre) // unit))
    high = bisect_left(times, -((-centre - half) // unit))
    inside = times[low:high]
    return min(inside, key=lambda time: abs(unit * time - centre), default=None)
