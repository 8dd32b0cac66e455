"""A child may die, hang or talk nonsense; the parent notices and goes on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

from vault_ml.child import Channel, Child, ChildGone, ChildStuck


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    (tmp_path / "echo_child.py").write_text(
        "import os\n"
        "from vault_ml.child import connect\n"
        "channel, arguments = connect()\n"
        "while True:\n"
        "    message, fds = channel.receive(timeout_s=None)\n"
        "    content = [os.pread(fd, 100, 0).decode() for fd in fds]\n"
        "    answer = {'got': message, 'files': content, 'args': arguments,\n"
        "              'secret': os.environ.get('VAULT_SECRET_KEY')}\n"
        "    channel.send(answer, fds, timeout_s=5)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("VAULT_SECRET_KEY", "canary")
    return Child("echo_child", ["one"], name="echo")


def test_message_and_descriptor_travel_both_ways_and_secrets_stay(echo: Child) -> None:
    with echo:
        fd = os.memfd_create("test")
        os.write(fd, b"content")
        echo.channel.send({"n": 1, "text": "é" * 200_000}, [fd], timeout_s=5)
        answer, fds = echo.channel.receive(timeout_s=20)
    assert answer["files"] == ["content"]
    assert answer["args"] == ["one"]
    assert answer["got"] == {"n": 1, "text": "é" * 200_000}
    assert answer["secret"] is None
    assert os.pread(fds[0], 100, 0) == b"content"
    for each in (fd, *fds):
        os.close(each)


def test_killed_child_is_noticed_at_once(echo: Child) -> None:
    with echo:
        os.kill(echo.pid, signal.SIGKILL)
        with pytest.raises(ChildGone):
            echo.channel.receive(timeout_s=20)
        echo.process.wait(5)
        assert echo.epitaph() == "was killed by SIGKILL"


def test_silent_child_is_stuck(echo: Child) -> None:
    with echo:
        started = time.monotonic()
        with pytest.raises(ChildStuck):
            echo.channel.receive(timeout_s=0.2)
        assert time.monotonic() - started < 5
        assert echo.is_alive()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff\xff", id="huge"),
        pytest.param(b"\x00\x00\x00\x02xx", id="not-json"),
        pytest.param(b"\x00\x00\x00\x02[]", id="not-an-object"),
        pytest.param(b"\x00\x00", id="cut-off"),
        pytest.param(struct.pack("!I", 50_000) + b"[" * 50_000, id="nested without end"),
        pytest.param(struct.pack("!I", 50_000) + b"9" * 50_000, id="a number without end"),
        pytest.param(struct.pack("!I", 50_001), id="longer than agreed"),
    ],
)
def test_nonsense_counts_as_gone(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, max_message_bytes=50_000)
    theirs.sendall(data)
    theirs.close()
    with pytest.raises(ChildGone):
        channel.receive(timeout_s=5)
    channel.close()


def test_a_flood_of_descriptors_is_closed_and_counts_as_gone() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    theirs.sendall(struct.pack("!I", 100))
    for _ in range(20):  # each byte of a message may bring some
        socket.send_fds(theirs, [b"{"], [write] * 7)
    os.close(write)
    theirs.close()
    channel = Channel(ours)
    with pytest.raises(ChildGone, match="more than 8 descriptors"):
        channel.receive(timeout_s=5)
    channel.close()
    assert os.read(read, 1) == b"", "one of them is still open"
    os.close(read)


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "from vault_ml.child import connect\n"
        "channel, _ = connect()\n"
        "import os\n"
        "channel.send({'pid': os.getpid()}, timeout_s=5)\n"
        "import time\n"
        "time.sleep(600)\n"
    )
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import sys, time\n"
        "from vault_ml.child import Child\n"
        "child = Child('sleeper', name='sleeper')\n"
        "print(child.channel.receive(timeout_s=20)[0]['pid'], flush=True)\n"
        "time.sleep(600)\n"
    )
    import subprocess

    with subprocess.Popen(
        [sys.executable, str(parent)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
