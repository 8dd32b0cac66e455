"""Is this the car that stood there before? Pure.

What stands in this recording is compared with what stood there in earlier ones: by place, class and
colours. What is known is no news; everything that moved is, and what came to a stand is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from vault_ml.geometry import iou
from vault_ml.scene.standing import Standing
from vault_ml.tracking.distance import travel
from vault_ml.tracking.likelihood import may_be_one_class
from vault_ml.tracking.track import Track

# From this overlap on a place is the same. Boxes of a parked car overlap by 0.85 and more; the next
# car in the same space by less, where it stands half a metre further.
SAME_PLACE_IOU = 0.75
# From this Bhattacharyya coefficient on colours are the same; light changes them, another car more.
SAME_COLOURS = 0.6
# What walks by itself and happens to stand where somebody stood is somebody else; only what is
# there again and again (a statue, a mannequin) is known.
_ALIVE = frozenset({"person", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear"})
_ALIVE_RECORDINGS = 3
# Not seen in so many recordings in a row: gone. Detectors miss a parked car at night now and then.
_GONE_AFTER = 10
_MOST_OBJECTS = 200
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is known of the objects of a recording, and what is to be remembered.

    Attributes:
        known: by the id of its track, which object it is, such as `same car as 09:12:04, IoU 0.97`.
        standing: what stands at the camera now.
    """

    known: dict[int, str]
    standing: list[Standing]


def recall(
    standing: Sequence[Standing],
    tracks: Sequence[Track],
    *,
    key: str,
    at: int,
    frame_wh: tuple[int, int],
) -> Recalled:
    """Compare the objects of a recording with what stood at its camera.

    Args:
        standing: what stood there in earlier recordings.
        tracks: the objects.
        key: the recording's name.
        at: its start, unix seconds; 0 where nobody knows.
        frame_wh: size of its frames, pixels.
    """
    known: dict[int, str] = {}
    left = list(standing)
    now: list[Standing] = []
    for track in tracks:
        has_moved = travel(track).travelled_px > 0
        if has_moved:
            # Whatever stood where it set out was this, and is not there any more.
            gone = _find(left, track, track.observations[0].xyxy, frame_wh)
            if gone is not None:
                left.remove(gone[0])
        found = _find(left, track, track.observations[-1].xyxy, frame_wh)
        if found is None:
            # Of what was seen once nobody knows whether it stands.
            if len(track.observations) > 1:
                now.append(_new(track, key, at, frame_wh))
            continue
        same, overlap = found
        left.remove(same)
        needed = _ALIVE_RECORDINGS if same.label in _ALIVE else 1
        if not has_moved and same.first_key != key and same.recordings >= needed:
            known[track.id] = f"same {same.label} as {_time(same.first_at, at)}, IoU {overlap:.2f}"
        now.append(_again(same, track, key, frame_wh))
    missing = [
        each if each.last_key == key else replace(each, missed=each.missed + 1, last_key=key)
        for each in left
    ]
    kept = [*now, *(each for each in missing if each.missed < _GONE_AFTER)]
    return Recalled(known, kept[:_MOST_OBJECTS])


def _find(
    standing: Sequence[Standing],
    track: Track,
    xyxy: tuple[float, float, float, float],
    frame_wh: tuple[int, int],
) -> tuple[Standing, float] | None:
    """The one that a track's object is, and how much they overlap."""
    if not standing:
        return None
    here = np.array([_unit(xyxy, frame_wh)], np.float32)
    there = np.array([each.xyxy for each in standing], np.float32)
    overlaps = iou(here, there)[0]
    for place in np.argsort(-overlaps, kind="stable"):
        each, overlap = standing[place], float(overlaps[place])
        if overlap < SAME_PLACE_IOU:
            return None
        is_one_class = may_be_one_class(each.label, track.label)
        if is_one_class and _alike(each.colours, track.colours) >= SAME_COLOURS:
            return each, overlap
    return None


def _new(track: Track, key: str, at: int, frame_wh: tuple[int, int]) -> Standing:
    last = _unit(track.observations[-1].xyxy, frame_wh)
    return Standing(track.label, last, _sparse(track.colours), at, key, key)


def _again(same: Standing, track: Track, key: str, frame_wh: tuple[int, int]) -> Standing:
    """It is still there; its place and colours as they are now, because light and lenses drift."""
    is_repetition = key in {same.first_key, same.last_key}
    return replace(
        same,
        xyxy=_unit(track.observations[-1].xyxy, frame_wh),
        colours=_sparse(track.colours) or same.colours,
        last_key=key,
        recordings=same.recordings + (not is_repetition),
        missed=0,
    )


def _unit(
    xyxy: tuple[float, float, float, float], frame_wh: tuple[int, int]
) -> tuple[float, float, float, float]:
    (x1, y1, x2, y2), (width, height) = xyxy, frame_wh
    return x1 / width, y1 / height, x2 / width, y2 / height


def _sparse(colours: NDArray[np.float32] | None) -> dict[int, float]:
    """What of a description is worth keeping: a car has a dozen colours."""
    if colours is None:
        return {}
    return {int(place): float(colours[place]) for place in np.flatnonzero(colours > 0.05)}


def _alike(one: dict[int, float], other: NDArray[np.float32] | None) -> float:
    """Their Bhattacharyya coefficient; 1 where one is not known."""
    if not one or other is None:
        return 1.0
    length = math.sqrt(sum(value**2 for value in one.values()))
    within = [(value, other[place]) for place, value in one.items() if 0 <= place < len(other)]
    return sum((value * float(there) for value, there in within), 0.0) / length


def _time(first_at: int, at: int) -> str:
    """When it was first seen, in UTC; with the day, unless it was just before."""
    if first_at <= 0:
        return "in an earlier recording"
    then = datetime.fromtimestamp(first_at, UTC)
    return then.strftime("%H:%M:%S" if 0 <= at - first_at < _DAY_S else "%Y-%m-%d %H:%M:%S")
