"""No files, no ports, no signals to others: Landlock, the kernel's own walls around a process.

It stands behind the filter of system calls: where that has a hole, or cannot be had, a path leads
nowhere all the same.

Source: Linux `include/uapi/linux/landlock.h` and `Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import ctypes
import os
import struct

# The same numbers on every processor.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION_FLAG = 1
_PR_SET_NO_NEW_PRIVS = 38

# Rights over files that each version of the interface knows: reading, writing, running, making,
# removing; then renaming across folders (2), truncating (3), commands to devices (5).
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NEWEST = max(_FILE_RIGHTS)
# Listening and connecting by TCP, since version 4.
_NETWORK_SINCE, _NETWORK_RIGHTS = 4, 0b11
# Abstract sockets and signals of processes outside, since version 6.
_SCOPES_SINCE, _SCOPES = 6, 0b11


def install() -> int:
    """Take every right over files, ports and other processes from this thread, for good.

    Call it while the process has one thread only; later ones inherit it. Open descriptors stay.

    Returns:
        The version of Landlock in force; 0 where the kernel has none, or it is switched off.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version: int = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 1:
        return 0
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return 0
    attributes = ctypes.create_string_buffer(_attributes(version))
    ruleset: int = libc.syscall(_CREATE_RULESET, attributes, len(_attributes(version)), 0)
    if ruleset < 0:
        return 0
    try:
        # No rule is added to it: nothing is allowed.
        return version if libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _attributes(version: int) -> bytes:
    """`struct landlock_ruleset_attr` as that version knows it: what is governed by rules."""
    words = [(1 << _FILE_RIGHTS[min(version, _NEWEST)]) - 1]
    if version >= _NETWORK_SINCE:
        words.append(_NETWORK_RIGHTS)
    if version >= _SCOPES_SINCE:
        words.append(_SCOPES)
    return struct.pack(f"={len(words)}Q", *words)
