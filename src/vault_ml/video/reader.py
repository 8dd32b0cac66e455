"""The bytes of a recording -> its pictures at chosen times. Runs in a decoder child.

FFmpeg's libraries through PyAV, over a file object that we hand them: no path and no URL ever
reaches FFmpeg, so it can open nothing else. The recording is demuxed once for the index of its
packets (no decoder is opened for that, and 10 MB take 3 ms); then only those packets are decoded
that the chosen frames need.

Every picture is the one that decoding the whole recording would have given, to the last bit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from itertools import chain
from types import TracebackType
from typing import Protocol, Self, cast

import av
import av.error
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.photo import HEADER_BYTES, MAGIC_BYTES, claimed_size_wh, may_be_photo
from vault_ml.video.picture import MOVING, STILL, Picture
from vault_ml.video.sampling import PacketIndex, Sampling, choose_targets

# Only what cameras and people really send. Each name here is code that hostile bytes can reach.
_VIDEO_FORMATS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts")
_STILL_FORMATS = ("jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe")
_CODECS = ("h264", "hevc", "libdav1d", "av1", "mjpeg", "mpeg4", "png", "webp", "bmp")

# Larger reads cost nothing on a file and save calls into Python: 32 KiB, PyAV's own, is 7 ms
# slower on a recording of 10 MB.
_BUFFER_BYTES = 256 * 1024

# Demuxers that find a keyframe by its time. AVI's times are counted from the start, and MPEG-TS is
# searched by guessing, which lands late: there, packets are passed over instead, which is cheap.
_SEEKABLE = frozenset({"mov", "matroska"})


class SeekableFile(Protocol):
    """What FFmpeg reads through."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a byte; the new position."""
        ...

    def tell(self) -> int:
        """The position in bytes."""
        ...


