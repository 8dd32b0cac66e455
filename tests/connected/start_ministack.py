"""ministack as a child process: SQS as AWS does it, on a port of this machine."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "test", "not-a-secret"  # any are accepted
START_S = 60.0


def endpoint_from_environment() -> str | None:
    """SQS_TEST_ENDPOINT: another service to test with, by the credentials of the environment."""
    return os.environ.get("SQS_TEST_ENDPOINT") or None


def why_not() -> str | None:
    """Why ministack cannot be started here."""
    if importlib.util.find_spec("ministack") is None:
        return "ministack is not installed (pip install ministack)"
    return None


class Ministack:
    """One server; what it keeps is in its memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ministack-")
        self._log = Path(self._folder.name) / "log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = Path(sys.executable).with_name("ministack")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(command)],
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "HOME": self._folder.name,
                    "BIND_HOST": "127.0.0.1",
                    "GATEWAY_PORT": str(self.port),
                },
                cwd=self._folder.name,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, "ministack did not start in time"
            time.sleep(0.05)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False
