"""IDF1: how much of the truth is followed under one id (Ristani et al. 2016), by motmetrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import motmetrics
import numpy as np
from numpy.typing import NDArray

from vault_ml.geometry import iou

# A box belongs to an object of the truth when they overlap at least this much, as in MOTChallenge.
MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """Parts of one. `switches` are the times that an object's id changed."""

    idf1: float
    switches: int


def score(
    truth: Sequence[Sequence[Mapping[int, NDArray[np.float64]]]],
    boxes: Sequence[Sequence[NDArray[np.float32]]],
    ids: Sequence[Sequence[Sequence[int]]],
) -> Score:
    """Over all scenes together.

    Args:
        truth: by scene and frame, the box of each object.
        boxes: by scene and frame, (n, 4) what was seen.
        ids: by scene and frame, the track of each.
    """
    accumulators = []
    for of_scene, seen, named in zip(truth, boxes, ids, strict=True):
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for objects, xyxy, numbers in zip(of_scene, seen, named, strict=True):
            expected = np.array(list(objects.values()), np.float32).reshape(-1, 4)
            distance = (1 - iou(expected, xyxy)).astype(np.float64)
            distance[distance > 1 - MATCH_IOU] = np.nan
            accumulator.update(list(objects), list(numbers), distance)
        accumulators.append(accumulator)
    summary = motmetrics.metrics.create().compute_many(
        accumulators, metrics=["idf1", "num_switches"], generate_overall=True
    )
    overall = summary.loc["OVERALL"]
    return Score(float(overall["idf1"]), int(overall["num_switches"]))
