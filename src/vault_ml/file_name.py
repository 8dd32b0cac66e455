"""What a Kerberos Agent writes into the name of a recording.

`<directory>/<unix seconds>_<digits>-<sub-second>_<device>_<region>_<changes>_<token>.mp4`
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_SUB_SECOND = re.compile(r"(\d{1,2})-(\d{1,9})", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_PARTS_BEFORE_DEVICE = 2
_PARTS_AFTER_DEVICE = 3
# Old agents wrote microseconds (`6-967003`), current ones milliseconds (`3-737`).
_FEWEST_MICROSECOND_DIGITS = 4


@dataclass(frozen=True, slots=True)
class RecordingName:
    """The parts of a recording's name.

    Attributes:
        directory: what stands before the last `/`; '' when there is none.
        timestamp: start of the recording, unix seconds, whole.
        sub_second_s: what to add to `timestamp`, seconds in [0, 1). Ambiguous by design of the
            format: three digits or fewer are read as milliseconds, more as microseconds.
        device: the camera, as the agent names it; may contain `_` and `.`.
        region: the motion region as written. Old agents wrote x1-y1-x2-y2, current ones
            x-y-width-height, and the name does not say which.
        changes: changed pixels; -1 for a continuous recording.
        token: a duration in milliseconds (agents since July 2025) or an arbitrary number.
    """

    directory: str
    timestamp: int
    sub_second_s: float
    device: str
    region: str
    changes: int
    token: int


def parse_file_name(key: str) -> RecordingName | None:
    """The parts of a recording's name, or None for a name that no agent wrote.

    >>> parse_file_name("u/1630567591_6-967003_high_way4_200-200-400-400_24_769.mp4").device
    'high_way4'
    """
    directory, _, name = key.rpartition("/")
    parts = _EXTENSION.sub("", name).split("_")
    if len(parts) <= _PARTS_BEFORE_DEVICE + _PARTS_AFTER_DEVICE:
        return None
    timestamp, sub_second = parts[:_PARTS_BEFORE_DEVICE]
    region, changes, token = parts[-_PARTS_AFTER_DEVICE:]
    fraction = _SUB_SECOND.fullmatch(sub_second)
    if fraction is None or not all(
        _INTEGER.fullmatch(number) for number in (timestamp, changes, token)
    ):
        return None
    digits, number = int(fraction[1]), int(fraction[2])
    unit = 1e-6 if digits >= _FEWEST_MICROSECOND_DIGITS else 1e-3
    return RecordingName(
        directory=directory,
        timestamp=int(timestamp),
        sub_second_s=min(number * unit, 0.999999),
        device="_".join(parts[_PARTS_BEFORE_DEVICE:-_PARTS_AFTER_DEVICE]),
        region=region,
        changes=int(changes),
        token=int(token),
    )


def motion_box(region: str) -> tuple[int, int, int, int] | None:
    """Where the camera saw motion: a box around both ways in which a region may be meant.

    Returns:
        x1, y1, x2, y2 in pixels of what the camera watched; None where there is no region.

    >>> motion_box("200-200-400-400")
    (200, 200, 600, 600)
    """
    numbers = region.split("-")
    if len(numbers) != 4 or not all(_INTEGER.fullmatch(number) for number in numbers):
        return None
    x, y, third, fourth = (int(number) for number in numbers)
    if third <= 0 or fourth <= 0:
        return None
    return x, y, x + third, y + fourth
