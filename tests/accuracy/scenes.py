"""Street scenes with known truth: who walks, drives and stands, and what a detector makes of it.

Everything follows from a seed. Objects are painted as patches of their colours, so what is tracked
by looks is really looked at; boxes tremble, objects are missed, hidden by others or taken for
another class, and now and then a box is there without an object, as detectors do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy

LABELS = ("person", "car", "truck", "dog")
WIDTH, HEIGHT = 1280, 720
# Painted at a third, as the network sees it.
SCALE = 3

# Boxes are off by this part of their sides (standard deviation); detectors are off by 2 to 5 %.
TREMBLE = 0.03
MISSED = 0.12
FALSE_PER_FRAME = 0.15
OTHER_CLASS = 0.15


@dataclass(frozen=True, slots=True)
class Thing:
    """Something in the scene.

    Attributes:
        class_id: index into LABELS.
        wh: its size, pixels.
        colours: (2, 3) RGB of its upper and lower half.
        path: (n, 3) time in seconds, x and y of its centre; it moves in straight lines between.
    """

    class_id: int
    wh: tuple[float, float]
    colours: NDArray[np.float64]
    path: NDArray[np.float64]

    @property
    def is_mover(self) -> bool:
        """Whether it gets anywhere."""
        return bool(np.ptp(self.path[:, 1:], axis=0).max() > 1)

    def box(self, at: float) -> NDArray[np.float64] | None:
        """(4,) xyxy at a time; None when it is not there, or mostly out of the picture."""
        times = self.path[:, 0]
        if not times[0] <= at <= times[-1]:
            return None
        x, y = (float(np.interp(at, times, self.path[:, axis])) for axis in (1, 2))
        w, h = self.wh
        whole = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        limit = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float64)
        shown: NDArray[np.float64] = np.clip(whole, 0.0, limit)
        sides = shown[2:] - shown[:2]
        if min(sides) <= 0 or sides[0] * sides[1] < 0.5 * w * h:
            return None
        return shown


@dataclass(frozen=True, slots=True)
class Shot:
    """One looked-at frame of a scene.

    Attributes:
        timestamp_s: its time.
        truth: by number of the thing, its box, xyxy.
        seen: what the detector says.
        picture: (h, w, 3) uint8 RGB, at a third of the size.
    """

    timestamp_s: float
    truth: dict[int, NDArray[np.float64]]
    seen: Detections
    picture: NDArray[np.uint8]

    @property
    def picture_boxes(self) -> NDArray[np.float32]:
        """The boxes of `seen` in the picture."""
        return np.asarray(self.seen.xyxy / SCALE, np.float32)


def things(
    seed: int, seconds: float, *, persons: int = 6, cars: int = 2, parked: int = 3
) -> list[Thing]:
    """A street: persons on their ways, cars that pass, cars that stand."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(persons):
        h = rng.uniform(60, 130)
        found.append(Thing(0, (0.4 * h, h), rng.uniform(0, 255, (2, 3)), _walk(rng, h, seconds)))
    for _ in range(cars):
        w = rng.uniform(140, 240)
        start = rng.uniform(0, seconds * 0.7)
        lasts = WIDTH / (w * rng.uniform(1.0, 3.0))
        way = (-w / 2, WIDTH + w / 2) if rng.random() < 0.5 else (WIDTH + w / 2, -w / 2)
        y = rng.uniform(0.35, 0.7) * HEIGHT
        path = np.array([[start, way[0], y], [start + lasts, way[1], y]])
        found.append(Thing(1, (w, 0.5 * w), rng.uniform(0, 255, (2, 3)), path))
    for place in range(parked):
        w = rng.uniform(120, 180)
        x, y = 130 + place * 190.0, 0.25 * HEIGHT
        path = np.array([[0.0, x, y], [seconds, x, y]])
        found.append(Thing(1, (w, 0.5 * w), rng.uniform(0, 255, (2, 3)), path))
    return found


