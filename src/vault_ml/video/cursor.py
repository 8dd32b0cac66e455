"""A way through a recording, from picture to picture, decoding as little as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vault_ml.video.demuxer import Demuxer
from vault_ml.video.limits import Reason, Refused
from vault_ml.video.random_access import can_start_at
from vault_ml.video.sampling import PacketIndex


class Cursor:
    """Moves forward through a recording, from target to target, decoding as little as possible."""

    def __init__(self, demuxer: Demuxer, index: PacketIndex, targets: list[int]) -> None:
        """Start behind the end of `demuxer`, where reading `index` has left it."""
        self._demuxer = demuxer
        self._wanted = frozenset(targets)
        self._index = index
        self._shown = index.shown_times()
        self._positions = {time: i for i, time in enumerate(index.pts) if time is not None}
        known = sum(time is not None for time in index.pts)
        # A time that two packets share names neither of them.
        self._may_jump = len(self._positions) == known and not demuxer.has_counted_times
        self._can_seek = demuxer.can_seek
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._position = len(index.pts)  # of the last packet read; indexing has read them all
        self._from = 0  # packets before this position are not decoded
        self._decoded: deque[VideoFrame] = deque()
        self._count = 0
        self._is_drained = True
        self._latest: VideoFrame | None = None
        self._has_jumped = False
        if not self._may_jump:
            demuxer.show_everything()
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
            self._demuxer.show_everything()
            self._rewind()
        return self._frame_in_order(target)

    def _frame_by_jumping(self, target: int, following: int | None) -> VideoFrame | None:
        start, position = self._index.decode_start(target), self._positions[target]
        if start > self._position or (self._is_drained and not self._decoded):
            self._jump(start)
        is_last_of_group = following is None or self._index.decode_start(following) > position
        # Interlaced streams may send the two fields of a picture in two packets.
        may_drain = is_last_of_group and self._demuxer.stream.codec_context.field_order in (0, 1)
        last = position if following is None or is_last_of_group else self._positions[following]
        self._demuxer.fetch_packets(max(start, self._position + 1), last)
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
        codec = self._demuxer.stream.codec_context
        self._demuxer.fill(packet)
        if self._may_jump and self._position == self._from and not can_start_at(packet, codec):
            self._is_drained = True  # not the keyframe that the index says it is
            return False
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
            frames = self._demuxer.stream.codec_context.decode(packet)
        except MemoryError as error:
            self._demuxer.check_announced(packet)
            raise Refused(Reason.MEMORY) from error
        except av.error.FFmpegError:
            self._demuxer.check_announced(packet)
            return  # damaged: what decodes is used
        for frame in frames:
            if self._demuxer.has_counted_times:
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
        self._demuxer.stream.codec_context.flush_buffers()
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
            self._demuxer.container.seek(time, stream=self._demuxer.stream)
        except (av.error.FFmpegError, OSError):
            return False
        self._packets, self._position, self._has_jumped = self._demuxer.packets(), -1, True
        first = self._next_packet()
        if first is None or self._position > start:
            return False
        if self._position == start:
            self._packets = chain((first,), self._packets)
            self._position = start - 1
        return True

    def _rewind(self, start: int = 0) -> None:
        self._demuxer.reopen()
        self._packets, self._position = self._demuxer.packets(), -1
        self._from, self._has_jumped = start, False
        self._decoded.clear()
        self._count = 0
        self._is_drained = False
