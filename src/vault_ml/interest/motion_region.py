"""Which objects have nothing to do with the motion that an event is about.

An event says where in the picture the agent saw motion, as `a-b-c-d`. Old agents wrote x1-y1-x2-y2,
current ones x-y-width-height, and nothing tells which; so an object counts as apart only when its
boxes touch neither. A region that fits the picture in no reading, such as one in the pixels of
another stream, says nothing, and so does `0-0-0-0`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vault_ml.tracking.track import Box, Track

_REGION = re.compile(r"(\d{1,5})-(\d{1,5})-(\d{1,5})-(\d{1,5})", re.ASCII)
# Agents look for motion in a small picture: a cell of it is off by so much of the frame.
_MARGIN = 0.03


def readings(region: str | None, frame_wh: tuple[int, int]) -> list[Box]:
    """What a region may mean, as boxes in frame pixels; none where it says nothing.

    >>> readings("100-100-300-200", (640, 480))
    [(100.0, 100.0, 300.0, 200.0), (100.0, 100.0, 400.0, 300.0)]
    """
    found = _REGION.fullmatch(region or "")
    if found is None:
        return []
    a, b, c, d = (float(number) for number in found.groups())
    width, height = frame_wh
    return [
        (x1, y1, x2, y2)
        for x1, y1, x2, y2 in ((a, b, c, d), (a, b, a + c, b + d))
        if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    ]


def apart(region: str | None, tracks: Sequence[Track], frame_wh: tuple[int, int]) -> dict[int, str]:
    """The objects whose boxes never touch the motion region: by id, the reason.

    Args:
        region: as the event has it.
        tracks: the objects.
        frame_wh: size of the frames, pixels.
    """
    places = readings(region, frame_wh)
    if not places:
        return {}
    margin = _MARGIN * max(frame_wh)
    return {
        track.id: f"never touches the motion region {region}"
        for track in tracks
        if not any(
            _touch(each.xyxy, place, margin) for each in track.observations for place in places
        )
    }


def _touch(box: Box, place: Box, margin: float) -> bool:
    return (
        box[0] <= place[2] + margin
        and place[0] <= box[2] + margin
        and box[1] <= place[3] + margin
        and place[1] <= box[3] + margin
    )
