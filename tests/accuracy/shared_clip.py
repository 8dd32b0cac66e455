"""The shared clip of a car park: what is in it, told by hand, and what YOLOv3-tiny saw of it.

The truth was drawn on every tenth frame and runs straight between. `vtest_seen.json` is what the
project's own pipeline reported (yolov3-tiny at 416, confidence 0.5, every frame).
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from accuracy.scenes import Shot
from conftest import shared_file
from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy

CLIP = "video/vtest_6s_768x576_10fps.mp4"
FRAME_WH = (768, 576)
LABELS = ("person", "car", "truck")
WALKERS = ("grey jacket", "jeans", "black coat", "red jacket", "blonde", "late comer")
PARKED = ("van", "blue car")

# Frame -> x1, y1, x2, y2; a walker is in the picture from its first to its last.
_TRUTH: dict[str, dict[int, tuple[int, int, int, int]]] = {
    "grey jacket": {
        0: (254, 220, 283, 308), 10: (317, 207, 356, 293), 20: (365, 193, 401, 275),
        30: (378, 178, 410, 264), 40: (401, 185, 426, 261), 50: (411, 182, 429, 261),
        59: (405, 183, 426, 262),
    },
    "jeans": {
        0: (500, 157, 530, 233), 10: (466, 168, 503, 246), 20: (414, 173, 428, 250),
        30: (390, 178, 412, 260), 40: (379, 179, 400, 257), 50: (373, 179, 400, 258),
        59: (381, 179, 401, 258),
    },
    "black coat": {
        0: (640, 240, 686, 321), 10: (549, 239, 587, 326), 20: (439, 232, 480, 319),
        30: (401, 222, 428, 293), 40: (438, 193, 459, 272), 50: (435, 175, 458, 246),
    },
    "red jacket": {
        20: (689, 272, 724, 369), 30: (638, 252, 667, 351), 40: (573, 236, 606, 332),
        50: (508, 217, 541, 310), 59: (475, 207, 507, 297),
    },
    "blonde": {
        20: (729, 269, 758, 369), 30: (667, 248, 699, 342), 40: (603, 232, 633, 324),
        50: (557, 214, 588, 301), 59: (508, 204, 543, 290),
    },
    "late comer": {50: (672, 257, 716, 370), 59: (621, 238, 656, 348)},
    "van": {0: (652, 44, 724, 100), 59: (652, 44, 724, 100)},
    "blue car": {0: (734, 50, 768, 93), 59: (734, 50, 768, 93)},
}  # fmt: skip
NAMES = tuple(_TRUTH)


def shots(fps: float) -> list[Shot]:
    """The clip at so many frames a second; 10 is every frame. `truth` is by place in NAMES."""
    told = json.loads((Path(__file__).parent / "vtest_seen.json").read_text())
    with av.open(str(shared_file(CLIP))) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    numbers = range(0, len(pictures), round(10 / fps))
    return [
        Shot(number / 10, _truth(number), _seen(told[number]), pictures[number].astype(np.uint8))
        for number in numbers
    ]


def _truth(number: int) -> dict[int, NDArray[np.float64]]:
    found = {}
    for place, boxes in enumerate(_TRUTH.values()):
        frames = list(boxes)
        if frames[0] <= number <= frames[-1]:
            sides = np.array(list(boxes.values()), np.float64)
            found[place] = np.array(
                [np.interp(number, frames, sides[:, axis]) for axis in range(4)]
            )
    return found


def _seen(objects: list[list[object]]) -> Detections:
    labels = [str(each[0]) for each in objects]
    numbers = np.array([each[1:] for each in objects], np.float32).reshape(-1, 5)
    return Detections(
        FrameXyxy(numbers[:, 1:]),
        numbers[:, 0],
        np.array([LABELS.index(label) for label in labels], np.int64),
        LABELS,
    )
