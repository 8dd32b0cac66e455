"""Recordings with brief events of known time: real photos moved through real backgrounds.

A person, dog or car cut out of a photo crosses the still view of a camera (a frame of a real clip)
within a second or two. The sensor's noise is added, and an encoder makes a recording of it as a
camera's would. Where the object is in every frame is known, so it is known which frames show it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

import video_clips
from vault_ml.geometry import FrameXyxy
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import Sampling

FPS = 10
_SHOWN = 0.75
"""An object counts as shown from this part of it inside the frame."""

BACKGROUNDS = ("empty_scene_3s_768x432_10fps", "vtest_6s_768x576_10fps")
# The largest objects of darknet's photos, found by an independent run.
PHOTOS = ("darknet/dog.jpg", "darknet/person.jpg")
LABELS = ("person", "dog", "car")

X264 = {
    "crf": {"preset": "veryfast", "crf": "26"},
    # A bit rate held as a camera holds it, over two seconds.
    "cbr": {"preset": "veryfast", "b": "500k", "maxrate": "500k", "bufsize": "1000k"},
}


@dataclass(frozen=True, slots=True)
class Event:
    """One crossing: where the object is while it lasts.

    Attributes:
        label: what it is.
        boxes: by number of the frame, the part of it inside the frame: xyxy, pixels.
        shown: numbers of the frames that show it, three quarters of it or more.
    """

    label: str
    boxes: dict[int, tuple[float, float, float, float]]
    shown: frozenset[int]


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording and what happens in it."""

    name: str
    recording: bytes
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """What clips are made of, RGB."""

    backgrounds: tuple[NDArray[np.uint8], ...]
    objects: tuple[tuple[str, NDArray[np.uint8]], ...]

    @classmethod
    def read(cls, shared: Path, size_wh: tuple[int, int]) -> Material:
        """From the folder of shared data; backgrounds at `size_wh`."""
        backgrounds = []
        for name in BACKGROUNDS:
            recording = (shared / "video" / f"{name}.mp4").read_bytes()
            with RecordingReader(io.BytesIO(recording), DecodeLimits()) as reader:
                (picture,) = reader.pictures(1, Sampling.KEYFRAME)
                backgrounds.append(cv2.resize(picture.rgb(), size_wh).astype(np.uint8))
        expected = json.loads((shared / "expected/yolov3-tiny.json").read_text())["images"]
        objects = []
        for photo in PHOTOS:
            bgr = cv2.imread(str(shared / "images" / photo))
            assert bgr is not None
            for seen in expected[photo]:
                x1, y1, x2, y2 = (max(0, round(v)) for v in seen["box_xyxy"])
                if seen["label"] in LABELS and y2 - y1 > 80:
                    crop = np.ascontiguousarray(bgr[y1:y2, x1:x2, ::-1])
                    objects.append((seen["label"], crop.astype(np.uint8)))
        return cls(tuple(backgrounds), tuple(objects))