class RecordingFile:
    """A descriptor read at our own position: the one of the descriptor is shared with the parent.

    Does not own the descriptor. Regular files and memfds alike.
    """

    def __init__(self, fd: int) -> None:
        """Read from the beginning of `fd`."""
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        data = os.pread(self._fd, size, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte; the new position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position in bytes."""
        return self._position


class RecordingReader:
    """An opened recording: its index, and its pictures at chosen times.

    Attributes:
        index: presentation times of its packets.
        duration_s: from its first to the end of its last picture, seconds.
    """

    def __init__(self, file: SeekableFile, limits: DecodeLimits) -> None:
        """Open and index a recording. `file` stays the caller's.

        Raises:
            Refused: it cannot be opened, holds no video we decode, or exceeds a limit.
        """
        self._file = file
        self._limits = limits
        if file.seek(0, os.SEEK_END) == 0:
            raise Refused(Reason.EMPTY)
        if may_be_photo(_read_start(file, MAGIC_BYTES)):
            header = _read_start(file, HEADER_BYTES)
            self._check_pixels(*(claimed_size_wh(header) or (0, 0)))
        self._open()
        try:
            self.index = self._read_index()
            self._start = min(self.index.shown_times(), default=self.index.end)
            self.duration_s = self._seconds(self.index.end)
            if self.duration_s > limits.max_duration_s:
                raise Refused(Reason.DURATION, seconds=self.duration_s)
        except BaseException:
            self.close()
            raise

    def pictures(self, frames: int, sampling: Sampling) -> Iterator[Picture]:
        """Decode up to `frames` distinct pictures spread over the recording, in order of time.

        A chosen picture that is damaged is replaced by the next one that decodes.

        Raises:
            Refused: nothing decodes, or a picture exceeds a limit.
        """
        targets = choose_targets(self.index, frames, sampling)
        latest = before_any = self._start - 1
        cursor = _Cursor(self, targets)
        for i, target in enumerate(targets):
            if target <= latest:
                continue
            frame = cursor.frame_at(target, targets[i + 1] if i + 1 < len(targets) else None)
            if frame is None or frame.pts is None or frame.pts <= latest:
                continue
            latest = frame.pts
            self._check_pixels(frame.width, frame.height)
            yield Picture(self._seconds(latest), frame, STILL if self.is_still else MOVING)
        if latest == before_any:
            raise Refused(Reason.NOTHING_DECODES)

    def reopen(self) -> None:
        """Start again at the first packet, with a fresh demuxer and decoder."""
        self.close()
        self._open()

    def close(self) -> None:
        """Release FFmpeg's side; the file stays open. Idempotent."""
        self.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_still(self) -> bool:
        """True for a photo."""
        return self.container.format.name in _STILL_FORMATS

    @property
    def can_seek(self) -> bool:
        """True where the demuxer goes to the keyframe of a given time."""
        return self.container.format.name.split(",")[0] in _SEEKABLE

    @property
    def has_counted_times(self) -> bool:
        """True where the container numbers packets in decode order, whatever is shown first.

        H.264 and H.265 with B-frames do not fit into AVI: pictures come out of the decoder in the
        right order but with the wrong times, so they are given the index's times by counting.
        """
        return (
            self.container.format.name == "avi"
            and self.stream.codec_context.name in ("h264", "hevc")
            and self.stream.codec_context.has_b_frames
        )

    def _open(self) -> None:
        self._file.seek(0)
        self.container: InputContainer
        try:
            self.container = av.open(
                self._file,
                "r",
                buffer_size=_BUFFER_BYTES,
                options={
                    "format_whitelist": ",".join((*_VIDEO_FORMATS, *_STILL_FORMATS)),
                    "protocol_whitelist": "none",
                    # Nothing is decoded in order to open a recording: the first keyframe would be
                    # decoded twice (30 ms at 1080p), and by decoders that are not on our list.
                    "codec_whitelist": "none",
                },
                io_open=_refuse_to_open,
                metadata_errors="replace",
            )
        except MemoryError as error:
            raise Refused(Reason.MEMORY) from error
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise Refused(Reason.UNKNOWN_FORMAT) from error
        try:
            self.stream = self._choose_stream()
        except BaseException:
            self.container.close()
            raise

    def _choose_stream(self) -> VideoStream:
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise Refused(Reason.NO_VIDEO)
        best = self.container.streams.best("video")
        stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
        # PyAV's types do not say that a stream without a decoder has no context.
        codec = cast("VideoCodecContext | None", stream.codec_context)
        if codec is None or codec.name not in _CODECS:
            raise Refused(Reason.CODEC, codec=codec.name if codec is not None else "")
        self._check_pixels(codec.width, codec.height)
        # One thread: under load several recordings side by side need 24 % less CPU than one
        # recording with several threads.
        codec.thread_count = 1
        codec.thread_type = ThreadType.NONE
        codec.options = {"codec_whitelist": ",".join(_CODECS)}
        if codec.name != "mpeg4":
            # MPEG-4 in MP4 does not announce a size, and refusing it in the decoder would look
            # like damage. Its pictures cannot exceed 67 megapixels; each is checked once decoded.
            codec.options |= {"max_pixels": str(self._limits.max_pixels)}
        return stream

    def _read_index(self) -> PacketIndex:
        packets = [
            (packet.pts, packet.is_keyframe, not packet.is_discard, packet.duration)
            for packet in self.packets()
        ]
        if not packets:
            raise Refused(Reason.NOTHING_DECODES)
        pts, is_keyframe, is_shown, durations = zip(*packets, strict=True)
        return PacketIndex.from_packets(pts, is_keyframe, is_shown, durations)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the video stream from here on; damage ends them like the file's end.

        Raises:
            Refused: no memory for a packet.
        """
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:  # PyAV closes with an empty one
                    yield packet
        except MemoryError as error:
            raise Refused(Reason.MEMORY) from error
        except (av.error.FFmpegError, IndexError):
            # PyAV loses count where damage makes streams appear midway.
            return

    def _seconds(self, time: int) -> float:
        base = self.stream.time_base
        if base is None:
            raise Refused(Reason.NOTHING_DECODES)
        return float((time - self._start) * base)

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise Refused(Reason.PIXELS, size_wh=(width, height))


def _read_start(file: SeekableFile, size: int) -> bytes:
    file.seek(0)
    parts: list[bytes] = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _refuse_to_open(url: str, _flags: int, _options: object) -> object:
    """FFmpeg asks for another file: an external data reference, a playlist entry. Never."""
    raise PermissionError(f"a recording may not refer to another file ({len(url)} characters)")


class _Cursor:
    """Moves forward through a recording, from target to target, decoding as little as possible."""

    def __init__(self, reader: RecordingReader, targets: list[int]) -> None:
        self._reader = reader
        self._wanted = frozenset(targets)
        self._index = index = reader.index
        self._shown = index.shown_times()
        self._positions = {time: i for i, time in enumerate(index.pts) if time is not None}
        known = sum(time is not None for time in index.pts)
        # A time that two packets share names neither of them.
        self._may_jump = len(self._positions) == known and not reader.has_counted_times
        self._can_seek = reader.can_seek
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._position = len(index.pts)  # of the last packet read; indexing has read them all
        self._from = 0  # packets before this position are not decoded
        self._decoded: deque[VideoFrame] = deque()
        self._count = 0
        self._is_drained = True
        self._latest: VideoFrame | None = None
        self._has_jumped = False
        if not self._may_jump:
            self._rewind()

    def frame_at(self, target: int, following: int | None) -> VideoFrame | None:
        """The picture presented at `target`, or the next one that decodes; None at the end.

        Targets must rise. `following` is the next one: with it we know whether the decoder may
        be emptied after this one, or is needed as it is.
        """
        if self._may_jump:
            frame = self._frame_by_jumping(target, following)
            if frame is not None:
                return frame
            # The packet is damaged, or the stream calls a picture a keyframe that is none
            # (periodic intra refresh). From here on, decode everything in order, once.
            self._may_jump = False
            self._rewind()
        return self._frame_in_order(target)

    def _frame_by_jumping(self, target: int, following: int | None) -> VideoFrame | None:
        start, position = self._index.decode_start(target), self._positions[target]
        if start > self._position or (self._is_drained and not self._decoded):
            self._jump(start)
        is_last_of_group = following is None or self._index.decode_start(following) > position
        # Interlaced streams may send the two fields of a picture in two packets.
        may_drain = is_last_of_group and self._reader.stream.codec_context.field_order in (0, 1)
        while True:
            while self._decoded:
                frame = self._decoded.popleft()
                if frame.pts == target:
                    return frame
                if frame.pts is not None and frame.pts > target:
                    self._decoded.appendleft(frame)
                    return None
            if not self._decode_next(position if may_drain else None):
                return None

    def _frame_in_order(self, target: int) -> VideoFrame | None:
        while True:
            while self._decoded:
                self._latest = self._decoded.popleft()
                if self._latest.pts is not None and self._latest.pts >= target:
                    return self._latest
            if not self._decode_next(None):
                return self._latest

    def _decode_next(self, drain_at: int | None) -> bool:
        """Decode one more packet, or empty the decoder; False when it is empty already."""
        if self._is_drained:
            return False
        packet = self._next_packet()
        if packet is None:
            self._drain()
            return True
        if self._position < self._from:
            return True
        codec = self._reader.stream.codec_context
        if codec.name == "h264":
            # Pictures that nothing refers to need no decoding, unless we want to look at them.
            # H.265 marks them per temporal layer only, so there all are decoded.
            is_needed = not self._may_jump or packet.pts in self._wanted
            codec.skip_frame = "DEFAULT" if is_needed else "NONREF"
        self._decode(packet)
        if self._position == drain_at:
            self._drain()
        return True

    def _drain(self) -> None:
        self._decode(None)
        self._is_drained = True

    def _decode(self, packet: Packet[VideoStream] | None) -> None:
        try:
            frames = self._reader.stream.codec_context.decode(packet)
        except MemoryError as error:
            raise Refused(Reason.MEMORY) from error
        except av.error.FFmpegError:
            return  # damaged: what decodes is used
        for frame in frames:
            if self._reader.has_counted_times:
                frame.pts = self._shown[min(self._count, len(self._shown) - 1)]
                self._count += 1
            self._decoded.append(frame)

    def _next_packet(self) -> Packet[VideoStream] | None:
        for packet in self._packets:
            known = None if packet.pts is None else self._positions.get(packet.pts)
            if known is None and self._position < 0 and self._has_jumped:
                continue  # just after a jump: where we are is not known yet
            self._position = self._position + 1 if known is None else known
            return packet
        return None

    def _jump(self, start: int) -> None:
        """Make the packet at position `start` the next one to be decoded."""
        self._decoded.clear()
        self._is_drained = False
        self._from = start
        self._reader.stream.codec_context.flush_buffers()
        time = self._index.pts[start]
        if not self._can_seek or time is None:
            if self._position >= start:
                self._rewind(start)
            return
        if not self._seek(time, start):
            self._can_seek = False
            self._rewind(start)

    def _seek(self, time: int, start: int) -> bool:
        """Ask the demuxer to go to `time`; False if it did not land at or before `start`."""
        try:
            # To the presentation time. The demuxer's own index has decode times, with which one
            # would land a whole group of pictures early where there are B-frames.
            self._reader.container.seek(time, stream=self._reader.stream)
        except (av.error.FFmpegError, OSError):
            return False
        self._packets, self._position, self._has_jumped = self._reader.packets(), -1, True
        first = self._next_packet()
        if first is None or self._position > start:
            return False
        if self._position == start:
            self._packets = chain((first,), self._packets)
            self._position = start - 1
        return True

    def _rewind(self, start: int = 0) -> None:
        self._reader.reopen()
        self._packets, self._position = self._reader.packets(), -1
        self._from, self._has_jumped = start, False
        self._decoded.clear()
        self._count = 0
        self._is_drained = False
