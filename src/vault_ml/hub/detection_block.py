"""Hub's typed block of detections: versioned, with confidences, and kept by the run's id.

The same object is the `data` of a block of type `detection`, and the body that is posted to Hub's
detections address. Whoever receives it keeps one per recording and run id; a repetition replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vault_ml.hub.classify import thinned
from vault_ml.tracking.track import Observation
from vault_ml.verdict import JudgedTrack

TASK = "detection"
SCHEMA_VERSION = "1.0"
# Hub's limits; beyond them it refuses the block.
_MOST_TRACKS = 5000
_NAME_CHARACTERS = 64
_VERSION_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class BlockSource:
    """Where a block comes from.

    Attributes:
        run_id: of the run.
        version: of vault-ml.
        net_wh: size of the network's input, pixels.
        confidence_threshold, nms_threshold: as the detector has them.
    """

    run_id: str
    version: str
    net_wh: tuple[int, int]
    confidence_threshold: float
    nms_threshold: float


def detection_block(
    tracks: Sequence[JudgedTrack],
    frame_numbers: Sequence[int],
    frame_wh: tuple[int, int],
    source: BlockSource,
    *,
    most_points: int | None = None,
) -> dict[str, Any] | None:
    """The block, or None where nothing was seen: Hub refuses one without tracks.

    Args:
        tracks: the objects; those that do not count are told too, with the reason.
        frame_numbers: for each looked-at frame, which frame of the recording it is, from 0.
        frame_wh: size of the frames, pixels.
        source: where it comes from.
        most_points: of each object at most so many boxes; None tells all.
    """
    told = [entry for each in tracks if (entry := _track(each, frame_numbers, most_points))]
    if not told:
        return None
    names = {each.track.class_id: each.track.label for each in tracks}
    return {
        "task": TASK,
        "schemaVersion": SCHEMA_VERSION,
        "source": {
            "kind": "pipeline",
            "name": "vault-ml"[:_NAME_CHARACTERS],
            "version": source.version[:_VERSION_CHARACTERS],
            "runId": source.run_id,
            "inputWidth": source.net_wh[0],
            "inputHeight": source.net_wh[1],
            "scoreThreshold": source.confidence_threshold,
            "nmsIou": source.nms_threshold,
            # Boxes are those of the picture as a person sees it.
            "rotationApplied": True,
        },
        "coordinateSpace": "pixel",
        "media": {"width": frame_wh[0], "height": frame_wh[1]},
        "categories": [{"id": number, "name": names[number]} for number in sorted(names)],
        "tracks": told[:_MOST_TRACKS],
    }


def _track(
    judged: JudgedTrack, frame_numbers: Sequence[int], most_points: int | None
) -> dict[str, Any] | None:
    track = judged.track
    boxes = [
        box
        for each in thinned(track.observations, most_points)
        if (box := _box(each, frame_numbers[each.frame])) is not None
    ]
    if not boxes:
        return None
    meta: dict[str, Any] = {
        "distance": judged.travelled_px,
        "staticDistance": judged.displacement_px,
        "isStatic": judged.is_static,
    }
    if judged.reason is not None:
        meta["reason"] = judged.reason
    return {
        "id": str(track.id),
        "label": track.label,
        "classId": track.class_id,
        "confidence": round(track.confidence, 4),
        "meta": meta,
        "boxes": boxes,
    }


def _box(observation: Observation, number: int) -> dict[str, Any] | None:
    """None for a box without area, which Hub refuses."""
    x1, y1, x2, y2 = observation.xyxy
    w, h = round(x2 - x1, 1), round(y2 - y1, 1)
    if w <= 0 or h <= 0:
        return None
    return {
        "frame": number,
        "timestampMs": round(observation.timestamp_s * 1000),
        "x": round(x1, 1),
        "y": round(y1, 1),
        "w": w,
        "h": h,
        "confidence": round(observation.confidence, 4),
    }
