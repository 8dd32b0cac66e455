"""RabbitMQ itself, from Debian's package, as a plain process on the loopback interface.

`python tests/connected/start_rabbitmq.py` starts one and prints its addresses until Ctrl-C. The
tests use it through the fixtures in `conftest.py`. The package is `rabbitmq-server`; as root on
Debian it is installed when it is missing. No system service is started or touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# The script on PATH switches user and folders; this one runs where it is told to.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONTROL = SERVER.with_name("rabbitmqctl")
USERNAME, PASSWORD = "yourusername", "your p@ss/word%2F"  # nothing of it may need escaping
MAX_MESSAGE_BYTES = 1024 * 1024
START_S = 240.0  # 12 to 25 s alone on a small machine, minutes on a busy one


@dataclass(frozen=True)
class Address:
    """How a client reaches a broker."""

    host: str
    username: str = "guest"
    password: str = "guest"
    vhost: str = ""
    management_url: str = ""


def address_from_environment() -> Address | None:
    """The RabbitMQ that somebody wants tested, by `RABBITMQ_TEST_HOST` and friends."""
    if not (host := os.environ.get("RABBITMQ_TEST_HOST")):
        return None
    return Address(
        host,
        username=os.environ.get("RABBITMQ_TEST_USERNAME", "guest"),
        password=os.environ.get("RABBITMQ_TEST_PASSWORD", "guest"),
        vhost=os.environ.get("RABBITMQ_TEST_VHOST", ""),
        management_url=os.environ.get("RABBITMQ_TEST_MANAGEMENT_URL", ""),
    )


def why_not() -> str | None:
    """Why it cannot be started here, or None."""
    if SERVER.exists() or install():
        return None
    return "RabbitMQ needs Debian's package rabbitmq-server, or RABBITMQ_TEST_HOST"


def install() -> bool:
    """Install the package where that is possible; its service is not started."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    policy = Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:  # Debian's way to say that an installation starts no services
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for arguments in (
            ("update", "-qq"),
            ("install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"),
        ):
            done = subprocess.run(
                ["apt-get", *arguments], env=environment, stdout=sys.stderr, check=False
            )
            if done.returncode != 0:
                return False
    finally:
        if is_ours:
            policy.unlink()
    return SERVER.exists()


class RabbitMQ:
    """A single node in a folder of its own. Data outlives `kill` and `start`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vault-ml-rabbitmq-")
        self.folder = Path(self._folder.name)
        (self.folder / "home").mkdir()
        self._amqp, self._amqps, self._web, self._dist, self._names = free_ports(5)
        self._has_tls = shutil.which("openssl") is not None
        if self._has_tls:
            self._make_certificate()
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "rabbitmq.conf").write_text(self._configuration())
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        # Erlang would start its name server by itself, as a daemon that stays.
        self._name_server = subprocess.Popen(
            ["epmd", "-port", str(self._names), "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def address(self) -> Address:
        """The plain listener, with the right login."""
        return Address(
            f"127.0.0.1:{self._amqp}",
            USERNAME,
            PASSWORD,
            management_url=f"http://127.0.0.1:{self._web}",
        )

    @property
    def tls_port(self) -> int | None:
        """Where it speaks TLS, as `localhost`, with the certificate in `ca.pem`."""
        return self._amqps if self._has_tls else None

    def start(self, timeout_s: float = START_S) -> None:
        """Start the node and wait until it takes connections."""
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [SERVER],
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = (self.folder / "server.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"RabbitMQ did not start:\n{tail}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9: no goodbye to anybody, nothing flushed."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        self._name_server.kill()
        self._name_server.wait()
        for _ in range(50):  # a helper of Erlang's may write its last words meanwhile
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.1)
        self._folder.cleanup()

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return what it prints. It takes a few seconds."""
        done = subprocess.run(
            [CONTROL, "-q", *arguments],
            env=self._environment(),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._amqp), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"  # a method frame: Connection.Start
        except OSError:
            return False

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),  # Erlang's cookie
            "RABBITMQ_NODENAME": f"vault-ml-{self._amqp}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "ERL_EPMD_PORT": str(self._names),
            # Acknowledgements that are late are looked for once a second, not once a minute.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} -rabbit channel_tick_interval 1000"
            ),
        }

    def _configuration(self) -> str:
        tls = f"""\
listeners.ssl.1 = 127.0.0.1:{self._amqps}
ssl_options.certfile = {self.folder}/ca.pem
ssl_options.keyfile = {self.folder}/key.pem
"""
        return f"""\
listeners.tcp.1 = 127.0.0.1:{self._amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {self._web}
max_message_size = {MAX_MESSAGE_BYTES}
default_user = {USERNAME}
default_pass = {PASSWORD}
default_user_tags.administrator = true
loopback_users = none
disk_free_limit.absolute = 1MB
{tls if self._has_tls else ""}"""

    def _make_certificate(self) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", "key.pem", "-out", "ca.pem"),
            ],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> None:
    """Start one and keep it until Ctrl-C."""
    if reason := why_not():
        sys.exit(reason)
    # An ordinary end, so that the server ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = RabbitMQ()
    try:
        server.start()
        address = server.address
        print(f"RABBITMQ_HOST={address.host}")
        print(f"RABBITMQ_USERNAME={address.username}")
        print(f"RABBITMQ_PASSWORD={address.password}")
        print(f"RABBITMQ_MANAGEMENT_URL={address.management_url}")
        if server.tls_port is not None:
            print(f"TLS: amqps://localhost:{server.tls_port}; CA: {server.folder / 'ca.pem'}")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    finally:
        server.close()


if __name__ == "__main__":
    main()
