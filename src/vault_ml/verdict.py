"""What was seen -> whether the recording is worth forwarding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vault_ml.detection import Detections
from vault_ml.geometry import iou

# Two boxes of different classes that overlap more than this are one object that the network could
# not decide on: a car that is also a truck. Distinct objects practically never overlap that much.
SAME_OBJECT_IOU = 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one recording.

    Attributes:
        count: the largest number of objects of interest in any one looked-at frame.
        rule: how `count` was compared, such as `objects in one frame >= 1`.
        is_interesting: whether the rule was fulfilled.
    """

    count: int
    rule: str
    is_interesting: bool


def judge(
    frames: Sequence[Detections], *, threshold: int, allowed: frozenset[str] | None
) -> Verdict:
    """Count the objects of interest and compare with the threshold.

    The frames of a recording are seconds apart, so most objects are in several of them: the
    largest number in one frame is a count of objects, the sum over frames is not.

    Args:
        frames: what was seen in each looked-at frame; a frame without objects is there too.
        threshold: FORWARDING_OBJECT_THRESHOLD, compared with `>=`.
        allowed: labels of objects of interest; None is all.

    Raises:
        ValueError: no frame was looked at, about which nothing can be said.
    """
    if not frames:
        raise ValueError("no frame was looked at")
    count = max(objects_of_interest(seen, allowed) for seen in frames)
    return Verdict(count, f"objects in one frame >= {threshold}", count >= threshold)


def objects_of_interest(seen: Detections, allowed: frozenset[str] | None) -> int:
    """How many objects of allowed classes one frame shows.

    Boxes are taken by falling confidence; one that overlaps a box already counted, of another
    class, by more than `SAME_OBJECT_IOU` is the same object and does not count.
    """
    if allowed is not None:
        is_allowed = [seen.label(index) in allowed for index in range(len(seen))]
        seen = seen.where(np.array(is_allowed, dtype=np.bool_))
    overlaps = iou(seen.xyxy, seen.xyxy) > SAME_OBJECT_IOU
    counted: list[int] = []
    for index in range(len(seen)):
        is_same = any(
            overlaps[index, other] and seen.class_id[index] != seen.class_id[other]
            for other in counted
        )
        if not is_same:
            counted.append(index)
    return len(counted)


def unknown_labels(allowed: Iterable[str], labels: Collection[str]) -> list[str]:
    """The allowed labels that the model cannot give, sorted: a typing error in ALLOWED_LABELS."""
    return sorted(set(allowed) - set(labels))
