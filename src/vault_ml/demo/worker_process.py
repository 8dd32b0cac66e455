"""The ordinary worker, as a process of its own: what the demo shows is what an operator runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx

from vault_ml.errors import UnavailableError, VaultMLError

_STOP_WITHIN_S = 40.0
# What the worker of the demo sees of the environment: the machine and the model, no queue of ours.
_KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TERM", "PYTHONPATH", "XDG_CACHE_HOME",
    "XDG_DATA_HOME", "MODEL", "MODEL_DIR", "CACHE_DIR",
    "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG",
)  # fmt: skip


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class WorkerProcess:
    """`vault-ml run` with these variables and no others of ours; its log goes where ours goes."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Start it, with its health page on a free port unless WEB_ADDRESS is given."""
        web = variables.get("WEB_ADDRESS") or f"127.0.0.1:{free_port()}"
        self.web_url = f"http://{web}"
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vault_ml", "run"],
            # The show begins at once: nothing is measured for it.
            env={**environment, "RUNTIME": "onnxruntime", **variables, "WEB_ADDRESS": web},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # standard output belongs to the demo's own results
            # Ctrl-C reaches only us; we stop it in our order.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when `/readyz` says so.

        Raises:
            VaultMLError: it ended; its own words are in its log.
            UnavailableError: not in time; the sentence has its reasons.
        """
        deadline = time.monotonic() + timeout_s
        reasons = "it does not answer yet"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise VaultMLError(
                    f"the worker ended with {self._process.returncode}; see its log above"
                )
            try:
                answer = httpx.get(f"{self.web_url}/readyz", timeout=5)
            except httpx.HTTPError:
                pass
            else:
                if answer.status_code == httpx.codes.OK:
                    return
                reasons = answer.text
            time.sleep(0.1)
        raise UnavailableError(f"the worker is not ready after {timeout_s:g} s: {reasons}")

    def is_alive(self) -> bool:
        """True while it runs."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Drain it with SIGTERM and return its exit code; kill it when it does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
