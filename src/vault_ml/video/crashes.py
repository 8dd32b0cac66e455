"""Which contents have crashed a decoder: a second time is no accident.

A crash is a verdict on the recording, not on the worker. The first one may have had another cause
(a limit was near, a disk was slow), so the recording is tried again; after the second one it is
given up, before it takes decoder after decoder with it. A decoder that was killed from outside
(SIGKILL, as the kernel does when memory runs out) crashed on nothing and is not counted here.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable

CRASHES_ALLOWED = 1
# Contents remembered. A worker that meets more than so many bad ones has other worries.
_MAX_REMEMBERED = 1024
_PIECE_BYTES = 1 << 20


class CrashMemory:
    """Counts crashes per content; the oldest are forgotten. Thread-safe."""

    def __init__(self, capacity: int = _MAX_REMEMBERED) -> None:
        """Remember at most `capacity` contents."""
        self._capacity = capacity
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, digest: bytes) -> int:
        """Remember one more crash on a content; how many there were by now."""
        with self._lock:
            crashes = self._counts.pop(digest, 0) + 1
            self._counts[digest] = crashes
            while len(self._counts) > self._capacity:
                self._counts.popitem(last=False)
            return crashes


def digest_of(fd: int, size_bytes: int, ranges: Iterable[tuple[int, int]]) -> bytes:
    """SHA-256 of a file's size, of (offset, size) `ranges` of it, and of what stands there.

    What a decoder asks for depends on nothing but the content, so that the ranges it had read when
    it crashed name the content as well as the whole would; the size tells apart what begins alike.
    """
    digest = hashlib.sha256(b"%d:" % size_bytes)
    for offset, size in ranges:
        digest.update(b"%d+%d:" % (offset, size))
        while size > 0 and (piece := os.pread(fd, min(size, _PIECE_BYTES), offset)):
            digest.update(piece)
            offset, size = offset + len(piece), size - len(piece)
    return digest.digest()
