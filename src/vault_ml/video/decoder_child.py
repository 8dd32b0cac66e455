"""The process that parses hostile bytes: `python -m vault_ml.video.decoder_child`.

It has no credentials, no settings and no path: recordings, and the memory for their frames, come
as descriptors over the socket, one recording at a time. What it answers is a closed set of
shapes that the parent checks before believing any of it (see `decoder_pool`):

    parent -> {"decode": {...}} + recording, frame memory    frames, or why not
      child -> {"read": [offset, size]}, where the recording is a sparse copy
      parent -> {"read": true}, once these bytes are in it; false: `{"abandoned": true}`
    parent -> {"picture": i} + memory for one whole picture  done
    parent -> {"release": true}                              (no answer)
"""

from __future__ import annotations

import os

# OpenBLAS starts a thread per core when numpy is imported; nothing here multiplies matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import contextlib
import ctypes
import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av
import av.error
import av.logging
import cv2
import numpy as np
from av.video.frame import VideoFrame

from vault_ml.child import Channel, ChildGone, connect
from vault_ml.geometry import Letterbox, Placing, input_wh
from vault_ml.video.adaptive import Likeness, choose, further
from vault_ml.video.files import RecordingFile, SeekableFile
from vault_ml.video.jail import Jail, confine
from vault_ml.video.limits import DecodeLimits, Reason, Refused
from vault_ml.video.picture import MOVING, Picture, letterbox_into
from vault_ml.video.reader import RecordingReader
from vault_ml.video.sampling import PacketIndex, Sampling
from vault_ml.video.shared_frames import SharedFrames
from vault_ml.video.sparse_file import SourceFailed, SparseFile

_ANSWER_TIMEOUT_S = 60.0

# Source: glibc `malloc.h`. Pieces above the first number go back to the kernel when freed, as does
# the end of the heap above the second: enough for the pictures of a 1080p decoder. The heap grows
# by the third, not by every few pages.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_HEAP_PIECE_BYTES = 32 * 1024**2
_KEPT_BYTES = 128 * 1024**2
_GROWN_BYTES = 4 * 1024**2


class _Decoder:
    """Answers the parent's questions; holds the pictures of the recording at hand."""

    def __init__(self, limits: DecodeLimits, channel: Channel) -> None:
        self._limits = limits
        self._channel = channel
        self._held: list[Picture] = []

    def answer(self, message: Mapping[str, Any], fds: list[int]) -> dict[str, Any] | None:
        """What to send back, or None for nothing. Closes `fds`.

        Raises:
            ValueError: the message is not one that the pool sends.
        """
        if "decode" in message:
            return self._decode(*fds, **message["decode"])
        if "picture" in message:
            return self._picture(int(message["picture"]), *fds)
        if "release" in message:
            self._held.clear()
            return None
        raise ValueError(f"unknown message {sorted(message)}")

    def _decode(
        self, recording: int, memory: int, *, sparse_bytes: int | None = None, **job: Any
    ) -> dict[str, Any]:
        self._held.clear()
        file = (
            RecordingFile(recording)
            if sparse_bytes is None
            else SparseFile(recording, sparse_bytes, self._ask)
        )
        try:
            answer = self._look(file, memory, **job)
        except Refused as refused:
            answer = {
                "refused": refused.reason,
                "codec": refused.codec,
                "size_wh": refused.size_wh,
                "seconds": refused.seconds,
            }
        except SourceFailed:
            answer = {"abandoned": True}
        finally:
            os.close(recording)
        if isinstance(file, SparseFile) and file.has_failed:
            answer = {"abandoned": True}  # FFmpeg may have made something of it all the same
        if "frames" not in answer:
            self._held.clear()
        return answer

    def _look(
        self,
        file: SeekableFile,
        memory: int,
        *,
        frames: int,
        sampling: str,
        frames_per_s: float | None = None,
        region: Sequence[int] | None = None,
        net_wh: tuple[int, int],
        placing: Mapping[str, Any],
        keep_pictures: bool,
        rect: bool = False,
    ) -> dict[str, Any]:
        net_w, net_h = net_wh
        placed = Placing(**placing)
        looked_at: list[dict[str, Any]] = []
        with (
            SharedFrames.attach(memory, frames, (net_w, net_h)) as shared,
            _memory_errors_refused(),
            RecordingReader(file, self._limits) as reader,
        ):
            chosen = Sampling(sampling)
            for picture in reader.pictures(frames, chosen, frames_per_s, region):
                wanted_wh = input_wh(picture.size_wh, (net_w, net_h), rect=rect)
                letterbox = Letterbox.fit(picture.size_wh, wanted_wh, placed)
                try:
                    # A square input is what darknet and its ports would see, to the last bit.
                    rgb = picture.rgb_at(letterbox.inner_wh) if rect else picture.rgb()
                except av.error.FFmpegError:
                    continue  # a pixel format that swscale does not know
                canvas = shared.picture(len(looked_at), wanted_wh)
                letterbox_into(canvas, rgb, letterbox, placed.fill)
                looked_at.append(
                    {
                        "timestamp_s": picture.timestamp_s,
                        "number": picture.number,
                        "size_wh": picture.size_wh,
                        "why": picture.why,
                    }
                )
                if keep_pictures:
                    self._held.append(picture)
            if not looked_at:
                raise Refused(Reason.NOTHING_DECODES)
            self._put_in_order(looked_at, shared)
            return {
                "frames": looked_at,
                "left_out": reader.left_out,
                "duration_s": reader.duration_s,
                "is_partial": reader.is_partial,
            }

    def _put_in_order(self, looked_at: list[dict[str, Any]], shared: SharedFrames) -> None:
        """Sort all by time: a second look may have brought what lies between."""
        order = sorted(range(len(looked_at)), key=lambda at: looked_at[at]["timestamp_s"])
        if order == list(range(len(order))):
            return
        shared.pixels[: len(order)] = shared.pixels[order]
        looked_at[:] = [looked_at[at] for at in order]
        if self._held:
            self._held[:] = [self._held[at] for at in order]

    def _ask(self, offset: int, size: int) -> bool:
        """Have the parent put bytes into the sparse copy."""
        try:
            self._channel.send({"read": [offset, size]}, timeout_s=_ANSWER_TIMEOUT_S)
            answer, fds = self._channel.receive(timeout_s=None)
        except ChildGone:
            return False  # `serve` will meet it as well
        for fd in fds:
            os.close(fd)
        return answer.get("read") is True

    def _picture(self, index: int, memory: int) -> dict[str, Any]:
        picture = self._held[index]
        with SharedFrames.attach(memory, 1, picture.size_wh) as shared:
            try:
                with _memory_errors_refused():
                    np.copyto(shared.pixels[0], picture.rgb())
            except Refused as refused:
                return {"refused": refused.reason}
        return {"picture": index}


