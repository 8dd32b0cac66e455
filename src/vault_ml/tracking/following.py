"""The looked-at frames of a recording -> its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy
from vault_ml.tracking.appearance import descriptions
from vault_ml.tracking.boxes import boxes_of
from vault_ml.tracking.track import Track
from vault_ml.tracking.tracker import Tracker
from vault_ml.video.frame import Frame


@dataclass(frozen=True, slots=True)
class Followed:
    """The objects of a recording.

    Attributes:
        tracks: by id, from 1.
        ids: for each looked-at frame, for each of its detections, the id of its track.
    """

    tracks: tuple[Track, ...]
    ids: tuple[tuple[int, ...], ...]


def follow(frames: Sequence[Frame], seen: Sequence[Detections]) -> Followed:
    """Follow what was seen over the looked-at frames of one recording.

    Args:
        frames: in order of time; their pixels must still be there.
        seen: the objects of each, frame pixels.

    Raises:
        ValueError: there is no frame.
    """
    if not frames:
        raise ValueError("no frame was looked at")
    boxes = boxes_of(seen)
    colours = descriptions(
        [frame.pixels for frame in frames],
        [
            frame.letterbox.to_net(FrameXyxy(detections.xyxy[each.first]))
            for frame, detections, each in zip(frames, seen, boxes, strict=True)
        ],
    )
    tracker = Tracker(seen[0].labels, frames[0].size_wh)
    ids = tuple(
        tuple(tracker.take(frame.timestamp_s, detections, each.coloured(described)))
        for frame, detections, each, described in zip(frames, seen, boxes, colours, strict=True)
    )
    return Followed(tuple(tracker.tracks()), ids)
