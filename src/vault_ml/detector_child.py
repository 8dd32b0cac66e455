"""The detector's child process: `python -m vault_ml.detector_child`, started by `DetectorHost`.

One thread takes requests, so that a ping is answered during a run; the main thread looks at
pictures, in turn over all recordings that wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vault_ml.child import Channel, ChildGone, connect
from vault_ml.detector import Detector
from vault_ml.detector_wire import Picture, Ready, pack_seen
from vault_ml.errors import ConfigError, ModelError, VaultMLError
from vault_ml.geometry import Letterbox
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.yolo.head import HeadSpec, heads_from_json

# On a CPU a batch wins nothing (facts measured for docs/adr/0002-children.md) and one picture per
# run gives the same bits whatever else waits. A GPU needs many to be busy. Batches are powers of
# two, so that all sizes that ever run are warmed up: CUDA searches its algorithms per shape.
_CPU_BATCH = 1
_GPU_BATCH = 8

# The names are `yolo.export`'s, which is not imported here: it brings the onnx library along.
_HEADS = "vault_ml.heads"
_LABELS = "vault_ml.labels"

_WHOLE_MESSAGE_S = 60.0
"""Requests are small; the parent writes each in one go."""


class _Work:
    """A request that is being looked at: the frames' memory and the pictures still to do."""

    def __init__(self, number: int, fd: int, pictures: Sequence[Picture]) -> None:
        self.number = number
        self.fd = fd
        self.left = deque(enumerate(pictures))
        self.unanswered = len(pictures)

    def read(self, slot: int, into: NDArray[np.uint8]) -> None:
        """Copy one picture out of the shared memory.

        Read, not mapped: a decoder that was taken over may shrink the memory, and a mapping of
        what is gone kills whoever touches it.
        """
        view = into.data.cast("B")
        if os.preadv(self.fd, [view], slot * len(view)) != len(view):
            raise ValueError("the frames' memory is shorter than it should be")


def main() -> None:
    """Serve until the parent goes away."""
    channel, _ = connect()
    # The parent's end may close between two messages: nothing is left to do, or to say.
    with contextlib.suppress(ChildGone):
        message, _ = _receive(channel)
        try:
            detector, net_wh, batch, ready = load(Path(message["model"]), message["options"])
        except ConfigError as error:
            kind = "model" if isinstance(error, ModelError) else "config"
            _send(channel, {"type": "refused", "kind": kind, "why": str(error)})
            return
        _send(channel, ready.pack())
        requests: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(channel, requests, net_wh), daemon=True).start()
        _look_for_ever(channel, requests, detector, net_wh, batch)


def load(model: Path, options: Mapping[str, Any]) -> tuple[Detector, tuple[int, int], int, Ready]:
    """The warm detector, the size of its input, its largest batch, and what to tell the parent.

    Raises:
        ModelError, ConfigError: the model or the options cannot work.
    """
    runtime = OnnxRuntime(model, device=options["device"], threads=options["threads"])
    heads, labels = heads_and_labels(runtime.metadata, model)
    detector = Detector(
        runtime,
        heads,
        labels,
        runtime.net_wh,
        options["confidence_threshold"],
        options["nms_threshold"],
    )
    batch = _CPU_BATCH if runtime.info.device == "cpu" else _GPU_BATCH
    try:
        run_s = warm_up(detector, runtime.net_wh, batch)
    except VaultMLError as error:
        raise ModelError(f"{model} does not run: {error}") from error
    return detector, runtime.net_wh, batch, Ready(runtime.info, labels, runtime.net_wh, run_s)


def heads_and_labels(
    metadata: Mapping[str, str], model: Path
) -> tuple[tuple[HeadSpec, ...], tuple[str, ...]]:
    """What the exporter (`yolo.export`) wrote into the model about its outputs.

    Raises:
        ModelError: the model was not written by vault-ml.
    """
    try:
        heads = heads_from_json(metadata[_HEADS])
        labels = json.loads(metadata[_LABELS])
        if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
            raise ValueError("the labels are not a list of names")
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{model} does not say how to read its outputs; make it from the .cfg and .weights: "
            "vault-ml convert CFG WEIGHTS"
        ) from error
    return heads, tuple(labels)


