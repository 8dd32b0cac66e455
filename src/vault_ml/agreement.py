"""How far two ways of looking agree, and how well one sees what people marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.geometry import iou

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two sets of detections have in common.

    Attributes:
        f1: twice the pairs over all boxes of both; 1 where neither saw anything.
        mean_score_change: mean difference of the confidences of a pair, without its sign.
        pairs: boxes of one class that overlap by more than `MATCH_IOU`, one to one.
        ours: boxes on one side.
        theirs: boxes on the other.
    """

    f1: float
    mean_score_change: float
    pairs: int
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True)
class Marked:
    """What a person marked in one picture.

    Attributes:
        xyxy: (n, 4) float32, frame pixels.
        class_id: (n,) int64.
    """

    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int64]


def agreement(
    ours: Sequence[Detections], theirs: Sequence[Detections], threshold: float
) -> Agreement:
    """Compare what was seen in the same pictures, above a confidence.

    Pairs are made by falling confidence of `ours`, each with the free box that overlaps most.
    """
    pairs, changes, count_ours, count_theirs = 0, 0.0, 0, 0
    for one, other in zip(ours, theirs, strict=True):
        mine = np.flatnonzero(one.confidence > threshold)
        yours = np.flatnonzero(other.confidence > threshold)
        count_ours, count_theirs = count_ours + len(mine), count_theirs + len(yours)
        overlaps = iou(one.xyxy[mine], other.xyxy[yours])
        overlaps[one.class_id[mine][:, None] != other.class_id[yours][None, :]] = 0
        for row in np.argsort(-one.confidence[mine], kind="stable"):
            column = int(overlaps[row].argmax()) if len(yours) else -1
            if column >= 0 and overlaps[row, column] > MATCH_IOU:
                overlaps[:, column] = 0
                pairs += 1
                change = one.confidence[mine[row]] - other.confidence[yours[column]]
                changes += abs(float(change))
    everything = count_ours + count_theirs
    return Agreement(
        2 * pairs / everything if everything else 1.0,
        changes / pairs if pairs else 0.0,
        pairs,
        count_ours,
        count_theirs,
    )


def ap50(seen: Sequence[Detections], marked: Sequence[Marked]) -> float | None:
    """Mean over the marked classes of the average precision at IoU 0.5.

    Returns:
        None where nothing is marked.

    Source: Everingham et al., "The PASCAL VOC Challenge" (2010): a box is right if it overlaps a
    free marked one of its class by 0.5 or more; area under the curve as COCO takes it, from the
    best precision at 101 recalls.
    """
    classes = sorted({int(each) for picture in marked for each in picture.class_id})
    if not classes:
        return None
    return float(np.mean([_average_precision(seen, marked, each) for each in classes]))


def _average_precision(
    seen: Sequence[Detections], marked: Sequence[Marked], class_id: int
) -> float:
    confidences: list[float] = []
    is_right: list[bool] = []
    wanted = 0
    for one, picture in zip(seen, marked, strict=True):
        boxes = picture.xyxy[picture.class_id == class_id]
        wanted += len(boxes)
        mine = np.flatnonzero(one.class_id == class_id)
        mine = mine[np.argsort(-one.confidence[mine], kind="stable")]
        overlaps = iou(one.xyxy[mine], boxes)
        for row, index in enumerate(mine):
            column = int(overlaps[row].argmax()) if len(boxes) else -1
            hit = column >= 0 and bool(overlaps[row, column] >= MATCH_IOU)
            if hit:
                overlaps[:, column] = 0
            confidences.append(float(one.confidence[index]))
            is_right.append(hit)
    order = np.argsort(-np.array(confidences), kind="stable")
    right = np.cumsum(np.array(is_right, np.float64)[order])
    recall = right / wanted
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # At each of 101 recalls the precision from there on; 0 beyond what was found.
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean(np.append(best, 0.0)[at]))
