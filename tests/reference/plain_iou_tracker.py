"""A plain tracker, to compare with: a box goes to the track whose last box it overlaps most.

After Bochinski, Eiselein and Sikora, "High-speed tracking-by-detection without using image
information" (2017), with the optimal assignment instead of the greedy one. It knows no time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from vault_ml.detection import Detections
from vault_ml.geometry import iou

# The usual values: an overlap of 0.3 is a pair, three frames without one end a track.
SIGMA_IOU = 0.3
MAX_MISSED = 3


def plain_iou_ids(frames: Sequence[Detections]) -> list[list[int]]:
    """For each detection of each frame the id of its track."""
    last = np.zeros((0, 4), np.float32)
    ids: list[int] = []
    missed: list[int] = []
    following = 1
    found = []
    for seen in frames:
        overlap = iou(last, seen.xyxy)
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        taken = {
            int(column): int(row)
            for row, column in zip(rows, columns, strict=True)
            if overlap[row, column] >= SIGMA_IOU
        }
        missed = [count + 1 for count in missed]
        of_frame = []
        for column in range(len(seen)):
            row = taken.get(column)
            if row is None:
                last = np.concatenate([last, seen.xyxy[column : column + 1]])
                ids.append(following)
                missed.append(0)
                of_frame.append(following)
                following += 1
            else:
                last[row] = seen.xyxy[column]
                missed[row] = 0
                of_frame.append(ids[row])
        keep = [index for index, count in enumerate(missed) if count <= MAX_MISSED]
        last = last[keep]
        ids = [ids[index] for index in keep]
        missed = [missed[index] for index in keep]
        found.append(of_frame)
    return found