def warm_up(detector: Detector, net_wh: tuple[int, int], batch: int) -> float:
    """Run every size of batch that will occur, twice.

    Returns:
        Seconds of the slowest second run: the first pays for memory and tuning.
    """
    w, h = net_wh
    slowest_s, size = 0.0, 1
    while size <= batch:
        pixels = np.full((size, h, w, 3), 127, np.uint8)
        letterboxes = [Letterbox.fit(net_wh, net_wh)] * size
        detector.detect(pixels, letterboxes)
        started = time.perf_counter()
        detector.detect(pixels, letterboxes)
        slowest_s = max(slowest_s, time.perf_counter() - started)
        size *= 2
    return slowest_s


def next_batch(waiting: deque[_Work], limit: int) -> list[tuple[_Work, int, Picture]]:
    """Take up to `limit` pictures, one recording after the other, and rotate what waits.

    A long recording cannot starve a short one. The number taken is a power of two.
    """
    total = sum(len(work.left) for work in waiting)
    size = 1 << (min(limit, total).bit_length() - 1) if total else 0
    batch = []
    for _ in range(size):
        work = waiting.popleft()
        position, picture = work.left.popleft()
        batch.append((work, position, picture))
        if work.left:
            waiting.append(work)
    return batch


def _listen(channel: Channel, requests: queue.SimpleQueue[_Work], net_wh: tuple[int, int]) -> None:
    try:
        while True:
            message, fds = _receive(channel)
            if message["type"] == "ping":
                _send(channel, {"type": "pong"})
            else:
                pictures = [Picture.unpack(numbers, net_wh) for numbers in message["pictures"]]
                requests.put(_Work(message["request"], fds[0], pictures))
    except ChildGone:
        os._exit(0)
    except Exception:  # noqa: BLE001  this thread has nobody to raise to
        # Without its ears the process is of no use; the parent sees it end and starts another.
        traceback.print_exc()
        os._exit(1)


def _look_for_ever(
    channel: Channel,
    requests: queue.SimpleQueue[_Work],
    detector: Detector,
    net_wh: tuple[int, int],
    limit: int,
) -> None:
    w, h = net_wh
    room = np.empty((limit, h, w, 3), np.uint8)
    waiting: deque[_Work] = deque()
    while True:
        while not waiting or not requests.empty():
            waiting.append(requests.get())
        batch = next_batch(waiting, limit)
        try:
            for row, (work, _, picture) in enumerate(batch):
                work.read(picture.slot, room[row])
            seen = detector.detect(
                room[: len(batch)], [picture.letterbox for _, _, picture in batch]
            )
        except (VaultMLError, ValueError) as error:
            _give_up(channel, {work.number: work for work, _, _ in batch}, waiting, str(error))
            _prove_health(channel, detector, net_wh)
            continue
        for (work, position, _), detections in zip(batch, seen, strict=True):
            _send(channel, pack_seen(work.number, position, detections))
            work.unanswered -= 1
            if not work.unanswered:
                os.close(work.fd)


def _give_up(
    channel: Channel, failed: Mapping[int, _Work], waiting: deque[_Work], why: str
) -> None:
    for number, work in failed.items():
        with contextlib.suppress(ValueError):
            waiting.remove(work)
        os.close(work.fd)
        _send(channel, {"type": "failed", "request": number, "why": why})


def _prove_health(channel: Channel, detector: Detector, net_wh: tuple[int, int]) -> None:
    """After a failure: is it those pictures, or all of us?"""
    try:
        warm_up(detector, net_wh, _CPU_BATCH)
    except VaultMLError as error:
        _send(channel, {"type": "fatal", "why": str(error)})
        sys.exit(1)


def _send(channel: Channel, message: Mapping[str, Any]) -> None:
    channel.send(message, timeout_s=_WHOLE_MESSAGE_S)


def _receive(channel: Channel) -> tuple[dict[str, Any], list[int]]:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.poll()
    return channel.receive(timeout_s=_WHOLE_MESSAGE_S)


if __name__ == "__main__":
    main()
