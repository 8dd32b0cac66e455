"""The jail of a decoder process: what it gives up before it sees the first hostile byte.

Three walls, each taken where the kernel has it: limits on resources (always), a filter on system
calls (`seccomp`), and Landlock. See docs/explanation/jail.md for what they hold and what not.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vault_ml.video import landlock, seccomp

# The socket, a recording, two memories, and what Python and FFmpeg hold of their own.
_MAX_OPEN_FILES = 32


@dataclass(frozen=True, slots=True)
class Jail:
    """Which walls are in force.

    Attributes:
        seccomp: system calls are filtered.
        landlock: version of Landlock in force; 0 is none.
    """

    seccomp: bool
    landlock: int

    @property
    def is_tight(self) -> bool:
        """True where neither files nor network nor programs can be reached."""
        return self.seccomp

    def sentence(self) -> str:
        """What a person should know about it."""
        walls = ["limits on memory and files"]
        if self.seccomp:
            walls.append("a filter on system calls")
        if self.landlock:
            walls.append(f"Landlock version {self.landlock}")
        if self.is_tight:
            return f"decoders have no files, no network and no programs: {', '.join(walls)}"
        return (
            f"decoders are held by {' and '.join(walls)} only; this kernel or container gives no "
            "filter on system calls (seccomp), so that a decoder that was taken over "
            + ("could reach the network" if self.landlock else "could reach files and the network")
        )

    def as_message(self) -> dict[str, Any]:
        """For the parent."""
        return asdict(self)

    @classmethod
    def from_message(cls, said: object) -> Self | None:
        """What a child says, where it can be true."""
        match said:
            case {"seccomp": bool(filtered), "landlock": int(version)} if 0 <= version <= 1000:
                return cls(filtered, version)
        return None


def confine(max_memory_bytes: int) -> Jail:
    """Give up what decoding does not need. The one place where this process is locked in.

    Call it with everything imported and before anything hostile is read: no file can be opened
    afterwards, not for reading either.

    Args:
        max_memory_bytes: counts from what the process maps by now: its libraries alone map about
            a gigabyte, most of which is never touched.
    """
    _limit_resources(max_memory_bytes)
    walls = landlock.install()
    return Jail(seccomp=seccomp.install(), landlock=walls)


def _limit_resources(max_memory_bytes: int) -> None:
    """Limits that every kernel has.

    Writing files is limited to nothing; the frame memory is written through a mapping, to which
    the limit does not apply. There is no limit on CPU time, because it would add up over the
    recordings; the parent watches the clock.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits: Mapping[int, int] = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + max_memory_bytes,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        # Neither programs nor threads: a decoder needs one. (Not felt by root, hence the filter.)
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        # Where a lower limit was set from outside, that one stays.
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))
