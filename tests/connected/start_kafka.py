"""Apache Kafka itself, from its jars, on the loopback interface: one node, every listener.

`python tests/connected/start_kafka.py` starts one and prints its addresses until Ctrl-C. The tests
use it through the fixtures in `conftest.py`. Java 17 and Maven are needed once; the jars (43 MB)
are kept in the user's cache folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))
from connected.token_issuer import CLIENT_ID, TokenIssuer, make_certificate

VERSION = "4.1.0"
POM = Path(__file__).parent / "apache_kafka" / "pom.xml"
OUTSIDER = "outsider"  # may log in, and nothing more
USERNAME, PASSWORD = "yourusername", "yourpassword"  # those of the original's example
START_S = 180.0  # it takes 4 to 8 s alone on a small machine, and minutes beside much else
LISTENERS = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL", "MTLS")
PROTOCOLS = {"MTLS": "SSL"}  # of the others: their names
# A small heap, no compiler that only pays off after minutes: it starts in about 4 s.
# Tokens are checked by keys in a file of ours, and by nothing else.
TOKEN_KEYS = "token-keys.json"
JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@dataclass(frozen=True)
class Address:
    """How a client reaches a broker."""

    bootstrap: str
    security: str = ""
    username: str = ""
    password: str = ""
    mechanism: str = ""
    ca_file: str = ""
    client_file: str = ""  # certificate and key, PEM


def address_from_environment() -> Address | None:
    """The cluster that somebody wants tested, by `KAFKA_TEST_BOOTSTRAP` and friends."""
    if not (bootstrap := os.environ.get("KAFKA_TEST_BOOTSTRAP")):
        return None
    return Address(
        bootstrap,
        security=os.environ.get("KAFKA_TEST_SECURITY", ""),
        username=os.environ.get("KAFKA_TEST_USERNAME", ""),
        password=os.environ.get("KAFKA_TEST_PASSWORD", ""),
        mechanism=os.environ.get("KAFKA_TEST_MECHANISM", ""),
        ca_file=os.environ.get("KAFKA_TEST_CA_FILE", ""),
    )


def why_not() -> str | None:
    """Why it cannot be started here, or None."""
    missing = [tool for tool in ("java",) if shutil.which(tool) is None]
    if not list(jar_folder().glob("kafka_*.jar")) and shutil.which("mvn") is None:
        missing.append("mvn")
    if missing:
        return f"Apache Kafka needs {' and '.join(missing)}, or KAFKA_TEST_BOOTSTRAP"
    return None


def jar_folder() -> Path:
    """Where the jars are kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "vault-ml" / f"apache-kafka-{VERSION}"


def fetch_jars() -> Path:
    """Let Maven fetch the jars, unless they are there."""
    folder = jar_folder()
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *("mvn", "-q", "-B", "-f", POM, "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", f"-DoutputDirectory={folder}"),
            ],
            check=True,
            stdout=sys.stderr,
        )
        (folder / "complete").touch()
    return folder


