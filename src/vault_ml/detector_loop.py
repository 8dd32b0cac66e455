"""In the detector's child: the pictures of all recordings that wait, in turn, in batches."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.detector import Detector
from vault_ml.detector_wire import Picture, pack_seen
from vault_ml.errors import VaultMLError
from vault_ml.geometry import Letterbox


class Work:
    """A request that is being looked at: the frames' memory and the pictures still to do."""

    def __init__(self, number: int, fd: int, pictures: Sequence[Picture]) -> None:
        """Own `fd` from now on."""
        self.number = number
        self.left = deque(enumerate(pictures))
        self._fd = fd
        self._unanswered = len(pictures)

    @property
    def is_over(self) -> bool:
        """True when all is answered, or dropped: its descriptor is no longer ours."""
        return self._unanswered == 0

    def read(self, slot: int, into: NDArray[np.uint8]) -> None:
        """Copy one picture, (h, w, 3), out of the shared memory.

        Read, not mapped: memory that is cut short is then an error of this request, where touching
        a mapping would kill the process.

        Raises:
            ValueError: the memory ends before the picture does.
        """
        view = into.data.cast("B")
        if os.preadv(self._fd, [view], slot * len(view)) != len(view):
            raise ValueError("the frames' memory is shorter than it should be")

    def answered(self) -> None:
        """One picture less to answer; after the last the memory is let go."""
        self._unanswered -= 1
        if self._unanswered == 0:
            os.close(self._fd)

    def drop(self) -> None:
        """Answer nothing more and let go."""
        self._unanswered = 0
        os.close(self._fd)


_Turn = tuple[Work, int, Picture]
"""Whose picture, its position in the request, and where it is."""


def next_batch(waiting: deque[Work], limit: int) -> list[_Turn]:
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


class DetectorLoop:
    """Takes requests from `requests`, gives answers to `answer`, until it takes None.

    Batches are powers of two, so that every size that ever runs has been warmed up: CUDA searches
    its algorithms anew for each shape.
    """

    def __init__(
        self,
        detector: Detector,
        net_wh: tuple[int, int],
        batch: int,
        answer: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Put the parts together.

        Args:
            detector: what looks.
            net_wh: size of its input, pixels.
            batch: most pictures per run, a power of two.
            answer: takes each message for the parent.
        """
        self.requests: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._detector = detector
        self._net_wh = net_wh
        self._batch = batch
        self._answer = answer
        self._room = np.empty((batch, net_wh[1], net_wh[0], 3), np.uint8)

    def warm_up(self, batch: int | None = None) -> float:
        """Run every size of batch up to `batch` (default: all that will occur), twice.

        Returns:
            Seconds of the slowest second run: the first pays for memory and tuning.
        """
        slowest_s, size = 0.0, 1
        while size <= (batch or self._batch):
            pixels = self._room[:size]
            pixels.fill(127)
            letterboxes = [Letterbox.fit(self._net_wh, self._net_wh)] * size
            self._detector.detect(pixels, letterboxes)
            started = time.perf_counter()
            self._detector.detect(pixels, letterboxes)
            slowest_s = max(slowest_s, time.perf_counter() - started)
            size *= 2
        return slowest_s

    def run(self) -> None:
        """Serve until None is taken; what waits before it is served still.

        Raises:
            VaultMLError: after a failure not even a blank picture can be looked at.
        """
        waiting: deque[Work] = deque()
        is_open = True
        while is_open or waiting:
            while is_open and (not waiting or not self.requests.empty()):
                work = self.requests.get()
                if work is None:
                    is_open = False
                else:
                    waiting.append(work)
            batch = next_batch(waiting, self._batch)
            if batch:
                self._serve(batch, waiting)

    def _serve(self, batch: Sequence[_Turn], waiting: deque[Work]) -> None:
        try:
            seen = self._look(batch)
        except (VaultMLError, ValueError, OSError) as error:
            if len(batch) > 1:  # only who cannot be looked at alone shall suffer
                for turn in batch:
                    if not turn[0].is_over:
                        self._serve([turn], waiting)
                return
            self._give_up(batch[0][0], waiting, str(error))
            self.warm_up(1)  # is it this picture, or all of us?
            return
        for row, ((work, position, _), detections) in enumerate(zip(batch, seen, strict=True)):
            answer = pack_seen(work.number, position, detections)
            # Told once per run, with its first picture.
            self._answer(answer if row else {**answer, "batch": len(batch)})
            work.answered()

    def _look(self, batch: Sequence[_Turn]) -> list[Detections]:
        for row, (work, _, picture) in enumerate(batch):
            work.read(picture.slot, self._room[row])
        return self._detector.detect(
            self._room[: len(batch)], [picture.letterbox for _, _, picture in batch]
        )

    def _give_up(self, work: Work, waiting: deque[Work], why: str) -> None:
        with contextlib.suppress(ValueError):
            waiting.remove(work)
        work.drop()
        self._answer({"type": "failed", "request": work.number, "why": why})
