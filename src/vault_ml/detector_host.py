"""`DetectorHost`: one child that hosts a detector, from its start to its end.

Several threads hand in requests; one thread, in `attend`, takes the answers, and finds out when
the child died or stands still. A host is never mended: whoever owns it starts another.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vault_ml.child import Child, ChildGone, ChildStuck
from vault_ml.detection import Detections
from vault_ml.detector_wire import Picture, Ready, parse_seen, slot_of
from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.geometry import input_wh
from vault_ml.inference.onnx_runtime import Device
from vault_ml.inference.opening import Engine
from vault_ml.video.frame import Frame
from vault_ml.video.shared_frames import SharedFrames

_CHILD_MODULE = "vault_ml.detector_child"

# A run that takes this many times as long as the slowest warm-up run is stuck, whatever the
# deadline says: a large model on half a processor must not be killed for being slow.
_PATIENCE = 10
# What a child says of a run is believed up to here.
_MOST_PER_RUN = 4096


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """How to look.

    Attributes:
        confidence_threshold: boxes at or below it are dropped.
        nms_threshold: IoU above which the weaker of two boxes of one class is dropped.
        engine: which runtime: `onnxruntime`, `openvino` or `mnn`.
        device: `auto`, `cpu`, `cuda` or `tensorrt`.
        precision: `fp32`, `fp16` (TensorRT) or `int8` (OpenVINO).
        rect: inputs as small as the frames' shapes allow, instead of one square.
        quantized: path of the INT8 network.
        cache: folder for what the runtime compiles or converts.
        threads: processors to use; None follows affinity and quota.
        deadline_s: a child that has work and answers nothing for so long is stuck (longer where
            the warm-up already showed runs of more than a tenth of it).
        start_s: how long loading the model and the first run may take.
        wait_s: how long `detect` waits for a replacement before it says that there is none.
    """

    confidence_threshold: float = 0.5
    nms_threshold: float = 0.45
    engine: Engine = "onnxruntime"
    device: Device = "auto"
    precision: str = "fp32"
    rect: bool = False
    quantized: str | None = None
    cache: str | None = None
    threads: int | None = None
    deadline_s: float = 30.0
    start_s: float = 120.0
    wait_s: float = 30.0


@dataclass(slots=True)
class _Request:
    """What one recording waits for."""

    frames: Sequence[Frame]
    answer: Future[list[Detections]]
    seen: list[Detections | None]
    moved_at: float
    rivals: int = 1  # most requests in hand at once since `moved_at`

    def is_complete(self) -> bool:
        return all(each is not None for each in self.seen)


@dataclass(slots=True)
class _Ledger:
    """The requests in hand; guarded by `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: dict[int, _Request] = field(default_factory=dict)
    next_id: int = 0
    moved_at: float = 0.0
    end: str | None = None  # why nothing more is taken


class DetectorHost:
    """A child process with a loaded model. `warm_up`, then `attend` in one thread."""

    def __init__(
        self,
        model: Path,
        labels: Sequence[str],
        options: DetectorOptions,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        """Start the process; it loads nothing before `warm_up`.

        `on_batch` is told, in `attend`, how many frames each run of the network held.
        """
        self._on_batch = on_batch
        self._model = model
        self._labels = tuple(labels)
        self._options = options
        self._deadline_s = options.deadline_s
        self._net_wh = (0, 0)
        self._ledger = _Ledger()
        # A thread that sends must not find the descriptor closed, and reused, under its feet.
        self._sending = threading.Lock()
        self._child = Child(_CHILD_MODULE, name="detector")
        self._last_words = ""
        self.answered = 0
        """Frames answered so far."""

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    @property
    def over(self) -> str | None:
        """Why it takes no more work; None while it does."""
        return self._ledger.end

    def warm_up(self) -> Ready:
        """Have the model loaded and a first picture looked at.

        Raises:
            ModelError, ConfigError: the child says that it cannot work, and why.
            DetectorUnavailable: it died, stood still or made no sense.
        """
        options = asdict(self._options)
        try:
            self._send({"type": "start", "model": str(self._model), "options": options})
            message = self._receive(self._options.start_s)
            if message.get("type") == "refused":
                refusal = ModelError if message.get("kind") == "model" else ConfigError
                raise refusal(str(message.get("why")))
            ready = Ready.parse(message)
            if ready.labels != self._labels:
                raise ModelError(
                    f"{self._model} carries other class names than it was prepared with; empty "
                    "the cache folder and start again"
                )
        except ChildStuck as error:
            self.end()
            raise DetectorUnavailable(
                f"the detector process was not ready within {self._options.start_s:g} s"
            ) from error
        except ChildGone as error:
            raise DetectorUnavailable(f"{self._obituary()}, while it started") from error
        except ValueError as error:
            self.end()
            raise DetectorUnavailable(f"the detector process answered nonsense: {error}") from error
        except ConfigError:
            self.end()
            raise
        self._net_wh = ready.net_wh
        self._deadline_s = max(self._options.deadline_s, _PATIENCE * ready.run_s)
        return ready

    def submit(self, shared: SharedFrames, frames: Sequence[Frame]) -> Future[list[Detections]]:
        """Hand in a recording's frames; the future fails with `DetectorUnavailable`.

        `shared` stays open until the future is done.

        Raises:
            ValueError: the frames do not lie in `shared`, or are of another size.
        """
        if shared.net_wh != self._net_wh:
            raise ValueError(f"frames of {shared.net_wh} came to a network of {self._net_wh}")
        for frame in frames:
            box = frame.letterbox
            if box.net_wh != input_wh(box.frame_wh, self._net_wh, rect=self._options.rect):
                raise ValueError(f"frames of {box.net_wh} came to a network of {self._net_wh}")
        pictures = [Picture(slot_of(shared, frame), frame.letterbox).pack() for frame in frames]
        answer: Future[list[Detections]] = Future()
        if not frames:
            answer.set_result([])
            return answer
        with self._ledger.lock:
            if self._ledger.end is not None:
                answer.set_exception(DetectorUnavailable(self._ledger.end))
                return answer
            number = self._ledger.next_id
            self._ledger.next_id += 1
            now = time.monotonic()
            if not self._ledger.requests:
                self._ledger.moved_at = now
            self._ledger.requests[number] = _Request(frames, answer, [None] * len(frames), now)
            for request in self._ledger.requests.values():
                request.rivals = max(request.rivals, len(self._ledger.requests))
        message = {"type": "look", "request": number, "pictures": pictures}
        try:
            self._send(message, [shared.fd])
        except (ChildGone, ChildStuck) as error:
            self._fail_all(f"the detector process takes no work ({error})")
        return answer

    def attend(self) -> str:
        """Take answers until the child is gone, and say why it is.

        Every request still in hand then fails with that reason.
        """
        reason = "the detector process stopped being watched"
        try:
            reason = self._attend()
        finally:
            self._fail_all(reason)
            self.end()
        return reason

    def kill(self) -> None:
        """End the process; `attend` or `warm_up` notices and cleans up. From any thread."""
        self._child.process.kill()

    def end(self) -> None:
        """Kill, reap and close. Idempotent; only where nobody is in `attend` or `warm_up`."""
        self._child.process.kill()  # first: it wakes a thread that is sending
        with self._sending:
            self._child.kill()

    # --- inside

    def _attend(self) -> str:
        poll = select.poll()
        poll.register(self._child.channel.fileno(), select.POLLIN)
        heard_at, pinged = time.monotonic(), False
        while True:
            due_at, is_busy = self._silence_until(heard_at, pinged=pinged)
            wait_s = due_at - time.monotonic()
            if wait_s > 0:
                if poll.poll(wait_s * 1000 + 1):
                    try:
                        self._take(self._receive(self._deadline_s))
                    except ChildGone:
                        return self._obituary()
                    except ChildStuck:
                        return f"the detector process stood still for {self._deadline_s:g} s"
                    except ValueError as error:
                        return f"the detector process answered nonsense: {error}"
                    heard_at, pinged = time.monotonic(), False
            elif is_busy or pinged:
                return f"the detector process stood still for {self._deadline_s:g} s"
            else:
                try:
                    self._send({"type": "ping"})
                except (ChildGone, ChildStuck):
                    return self._obituary()
                heard_at, pinged = time.monotonic(), True

    def _silence_until(self, heard_at: float, *, pinged: bool) -> tuple[float, bool]:
        """The moment from which silence means something, and whether there is work in hand."""
        with self._ledger.lock:
            requests = self._ledger.requests.values()
            if not requests:
                return heard_at + self._deadline_s / (1 if pinged else 2), False
            # A child that answers others, but not this one, has lost it: frames are taken in
            # turn, so between two of one request every rival is looked at about once.
            lost_at = min(
                request.moved_at + 2 * request.rivals * self._deadline_s for request in requests
            )
            return min(self._ledger.moved_at + self._deadline_s, lost_at), True

    def _take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "pong":
            return
        if kind == "fatal":
            self._last_words = f": {message.get('why')}"
            return
        with self._ledger.lock:
            number = message.get("request")
            request = self._ledger.requests.get(number) if type(number) is int else None
            if request is None or type(number) is not int:
                raise ValueError(f"an answer to nothing ({str(kind)[:20]})")
            if kind == "failed":
                del self._ledger.requests[number]
                _settle(request.answer, DetectorUnavailable(str(message.get("why"))))
            elif kind == "seen":
                self._note(request, message)
                if request.is_complete():
                    del self._ledger.requests[number]
                    _settle(request.answer, [each for each in request.seen if each is not None])
            else:
                raise ValueError(f"a message of kind {str(kind)[:20]}")
            self._ledger.moved_at = time.monotonic()

    def _note(self, request: _Request, message: Mapping[str, Any]) -> None:
        position = message.get("position")
        if (
            type(position) is not int
            or not 0 <= position < len(request.frames)
            or request.seen[position] is not None
        ):
            raise ValueError("a frame that was not asked for")
        request.seen[position] = parse_seen(message, request.frames[position].size_wh, self._labels)
        request.moved_at, request.rivals = time.monotonic(), len(self._ledger.requests)
        self.answered += 1
        batch = message.get("batch")
        if self._on_batch is not None and type(batch) is int and 0 < batch <= _MOST_PER_RUN:
            self._on_batch(batch)

    def _fail_all(self, reason: str) -> None:
        with self._ledger.lock:
            if self._ledger.end is None:
                self._ledger.end = reason
            requests = list(self._ledger.requests.values())
            self._ledger.requests.clear()
        self._child.process.kill()
        for request in requests:
            _settle(request.answer, DetectorUnavailable(reason))

    def _obituary(self) -> str:
        """How it ended, after its end of the socket closed: a moment before the process is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.process.wait(1)
        self.end()
        return f"the detector process {self._child.epitaph()}{self._last_words}"

    def _send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        with self._sending:
            self._child.channel.send(message, fds, timeout_s=self._deadline_s)

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        message, fds = self._child.channel.receive(timeout_s=timeout_s)
        for fd in fds:
            os.close(fd)
        if fds:
            raise ValueError("a descriptor that nobody asked for")
        return message


def _settle(
    answer: Future[list[Detections]], outcome: list[Detections] | DetectorUnavailable
) -> None:
    try:
        if isinstance(outcome, DetectorUnavailable):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
    except InvalidStateError:  # the waiting thread cancelled it
        pass