class ApacheKafka:
    """A single KRaft node in a folder of its own. Data outlives `kill` and `start`."""

    def __init__(self) -> None:
        self._jars = fetch_jars()
        self._folder = tempfile.TemporaryDirectory(prefix="vault-ml-kafka-")
        self.folder = Path(self._folder.name)
        self._ports = dict(
            zip((*LISTENERS, "CONTROLLER"), free_ports(len(LISTENERS) + 1), strict=True)
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.issuer = TokenIssuer()
        (self.folder / TOKEN_KEYS).write_text(json.dumps(self.issuer.keys()))
        server = make_certificate(self.folder / "server.pem", "localhost", is_server=True)
        (self.folder / "ca.pem").write_bytes(server)
        client = make_certificate(self.folder / "client.pem", CLIENT_ID)
        (self.folder / "clients.pem").write_bytes(client)
        make_certificate(self.folder / "stranger.pem", CLIENT_ID)
        (self.folder / "server.properties").write_text(self._properties())
        self._format()

    def address(self, security: str = "PLAINTEXT", mechanism: str = "PLAIN") -> Address:
        """A listener of it, with the right login."""
        bootstrap = f"127.0.0.1:{self._ports[security]}"
        ca_file = ""
        if security == "MTLS":
            ca_file, client_file = (str(self.folder / name) for name in ("ca.pem", "client.pem"))
            return Address(bootstrap, "SSL", ca_file=ca_file, client_file=client_file)
        if security.endswith("SSL"):
            ca_file = str(self.folder / "ca.pem")
        if not security.startswith("SASL"):
            return Address(bootstrap, security, ca_file=ca_file)
        return Address(bootstrap, security, USERNAME, PASSWORD, mechanism, ca_file)

    def start(self, timeout_s: float = START_S) -> None:
        """Start the node and wait until it has registered with itself and answers."""
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *JAVA,
                    f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._token_keys}",
                    *("-cp", f"{self._jars}/*", "kafka.Kafka", "server.properties"),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = (self.folder / "server.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"Apache Kafka did not start:\n{tail}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9: no goodbye to anybody."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        self._folder.cleanup()

    @property
    def _token_keys(self) -> str:
        return (self.folder / TOKEN_KEYS).as_uri()

    def _answers(self) -> bool:
        log = (self.folder / "server.log").read_text(errors="replace")
        if "Kafka Server started" not in log:
            return False
        try:
            socket.create_connection(("127.0.0.1", self._ports["PLAINTEXT"]), 1).close()
        except OSError:
            return False
        return True

    def _format(self) -> None:
        scram = f"[name={USERNAME},password={PASSWORD}]"
        self._java(
            "kafka.tools.StorageTool", "format", "--standalone",
            "--cluster-id", "4L6g3nShT-eMCtK--X86sw", "--config", "server.properties",
            "--add-scram", f"SCRAM-SHA-256={scram}", "--add-scram", f"SCRAM-SHA-512={scram}",
        )  # fmt: skip

    def _java(self, *arguments: str) -> None:
        done = subprocess.run(
            [*JAVA, "-cp", f"{self._jars}/*", *arguments],
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{arguments[0]} failed:\n{done.stdout}{done.stderr}")

    def _properties(self) -> str:
        listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in self._ports.items())
        advertised = ",".join(f"{name}://127.0.0.1:{self._ports[name]}" for name in LISTENERS)
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        oauth = "org.apache.kafka.common.security.oauthbearer"
        protocols = ",".join(f"{name}:{PROTOCOLS.get(name, name)}" for name in LISTENERS)
        sasl = "\n".join(
            f'listener.name.{name}.plain.sasl.jaas.config={plain} user_{USERNAME}="{PASSWORD}" '
            f'user_{OUTSIDER}="{PASSWORD}";\n'
            f"listener.name.{name}.scram-sha-256.sasl.jaas.config={scram}\n"
            f"listener.name.{name}.scram-sha-512.sasl.jaas.config={scram}\n"
            f"listener.name.{name}.oauthbearer.sasl.jaas.config={oauth}.OAuthBearerLoginModule"
            " required;\n"
            f"listener.name.{name}.oauthbearer.sasl.server.callback.handler.class="
            f"{oauth}.OAuthBearerValidatorCallbackHandler\n"
            f"listener.name.{name}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url="
            f"{self._token_keys}\n"
            # The other one, which is taken by default, checks no signature.
            f"listener.name.{name}.oauthbearer.sasl.oauthbearer.jwt.validator.class="
            f"{oauth}.BrokerJwtValidator"
            for name in ("sasl_plaintext", "sasl_ssl")
        )
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{self._ports["CONTROLLER"]}
listeners={listeners}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocols}
sasl.oauthbearer.jwks.endpoint.url={self._token_keys}
sasl.oauthbearer.jwt.validator.class={oauth}.BrokerJwtValidator
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
{sasl}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USERNAME};User:CN={USERNAME}
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.truststore.type=PEM
listener.name.mtls.ssl.truststore.location=clients.pem
ssl.keystore.type=PEM
ssl.keystore.location=server.pem
log.dirs=data
num.partitions=2
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=1500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
message.max.bytes=1048588
num.network.threads=2
num.io.threads=2
log.cleaner.enable=false
"""


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
    kafka = ApacheKafka()
    try:
        kafka.start()
        for name in LISTENERS:
            print(f"{name:<15} {kafka.address(name).bootstrap}")
        print(f"login: {USERNAME} / {PASSWORD}; CA: {kafka.folder / 'ca.pem'}", flush=True)
        signal.sigwait([signal.SIGINT, signal.SIGTERM])
    finally:
        kafka.close()


if __name__ == "__main__":
    main()
