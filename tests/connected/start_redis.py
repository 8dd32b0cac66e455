"""A Redis of the tests' own: Debian's server on the loopback interface, nothing on disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from connected.requirement import skip_or_fail
from vault_ml.stores.address import RedisServer

PASSWORD = "pass!@#word"


def address_from_environment() -> RedisServer | None:
    """`REDIS_TEST_URL=redis://host:port/9`: somebody's server, whose database we may empty."""
    url = os.environ.get("REDIS_TEST_URL")
    if not url:
        return None
    parts = urlsplit(url)
    return RedisServer(
        parts.hostname or "", parts.port or 6379, int(parts.path.strip("/") or 0), uses_tls=False
    )


def why_not() -> str | None:
    """Why no server can be started here; None when one can."""
    if shutil.which("redis-server") is None:
        return (
            "redis-server is not installed (apt-get install --no-install-recommends redis-server)"
        )
    return None


class Redis:
    """One server; `kill` and `start` play an outage."""

    def __init__(self, *options: str, tls: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.server = RedisServer("localhost" if tls else "127.0.0.1", port, 0, uses_tls=tls)
        self.folder = Path(tempfile.mkdtemp(prefix="vault-ml-redis-"))
        ports = ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
        self._command = [
            "redis-server", *ports, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self.folder), *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.server.port), 1).close()
            except OSError:
                assert self._process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server did not open its port"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def started(*options: str, tls: bool = False) -> Iterator[Redis]:
    """One server, ended with the loop; skipped where there is none."""
    if reason := why_not():
        skip_or_fail("redis", reason)
    redis = Redis(*options, tls=tls)
    try:
        redis.start()
        yield redis
    finally:
        redis.close()


def client(server: RedisServer, **options: Any) -> Any:
    """A plain client, to look and to meddle."""
    import redis as library

    return library.Redis(host=server.host, port=server.port, db=server.database, **options)
