"""What a process and all that it started take of the machine.

Source: Linux `Documentation/filesystems/proc.rst` (children, stat, smaps_rollup).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of `stat` behind the command's name, which may hold spaces: state is the first.
_USER_TICKS, _SYSTEM_TICKS = 11, 12
_STARTED_TICKS = 19


def descendants(pid: int) -> Iterator[int]:
    """The living children of a process, and theirs."""
    for task in _entries(Path(f"/proc/{pid}/task")):
        for child in map(int, _text(task / "children").split()):
            yield child
            yield from descendants(child)


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, its ended children's not counted."""
    fields = _stat(pid)
    return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_S if fields else 0.0


def age_s(pid: int) -> float:
    """Seconds since a process was started; 0 when it is gone."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_STARTED_TICKS]) / _TICKS_PER_S


def memory_bytes(pid: int) -> int:
    """Memory of a process; what it shares with others counts in parts (proportional set size).

    Where the kernel does not tell us, all of it.
    """
    for name, member in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        for line in _text(Path(f"/proc/{pid}/{name}")).splitlines():
            if line.startswith(member):
                return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str]:
    """What stands behind the name; empty when the process has just ended."""
    return _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    """Empty when the process has just ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
