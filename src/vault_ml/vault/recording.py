"""A fetched recording: bytes without a name, gone with the last descriptor."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from vault_ml.errors import (
    RecordingIncomplete,
    RecordingTooLarge,
    UnavailableError,
    UndecodableRecording,
)
from vault_ml.vault.transport import Reply

# What one step of decompression may give: a kilobyte of gzip can hold a megabyte of zeros.
_GUNZIP_STEP_BYTES = 1 << 20
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# More would be exabytes; Python also refuses to read a number of thousands of digits. That these
# are digits at all, h11 has checked.
_MOST_LENGTH_DIGITS = 18
_FULL_DISK_RETRY_S = 30.0


class Recording:
    """The stored bytes of one recording. A context manager; leaving it frees them.

    Attributes:
        fd: an open descriptor of a file without a name (or of memory), positioned at 0.
        size_bytes: length of the recording.
        sha256: lower-case hex digest of the recording.
        fetched_bytes: what came over the wire for it; less when the Vault compressed.
        requests: how many parts it came in.
        route: `signed_url` or `blob`.
    """

    def __init__(
        self, fd: int, *, size_bytes: int, sha256: str, fetched_bytes: int, route: str
    ) -> None:
        """Own `fd`."""
        self.fd = fd
        self.size_bytes = size_bytes
        self.sha256 = sha256
        self.fetched_bytes = fetched_bytes
        self.requests = 1
        self.route = route

    @property
    def source(self) -> int:
        """What a decoder reads from."""
        return self.fd

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last byte of what was fetched: all of it."""
        return ((0, self.size_bytes - 1),)

    def close(self) -> None:
        """Free the bytes. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def receive(
    reply: Reply, *, who: str, route: str, max_bytes: int, work_dir: Path | None
) -> Recording:
    """Stream the body of `reply` into a private file and give it as a recording.

    Args:
        reply: a 200 whose body is the recording.
        who: begins the sentence of an error, such as `Vault at vault.example.org`.
        route: which way it came, for `Recording.route`.
        max_bytes: the largest recording taken, counted after decompression.
        work_dir: where the nameless file lives; None keeps it in memory.

    Raises:
        RecordingTooLarge: it is larger than `max_bytes`, announced or not.
        RecordingIncomplete: it is empty, or its compressed form ends too early.
        UndecodableRecording: it is encoded in a way that we did not ask for.
        UnavailableError: there is no room for it here.
        ExchangeFailed: the transfer failed.
    """
    encoding = reply.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise UndecodableRecording(
            f"{who} sent the recording in a Content-Encoding that we did not ask for; "
            "a proxy in front of it may have added it."
        )
    announced = reply.headers.get("content-length", "0")
    if len(announced) > _MOST_LENGTH_DIGITS or int(announced) > max_bytes:
        raise too_large(who, max_bytes)
    with room_or_unavailable(work_dir):
        fd = nameless_file(work_dir)
    try:
        fetched = _Counter()
        pieces = fetched.counting(reply.pieces())
        digest, size = hashlib.sha256(), 0
        for piece in _gunzip(pieces, who) if "gzip" in encoding else pieces:
            size += len(piece)
            if size > max_bytes:
                raise too_large(who, max_bytes)
            digest.update(piece)
            with room_or_unavailable(work_dir):
                _write_all(fd, piece)
        if not size:
            raise RecordingIncomplete(
                f"{who} sent a recording that is empty so far; it may still be on its way there."
            )
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return Recording(
        fd, size_bytes=size, sha256=digest.hexdigest(), fetched_bytes=fetched.bytes, route=route
    )


def too_large(who: str, max_bytes: int) -> RecordingTooLarge:
    """The error for a recording above the limit. `who` begins the sentence."""
    return RecordingTooLarge(
        f"{who} has a recording of more than {max_bytes} bytes, the most that is fetched; "
        "raise RECORDING_MAX_BYTES if such recordings are meant to be looked at."
    )


class _Counter:
    """Counts bytes as they pass."""

    def __init__(self) -> None:
        self.bytes = 0

    def counting(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.bytes += len(piece)
            yield piece


def _gunzip(pieces: Iterator[bytes], who: str) -> Iterator[bytes]:
    """Decompress in bounded steps, so that a bomb meets the size limit before it fills memory."""
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                yield inflater.decompress(rest, _GUNZIP_STEP_BYTES)
                rest = inflater.unconsumed_tail
                if inflater.eof:
                    rest = inflater.unused_data  # gzip files may stand one behind another
                    inflater = zlib.decompressobj(_GZIP_WINDOW) if rest else inflater
        yield inflater.flush()
    except zlib.error as error:
        raise RecordingIncomplete(f"{who} sent damaged data; it is fetched again later.") from error
    if not inflater.eof:
        raise RecordingIncomplete(f"{who} sent half a recording; it is fetched again later.")


def nameless_file(work_dir: Path | None) -> int:
    """A descriptor of a new file that no name leads to: nothing to clean up, whatever happens."""
    if work_dir is None:
        return os.memfd_create("recording")
    with contextlib.suppress(OSError):  # some file systems (overlay, NFS) cannot
        return os.open(work_dir, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fd, name = tempfile.mkstemp(dir=work_dir, prefix="recording-")
    Path(name).unlink()
    return fd


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def room_or_unavailable(work_dir: Path | None) -> Iterator[None]:
    """A full disk or memory becomes an `UnavailableError`."""
    try:
        yield
    except OSError as error:
        place = f"in {work_dir}" if work_dir else "in memory"
        raise UnavailableError(
            f"There is no room for a recording {place} ({error.strerror}); "
            "free some; it is tried again until then.",
            retry_after_s=_FULL_DISK_RETRY_S,
        ) from error
