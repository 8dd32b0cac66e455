"""Memory for the frames of one recording, shared by decoder, parent and detector.

A memfd, not `/dev/shm`: a container's shared-memory folder is small (64 MB by default), and an
anonymous file disappears with its last descriptor, also after `kill -9`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray


class SharedFrames:
    """`capacity` letterboxed RGB pictures in one anonymous file.

    The descriptor travels to the other processes by SCM_RIGHTS (`multiprocessing.reduction` or
    `socket.send_fds`); each maps it with `SharedFrames.attach`. Whoever created or attached it
    closes it.
    """

    def __init__(self, fd: int, capacity: int, net_wh: tuple[int, int]) -> None:
        """Map `fd`, which this object owns from now on."""
        self.fd = fd
        self.capacity = capacity
        self.net_wh = net_wh
        w, h = net_wh
        self._map = mmap.mmap(fd, capacity * h * w * 3)
        self._pixels: NDArray[np.uint8] | None = np.frombuffer(self._map, np.uint8).reshape(
            capacity, h, w, 3
        )

    @classmethod
    def create(cls, capacity: int, net_wh: tuple[int, int]) -> SharedFrames:
        """Room for `capacity` frames of `net_wh` pixels.

        Raises:
            ValueError: capacity or a side is not positive.
        """
        w, h = net_wh
        if capacity <= 0 or w <= 0 or h <= 0:
            raise ValueError(f"expected a positive capacity and size, got {capacity} of {net_wh}")
        fd = os.memfd_create("vault-ml-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, capacity * h * w * 3)
        # A decoder that was taken over could cut the file short: whoever then touches the mapping
        # dies of SIGBUS, the worker and the detector first.
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        return cls(fd, capacity, net_wh)

    @classmethod
    def attach(cls, fd: int, capacity: int, net_wh: tuple[int, int]) -> SharedFrames:
        """Map a descriptor received from another process; this object owns it from now on."""
        return cls(fd, capacity, net_wh)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(capacity, h, w, 3) uint8 RGB, a view of the shared memory.

        Raises:
            ValueError: already closed.
        """
        if self._pixels is None:
            raise ValueError("these frames are closed")
        return self._pixels

    def picture(self, slot: int, wh: tuple[int, int]) -> NDArray[np.uint8]:
        """The beginning of one slot as a picture: (h, w, 3) uint8 RGB, a view.

        Raises:
            ValueError: `wh` is larger than the slot, or already closed.
        """
        w, h = wh
        if w > self.net_wh[0] or h > self.net_wh[1]:
            raise ValueError(f"a picture of {wh} does not fit a slot of {self.net_wh}")
        whole: NDArray[np.uint8] = self.pixels[slot].reshape(-1)[: h * w * 3].reshape(h, w, 3)
        return whole

    def close(self) -> None:
        """Unmap and close. Idempotent.

        Views that outlive this keep the mapping, and with it one descriptor, until they are gone.
        """
        if self._pixels is None:
            return
        self._pixels = None
        os.close(self.fd)
        # A view of `pixels` may still be alive somewhere; the mapping then goes with the last one.
        with contextlib.suppress(BufferError):
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
