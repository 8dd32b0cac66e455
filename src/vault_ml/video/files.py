"""The files that a recording is read through: what FFmpeg needs of them, and no more."""

from __future__ import annotations

import os
from typing import Protocol


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


def read_at(file: SeekableFile, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, in as many reads as it takes; fewer at the end of the file."""
    file.seek(offset)
    parts: list[bytes] = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Beginning:
    """The first bytes of a file, as a file. Does not own it."""

    def __init__(self, file: SeekableFile, size_bytes: int) -> None:
        """Show the first `size_bytes` of `file`."""
        self._file = file
        self._size = size_bytes

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        return self._file.read(max(0, min(size, self._size - self._file.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte; the new position."""
        if whence == os.SEEK_END:
            return self._file.seek(max(0, self._size + offset))
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position in bytes."""
        return self._file.tell()