def _walk(rng: np.random.Generator, height: float, seconds: float) -> NDArray[np.float64]:
    """A person's way: at 0.8 of its height a second, with a turn every few seconds."""
    at = rng.uniform(0, seconds * 0.4)
    place: NDArray[np.float64] = rng.uniform(
        [0.1 * WIDTH, 0.45 * HEIGHT], [0.9 * WIDTH, 0.9 * HEIGHT]
    )
    heading = rng.uniform(0, 2 * np.pi)
    path = [[at, *place]]
    end = min(seconds, at + rng.uniform(0.5, 1.0) * seconds)
    while at < end:
        lasts = rng.uniform(1.5, 5.0)
        heading += rng.normal(0, 0.6)
        step = 0.8 * height * lasts * np.array([np.cos(heading), 0.5 * np.sin(heading)])
        place = np.asarray(place + step, np.float64)
        at += lasts
        path.append([at, *place])
    return np.array(path)


def shoot(scene: list[Thing], seed: int, times: NDArray[np.float64]) -> list[Shot]:
    """What the detector says at these times."""
    rng = np.random.default_rng((seed, 1))
    patches = rng.uniform(60, 190, (HEIGHT // SCALE // 8, WIDTH // SCALE // 8, 3))
    ground = np.asarray(np.kron(patches, np.ones((8, 8, 1))), np.float64)
    return [_shot(scene, rng, ground, float(at)) for at in times]


def _shot(
    scene: list[Thing], rng: np.random.Generator, ground: NDArray[np.float64], at: float
) -> Shot:
    picture = ground.copy()
    truth = {
        number: box for number, thing in enumerate(scene) if (box := thing.box(at)) is not None
    }
    # What stands lower in the picture is nearer, and hides what is behind it.
    nearest_last = sorted(truth, key=lambda number: truth[number][3])
    for number in nearest_last:
        _paint(picture, truth[number], scene[number].colours)
    objects = []
    for place, number in enumerate(nearest_last):
        hidden = max(
            (_covered(truth[number], truth[other]) for other in nearest_last[place + 1 :]),
            default=0.0,
        )
        if hidden > 0.6 or rng.random() < MISSED:
            continue
        box = truth[number]
        sides = box[2:] - box[:2]
        box = box + rng.normal(0, TREMBLE, 4) * np.tile(sides, 2)
        class_id = scene[number].class_id
        if class_id == 1 and rng.random() < OTHER_CLASS:
            class_id = 2
        objects.append((box, rng.uniform(0.5, 0.99), class_id))
    if rng.random() < FALSE_PER_FRAME:
        corner = rng.uniform([0, 0], [WIDTH - 60, HEIGHT - 100])
        box = np.concatenate([corner, corner + np.array([50.0, 90.0])])
        objects.append((box, rng.uniform(0.5, 0.6), 0))
    objects.sort(key=lambda each: -each[1])
    seen = Detections(
        FrameXyxy(
            np.clip(
                np.array([each[0] for each in objects], np.float32).reshape(-1, 4),
                0,
                np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32),
            )
        ),
        np.array([each[1] for each in objects], np.float32),
        np.array([each[2] for each in objects], np.int64),
        LABELS,
    )
    noisy = picture * rng.uniform(0.93, 1.07) + rng.normal(0, 6, picture.shape)
    return Shot(at, truth, seen, np.clip(noisy, 0, 255).astype(np.uint8))


def _paint(
    picture: NDArray[np.float64], box: NDArray[np.float64], colours: NDArray[np.float64]
) -> None:
    x1, y1, x2, y2 = (round(side / SCALE) for side in box)
    middle = (y1 + y2) // 2
    # An object does not fill its box.
    inset = max(1, (x2 - x1) // 8)
    picture[y1:middle, x1 + inset : x2 - inset] = colours[0]
    picture[middle:y2, x1 + inset : x2 - inset] = colours[1]


def _covered(box: NDArray[np.float64], by: NDArray[np.float64]) -> float:
    sides = np.minimum(box[2:], by[2:]) - np.maximum(box[:2], by[:2])
    if min(sides) <= 0:
        return 0.0
    own = box[2:] - box[:2]
    return float(sides[0] * sides[1] / (own[0] * own[1]))
