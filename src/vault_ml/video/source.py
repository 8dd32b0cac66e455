"""Recordings of which only some bytes are fetched: a child asks, the parent answers.

The decoder child finds out which bytes it needs, but has no network and no credentials. It asks
the parent for ranges over the channel; the parent writes them into a sparse copy of the recording,
an anonymous file that the child can only read. What is there once is never asked for again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from vault_ml.errors import RecordingIncomplete, UnavailableError

BLOCK_BYTES = 4096
"""Ranges are whole blocks, but for the end of the recording."""
MAX_READ_BYTES = 8 * 1024**2
"""The largest range. Large enough that a whole recording takes few of them."""
# Whoever wants more requests than this could as well have the whole recording.
_FREE_READS = 1024
_BYTES_PER_READ = 64 * 1024


class ByteSource(Protocol):
    """A recording whose bytes can be had in ranges."""

    @property
    def size_bytes(self) -> int:
        """Length of the whole recording."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; fewer only at the end of the recording.

        Raises:
            VaultMLError: they cannot be had; which kind says what becomes of the recording.
        """
        ...


def max_reads(size_bytes: int) -> int:
    """How many ranges of a recording of that size may be asked for."""
    return _FREE_READS + size_bytes // _BYTES_PER_READ


class AskedTooMuch(Exception):
    """A child asked for bytes in a way that an honest one never does."""


class SparseCopy:
    """The parent's side: fetches the ranges that a child asks for.

    Attributes:
        bytes_read: how many bytes were fetched.
        ranges: (offset, size) of what was fetched, in the order of asking.
        failure: what ended the fetching, once something has.
    """

    def __init__(self, source: ByteSource) -> None:
        """Make an empty copy of `source`, which stays the caller's.

        Raises:
            UnavailableError: no anonymous file can be made.
        """
        self.bytes_read = 0
        self.ranges: list[tuple[int, int]] = []
        self.failure: BaseException | None = None
        self._source = source
        self.size_bytes = source.size_bytes
        self._reads = 0
        try:
            self._fd = os.memfd_create("recording", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise _no_room(error) from error
        try:
            os.ftruncate(self._fd, self.size_bytes)
            fcntl.fcntl(
                self._fd,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
            )
            # A descriptor of its own for the child, by which it cannot write.
            self.fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                raise _no_room(error) from error
            raise

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Fetch what the child asks for; `{"read": false}` where that fails, see `failure`.

        Raises:
            AskedTooMuch: no honest child asks so.
        """
        offset, size = self._checked(message["read"])
        if self.failure is None:
            try:
                self._fetch(offset, size)
            except BaseException as error:  # noqa: BLE001  # raised once the child has let go
                self.failure = error
        return {"read": self.failure is None}

    def close(self) -> None:
        """Free the bytes. Idempotent."""
        for fd in (self._fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _checked(self, asked: object) -> tuple[int, int]:
        self._reads += 1
        if self._reads > max_reads(self.size_bytes):
            raise AskedTooMuch("number of ranges")
        match asked:
            case [int(offset), int(size)] if offset >= 0 and 0 < size <= MAX_READ_BYTES:
                end = offset + size
                is_whole = end % BLOCK_BYTES == 0 or end == self.size_bytes
                # What is in the copy is not needed again: no more is asked for than there is.
                is_new = self.bytes_read + size <= self.size_bytes
                if offset % BLOCK_BYTES == 0 and end <= self.size_bytes and is_whole and is_new:
                    return offset, size
        raise AskedTooMuch("range")

    def _fetch(self, offset: int, size: int) -> None:
        data = self._source.read_at(offset, size)
        self.bytes_read += len(data)
        if len(data) != size:
            raise RecordingIncomplete(
                f"The recording ends early: {size} bytes were asked for at {offset}, "
                f"{len(data)} came. It is fetched again later."
            )
        self.ranges.append((offset, size))
        view, at = memoryview(data), offset
        try:
            while view:
                written = os.pwrite(self._fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise _no_room(error) from error


def _no_room(error: OSError) -> UnavailableError:
    return UnavailableError(
        f"There is no room in memory for a recording ({error.strerror}); "
        "free some, or lower WORKER_CONCURRENCY.",
        retry_after_s=30.0,
    )
