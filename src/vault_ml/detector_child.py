"""The detector's child process: `python -m vault_ml.detector_child`, started by `DetectorHost`.

One thread takes requests, so that a ping is answered during a run; the main thread looks.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vault_ml.child import Channel, ChildGone, connect
from vault_ml.detector import Detector
from vault_ml.detector_loop import DetectorLoop, Work
from vault_ml.detector_wire import Picture, Ready
from vault_ml.errors import ConfigError, ModelError, VaultMLError
from vault_ml.inference.lanes import MOST_GPU_BATCH
from vault_ml.inference.onnx_file import read_metadata
from vault_ml.inference.opening import Opening, first_wh, open_runtime
from vault_ml.yolo.head import Head, heads_from_json
from vault_ml.yolo.metadata import (
    METADATA_BATCH,
    METADATA_HEADS,
    METADATA_LABELS,
    METADATA_NET_WH,
)

# On a CPU a batch wins nothing (docs/adr/0002-children.md), and one picture per run gives the
# same bits whatever else waits. A GPU needs many to be busy; how many is measured.
_CPU_BATCH = 1

_WHOLE_MESSAGE_S = 60.0
"""Messages are small and written in one go; this only bounds a parent that stands still."""


def main() -> int:
    """Serve until the parent goes away; 1 when the device fails altogether."""
    channel, _ = connect()
    answer = partial(channel.send, timeout_s=_WHOLE_MESSAGE_S)
    # The parent's end may close between two messages: nothing is left to do, or to say.
    with contextlib.suppress(ChildGone):
        message, _ = _receive(channel)
        try:
            loop, ready = load(Path(message["model"]), message["options"], answer)
        except ConfigError as error:
            kind = "model" if isinstance(error, ModelError) else "config"
            answer({"type": "refused", "kind": kind, "why": str(error)})
            return 0
        answer(ready.pack())
        threading.Thread(
            target=_listen, args=(channel, loop.requests, ready.net_wh), daemon=True
        ).start()
        try:
            loop.run()
        except VaultMLError as error:
            answer({"type": "fatal", "why": str(error)})
            return 1
    return 0


def load(
    model: Path, options: Mapping[str, Any], answer: Callable[[Mapping[str, Any]], None]
) -> tuple[DetectorLoop, Ready]:
    """A warm detector that gives its answers to `answer`, and what to tell the parent about it.

    Raises:
        ModelError, ConfigError: the model or the options cannot work.
    """
    how = _opening(options)
    metadata = read_metadata(model)
    head, labels = head_and_labels(metadata, model)
    runtime = open_runtime(model, _net_wh(metadata, model), how)
    detector = Detector(
        runtime,
        head,
        labels,
        runtime.net_wh,
        options["confidence_threshold"],
        options["nms_threshold"],
    )
    batch = _CPU_BATCH if runtime.info.device == "cpu" else MOST_GPU_BATCH
    if METADATA_BATCH in metadata:  # an export that takes only so many at once
        batch = min(batch, int(metadata[METADATA_BATCH]))
    loop = DetectorLoop(detector, runtime.net_wh, batch, answer, lanes=runtime.lanes)
    try:
        run_s = loop.warm_up(wh=first_wh(runtime.net_wh, rect=how.rect))
    except VaultMLError as error:
        raise ModelError(f"{model} does not run: {error}") from error
    loop.choose_batch()
    return loop, Ready(runtime.info, labels, runtime.net_wh, run_s)


def _opening(options: Mapping[str, Any]) -> Opening:
    quantized, cache = options.get("quantized"), options.get("cache")
    return Opening(
        engine=options.get("engine", "onnxruntime"),
        device=options["device"],
        precision=options.get("precision", "fp32"),
        rect=options.get("rect", False),
        threads=options["threads"],
        quantized=Path(quantized) if quantized else None,
        cache=Path(cache) if cache else None,
    )


def _net_wh(metadata: Mapping[str, str], model: Path) -> tuple[int, int]:
    try:
        width, height = json.loads(metadata[METADATA_NET_WH])
        return int(width), int(height)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{model} does not say how large its input is; convert it again"
        ) from error


def head_and_labels(metadata: Mapping[str, str], model: Path) -> tuple[Head, tuple[str, ...]]:
    """What `yolo.export` or `models.adopt` wrote into the model about its outputs.

    Raises:
        ModelError: the model was not written by vault-ml.
    """
    try:
        head = heads_from_json(metadata[METADATA_HEADS])
        labels = json.loads(metadata[METADATA_LABELS])
        if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
            raise ValueError("the labels are not a list of names")
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{model} does not say how to read its outputs; make it from the .cfg and .weights: "
            "vault-ml convert CFG WEIGHTS"
        ) from error
    return head, tuple(labels)


def _listen(
    channel: Channel, requests: queue.SimpleQueue[Work | None], net_wh: tuple[int, int]
) -> None:
    slot_bytes = net_wh[0] * net_wh[1] * 3
    try:
        while True:
            message, fds = _receive(channel)
            if message["type"] == "ping":
                channel.send({"type": "pong"}, timeout_s=_WHOLE_MESSAGE_S)
            else:
                pictures = [Picture.unpack(numbers) for numbers in message["pictures"]]
                requests.put(Work(message["request"], fds[0], pictures, slot_bytes))
    except ChildGone:
        requests.put(None)
    except Exception:  # noqa: BLE001  this thread has nobody to raise to
        # Without its ears the process is of no use; the parent sees it end and starts another.
        traceback.print_exc()
        os._exit(1)


def _receive(channel: Channel) -> tuple[dict[str, Any], list[int]]:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.poll()
    return channel.receive(timeout_s=_WHOLE_MESSAGE_S)


if __name__ == "__main__":
    sys.exit(main())
