"""In the detector's child: the pictures of all recordings that wait, in turn, in batches.

On a CPU a batch is one picture and there are as many lanes as the runtime wants; on a GPU there is
one lane, and batches are as large as measured best at start.
"""

from __future__ import annotations

import os
import queue
import threading
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

# A batch twice as large must give at least so much more, or it only costs waiting and memory.
_WORTH_IT = 1.05
# However long the runs are: who waits for company is not kept longer than this.
_LONGEST_WAIT_S = 0.05


class Work:
    """A request that is being looked at: the frames' memory and the pictures still to do.

    Several lanes may have pictures of it in hand; `lock` guards its end.
    """

    def __init__(
        self, number: int, fd: int, pictures: Sequence[Picture], slot_bytes: int | None = None
    ) -> None:
        """Own `fd` from now on; `slot_bytes` is the room of one picture, its own size if None."""
        self.number = number
        self.left = deque(enumerate(pictures))
        self.lock = threading.RLock()
        self._fd = fd
        self._slot_bytes = slot_bytes
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
            ValueError: the memory ends before the picture does, or the request was dropped.
        """
        view = into.data.cast("B")
        with self.lock:  # the descriptor's number may be another file's after a drop
            if self.is_over:
                raise ValueError("the request was dropped")
            if os.preadv(self._fd, [view], slot * (self._slot_bytes or len(view))) != len(view):
                raise ValueError("the frames' memory is shorter than it should be")

    def answered(self) -> None:
        """One picture less to answer; after the last the memory is let go."""
        with self.lock:
            self._unanswered -= 1
            if self._unanswered == 0:
                os.close(self._fd)

    def drop(self) -> None:
        """Answer nothing more and let go. Idempotent."""
        with self.lock:
            if self._unanswered:
                self._unanswered = 0
                os.close(self._fd)


_Turn = tuple[Work, int, Picture]
"""Whose picture, its position in the request, and where it is."""


def next_batch(waiting: deque[Work], limit: int) -> list[_Turn]:
    """Take up to `limit` pictures of one size, one recording after the other, and rotate.

    A long recording cannot starve a short one: the size is that of whoever waits first. The number
    taken is a power of two. Requests that were dropped are forgotten.
    """
    for work in [each for each in waiting if each.is_over]:
        waiting.remove(work)
    if not waiting:
        return []
    wanted_wh = waiting[0].left[0][1].letterbox.net_wh
    total = sum(_in_a_row(work, wanted_wh) for work in waiting)
    size = 1 << (min(limit, total).bit_length() - 1)
    batch: list[_Turn] = []
    while len(batch) < size:
        work = waiting.popleft()
        if _in_a_row(work, wanted_wh):
            position, picture = work.left.popleft()
            batch.append((work, position, picture))
        if work.left:
            waiting.append(work)
    return batch


def _in_a_row(work: Work, wh: tuple[int, int]) -> int:
    """How many pictures of this size come first."""
    count = 0
    for _, picture in work.left:
        if picture.letterbox.net_wh != wh:
            break
        count += 1
    return count


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
        *,
        lanes: int = 1,
    ) -> None:
        """Put the parts together.

        Args:
            detector: what looks.
            net_wh: size of its largest input, pixels.
            batch: most pictures per run, a power of two.
            answer: takes each message for the parent, from any lane.
            lanes: threads that look, each at a batch of its own.
        """
        self.requests: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.batch = batch
        self._detector = detector
        self._net_wh = net_wh
        self._answer = answer
        self._lanes = lanes
        self._run_s: dict[int, float] = {}
        self._turn = threading.Lock()  # guards what follows
        self._waiting: deque[Work] = deque()
        self._is_open = True

    def warm_up(self, batch: int | None = None, wh: tuple[int, int] | None = None) -> float:
        """Run every size of batch up to `batch` (default: all that will occur), twice.

        Args:
            batch: the largest.
            wh: size of the pictures; the largest input's where None.

        Returns:
            Seconds of the slowest second run: the first pays for memory and tuning.
        """
        size, (w, h) = 1, wh or self._net_wh
        while size <= (batch or self.batch):
            pixels = np.full((size, h, w, 3), 127, np.uint8)
            letterboxes = [Letterbox.fit((w, h), (w, h))] * size
            self._detector.detect(pixels, letterboxes)
            started = time.perf_counter()
            self._detector.detect(pixels, letterboxes)
            self._run_s[size] = time.perf_counter() - started
            size *= 2
        return max(self._run_s.values())

    def choose_batch(self) -> None:
        """After `warm_up`: run no larger batches than have shown to be worth it."""
        best = 1
        while 2 * best <= self.batch and self._run_s[best] * 2 > self._run_s[2 * best] * _WORTH_IT:
            best *= 2
        self.batch = best

    def run(self) -> None:
        """Serve until None is taken; what waits before it is served still.

        Raises:
            VaultMLError: after a failure not even a blank picture can be looked at.
        """
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        for number in range(1, self._lanes):
            threading.Thread(
                target=self._lane_in_a_thread, args=(ended,), name=f"lane {number}", daemon=True
            ).start()
        self._lane_in_a_thread(ended)
        for _ in range(self._lanes):
            error = ended.get()
            if error is not None:
                raise error

    def _lane_in_a_thread(self, ended: queue.SimpleQueue[BaseException | None]) -> None:
        try:
            self._lane()
        except BaseException as error:  # noqa: BLE001  raised by `run`
            self.requests.put(None)  # wakes a lane that waits for work
            ended.put(error)
        else:
            ended.put(None)

    def _lane(self) -> None:
        room = np.empty(self.batch * self._net_wh[0] * self._net_wh[1] * 3, np.uint8)
        while True:
            with self._turn:
                batch = self._take()
            if not batch:
                return
            self._serve(batch, room)

    def _take(self) -> list[_Turn]:
        """What to look at next; nothing when all is done. Only with `_turn`."""
        while True:
            while self._is_open and (not self._waiting or not self.requests.empty()):
                self._note(self.requests.get())
            self._wait_for_company()
            batch = next_batch(self._waiting, self.batch)
            if batch or not self._is_open:
                return batch

    def _wait_for_company(self) -> None:
        """Wait for pictures that would share a run, no longer than sharing it wins."""
        while self._is_open:
            count = sum(len(work.left) for work in self._waiting)
            size = 1 << (count.bit_length() - 1) if count else self.batch
            if size >= self.batch:
                return
            won_s = 2 * self._run_s.get(size, 0.0) - self._run_s.get(2 * size, 0.0)
            try:
                self._note(self.requests.get(timeout=min(_LONGEST_WAIT_S, max(0.0, won_s))))
            except queue.Empty:
                return

    def _note(self, work: Work | None) -> None:
        if work is None:
            self._is_open = False
        else:
            self._waiting.append(work)

    def _serve(self, batch: Sequence[_Turn], room: NDArray[np.uint8]) -> None:
        try:
            seen = self._look(batch, room)
        except (VaultMLError, ValueError, OSError) as error:
            if len(batch) > 1:  # only who cannot be looked at alone shall suffer
                for turn in batch:
                    if not turn[0].is_over:
                        self._serve([turn], room)
            elif self._give_up(batch[0][0], str(error)):
                self.warm_up(1, batch[0][2].letterbox.net_wh)  # is it this picture, or all of us?
            return
        for row, ((work, position, _), detections) in enumerate(zip(batch, seen, strict=True)):
            answer = pack_seen(work.number, position, detections)
            with work.lock:
                if work.is_over:  # another lane gave up on it
                    continue
                # Told once per run, with its first picture.
                self._answer(answer if row else {**answer, "batch": len(batch)})
                work.answered()

    def _look(self, batch: Sequence[_Turn], room: NDArray[np.uint8]) -> list[Detections]:
        w, h = batch[0][2].letterbox.net_wh
        pixels = room[: len(batch) * h * w * 3].reshape(len(batch), h, w, 3)
        for row, (work, _, picture) in enumerate(batch):
            work.read(picture.slot, pixels[row])
        return self._detector.detect(pixels, [picture.letterbox for _, _, picture in batch])

    def _give_up(self, work: Work, why: str) -> bool:
        """Answer nothing more of a request; False where another lane did so before."""
        with work.lock:
            if work.is_over:
                return False
            work.drop()
            self._answer({"type": "failed", "request": work.number, "why": why})
        return True