def make_clip(
    material: Material,
    seed: int,
    *,
    seconds: int = 30,
    events: int = 1,
    gop: int = 20,
    control: str = "crf",
    event_s: tuple[float, float] = (1.0, 2.5),
    noise: float = 2.0,
) -> Clip:
    """One recording, the same for the same arguments.

    Args:
        material: what it is made of.
        seed: of everything that is drawn by chance.
        seconds: its length.
        events: how many crossings, one in each of so many equal parts.
        gop: frames from keyframe to keyframe.
        control: how the encoder spends bits, of `X264`.
        event_s: shortest and longest crossing, seconds.
        noise: of the sensor, grey levels.
    """
    chance = np.random.default_rng(seed)
    background = material.backgrounds[seed % len(material.backgrounds)]
    frames = seconds * FPS
    paths = [
        _crossing(material, chance, background.shape, part * frames // events,
                  (part + 1) * frames // events, event_s)
        for part in range(events)
    ]  # fmt: skip
    grain = chance.normal(0, noise, (16, *background.shape)).astype(np.float32)
    pictures = []
    for number in range(frames):
        picture = background.astype(np.float32)
        for event, crop, places in paths:
            if number in event.boxes:
                _paste(picture, crop, places[number])
        # The same grain never twice in a row at the same place.
        shifted = np.roll(grain[chance.integers(16)], int(chance.integers(500)), axis=1)
        noisy = np.clip(picture + shifted, 0, 255).astype(np.uint8)
        pictures.append(VideoFrame.from_ndarray(noisy, format="rgb24"))
    height, width = background.shape[:2]
    recording = video_clips.encode(
        "mp4",
        size_wh=(width, height),
        gop=gop,
        codec_options=X264[control],
        container_options={"movflags": "faststart"},
        times=[number * 1000 // FPS for number in range(frames)],
        pictures=pictures,
    )
    return Clip(f"{control}-gop{gop}-{seed}", recording, tuple(path[0] for path in paths))


def looked_at(recording: bytes, frames: int, sampling: Sampling) -> list[int]:
    """Numbers of the frames that a sampling chooses, rising."""
    with RecordingReader(io.BytesIO(recording), DecodeLimits()) as reader:
        return sorted(picture.number for picture in reader.pictures(frames, sampling))


def found(clip: Clip, numbers: Sequence[int]) -> int:
    """How many of a clip's events one of these frames shows."""
    return sum(bool(event.shown & set(numbers)) for event in clip.events)


def truth(event: Event, number: int) -> FrameXyxy:
    """The object's box in a frame: (1, 4), or (0, 4) where it is not there."""
    box = event.boxes.get(number)
    return FrameXyxy(np.array([] if box is None else [box], np.float32).reshape(-1, 4))


_Path = tuple[Event, NDArray[np.uint8], dict[int, tuple[int, int]]]


def _crossing(
    material: Material,
    chance: np.random.Generator,
    shape: tuple[int, ...],
    first: int,
    last: int,
    event_s: tuple[float, float],
) -> _Path:
    """An object that enters at one side and leaves at the other, between two frames."""
    height, width = shape[:2]
    label, crop = material.objects[int(chance.integers(len(material.objects)))]
    scale = chance.uniform(0.3, 0.5) * height / crop.shape[0]
    scale = min(scale, 0.35 * width / crop.shape[1])
    crop_wh = (max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale)))
    crop = cv2.resize(crop, crop_wh, interpolation=cv2.INTER_AREA).astype(np.uint8)
    duration = round(chance.uniform(*event_s) * FPS)
    start = int(chance.integers(first + 1, last - duration))
    y = int(chance.integers(height // 4, max(height // 4 + 1, height - crop_wh[1])))
    way = (width + crop_wh[0]) / (duration + 1)
    leftwards = bool(chance.integers(2))
    boxes, places, shown = {}, {}, set()
    for step in range(1, duration + 1):
        x = round(step * way - crop_wh[0])
        x = width - crop_wh[0] - x if leftwards else x
        x1, x2 = max(0, x), min(width, x + crop_wh[0])
        y2 = min(height, y + crop_wh[1])
        if x1 >= x2:
            continue
        number = start + step
        boxes[number] = (float(x1), float(y), float(x2), float(y2))
        places[number] = (x, y)
        if (x2 - x1) * (y2 - y) >= _SHOWN * crop_wh[0] * crop_wh[1]:
            shown.add(number)
    return Event(label, boxes, frozenset(shown)), crop, places


def _paste(picture: NDArray[np.float32], crop: NDArray[np.uint8], place: tuple[int, int]) -> None:
    """Put `crop` into `picture` at (x, y), as far as it lies inside."""
    x, y = place
    height, width = picture.shape[:2]
    x1, x2, y2 = max(0, x), min(width, x + crop.shape[1]), min(height, y + crop.shape[0])
    picture[y:y2, x1:x2] = crop[: y2 - y, x1 - x : x2 - x]
