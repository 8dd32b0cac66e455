"""The bytes of a recording -> its pictures at chosen times. Runs in a decoder child.

The recording is demuxed once for the index of its packets (no decoder is opened for that, and
10 MB take 3 ms); then only those packets are decoded that the chosen frames need.

Every picture is the one that decoding the whole recording would have given, to the last bit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from vault_ml.video.cursor import Cursor
from vault_ml.video.demuxer import Demuxer
from vault_ml.video.files import SeekableFile
from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.picture import MOVING, STILL, Picture
from vault_ml.video.sampling import Sampling, choose_targets, frames_at


class RecordingReader:
    """An opened recording: its index, and its pictures at chosen times.

    Attributes:
        demuxer: the opened recording.
        index: presentation times of its packets.
        duration_s: from its first to the end of its last picture, seconds.
        is_partial: it was cut off, or is damaged from some place on.
    """

    def __init__(self, file: SeekableFile, limits: DecodeLimits) -> None:
        """Open and index a recording. `file` stays the caller's.

        Raises:
            Refused: it cannot be opened, holds no video we decode, or exceeds a limit.
        """
        self.demuxer = Demuxer(file, limits)
        try:
            self.index = self.demuxer.read_index()
            self.is_partial = self.demuxer.is_partial
            self._shown = self.index.shown_times()
            self._start = self._shown[0] if self._shown else self.index.end
            self.duration_s = self._seconds(self.index.end)
            if self.duration_s > limits.max_duration_s:
                raise Refused(Reason.DURATION, seconds=self.duration_s)
        except BaseException:
            self.close()
            raise

    def pictures(
        self, frames: int, sampling: Sampling, frames_per_s: float | None = None
    ) -> Iterator[Picture]:
        """Decode up to `frames` distinct pictures spread over the recording, in order of time.

        With `frames_per_s` no more than so many of each second. A chosen picture that is damaged is
        replaced by the next one that decodes.

        Raises:
            Refused: nothing decodes, or a picture exceeds a limit.
        """
        if frames_per_s is not None:
            frames = frames_at(self.duration_s, frames_per_s, frames)
        targets = choose_targets(self.index, frames, sampling)
        latest = before_any = self._start - 1
        cursor = Cursor(self.demuxer, self.index, targets)
        for i, target in enumerate(targets):
            if target <= latest:
                continue
            frame = cursor.frame_at(target, targets[i + 1] if i + 1 < len(targets) else None)
            if frame is None or frame.pts is None or frame.pts <= latest:
                continue
            latest = frame.pts
            self.demuxer.check_pixels(frame.width, frame.height)
            number = bisect_left(self._shown, latest)
            kind = STILL if self.demuxer.is_still else MOVING
            yield Picture(self._seconds(latest), number, frame, kind)
        if latest == before_any:
            raise Refused(Reason.NOTHING_DECODES)

    def close(self) -> None:
        """Release FFmpeg's side; the file stays open. Idempotent."""
        self.demuxer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _seconds(self, time: int) -> float:
        base = self.demuxer.stream.time_base
        if base is None:
            raise Refused(Reason.NOTHING_DECODES)
        return float((time - self._start) * base)
