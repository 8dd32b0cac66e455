"""What the parent and the detector's child say to each other: JSON objects, no pickles.

Parent to child: `start` (once), `look` (with the descriptor of the frames' memory), `ping`.
Child to parent: `refused` or `ready` (once), `seen` (one frame of a request), `failed` (a request
that could not be looked at), `fatal` (before it ends), `pong`.

The parent holds the credentials and does not trust the child: `parse_seen` checks every field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy, Letterbox
from vault_ml.inference.port import RuntimeInfo
from vault_ml.video.frame import Frame
from vault_ml.video.shared_frames import SharedFrames


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame to look at: its slot in the shared memory and its letterbox."""

    slot: int
    letterbox: Letterbox

    def pack(self) -> list[int]:
        """Nine integers."""
        box = self.letterbox
        return [self.slot, *box.frame_wh, *box.net_wh, *box.inner_wh, *box.offset_xy]

    @classmethod
    def unpack(cls, numbers: Sequence[int]) -> Picture:
        """The reverse of `pack`."""
        slot, frame_w, frame_h, net_w, net_h, inner_w, inner_h, x, y = numbers
        return cls(slot, Letterbox((frame_w, frame_h), (net_w, net_h), (inner_w, inner_h), (x, y)))


def slot_of(shared: SharedFrames, frame: Frame) -> int:
    """Which of `shared`'s slots a frame's pixels lie in.

    Found by address: the index of a frame counts looked-at frames, and need not be its slot.

    Raises:
        ValueError: the pixels are not one whole picture at the beginning of a slot.
    """
    pixels = shared.pixels
    offset = _address(frame.pixels) - _address(pixels)
    slot, remainder = divmod(offset, int(pixels[0].nbytes))
    w, h = frame.letterbox.net_wh
    if (
        remainder
        or not 0 <= slot < shared.capacity
        or frame.pixels.shape != (h, w, 3)
        or frame.pixels.nbytes > pixels[0].nbytes
        or not frame.pixels.flags.c_contiguous
    ):
        raise ValueError(f"frame {frame.index} does not lie in the shared memory it came with")
    return slot


@dataclass(frozen=True, slots=True)
class Ready:
    """The child has loaded the model and looked at its first picture.

    Attributes:
        info: what really runs.
        labels: the model's class names.
        net_wh: size of the model's largest input, pixels.
        run_s: seconds of the slowest warm run.
    """

    info: RuntimeInfo
    labels: tuple[str, ...]
    net_wh: tuple[int, int]
    run_s: float

    def pack(self) -> dict[str, Any]:
        """As a message."""
        return {
            "type": "ready",
            "runtime": self.info.runtime,
            "device": self.info.device,
            "precision": self.info.precision,
            "labels": list(self.labels),
            "net_wh": list(self.net_wh),
            "run_s": self.run_s,
        }

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> Ready:
        """The reverse of `pack`.

        Raises:
            ValueError: a field is missing or of another type.
        """
        runtime, device, precision = (
            _expect(message, name, str) for name in ("runtime", "device", "precision")
        )
        labels = _expect(message, "labels", list)
        net_wh = _expect(message, "net_wh", list)
        run_s = _expect(message, "run_s", float)
        if not all(isinstance(label, str) for label in labels):
            raise ValueError("labels: expected texts")
        if len(net_wh) != 2 or not all(type(side) is int and side > 0 for side in net_wh):
            raise ValueError("net_wh: expected two positive integers")
        if not 0 <= run_s < float("inf"):
            raise ValueError("run_s: expected seconds")
        return cls(
            RuntimeInfo(runtime, device, precision), tuple(labels), (net_wh[0], net_wh[1]), run_s
        )


def pack_seen(request: int, position: int, detections: Detections) -> dict[str, Any]:
    """What was seen in picture `position` of `request`, as a message.

    float32 travels exactly: JSON writes the shortest text that reads back as the same double.
    """
    return {
        "type": "seen",
        "request": request,
        "position": position,
        "xyxy": detections.xyxy.tolist(),
        "confidence": detections.confidence.tolist(),
        "class_id": detections.class_id.tolist(),
    }


def parse_seen(
    message: Mapping[str, Any], frame_wh: tuple[int, int], labels: Sequence[str]
) -> Detections:
    """The detections of a `seen` message.

    Args:
        message: from the child, not trusted.
        frame_wh: size of the frame that was looked at, pixels.
        labels: the model's class names.

    Raises:
        ValueError: not detections that could lie in this frame.
    """
    class_id = _array(message, "class_id", "i")
    confidence = _array(message, "confidence", "fi").astype(np.float32)
    # NaN fails every comparison below; what is too large for float32 becomes infinite and fails.
    with np.errstate(over="ignore"):
        xyxy = _array(message, "xyxy", "fi").astype(np.float32)
    if not len(xyxy):
        xyxy = xyxy.reshape(0, 4)
    elif xyxy.ndim != 2 or xyxy.shape[1] != 4:
        raise ValueError(f"xyxy: expected shape (n, 4), got {xyxy.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence: expected 0 to 1")
    limit = np.array([*frame_wh, *frame_wh], dtype=np.float32)
    if not ((xyxy >= 0) & (xyxy <= limit)).all() or not (xyxy[:, 2:] > xyxy[:, :2]).all():
        raise ValueError(f"xyxy: expected boxes inside {frame_wh}")
    return Detections(FrameXyxy(xyxy), confidence, class_id.astype(np.int64), labels)


def _array(message: Mapping[str, Any], name: str, kinds: str) -> NDArray[Any]:
    values = np.asarray(_expect(message, name, list))
    if values.size and values.dtype.kind not in kinds:
        raise ValueError(f"{name}: expected numbers, got {values.dtype}")
    return values


def _expect(message: Mapping[str, Any], name: str, kind: type) -> Any:
    value = message.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _address(array: NDArray[np.uint8]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