@contextlib.contextmanager
def _memory_errors_refused() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise Refused(Reason.MEMORY) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise Refused(Reason.MEMORY) from error
        raise


def serve(channel: Channel, limits: DecodeLimits, jail: Jail) -> None:
    """Answer until the parent hangs up."""
    decoder = _Decoder(limits, channel)
    with contextlib.suppress(ChildGone):
        channel.send({"jail": jail.as_message()}, timeout_s=_ANSWER_TIMEOUT_S)
        while True:
            message, fds = channel.receive(timeout_s=None)
            answer = decoder.answer(message, fds)
            if answer is not None:
                channel.send(answer, timeout_s=_ANSWER_TIMEOUT_S)


def warm_up() -> None:
    """Look at a picture of two by two pixels.

    PyAV and numpy import parts of themselves when first used, and in the jail no file can be
    opened. It also shows that decoding works at all, before the parent is told so.
    """
    pixels = bytes(16)  # two rows of two pixels, each row filled up to four bytes
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header))
    with RecordingReader(io.BytesIO(start + header + pixels), DecodeLimits()) as reader:
        (picture,) = reader.pictures(1, Sampling.ADAPTIVE)
        canvas = np.zeros((4, 4, 3), np.uint8)
        letterbox_into(canvas, picture.rgb(), Letterbox.fit(picture.size_wh, (4, 4)))
        small = VideoFrame.from_ndarray(np.zeros((6, 4), np.uint8), format="yuv420p")
        Picture(0.0, 0, small, MOVING).rgb_at((2, 2))
    sizes = [9000, *range(100, 140)]
    index = PacketIndex.from_packets(
        range(41), [at == 0 for at in range(41)], [True] * 41, [1] * 41, sizes
    )
    further(index, [0], 1)
    choose(index, 2)
    Likeness().difference(picture.cells(), picture.cells())


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next picture, up to `_KEPT_BYTES`.

    By itself it gives every large piece back to the kernel, and pays for each of its pages when
    the next picture asks for as much: 20 ms of a processor for five pictures of 1080p.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library does as it thinks best
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _HEAP_PIECE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TOP_PAD, _GROWN_BYTES)


def main() -> None:
    """Start as a child of the worker; see `vault_ml.child`."""
    channel, (limits_json,) = connect()
    limits = DecodeLimits(**json.loads(limits_json))
    av.logging.set_level(None)  # FFmpeg describes every damaged byte at length
    cv2.setNumThreads(1)
    keep_freed_memory()
    warm_up()
    serve(channel, limits, confine(limits.max_memory_bytes))


if __name__ == "__main__":
    main()
