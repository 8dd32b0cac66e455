"""The bytes of a recording -> its pictures at chosen times. Runs in a decoder child.

The recording is demuxed once for the index of its packets (no decoder is opened for that, and
10 MB take 3 ms); then only those packets are decoded that the chosen frames need.

Every picture is the one that decoding the whole recording would have given, to the last bit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from vault_ml.video.adaptive import MOTION_LIMIT, Likeness, Region, Why, choose, further
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
        left_out: with `ADAPTIVE`, pictures that show what another does: their time and the
            other's, seconds. Known once `pictures` has come to its end.
    """

    def __init__(self, file: SeekableFile, limits: DecodeLimits) -> None:
        """Open and index a recording. `file` stays the caller's.

        Raises:
            Refused: it cannot be opened, holds no video we decode, or exceeds a limit.
        """
        self.demuxer = Demuxer(file, limits)
        self.left_out: list[tuple[float, float]] = []
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
        self,
        frames: int,
        sampling: Sampling,
        frames_per_s: float | None = None,
        region: Sequence[int] | None = None,
    ) -> Iterator[Picture]:
        """Decode up to `frames` distinct pictures spread over the recording.

        With `frames_per_s` no more than so many of each second. A chosen picture that is damaged is
        replaced by the next one that decodes. They come in order of time, but with `ADAPTIVE`:
        there some may follow that lie between others.

        Args:
            frames: how many.
            sampling: how they are chosen.
            frames_per_s: see above.
            region: with `ADAPTIVE`: x1, y1, x2, y2 where the camera saw motion, pixels.

        Raises:
            Refused: nothing decodes, or a picture exceeds a limit.
        """
        if frames_per_s is not None:
            frames = frames_at(self.duration_s, frames_per_s, frames)
        if sampling is Sampling.ADAPTIVE:
            found = self._adaptive(frames, region)
        else:
            targets = choose_targets(self.index, frames, sampling)
            found = (picture for _, picture in self._decode(targets))
        is_empty = True
        for picture in found:
            is_empty = False
            yield picture
        if is_empty:
            raise Refused(Reason.NOTHING_DECODES)

    def _adaptive(self, frames: int, region: Sequence[int] | None) -> Iterator[Picture]:
        """Where something happens; what shows nothing new is left out and spent elsewhere."""
        choices = {choice.time: choice.why for choice in choose(self.index, frames)}
        likeness: Likeness | None = None
        for target, picture in self._decode(list(choices)):
            if likeness is None:
                box = None if region is None else Region.of(region, picture.size_wh)
                likeness = Likeness(box)
            why = choices[target]
            if self._is_new(likeness, picture, MOTION_LIMIT if why is Why.MOTION else 1.0):
                yield replace(picture, why=why)
        spare = len(self.left_out)
        if likeness is None or not spare:
            return
        others = further(self.index, list(choices), 2 * frames)
        for _, picture in self._decode(others):
            if self._is_new(likeness, picture, 1.0, tell=False):
                yield replace(picture, why=Why.CHANGE)
                spare -= 1
                if not spare:
                    return

    def _is_new(
        self, likeness: Likeness, picture: Picture, limit: float, *, tell: bool = True
    ) -> bool:
        same = likeness.see(picture.frame.pts or 0, picture.cells(), limit=limit)
        if same is not None and tell:
            self.left_out.append((picture.timestamp_s, self._seconds(same)))
        return same is None

    def _decode(self, targets: list[int]) -> Iterator[tuple[int, Picture]]:
        """The pictures at `targets`, rising, each with the target that it was decoded for."""
        latest = self._start - 1
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
            yield target, Picture(self._seconds(latest), number, frame, kind)

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
