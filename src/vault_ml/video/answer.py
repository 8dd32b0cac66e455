"""What a decoder child says about a recording, believed only where it can be true.

The child parses hostile bytes; whoever takes it over can send anything, but no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vault_ml.geometry import DARKNET_PLACING, Letterbox, Placing, input_wh
from vault_ml.video.adaptive import Why
from vault_ml.video.frame import Frame
from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.shared_frames import SharedFrames

_MAX_SECONDS = 1e19  # 64-bit ticks of a second: nonsense, but what a damaged header can claim
_MAX_SIDE = 1 << 31


class Nonsense(Exception):
    """A child answered with something that an honest one never says."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a child saw of a recording.

    Attributes:
        frames: in order of time; at least one.
        duration_s: presentation time of all that is there, seconds; None where unknown.
        is_partial: the recording was cut off, or is damaged from some place on.
        left_out: pictures that show what a looked-at one does: their time and the other's, seconds.
    """

    frames: tuple[Frame, ...]
    duration_s: float | None
    is_partial: bool
    left_out: tuple[tuple[float, float], ...] = ()


def checked(
    answer: Mapping[str, Any],
    shared: SharedFrames,
    limits: DecodeLimits,
    placing: Placing = DARKNET_PLACING,
    *,
    rect: bool = False,
) -> Seen:
    """Believe a child's answer only where it can be true.

    Args:
        answer: from the child.
        shared: where it put the frames.
        limits: what it may not exceed.
        placing: how it was told to place frames in the network's input.
        rect: whether it was told to make inputs as small as the frames' shapes allow.

    Raises:
        Refused: the child refused the recording.
        Nonsense: the answer cannot be true.
    """
    if "refused" in answer:
        raise _refusal(answer)
    looked_at = answer.get("frames")
    if not isinstance(looked_at, list) or not 1 <= len(looked_at) <= shared.capacity:
        raise Nonsense("number of frames")
    frames: list[Frame] = []
    for index, said in enumerate(looked_at):
        if not isinstance(said, dict):
            raise Nonsense("frame")
        timestamp_s = _number(said.get("timestamp_s"))
        if frames and timestamp_s <= frames[-1].timestamp_s:
            raise Nonsense("order of frames")
        number = _number(said.get("number"))
        width, height = _size(said.get("size_wh"))
        if width * height > limits.max_pixels:
            raise Nonsense("size of a frame")
        wanted_wh = input_wh((width, height), shared.net_wh, rect=rect)
        letterbox = Letterbox.fit((width, height), wanted_wh, placing)
        pixels, why = shared.picture(index, wanted_wh), said.get("why")
        if why is not None and why not in list(Why):
            raise Nonsense("why a frame was chosen")
        frames.append(Frame(index, timestamp_s, letterbox, pixels, int(number), why))
    duration_s = answer.get("duration_s")
    return Seen(
        tuple(frames),
        None if duration_s is None else _number(duration_s),
        answer.get("is_partial") is True,
        _left_out(answer.get("left_out", []), shared.capacity),
    )


def _left_out(said: object, most: int) -> tuple[tuple[float, float], ...]:
    if not isinstance(said, list) or len(said) > most:
        raise Nonsense("what was left out")
    pairs = []
    for pair in said:
        match pair:
            case [time, other]:
                pairs.append((_number(time), _number(other)))
            case _:
                raise Nonsense("what was left out")
    return tuple(pairs)


def _refusal(answer: Mapping[str, Any]) -> Refused:
    if answer["refused"] not in list(Reason):
        raise Nonsense("reason")
    reason = Reason(answer["refused"])
    return Refused(
        reason,
        codec=str(answer.get("codec", "")),
        size_wh=_size(answer.get("size_wh")) if reason is Reason.PIXELS else (0, 0),
        seconds=_number(answer.get("seconds")) if reason is Reason.DURATION else 0.0,
    )


def _number(value: object) -> float:
    # bool is an int to isinstance; NaN fails the comparison.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Nonsense("time")
    if not 0 <= value <= _MAX_SECONDS:
        raise Nonsense("time")
    return float(value)


def _size(value: object) -> tuple[int, int]:
    match value:
        case [int(width), int(height)] if 1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE:
            return width, height
    raise Nonsense("size")
