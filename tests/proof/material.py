"""What the machine is fed with: tiny recordings, a tiny detector, events, poison.

The same events serve every seed, so that one run without faults says what all must come to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from proof.history import Event
from tiny_detector import CELL, NET_WH, tiny_metadata, write_tiny_model
from vault_ml.demo.vault_events import upload_event
from vault_ml.yolo.metadata import METADATA_NET_WH
from video_clips import encode

_STORED_AT = 1_700_000_000  # a fixed time: an event's bytes must be the same in every run
_PROVIDER = "local"
_CAMERAS = ("highway4", "frontdoor", "garage", "yard")
# Cells that are an object, and the colour of the objects: see `tiny_detector`. Two in eight show
# nothing, because "nothing seen" is a result as well.
_SCENES: tuple[tuple[tuple[tuple[int, int], ...], tuple[int, int, int]], ...] = (
    (((1, 1),), (255, 255, 0)),
    (((2, 3), (5, 1)), (255, 0, 255)),
    ((), (255, 255, 0)),
    (((4, 4),), (255, 0, 255)),
    (((0, 5), (3, 2), (6, 0)), (255, 255, 0)),
    (((7, 3),), (255, 255, 0)),
    ((), (255, 0, 255)),
    (((6, 5), (1, 3)), (255, 0, 255)),
)
_FRAME_SCALE = 2  # the recording is larger than the network's input, as a real one is


@dataclass(frozen=True)
class Message:
    """An event's bytes and what it is about."""

    event: Event
    body: bytes
    recording: bytes | None


def write_detector(folder: Path) -> Path:
    """The fixed fast detector that stands in for YOLO here, and here only: a real ONNX model."""
    metadata = {**tiny_metadata(), METADATA_NET_WH: json.dumps(NET_WH)}
    return write_tiny_model(folder / "tiny.onnx", metadata=metadata)


def clips() -> list[bytes]:
    """One recording of under a second per scene, with key frames in between."""
    return [_clip(cells, colour) for cells, colour in _SCENES]


def good(count: int) -> list[Message]:
    """Events that can be processed."""
    recordings = clips()
    messages = []
    for number in range(count):
        recording = recordings[number % len(recordings)]
        key = _key(number)
        body = _body(key, len(recording))
        messages.append(Message(Event(_sha(body), key), body, recording))
    return messages


def poison(count: int) -> list[Message]:
    """Events that can never be processed, of every kind in turn."""
    return [_poison(number) for number in range(count)]


def _poison(number: int) -> Message:
    key = _key(1_000_000 + number)
    kinds = 6
    kind, turn = number % kinds, number // kinds
    if kind == 0:  # no such recording
        body = _body(key, 4000)
        event = Event(
            _sha(body), key, expects=("RecordingNotFound",), retries=True, is_missing=True
        )
        return Message(event, body, None)
    if kind == 1:  # not a recording
        noise = np.random.default_rng(number).bytes(3000)
        body = _body(key, len(noise))
        return Message(Event(_sha(body), key, ("UndecodableRecording",)), body, noise)
    bodies = {
        2: b"not an event %d" % turn,
        3: b'{"source": "local", "payload": {}, "n": %d}' % turn,
        4: b"\xff\xfe\x00%d" % turn,
        5: b'{"payload": {"key": "a.mp4"}, "n": %d}' % turn,  # names no provider
    }
    body = bodies[kind]
    return Message(Event(_sha(body), None, ("MalformedEvent",)), body, None)


def _body(key: str, size_bytes: int) -> bytes:
    return upload_event(
        key, size_bytes=size_bytes, provider=_PROVIDER, stored_at=_STORED_AT, headers={}
    )


def _key(number: int) -> str:
    camera = _CAMERAS[number % len(_CAMERAS)]
    return f"youruser/{1630567591 + number}_6-967003_{camera}_200-200-400-400_24_{number}.mp4"


def _clip(cells: Sequence[tuple[int, int]], colour: tuple[int, int, int]) -> bytes:
    w, h = (side * _FRAME_SCALE for side in NET_WH)
    cell = CELL * _FRAME_SCALE
    image = np.zeros((h, w, 3), np.uint8)
    for column, row in cells:
        image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = colour
    pictures = [VideoFrame.from_ndarray(image, format="rgb24") for _ in range(9)]
    return encode("mp4", size_wh=(w, h), gop=3, pictures=pictures)


def _sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
