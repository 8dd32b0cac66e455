"""A child process that may hang, crash or be killed, and the socket to it.

Decoding and inference are native code over hostile data; they live in children (design: the
parent holds the credentials and the leases and can always kill and replace a child). A child gets
one end of a socket pair, an environment without our settings, and dies with its parent. What
crosses the socket is JSON and file descriptors, never pickles: the child is not trusted.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

_HEADER = struct.Struct("!I")
# As JSON a message takes up to twenty times its length of the parent's memory: whoever expects
# short answers from hostile hands says so.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# With one message. A child that floods its parent with descriptors leaves it none for anything.
_MAX_FDS = 8
_PIECE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1

# The kernel ends a child when the *thread* that started it ends, not the process. Recording
# threads come and go, so one thread that lives as long as the process starts every child.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

# What a child may see of our environment. Everything else, secrets first, stays with the parent.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "COVERAGE_PROCESS_START",
    "COVERAGE_PROCESS_CONFIG",
)


class ChildGone(Exception):
    """The other end of the socket is closed: the process died or was killed."""


class ChildStuck(Exception):
    """No whole message came before the deadline."""


class Channel:
    """One end of the socket: whole JSON messages with descriptors, each way.

    Sending is serialised by a lock, so several threads may send; one thread receives.
    """

    def __init__(self, sock: socket.socket, max_message_bytes: int = _MAX_MESSAGE_BYTES) -> None:
        """Own `sock`, a connected AF_UNIX stream socket; longer messages are not received."""
        # Non-blocking, with waits by poll: a time-out is a property of the socket, and the thread
        # that receives would change it under the threads that send.
        sock.setblocking(False)
        self._sock = sock
        self._max_message_bytes = max_message_bytes
        self._send_lock = threading.Lock()

    def fileno(self) -> int:
        """For `select`."""
        return self._sock.fileno()

    def send(
        self, message: Mapping[str, Any], fds: Sequence[int] = (), *, timeout_s: float
    ) -> None:
        """Send one message; the descriptors are duplicated on their way and stay ours.

        Raises:
            ChildGone: the other end is closed.
            ChildStuck: the other end did not read in time.
        """
        payload = json.dumps(message, allow_nan=False).encode()
        left = memoryview(_HEADER.pack(len(payload)) + payload)
        fds_left = list(fds)
        deadline = time.monotonic() + timeout_s
        with self._send_lock:
            while left:
                self._wait(select.POLLOUT, deadline)
                try:
                    if fds_left:
                        sent = socket.send_fds(self._sock, [left[:_PIECE_BYTES]], fds_left)
                        fds_left = []
                    else:
                        sent = self._sock.send(left[:_PIECE_BYTES])
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ChildGone(str(error)) from error
                left = left[sent:]

    def receive(self, *, timeout_s: float | None) -> tuple[dict[str, Any], list[int]]:
        """Receive one message and the descriptors that came with it, which are now ours.

        Raises:
            ChildGone: the other end is closed, or what it sent is not a message.
            ChildStuck: nothing whole within `timeout_s` (None waits for ever).
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        fds: list[int] = []
        try:
            (size,) = _HEADER.unpack(self._read(_HEADER.size, deadline, fds))
            if size > self._max_message_bytes:
                raise ChildGone(f"announced a message of {size} bytes")
            message = json.loads(self._read(size, deadline, fds))
            if not isinstance(message, dict):
                raise ChildGone("sent something that is not an object")
        except BaseException as error:
            for fd in fds:
                os.close(fd)
            if isinstance(error, (ValueError, RecursionError)):
                raise ChildGone("sent something that is not JSON") from error
            raise
        return message, fds

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._sock.close()

    def _wait(self, event: int, deadline: float | None) -> None:
        try:
            poll = select.poll()
            poll.register(self._sock, event)
        except (OSError, ValueError) as error:  # closed by another thread
            raise ChildGone("the connection is closed") from error
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left_ms):
            raise ChildStuck

    def _read(self, size: int, deadline: float | None, fds: list[int]) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            self._wait(select.POLLIN, deadline)
            try:
                part, new_fds, _, _ = socket.recv_fds(self._sock, min(size, _PIECE_BYTES), _MAX_FDS)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChildGone(str(error)) from error
            fds.extend(new_fds)
            if len(fds) > _MAX_FDS:
                raise ChildGone(f"sent more than {_MAX_FDS} descriptors with a message")
            if not part:
                raise ChildGone("closed the connection")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Child:
    """A running child and the channel to it."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        name: str,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
    ) -> None:
        """Start `python -m module FD PARENT_PID *arguments`; the module calls `connect()`.

        Args:
            module: the child's main module.
            arguments: further command-line words; no secrets (they show in the process list).
            name: for messages, such as `decoder 1`.
            max_message_bytes: the longest answer that is taken; a longer one ends the talk.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self.process = _spawner.submit(
                subprocess.Popen,
                [
                    sys.executable,
                    "-P",  # the folder somebody stands in is not where modules come from
                    "-m",
                    module,
                    str(theirs.fileno()),
                    str(os.getpid()),
                    *arguments,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={key: os.environ[key] for key in _PASSED_ON if key in os.environ},
                # A Ctrl-C in the terminal is for the parent, which drains; children follow it.
                start_new_session=True,
            ).result()
        self.name = name
        self.channel = Channel(ours, max_message_bytes)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def is_alive(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    def epitaph(self) -> str:
        """How the process ended, in words: `was killed by SIGKILL`, `exited with 1`."""
        code = self.process.poll()
        if code is None:
            return "is running"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited with {code}"

    def kill(self) -> None:
        """End it now and reap it. Idempotent."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        # Last: a thread that is still sending must not meet a descriptor that is somebody else's.
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def connect() -> tuple[Channel, list[str]]:
    """In the child: the channel to the parent, and the arguments it gave.

    From here on the child dies with its parent, also when that is killed.
    """
    fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the call above
        sys.exit(0)
    return Channel(socket.socket(fileno=fd)), sys.argv[3:]
