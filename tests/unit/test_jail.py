"""From inside the jail there is no way out: every way is tried."""

from __future__ import annotations

import errno
import json
import mmap
import platform
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vault_ml.video import landlock, seccomp
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.jail import Jail

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

# What a decoder that was taken over may try. Each line is one way; what it gives is told.
ESCAPES = r"""
import ctypes, fcntl, json, mmap, os, socket, sys, threading
folder, walls = sys.argv[1], sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
held = os.memfd_create("held", os.MFD_ALLOW_SEALING)
os.write(held, b"x" * 4096)
from vault_ml.video import landlock, seccomp
from vault_ml.video.jail import confine

def call(x86, arm, *arguments):
    number = {"x86_64": x86, "aarch64": arm}[os.uname().machine]
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def thread():
    threading.Thread(target=int).start()

def run(path):
    pid = os.fork()
    if pid == 0:
        os.execv(path, [path])
    os.waitpid(pid, 0)

ways = {
    "read a file": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "read our own environment": lambda: os.open("/proc/self/environ", os.O_RDONLY),
    "write a file": lambda: os.open(folder + "/there", os.O_WRONLY),
    "append to a file": lambda: os.open(folder + "/there", os.O_WRONLY | os.O_APPEND),
    "make a file": lambda: os.open(folder + "/new", os.O_CREAT | os.O_WRONLY),
    "make a nameless file": lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR),
    "reopen a descriptor": lambda: os.open(f"/proc/self/fd/{held}", os.O_RDWR),
    "list a folder": lambda: os.listdir(folder),
    "make a folder": lambda: os.mkdir(folder + "/sub"),
    "remove a file": lambda: os.unlink(folder + "/there"),
    "rename a file": lambda: os.rename(folder + "/there", folder + "/here"),
    "link a file": lambda: os.link(folder + "/there", folder + "/linked"),
    "make a symbolic link": lambda: os.symlink("/", folder + "/root"),
    "make a pipe with a name": lambda: os.mkfifo(folder + "/pipe"),
    "truncate a file": lambda: os.truncate(folder + "/there", 0),
    "change rights": lambda: os.chmod(folder + "/there", 0o777),
    "change the folder": lambda: os.chdir("/"),
    "connect by TCP": lambda: socket.create_connection(("127.0.0.1", 9), 1),
    "send by UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "use IPv6": lambda: socket.socket(socket.AF_INET6),
    "use a local socket": lambda: socket.socket(socket.AF_UNIX),
    "use netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "make a pair of sockets": socket.socketpair,
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "run a program from a descriptor": lambda: call(322, 281, held, b"", 0, 0, 0x1000),
    "run a program in a child": lambda: run("/bin/true"),
    "fork": os.fork,
    "clone": lambda: call(56, 220, 17, 0, 0, 0, 0),
    "start a thread": thread,
    "make an anonymous file": lambda: os.memfd_create("new"),
    "make memory into code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "make old memory into code": lambda: call(10, 226, 0, 4096, 4),
    "raise a limit": lambda: call(302, 261, 0, 1, ctypes.create_string_buffer(16), 0),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "signal ourselves": lambda: os.kill(os.getpid(), 0),
    "hold the parent's process": lambda: os.pidfd_open(os.getppid()),
    "trace the parent": lambda: call(101, 117, 16, os.getppid(), 0, 0),
    "read the parent's memory": lambda: call(310, 270, os.getppid(), 0, 0, 0, 0, 0),
    "become another user": lambda: os.setuid(0),
    "leave the namespaces": lambda: call(272, 97, 0x10000000),
    "mount": lambda: call(165, 40, b"none", b"/mnt", b"tmpfs", 0, 0),
    "watch files": lambda: call(294, 26, 0),
    "load a program into the kernel": lambda: call(321, 280, 0, 0, 0),
    "count events": lambda: call(298, 241, 0, 0, -1, -1, 0),
    "use a ring": lambda: call(425, 425, 1, 0),
    "start by the new call": lambda: call(435, 435, 0, 0),
    "command a device": lambda: fcntl.ioctl(held, 0x5413, b"x" * 8),
    "seal a file": lambda: fcntl.fcntl(held, fcntl.F_ADD_SEALS, 0),
    "lease a file": lambda: fcntl.fcntl(held, 1024, 0),
    "shorten an open file": lambda: os.ftruncate(held, 0),
    "take the filter off": lambda: call(317, 277, 0, 0, 0),
    "forget the parent": lambda: call(157, 167, 1, 0, 0, 0, 0),
}
if walls == "all":
    confine(2**30)
elif walls == "seccomp":
    assert seccomp.install()
elif walls == "landlock":
    assert landlock.install()
told = {}
for name, way in ways.items():
    if walls == "landlock" and name not in sys.argv[3:]:
        continue
    try:
        way()
    except BaseException as error:
        told[name] = getattr(error, "errno", None) or str(error)
    else:
        told[name] = "DONE"
assert os.pread(held, 1, 0) == b"x"  # what a decoder does, it still can
assert len(mmap.mmap(held, 4096)) == 4096
os.write(1, json.dumps(told).encode())
os._exit(0)
"""

