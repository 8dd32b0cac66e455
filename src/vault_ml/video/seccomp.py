"""A filter on system calls for the decoder: what it does not need, the kernel refuses.

The filter is a small program in the kernel's own classic BPF, written here by hand: an allow-list,
everything else fails with EPERM. It cannot be taken off again.

Source: Linux `Documentation/userspace-api/seccomp_filter.rst`, `include/uapi/linux/seccomp.h`,
`include/uapi/linux/filter.h`; numbers of system calls from `syscall_64.tbl` (x86-64) and
`include/uapi/asm-generic/unistd.h` (aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_FILTER_FLAG_TSYNC = 1  # for every thread of the process, also those that libraries started

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000

# Opcodes: load a word of `struct seccomp_data`, compare, and, return.
_LOAD, _EQUALS, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4


@dataclass(frozen=True, slots=True)
class _Machine:
    """What differs between processors.

    Attributes:
        audit: the kernel's name of the architecture.
        seccomp: number of the system call that takes the filter.
        calls: numbers of the system calls that decoding needs, the frequent ones first.
    """

    audit: int
    seccomp: int
    calls: Mapping[str, int]


# Memory, the socket to the parent, the descriptors that come over it, locks and clocks. Nothing
# that opens, creates, connects, starts, signals, traces or changes anything.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        {
            "futex": 202, "mmap": 9, "munmap": 11, "pread64": 17, "madvise": 28, "mprotect": 10,
            "brk": 12, "poll": 7, "ppoll": 271, "recvmsg": 47, "sendmsg": 46, "sendto": 44,
            "recvfrom": 45, "read": 0, "write": 1, "readv": 19, "writev": 20, "lseek": 8,
            "close": 3, "fstat": 5, "newfstatat": 262, "statx": 332, "fcntl": 72, "mremap": 25,
            "clock_gettime": 228, "gettimeofday": 96, "time": 201, "nanosleep": 35,
            "clock_nanosleep": 230, "sched_yield": 24, "sched_getaffinity": 204, "getpid": 39,
            "gettid": 186, "getrandom": 318, "getrusage": 98, "sysinfo": 99, "prlimit64": 302,
            "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131,
            "restart_syscall": 219, "exit": 60, "exit_group": 231,
        },
    ),
    "aarch64": _Machine(
        0xC00000B7,
        277,
        {
            "futex": 98, "mmap": 222, "munmap": 215, "pread64": 67, "madvise": 233,
            "mprotect": 226, "brk": 214, "ppoll": 73, "recvmsg": 212, "sendmsg": 211,
            "sendto": 206, "recvfrom": 207, "read": 63, "write": 64, "readv": 65, "writev": 66,
            "lseek": 62, "close": 57, "fstat": 80, "newfstatat": 79, "statx": 291, "fcntl": 25,
            "mremap": 216, "clock_gettime": 113, "gettimeofday": 169, "nanosleep": 101,
            "clock_nanosleep": 115, "sched_yield": 124, "sched_getaffinity": 123, "getpid": 172,
            "gettid": 178, "getrandom": 278, "getrusage": 165, "sysinfo": 179, "prlimit64": 261,
            "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sigaltstack": 132,
            "restart_syscall": 128, "exit": 93, "exit_group": 94,
        },
    ),
}  # fmt: skip

# New memory is never code.
_NEVER_EXECUTABLE = ("mmap", "mprotect")
# Limits may be read, with no new one given (argument 2, a pointer), and not set.
_READ_LIMITS = "prlimit64"
_DESCRIPTOR_COMMANDS = (
    fcntl.F_DUPFD_CLOEXEC,
    fcntl.F_DUPFD,
    fcntl.F_GETFD,
    fcntl.F_SETFD,
    fcntl.F_GETFL,
    fcntl.F_SETFL,
)
# Calls as new as this one are probed for: a C library takes ENOSYS for "do it the old way", and
# EPERM for an error.
_FIRST_NEW_CALL = 424
# Calls of the 32-bit personality of x86-64 have this bit; none of them is wanted.
_X32_BIT = 0x40000000


def install() -> bool:
    """Filter the system calls of this process, for good.

    Returns:
        False where the kernel, the container or this processor does not let us.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = assemble(machine.audit, machine.calls)
    instructions = ctypes.create_string_buffer(program, len(program))
    length_and_address = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    given = ctypes.create_string_buffer(length_and_address, len(length_and_address))
    return bool(
        libc.syscall(machine.seccomp, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, given) == 0
    )


def assemble(audit: int, calls: Mapping[str, int]) -> bytes:
    """The filter as a program of 8-byte instructions, little endian.

    Args:
        audit: the architecture it is for; calls made under another one end the process.
        calls: names and numbers of what is allowed.
    """
    deny, absent = _RET_ERRNO | errno.EPERM, _RET_ERRNO | errno.ENOSYS
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUALS, 1, 0, audit),
        (_RETURN, 0, 0, _RET_KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for name, number in calls.items():
        allowed = _conditions(name, deny)
        program.append((_EQUALS, 0, len(allowed), number))
        program += allowed
    program += [
        (_AT_LEAST, 2, 0, _X32_BIT),
        (_AT_LEAST, 0, 1, _FIRST_NEW_CALL),
        (_RETURN, 0, 0, absent),
        (_RETURN, 0, 0, deny),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _conditions(name: str, deny: int) -> list[tuple[int, int, int, int]]:
    """What decides about an allowed call by its arguments; always ends it."""
    allow = (_RETURN, 0, 0, _RET_ALLOW)
    if name in _NEVER_EXECUTABLE:
        return [
            (_LOAD, 0, 0, _argument_at(2)),
            (_AND, 0, 0, mmap.PROT_EXEC),
            (_EQUALS, 1, 0, 0),
            (_RETURN, 0, 0, deny),
            allow,
        ]
    if name == _READ_LIMITS:
        return [
            (_LOAD, 0, 0, _argument_at(2)),
            (_EQUALS, 0, 2, 0),
            (_LOAD, 0, 0, _argument_at(2) + 4),
            (_EQUALS, 1, 0, 0),
            (_RETURN, 0, 0, deny),
            allow,
        ]
    if name == "fcntl":
        count = len(_DESCRIPTOR_COMMANDS)
        commands = [
            (_EQUALS, count - i, 0, command) for i, command in enumerate(_DESCRIPTOR_COMMANDS)
        ]
        return [(_LOAD, 0, 0, _argument_at(1)), *commands, (_RETURN, 0, 0, deny), allow]
    return [allow]


def _argument_at(index: int) -> int:
    """Where the lower half of an argument stands in `struct seccomp_data`, on a little endian."""
    return 16 + 8 * index
