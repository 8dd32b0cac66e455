"""FFmpeg's demuxer over the bytes of a recording. Runs in a decoder child.

No path and no URL ever reaches FFmpeg: it reads through a file object that we hand it, and can
open nothing else.

Of an MP4 that is fetched in ranges, the pictures are hidden: the demuxer reads zeros in their
place and tells all the same, from the tables, when each is shown and where it lies. What is
decoded then is fetched and put in. So the same demuxer makes the same index from fewer bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Self, cast

import av
import av.error
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vault_ml.video import boxes, claimed_length
from vault_ml.video.boxes import Outline, may_be_mp4, outline
from vault_ml.video.files import Beginning, SeekableFile, read_at
from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.photo import HEADER_BYTES, MAGIC_BYTES, claimed_size_wh, may_be_photo
from vault_ml.video.sampling import PacketIndex
from vault_ml.video.sparse_file import SparseFile

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


class Demuxer:
    """An opened recording: its video stream, and the packets of that.

    Attributes:
        container: FFmpeg's demuxer.
        stream: the video stream that is looked at, with its decoder.
        is_damaged: demuxing ended early.
        is_hiding: the demuxer sees zeros in place of pictures; see `fill`.
    """

    def __init__(self, file: SeekableFile, limits: DecodeLimits) -> None:
        """Open a recording. `file` stays the caller's.

        Raises:
            Refused: it cannot be opened, holds no video we decode, or exceeds a limit.
        """
        self._limits = limits
        self._sparse = file if isinstance(file, SparseFile) else None
        self._places: list[tuple[int, int]] = []
        self._options: dict[str, str] = {}
        self.is_damaged = False
        self._file, self._outline = self._survey(file)
        self.is_hiding = self._hide_pictures()
        self._open()

    def read_index(self) -> PacketIndex:
        """Demux everything, once. Other packets come after a `reopen` or a seek only.

        Raises:
            Refused: there is not one packet, or more than the limit.
        """
        index = self._index_once()
        if self.is_hiding and not all(at >= 0 for at, _ in self._places):
            self.show_everything()
            self.reopen()
            index = self._index_once()
        if self._outline is not None and not any(index.is_shown):
            # An edit list that hides the whole recording is a mistake, and no reason not to look.
            self._options = {"ignore_editlist": "1"}
            self.reopen()
            index = self._index_once()
        return index

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
            self.is_damaged = True

    def fetch_packets(self, first: int, last: int) -> None:
        """Have the packets at positions `first` to `last` ready, in few requests."""
        if self.is_hiding and self._sparse is not None:
            places = self._places[first : last + 1]
            self._sparse.fetch([(at, at + size) for at, size in places])

    def fill(self, packet: Packet[VideoStream]) -> None:
        """Put the true bytes into a packet that the demuxer read from zeros."""
        if self.is_hiding and self._sparse is not None and packet.pos is not None:
            packet.update(self._sparse.bytes_at(packet.pos, packet.size))

    def show_everything(self) -> None:
        """Fetch the whole recording and hide nothing any more; packets read so far are void."""
        self.is_hiding = False
        if self._sparse is not None:
            self._sparse.fetch_all()

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
    def is_partial(self) -> bool:
        """True where the recording was cut off, or is damaged from some place on."""
        return self.is_damaged or self._is_cut

    @property
    def is_still(self) -> bool:
        """True for a photo."""
        return self.container.format.name in _STILL_FORMATS

    @property
    def can_seek(self) -> bool:
        """True where the demuxer goes to the keyframe of a given time."""
        return self._name in _SEEKABLE

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

    @property
    def _name(self) -> str:
        return self.container.format.name.split(",")[0]

    def check_pixels(self, width: int, height: int) -> None:
        """Raise `Refused` where a picture of that size exceeds the limit."""
        if width * height > self._limits.max_pixels:
            raise Refused(Reason.PIXELS, size_wh=(width, height))

    def check_announced(self, packet: Packet[VideoStream] | None) -> None:
        """Say it by its name where a decoder refused a picture because of its size.

        The container may announce less than the stream does; that is met by the decoder's own
        limit, before it makes room for the picture, and looks like damage.

        Raises:
            Refused: the stream announces larger pictures than the limit.
        """
        codec = self.stream.codec_context
        self.check_pixels(codec.width, codec.height)
        if codec.name == "mjpeg" and packet is not None:
            self.check_pixels(*(claimed_size_wh(bytes(packet)) or (0, 0)))

    def _survey(self, file: SeekableFile) -> tuple[SeekableFile, Outline | None]:
        """Check what can be checked before FFmpeg sees the file; the file to give it."""
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise Refused(Reason.EMPTY)
        start = read_at(file, 0, max(claimed_length.HEADER_BYTES, MAGIC_BYTES, boxes.MAGIC_BYTES))
        self._is_cut = (claimed_length.claimed_length(start) or 0) > size
        if may_be_photo(start):
            header = read_at(file, 0, HEADER_BYTES)
            self.check_pixels(*(claimed_size_wh(header) or (0, 0)))
        if not may_be_mp4(start):
            return file, None
        found = outline(partial(read_at, file), size, self._limits)
        self._is_cut = found.is_cut
        if found.usable_bytes < size:
            return Beginning(file, found.usable_bytes), found
        return file, found

    def _hide_pictures(self) -> bool:
        if self._sparse is None:
            return False
        if self._outline is None or not self._outline.has_index:
            self._sparse.fetch_all()
            return False
        self._sparse.hide(self._outline.pictures)
        return True

    def _open(self) -> None:
        try:
            self._open_once()
        except Refused as refused:
            if not self.is_hiding or refused.reason is not Reason.UNKNOWN_FORMAT:
                raise
        else:
            if self._outline is not None and self._name != "mov":
                self._outline = None  # it begins like an MP4 and is something else
            elif not self.is_hiding or self._is_described():
                return
            self.container.close()
        # What the first pictures tell is needed to open it.
        self.show_everything()
        self._open_once()

    def _is_described(self) -> bool:
        """True where the tables alone tell how to decode; else the first picture must."""
        codec = self.stream.codec_context
        return codec.name not in ("h264", "hevc") or bool(codec.extradata)

    def _open_once(self) -> None:
        self._file.seek(0)
        self.container: InputContainer
        options = {
            "format_whitelist": ",".join((*_VIDEO_FORMATS, *_STILL_FORMATS)),
            "protocol_whitelist": "none",
            # Nothing is decoded in order to open a recording: the first keyframe would be
            # decoded twice (30 ms at 1080p), and by decoders that are not on our list.
            "codec_whitelist": "none",
            **self._options,
        }
        if self._outline is not None:
            # The tables of an MP4 tell which pictures are keyframes; nobody needs to look inside.
            options["fflags"] = "noparse"
        try:
            self.container = av.open(
                self._file,
                "r",
                buffer_size=_BUFFER_BYTES,
                options=options,
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
        self.check_pixels(codec.width, codec.height)
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

    def _index_once(self) -> PacketIndex:
        packets: list[tuple[int | None, bool, bool, int | None]] = []
        self._places.clear()
        self.is_damaged = False
        for packet in self.packets():
            # The last picture of a file that is cut off: its lower part would be made up.
            is_whole = self._outline is None or not packet.is_corrupt
            is_shown = is_whole and not packet.is_discard
            packets.append((packet.pts, packet.is_keyframe, is_shown, packet.duration))
            self._places.append((-1 if packet.pos is None else packet.pos, packet.size))
            if len(packets) > self._limits.max_samples:
                raise Refused(Reason.SAMPLES)
        if not packets:
            raise Refused(Reason.NOTHING_DECODES)
        pts, is_keyframe, shown, durations = zip(*packets, strict=True)
        sizes = [size for _, size in self._places]
        return PacketIndex.from_packets(pts, is_keyframe, shown, durations, sizes)


def _refuse_to_open(url: str, _flags: int, _options: object) -> object:
    """FFmpeg asks for another file: an external data reference, a playlist entry. Never."""
    raise PermissionError(f"a recording may not refer to another file ({len(url)} characters)")
