"""`DetectorProcess`: a detector in a child process that is watched, and replaced when it fails.

Several recording threads call `detect` at once. One supervising thread takes the answers, notices
a dead or stuck child, fails what it had in hand and starts the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vault_ml.detection import Detections
from vault_ml.detector_host import DetectorHost, DetectorOptions
from vault_ml.errors import DetectorUnavailable, VaultMLError
from vault_ml.inference.port import RuntimeInfo
from vault_ml.video.frame import Frame
from vault_ml.video.shared_frames import SharedFrames

if TYPE_CHECKING:  # importing it would bring the onnx library along
    from vault_ml.models.prepare import PreparedModel

__all__ = ["DetectorOptions", "DetectorProcess"]

logger = logging.getLogger(__name__)

# The first replacement starts at once; one that dies before its first answer costs a pause that
# doubles, so that a broken machine is not kept busy starting processes.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
# Children in a row that were lost before they answered anything are no accident.
_HOPELESS_AFTER = 3


class DetectorProcess:
    """A supervised child that hosts a `Detector`. Thread-safe.

    Attributes:
        on_restart: called from the supervising thread, with the reason, whenever a child is lost;
            for logs and metrics. It must not block.
        on_batch: called from the same thread with the number of frames of each run; likewise.
        on_hopeless: called from the same thread, with the reason, when three children in a row
            were lost, or did not start, before one answered anything; likewise.
    """

    def __init__(
        self,
        model: PreparedModel,
        options: DetectorOptions,
        *,
        on_restart: Callable[[str], None] | None = None,
    ) -> None:
        """Remember what to run; nothing is started."""
        self._model = model
        self._options = options
        self.on_restart = on_restart
        self.on_batch: Callable[[int], None] | None = None
        self.on_hopeless: Callable[[str], None] | None = None
        self._changed = threading.Condition()
        self._host: DetectorHost | None = None  # starting or warm
        self._info: RuntimeInfo | None = None
        self._is_warm = False
        self._is_closed = False
        self._trouble = "the detector has not been started"
        self._restarts = 0
        self._failures_in_a_row = 0
        self._supervisor: threading.Thread | None = None

    @property
    def info(self) -> RuntimeInfo:
        """What really runs, in the child that was started last.

        Raises:
            DetectorUnavailable: none has been warm yet.
        """
        if self._info is None:
            raise DetectorUnavailable(self._trouble)
        return self._info

    @property
    def restarts(self) -> int:
        """How many children were lost since `start`."""
        return self._restarts

    @property
    def failures_in_a_row(self) -> int:
        """How many children in a row died before they answered anything; 0 when all is well."""
        return self._failures_in_a_row

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        host = self._host
        return None if host is None else host.pid

    def start(self) -> None:
        """Start the child, load the model, look at a first picture.

        Raises:
            ModelError, ConfigError: it cannot work; the sentence says why and what to try.
            DetectorUnavailable: it died or stood still; trying again may help.
        """
        if self._supervisor is not None:
            raise RuntimeError("the detector was started before")
        host = self._warm_host()
        self._supervisor = threading.Thread(
            target=self._supervise, args=(host,), name="detector", daemon=True
        )
        self._supervisor.start()

    def detect(self, shared: SharedFrames, frames: Sequence[Frame]) -> list[Detections]:
        """Look at frames of one recording.

        Args:
            shared: where the frames' pixels lie; stays open during the call.
            frames: any of them, in any order.

        Returns:
            One `Detections` per frame, in their order. What is seen in one frame does not depend
            on what else is looked at.

        Raises:
            DetectorUnavailable: the child died, is stuck, could not look, or no replacement came
                in time. Nothing is known about the frames.
            ValueError: the frames do not lie in `shared` or have another size than the network.
        """
        return self._wait_for_host().submit(shared, frames).result()

    def ping(self) -> None:
        """Return when a warm child is there.

        Raises:
            DetectorUnavailable: it is not; the sentence says why.
        """
        with self._changed:
            if self._serving() is None:
                raise self._unavailable()

    def close(self) -> None:
        """End the child at once; whoever waits gets `DetectorUnavailable`. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._is_warm = False
            self._trouble = "the detector is closed"
            host = self._host
            self._changed.notify_all()
        if host is not None:
            host.kill()
        if self._supervisor is not None:
            self._supervisor.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- the supervising thread

    def _supervise(self, host: DetectorHost) -> None:
        while True:
            reason = self._attend(host)
            with self._changed:
                self._is_warm, self._host = False, None
                if self._is_closed:
                    return
                self._trouble = f"{reason}; a replacement is being started"
                self._restarts += 1
                self._failures_in_a_row = 0 if host.answered else self._failures_in_a_row + 1
            self._tell(self.on_restart, reason)
            self._despair(reason)
            replacement = self._replacement()
            if replacement is None:
                return
            host = replacement
            # A planned replacement (of a runtime that leaks) belongs here: warm the next host up
            # before this one ends.

    def _attend(self, host: DetectorHost) -> str:
        try:
            return host.attend()
        except Exception as error:
            logger.exception("detector_watch_failed")
            return f"the detector process could not be watched ({type(error).__name__})"

    def _replacement(self) -> DetectorHost | None:
        """The next warm host, however long it takes; None when closed."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, self._pause_s()):
                    return None
            try:
                return self._warm_host()
            except (VaultMLError, OSError) as error:
                with self._changed:
                    if self._is_closed:
                        return None
                    self._failures_in_a_row += 1
                    self._trouble = f"the detector cannot be replaced: {error}"
                self._despair(self._trouble)

    def _pause_s(self) -> float:
        if self._failures_in_a_row == 0:
            return 0
        doubled = _FIRST_PAUSE_S * 2 ** min(self._failures_in_a_row - 1, 10)
        return float(min(_LONGEST_PAUSE_S, doubled))

    def _warm_host(self) -> DetectorHost:
        host = DetectorHost(
            self._model.onnx, self._model.labels, self._options, on_batch=self._on_batch
        )
        with self._changed:
            self._host = host
            if self._is_closed:
                host.kill()
        try:
            ready = host.warm_up()
            self._check_device(ready.info)
        except BaseException:
            host.end()
            with self._changed:
                self._host = None
            raise
        with self._changed:
            self._info = ready.info
            if self._is_closed:
                host.kill()
            else:
                self._is_warm = True
                self._changed.notify_all()
        return host

    def _check_device(self, info: RuntimeInfo) -> None:
        """A GPU that is gone must not become a CPU on the quiet, ten times slower."""
        if self._info is not None and info != self._info:
            raise DetectorUnavailable(
                f"the detector ran on {self._info.device} ({self._info.runtime}) and would now run "
                f"on {info.device} ({info.runtime}); mend the device or start again"
            )

    def _on_batch(self, frames: int) -> None:
        if self.on_batch is not None:
            self.on_batch(frames)

    def _despair(self, reason: str) -> None:
        if self._failures_in_a_row >= _HOPELESS_AFTER:
            self._tell(self.on_hopeless, reason)

    def _tell(self, hook: Callable[[str], None] | None, reason: str) -> None:
        if hook is None:
            return
        try:
            hook(reason)
        except Exception:
            # A broken metric must not leave the worker without a detector.
            logger.exception("detector_hook_failed")

    # --- the recording threads

    def _wait_for_host(self) -> DetectorHost:
        give_up_at = time.monotonic() + self._options.wait_s
        with self._changed:
            while (host := self._serving()) is None:
                left_s = give_up_at - time.monotonic()
                if self._is_closed or self._supervisor is None or left_s <= 0:
                    raise self._unavailable()
                self._changed.wait(left_s)
            return host

    def _serving(self) -> DetectorHost | None:
        """The host that takes work; it may be over a moment before its supervisor says so."""
        host = self._host
        return host if self._is_warm and host is not None and host.over is None else None

    def _unavailable(self) -> DetectorUnavailable:
        host = self._host
        return DetectorUnavailable((host.over if self._is_warm and host else None) or self._trouble)