needs_seccomp = pytest.mark.skipif(
    platform.machine() not in seccomp._MACHINES, reason="no filter for this processor"
)


def attempts(folder: Path, walls: str, *only: str) -> dict[str, Any]:
    (folder / "there").write_text("kept")
    done = subprocess.run(
        [sys.executable, "-c", ESCAPES, str(folder), walls, *only],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["there"]
    assert (folder / "there").read_text() == "kept"
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@needs_seccomp
@pytest.mark.parametrize("walls", ["all", "seccomp"])
def test_every_way_out_is_refused(tmp_path: Path, walls: str) -> None:
    told = attempts(tmp_path, walls)
    assert len(told) > 45
    refusals = {
        name: errno_
        for name, errno_ in told.items()
        if errno_ not in (errno.EPERM, errno.ENOSYS, errno.EACCES, "can't start new thread")
    }
    assert refusals == {}


FILES = ("read a file", "write a file", "make a file", "make a nameless file", "list a folder",
         "make a folder", "remove a file", "make a symbolic link", "run a program")  # fmt: skip


def test_landlock_alone_refuses_every_file(tmp_path: Path) -> None:
    if landlock_version() < 1:
        pytest.skip("this kernel has no Landlock")
    told = attempts(tmp_path, "landlock", *FILES)
    assert told == dict.fromkeys(FILES, errno.EACCES)


def test_landlock_refuses_ports_where_it_knows_them(tmp_path: Path) -> None:
    if landlock_version() < 4:
        pytest.skip("this kernel's Landlock does not know ports")
    told = attempts(tmp_path, "landlock", "connect by TCP")
    assert told == {"connect by TCP": errno.EACCES}


def landlock_version() -> int:
    script = "from vault_ml.video import landlock; print(landlock.install())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_resources_are_limited_where_nothing_else_is(tmp_path: Path) -> None:
    script = """
import os, sys
from vault_ml.video import jail, landlock, seccomp
seccomp.install = landlock.install = lambda: 0
assert jail.confine(64 * 1024**2) == jail.Jail(seccomp=False, landlock=0)
try:
    bytearray(128 * 1024**2)
except MemoryError:
    print("memory")
try:
    with open(sys.argv[1] + "/x", "wb") as file:
        file.write(b"x")
except OSError:
    print("files")
try:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
except OSError:
    print("descriptors")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["memory", "files", "descriptors"]


def test_a_lower_limit_from_outside_stays() -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
from vault_ml.video.jail import confine
confine(2**40)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["20"]


@needs_seccomp
def test_the_decoders_of_a_pool_sit_in_it() -> None:
    with DecoderPool(1) as pool:
        assert pool.jail is not None
        assert pool.jail.is_tight
        (worker,) = pool._workers
        status = Path(f"/proc/{worker.child.pid}/status").read_text()
        fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        assert fields["Seccomp"] == "2"
        assert fields["NoNewPrivs"] == "1"
        assert fields["Threads"] == "1"


# The filter, as the kernel would run it -----------------------------------------------------


def decide(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Run a filter on one call, after `bpf_check_classic` and `bpf_prog_run` of Linux."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    steps = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    for _ in range(len(steps)):
        code, if_true, if_false, k = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code in (0x15, 0x35):
            at += if_true if (accumulator == k if code == 0x15 else accumulator >= k) else if_false
        else:
            assert code == 0x06
            return int(k)
    raise AssertionError("a filter that does not end")


@pytest.mark.parametrize("machine", list(seccomp._MACHINES))
def test_only_listed_calls_pass_the_filter(machine: str) -> None:
    described = seccomp._MACHINES[machine]
    program = seccomp.assemble(described.audit, described.calls)
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
    for step in struct.iter_unpack("<HBBI", program):
        assert step[1] < 256
        assert step[2] < 256
    names = {number: name for name, number in described.calls.items()}
    assert len(names) == len(described.calls)
    for number in range(600):
        name = names.get(number)
        if name == "fcntl":
            continue
        expected = ALLOW if name else EPERM if number < 424 else ENOSYS
        assert decide(program, described.audit, number) == expected, (number, name)
        assert decide(program, described.audit ^ 1, number) == KILL
        assert decide(program, described.audit, number | 0x40000000) == EPERM


@pytest.mark.parametrize("machine", list(seccomp._MACHINES))
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("mmap", (0, 4096, mmap.PROT_READ | mmap.PROT_WRITE), ALLOW),
        ("mmap", (0, 4096, mmap.PROT_READ | mmap.PROT_EXEC), EPERM),
        ("mprotect", (0, 4096, mmap.PROT_EXEC), EPERM),
        ("mprotect", (0, 4096, 0), ALLOW),
        ("prlimit64", (0, 7, 0, 0x7FFF12345678), ALLOW),
        ("prlimit64", (0, 7, 0x12345678, 0), EPERM),
        ("prlimit64", (0, 7, 0x7F00_0000_0000, 0), EPERM),
        ("fcntl", (3, 1030, 0), ALLOW),
        ("fcntl", (3, 0, 0), ALLOW),
        ("fcntl", (3, 4, 0), ALLOW),
        ("fcntl", (3, 8, 0), EPERM),
        ("fcntl", (3, 1033, 0), EPERM),
    ],
)
def test_some_calls_pass_with_harmless_arguments_only(
    machine: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    described = seccomp._MACHINES[machine]
    program = seccomp.assemble(described.audit, described.calls)
    assert decide(program, described.audit, described.calls[name], *arguments) == expected


def test_a_processor_without_a_list_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert seccomp.install() is False


@pytest.mark.parametrize(
    ("version", "words"),
    [(1, (0x1FFF,)), (2, (0x3FFF,)), (3, (0x7FFF,)), (4, (0x7FFF, 3)), (5, (0xFFFF, 3)),
     (6, (0xFFFF, 3, 3)), (99, (0xFFFF, 3, 3))],
)  # fmt: skip
def test_landlock_is_asked_for_what_its_version_knows(version: int, words: tuple[int, ...]) -> None:
    assert struct.unpack(f"={len(words)}Q", landlock._attributes(version)) == words


# What is told about it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jail", "words"),
    [
        (Jail(seccomp=True, landlock=7), ["no files, no network", "filter", "Landlock version 7"]),
        (Jail(seccomp=True, landlock=0), ["no files, no network", "filter"]),
        (Jail(seccomp=False, landlock=4), ["could reach the network", "Landlock"]),
        (Jail(seccomp=False, landlock=0), ["could reach files and the network"]),
    ],
)
def test_the_jail_says_what_holds(jail: Jail, words: list[str]) -> None:
    sentence = jail.sentence()
    assert all(word in sentence for word in words)
    assert Jail.from_message(json.loads(json.dumps(jail.as_message()))) == jail


@pytest.mark.parametrize(
    "said", [None, {}, "tight", {"seccomp": 1, "landlock": 2}, {"seccomp": True, "landlock": -1}]
)
def test_a_child_that_describes_its_jail_in_other_words_is_not_believed(said: object) -> None:
    assert Jail.from_message(said) is None
