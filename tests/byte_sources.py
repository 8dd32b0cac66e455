"""Recordings that are read in ranges, and remember how."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vault_ml.video.decoder_pool import DecodedRecording, DecoderPool, Sampling


class CountingSource:
    """A `ByteSource` over bytes in memory.

    Attributes:
        reads: the (offset, size) of every range that was asked for.
        before: called before each range is given.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []
        self.before: Callable[[], None] = lambda: None
        self.thread: threading.Thread | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def bytes_read(self) -> int:
        return sum(size for _, size in self.reads)

    def read_at(self, offset: int, size: int) -> bytes:
        self.thread = threading.current_thread()
        self.reads.append((offset, size))
        self.before()
        return self.data[offset : offset + size]


def decode_ranged(
    pool: DecoderPool,
    source: CountingSource,
    *,
    frames: int = 5,
    sampling: Sampling = Sampling.KEYFRAME,
    net_wh: tuple[int, int] = (64, 64),
    keep_pictures: bool = False,
) -> DecodedRecording:
    return pool.decode(
        source, frames=frames, sampling=sampling, net_wh=net_wh, keep_pictures=keep_pictures
    )
