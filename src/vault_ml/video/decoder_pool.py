"""Decoder processes, one recording at a time each: lent, watched, killed and replaced.

A child parses hostile bytes with native code, so it may hang, crash or lie. It gets a deadline
by the wall clock; a dead or late one is killed and replaced at once, and only its own recording
fails (`DecoderFailed`, which is tried again). Nothing it says is believed unchecked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vault_ml.child import Child, ChildGone, ChildStuck
from vault_ml.errors import ConfigError, DecoderFailed, RecordingTooLarge, UndecodableRecording
from vault_ml.geometry import DARKNET_PLACING, Placing
from vault_ml.video.answer import Nonsense, Seen, checked
from vault_ml.video.crashes import CRASHES_ALLOWED, CrashMemory, digest_of
from vault_ml.video.jail import Jail
from vault_ml.video.limits import DecodeLimits, Reason, Refused, error_for
from vault_ml.video.sampling import Sampling
from vault_ml.video.shared_frames import SharedFrames
from vault_ml.video.source import AskedTooMuch, ByteSource, SparseCopy

__all__ = ["ByteSource", "DecodeLimits", "DecodedRecording", "DecoderPool", "Sampling"]

_MODULE = "vault_ml.video.decoder_child"
# A frame is told of in less than a hundred bytes, and there are at most a thousand.
_MAX_ANSWER_BYTES = 1 << 20
# A child imports PyAV, OpenCV and numpy: half a second on an idle machine, many on a full one.
_START_TIMEOUT_S = 60.0
# A child that closed its socket is about to end, and how it ended makes a better message.
_EPITAPH_WAIT_S = 1.0
# A child that is told that bytes cannot be had has only to let go.
_ABANDON_TIMEOUT_S = 5.0


@dataclass(eq=False, slots=True)
class _Worker:
    """A child and what it has done so far."""

    child: Child
    jail: Jail | None = None
    served: int = 0

    def wait_until_ready(self) -> Jail:
        """Wait for its first word, once: the jail that it sits in. Raises as `ask`."""
        if self.jail is None:
            said = self.ask(None, (), _START_TIMEOUT_S)
            self.jail = Jail.from_message(said.get("jail"))
            if self.jail is None:
                raise DecoderFailed("the decoder began with nonsense")
        return self.jail

    def was_killed_by_others(self) -> bool:
        """True when a person or the kernel short of memory ended it: no fault of a recording."""
        return self.child.process.poll() in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)

    def ask(
        self,
        message: Mapping[str, Any] | None,
        fds: Sequence[int],
        timeout_s: float,
        copy: SparseCopy | None = None,
    ) -> dict[str, Any]:
        """Send `message`, where there is one, and wait for an answer.

        With a `copy`, ranges that the child asks for meanwhile are fetched into it. The time for
        that is the source's, with its own limits, and does not count as the child's.

        Raises:
            DecoderFailed: it is gone, or did not answer in time. It must be discarded.
            AskedTooMuch: it asks for what no honest child needs.
        """
        channel, deadline = self.child.channel, time.monotonic() + timeout_s
        try:
            if message is not None:
                channel.send(message, fds, timeout_s=timeout_s)
            while True:
                answer, unasked = channel.receive(timeout_s=max(0.0, deadline - time.monotonic()))
                for fd in unasked:
                    os.close(fd)
                if copy is None or "read" not in answer:
                    return answer
                began = time.monotonic()
                reply = copy.answer(answer)
                deadline += time.monotonic() - began
                if copy.failure is not None:
                    deadline = min(deadline, time.monotonic() + _ABANDON_TIMEOUT_S)
                channel.send(reply, timeout_s=timeout_s)
        except ChildStuck as error:
            raise DecoderFailed(
                f"the decoder was stopped: it had not finished within {timeout_s:g} s"
            ) from error
        except ChildGone as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.process.wait(_EPITAPH_WAIT_S)
            raise DecoderFailed(
                f"the decoder {self.child.epitaph()} while it worked on this recording"
            ) from error


class DecodedRecording:
    """The looked-at frames of one recording, in memory shared with the detector.

    Attributes:
        frames: in order of time; their pixels are views of `shared`. None after `close`.
        shared: the memory, to be handed to the detector.
        duration_s: presentation time of all that is there, seconds: what was covered, where the
            recording was cut off.
        partial: the recording was cut off, or is damaged from some place on.
        left_out: pictures that show what a looked-at one does: their time and the other's, seconds.
        bytes_read: how many bytes of the recording were fetched; all of them for a descriptor.
    """

    def __init__(
        self,
        seen: Seen,
        shared: SharedFrames,
        bytes_read: int,
        pool: DecoderPool,
        worker: _Worker | None,
    ) -> None:
        """Own `shared`, and the lease of `worker` where pictures are kept."""
        self.frames = seen.frames
        self.shared = shared
        self.duration_s = seen.duration_s
        self.partial = seen.is_partial
        self.left_out = seen.left_out
        self.bytes_read = bytes_read
        self._pool = pool
        self._worker = worker

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The whole of frame `index`: (h, w, 3) uint8 RGB at the original size, upright.

        Raises:
            ValueError: the recording was decoded without `keep_pictures`, or is closed.
            IndexError: there is no such frame.
            DecoderFailed: the child that holds the picture died or is stuck.
            RecordingTooLarge: there is no room for the picture.
        """
        if self._worker is None:
            raise ValueError("no pictures are held: closed, or decoded without keep_pictures")
        if not 0 <= index < len(self.frames):
            raise IndexError(f"expected a frame 0..{len(self.frames) - 1}, got {index}")
        limits = self._pool.limits
        with SharedFrames.create(1, self.frames[index].size_wh) as memory:
            try:
                answer = self._worker.ask({"picture": index}, (memory.fd,), limits.max_seconds)
            except DecoderFailed as error:
                worker, self._worker = self._worker, None
                self._pool.discard(worker, str(error))
                raise
            if answer.get("refused") == Reason.MEMORY:
                raise RecordingTooLarge(str(error_for(Refused(Reason.MEMORY), limits)))
            whole: NDArray[np.uint8] = memory.pixels[0].copy()
            return whole

    def close(self) -> None:
        """Give the memory back, `frames` with it, and a child that keeps pictures. Idempotent."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._pool.release(worker, holds_pictures=True)
        self.frames = ()
        self.shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# Children in a row that do not even start are no accident.
HOPELESS_AFTER = 3


class DecoderPool:
    """Up to `size` decoder children, started when first needed. Thread-safe.

    Attributes:
        limits: what one recording may cost.
        jail: what holds the children, known once the first one has started.
    """

    def __init__(
        self,
        size: int,
        limits: DecodeLimits | None = None,
        *,
        on_restart: Callable[[str], None] | None = None,
        on_hopeless: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare a pool; `start` makes sure that a child can run at all.

        Args:
            size: recordings decoded at the same time. Each uses one core while it decodes.
            limits: the defaults where None.
            on_restart: told, on any thread, why a child had to be replaced: it died, was stuck or
                answered with nonsense. Those that have served their time are none of these.
            on_hopeless: told, on any thread, when `HOPELESS_AFTER` children in a row did not get
                ready: it is the machine, not a recording.

        Raises:
            ValueError: `size` is not positive.
        """
        if size <= 0:
            raise ValueError(f"expected a positive number of decoders, got {size}")
        self.limits = limits or DecodeLimits()
        self.jail: Jail | None = None
        self._on_restart = on_restart or (lambda _: None)
        self._on_hopeless = on_hopeless or (lambda _: None)
        self._unready_in_a_row = 0
        self._crashes = CrashMemory()
        self._size = size
        self._changed = threading.Condition()
        self._workers: set[_Worker] = set()  # all of them, lent or idle
        self._idle: list[_Worker] = []
        self._starting = 0
        self._closed = threading.Event()

    def start(self) -> None:
        """Start the first child and wait until it is ready.

        Raises:
            ConfigError: it does not start; every recording would fail.
        """
        try:
            self._give_back(self._lease())
        except DecoderFailed as error:
            raise ConfigError(
                f"the video decoder does not start: {error}. Is the package `av` installed and "
                f"loadable? Try `python -c 'import av, cv2'`"
            ) from error

    def decode(
        self,
        source: int | ByteSource,
        *,
        frames: int,
        sampling: Sampling,
        net_wh: tuple[int, int],
        placing: Placing = DARKNET_PLACING,
        frames_per_s: float | None = None,
        region: Sequence[int] | None = None,
        keep_pictures: bool = False,
        rect: bool = False,
    ) -> DecodedRecording:
        """Look at up to `frames` frames of a recording, letterboxed at the network's size.

        Args:
            source: a regular file or memfd, read by position, which stays the caller's; or
                something that fetches ranges, of which no more than needed are asked for, on
                the calling thread.
            frames: how many frames, spread over the whole recording; fewer if it is too short.
            sampling: how they are chosen.
            net_wh: size of the network's input, pixels.
            placing: how frames lie in it.
            frames_per_s: no more than so many of each second; None for `frames` in all.
            region: with `ADAPTIVE`: x1, y1, x2, y2 where the camera saw motion, pixels.
            keep_pictures: hold the whole pictures, and the child, until the result is closed.
            rect: cut the bars down: inputs as small as the frame's shape allows.

        Raises:
            DecoderFailed: the child died, was too slow, or none became free.
            UndecodableRecording: not one frame can be decoded, or the child died or was too slow
                on this content before.
            RecordingTooLarge: a limit is exceeded.
            ValueError: `frames` or a side is not positive.
            BaseException: whatever `source.read_at` raised, as it is.
        """
        with contextlib.ExitStack() as stack:
            shared = SharedFrames.create(frames, net_wh)
            stack.callback(shared.close)
            job: dict[str, Any] = {
                "frames": frames,
                "sampling": sampling,
                "net_wh": net_wh,
                "placing": dataclasses.asdict(placing),
                "frames_per_s": frames_per_s,
                "region": region,
                "keep_pictures": keep_pictures,
                "rect": rect,
            }
            copy: SparseCopy | None = None
            if isinstance(source, int):
                fd, bytes_read = source, os.fstat(source).st_size
            else:
                copy = stack.enter_context(SparseCopy(source))
                fd, job["sparse_bytes"] = copy.fd, copy.size_bytes
            worker = self._lease()
            seen = self._ask_to_decode(worker, job, (fd, shared.fd), copy, shared, placing)
            if copy is not None:
                bytes_read = copy.bytes_read
                copy.close()
            if not keep_pictures:
                self.release(worker)
            stack.pop_all()
            return DecodedRecording(
                seen, shared, bytes_read, self, worker if keep_pictures else None
            )

    def _ask_to_decode(
        self,
        worker: _Worker,
        job: Mapping[str, Any],
        fds: Sequence[int],
        copy: SparseCopy | None,
        shared: SharedFrames,
        placing: Placing,
    ) -> Seen:
        """What a leased child sees; where it sees nothing, the lease ends here."""
        try:
            answer = worker.ask({"decode": job}, fds, self.limits.max_seconds, copy)
        except AskedTooMuch as error:
            raise self._nonsense(worker, error) from error
        except DecoderFailed as error:
            is_accident = worker.was_killed_by_others()
            self.discard(worker, str(error))
            if copy is not None and copy.failure is not None:
                raise copy.failure from None
            if is_accident:
                raise
            raise self._crashed(error, fds[0], copy) from error
        except BaseException:
            self.discard(worker)
            raise
        if copy is not None and copy.failure is not None:
            if answer == {"abandoned": True}:
                self.release(worker)
            else:
                self.discard(worker)
            raise copy.failure
        try:
            return checked(answer, shared, self.limits, placing, rect=job["rect"])
        except Nonsense as error:
            raise self._nonsense(worker, error) from error
        except Refused as refused:
            # After running out of memory a process is not what it was.
            self.release(worker, is_worn=refused.reason is Reason.MEMORY)
            raise error_for(refused, self.limits) from None
        except BaseException:
            self.discard(worker)
            raise

    def _nonsense(self, worker: _Worker, error: Nonsense | AskedTooMuch) -> DecoderFailed:
        reason = f"the decoder answered with nonsense ({error}) and was replaced"
        self.discard(worker, reason)
        return DecoderFailed(reason)

    def _crashed(
        self, error: DecoderFailed, fd: int, copy: SparseCopy | None
    ) -> DecoderFailed | UndecodableRecording:
        """What a crash means for the recording: try it again, or never."""
        if self._closed.is_set():
            return error
        size_bytes = os.fstat(fd).st_size
        ranges = [(0, size_bytes)] if copy is None else copy.ranges
        if not ranges:
            return error  # it had read nothing, so nothing in the recording is to blame
        if self._crashes.count(digest_of(fd, size_bytes, ranges)) <= CRASHES_ALLOWED:
            return error
        return UndecodableRecording(
            f"decoder crashed twice on this recording, the last time so: {error}. "
            "It is not tried again; keep it, it is worth a report to the FFmpeg project"
        )

    def close(self) -> None:
        """Kill every child, busy or not. Idempotent."""
        with self._changed:
            self._closed.set()
            workers = list(self._workers)
            self._workers.clear()
            self._idle.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.child.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def release(
        self, worker: _Worker, *, holds_pictures: bool = False, is_worn: bool = False
    ) -> None:
        """Take a child back after a recording; an old one is replaced."""
        worker.served += 1
        if is_worn or worker.served >= self.limits.max_recordings_per_child:
            self.discard(worker)
            return
        if holds_pictures:
            try:
                worker.child.channel.send({"release": True}, timeout_s=self.limits.max_seconds)
            except (ChildGone, ChildStuck):
                self.discard(worker, f"the decoder {worker.child.epitaph()} with pictures in hand")
                return
        self._give_back(worker)

    def discard(self, worker: _Worker, reason: str | None = None) -> None:
        """Kill a child and start another in its place; `reason` where that was not planned."""
        worker.child.kill()
        if reason is not None and not self._closed.is_set():
            self._on_restart(reason)
        with self._changed:
            self._workers.discard(worker)
        # If it cannot be started now, the next recording that needs it says why.
        with contextlib.suppress(DecoderFailed):
            replacement = self._start_worker(wanted=False)
            if replacement is not None:
                self._give_back(replacement)
        with self._changed:
            self._changed.notify()

    def _lease(self) -> _Worker:
        """A live child of our own, ready to be asked."""
        deadline = time.monotonic() + self.limits.max_wait_s
        while True:
            worker = self._take_idle(deadline) or self._start_worker(wanted=True)
            if worker is None:  # another thread was faster
                continue
            if not worker.child.is_alive():
                self.discard(worker, f"the decoder {worker.child.epitaph()} while it was idle")
                continue
            try:
                self.jail = worker.wait_until_ready()
            except BaseException as error:
                worker.child.kill()
                with self._changed:
                    self._workers.discard(worker)
                    self._unready_in_a_row += 1
                    is_hopeless = self._unready_in_a_row >= HOPELESS_AFTER
                    self._changed.notify()
                if is_hopeless and not self._closed.is_set():
                    self._on_hopeless(f"no decoder starts: {error}")
                raise
            self._unready_in_a_row = 0
            return worker

    def _take_idle(self, deadline: float) -> _Worker | None:
        """An idle child, or None where one may be started; waits while neither is so."""
        with self._changed:
            while True:
                if self._closed.is_set():
                    raise DecoderFailed("the decoder pool is closed")
                if self._idle:
                    return self._idle.pop()  # the last used one has the warmest caches
                if len(self._workers) + self._starting < self._size:
                    return None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DecoderFailed(
                        f"no decoder became free within {self.limits.max_wait_s:g} s; "
                        "run fewer recordings at once, or more decoders"
                    )
                self._changed.wait(left)

    def _start_worker(self, *, wanted: bool) -> _Worker | None:
        """A new child, not yet idle; None if the pool is full or closed by now."""
        with self._changed:
            if self._closed.is_set() and wanted:
                raise DecoderFailed("the decoder pool is closed")
            if self._closed.is_set() or len(self._workers) + self._starting >= self._size:
                return None
            self._starting += 1
        try:
            worker = _Worker(
                Child(
                    _MODULE,
                    [json.dumps(dataclasses.asdict(self.limits))],
                    name="decoder",
                    max_message_bytes=_MAX_ANSWER_BYTES,
                )
            )
        except (OSError, RuntimeError) as error:
            with self._changed:
                self._starting -= 1
            raise DecoderFailed(f"no decoder process can be started: {error}") from error
        with self._changed:
            self._starting -= 1
            if not self._closed.is_set():
                self._workers.add(worker)
                return worker
        worker.child.kill()
        raise DecoderFailed("the decoder pool is closed")

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if worker in self._workers:
                self._idle.append(worker)
                self._changed.notify()
