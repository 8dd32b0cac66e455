"""An embedded Kafka broker, for demonstrations and tests only.

The confluent-kafka wheel contains librdkafka, and librdkafka contains the mock cluster that its
own test suite uses: the real protocol on a real socket, in memory, without authentication,
transactions or expiry of data. It runs in a child process, so that a crash of it is not ours.

Source: librdkafka `src/rdkafka_mock.h`.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vault_ml.child import Child, ChildGone, ChildStuck, connect
from vault_ml.errors import BrokerUnavailable, ConfigError

_MISSING = (
    "The embedded Kafka broker needs librdkafka, which comes with confluent-kafka: "
    "pip install 'vault-ml[kafka]'"
)
_ANSWER_S = 20.0  # starting Python on a busy machine; every later answer takes milliseconds


class EmbeddedKafka:
    """A one-broker Kafka on the loopback interface; use it as a context manager.

    Topics that are not created by `create_topic` come into being with 4 partitions when somebody
    asks for them. What it keeps is lost when it is closed, and a partition keeps the last 5 MB.

    >>> with EmbeddedKafka() as kafka:                              # doctest: +SKIP
    ...     kafka.create_topic("ml-queue", partitions=3)
    ...     kafka.bootstrap
    '127.0.0.1:40123'
    """

    def __init__(self) -> None:
        """Start the child and wait until its port is open.

        Raises:
            ConfigError: confluent-kafka is not installed, or its librdkafka has no mock cluster.
            BrokerUnavailable: it did not start.
        """
        self._child = Child("vault_ml.demo.kafka_server", name="embedded Kafka")
        self._lock = threading.Lock()  # one question at a time
        try:
            self.bootstrap: str = self._answer()["bootstrap"]
        except BaseException:
            self._child.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic.

        Raises:
            ConfigError: the name or the number cannot be, or the topic exists.
        """
        self._do("create_topic", name=name, partitions=partitions)

    def set_down(self) -> None:
        """Close every connection and refuse new ones, until `set_up`. Data is kept."""
        self._do("set_down")

    def set_up(self) -> None:
        """Answer again."""
        self._do("set_up")

    def push_errors(self, api_key: int, codes: Sequence[int]) -> None:
        """Answer the next requests of one kind with these errors, in order.

        Args:
            api_key: Kafka's number of the request: 0 Produce, 1 Fetch, 3 Metadata, 8 OffsetCommit,
                9 OffsetFetch, 11 JoinGroup, 12 Heartbeat.
            codes: Kafka's error codes, 0 for none, such as 16 for NOT_COORDINATOR.
        """
        self._do("push_errors", api_key=api_key, codes=list(codes))

    def close(self) -> None:
        """End it. Idempotent."""
        self._child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _do(self, command: str, **arguments: Any) -> None:
        with self._lock:
            self._child.channel.send({"do": command, **arguments}, timeout_s=_ANSWER_S)
            self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            answer, _ = self._child.channel.receive(timeout_s=_ANSWER_S)
        except (ChildGone, ChildStuck) as error:
            raise BrokerUnavailable(f"The embedded Kafka broker ended: {error}") from error
        if "error" in answer:
            raise ConfigError(str(answer["error"]))
        return answer


class MockCluster:
    """librdkafka's mock cluster in this process, through ctypes.

    Raises:
        ConfigError: there is no librdkafka with a mock cluster.
    """

    def __init__(self) -> None:
        """Load the library and open the port."""
        self._lib = load_librdkafka()
        text = ctypes.create_string_buffer(512)
        conf = self._lib.rd_kafka_conf_new()
        # The cluster says every refused connection on standard error; nobody wants to read that.
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"0", text, len(text))
        handle = self._lib.rd_kafka_new(_PRODUCER, conf, text, len(text))
        if not handle:
            raise ConfigError(f"librdkafka did not start: {text.value.decode(errors='replace')}")
        self._cluster = self._lib.rd_kafka_mock_cluster_new(handle, 1)
        if not self._cluster:
            raise ConfigError("librdkafka's mock cluster did not start; is the loopback up?")
        # Nobody else will join within the 3 seconds that a real broker waits for more members.
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.bootstrap = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic with one replica."""
        self._check(
            self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1),
            f"create the topic {name} with {partitions} partitions",
        )

    def set_down(self) -> None:
        """Take the broker down."""
        self._check(self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1), "go down")

    def set_up(self) -> None:
        """Bring the broker back."""
        self._check(self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1), "come up")

    def push_errors(self, api_key: int, codes: Sequence[int]) -> None:
        """Queue errors for the next requests of one kind."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), array)

    @staticmethod
    def _check(code: int, doing: str) -> None:
        if code != 0:
            raise ConfigError(f"The embedded Kafka broker cannot {doing} (librdkafka says {code}).")


_PRODUCER = 0  # rd_kafka_type_t
_PTR, _STR, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int

# name -> (result, arguments)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (_PTR, []),
    "rd_kafka_conf_set": (_INT, [_PTR, _STR, _STR, _STR, ctypes.c_size_t]),
    "rd_kafka_new": (_PTR, [_INT, _PTR, _STR, ctypes.c_size_t]),
    "rd_kafka_mock_cluster_new": (_PTR, [_PTR, _INT]),
    "rd_kafka_mock_cluster_bootstraps": (_STR, [_PTR]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_PTR, ctypes.c_int32]),
    "rd_kafka_mock_topic_create": (_INT, [_PTR, _STR, _INT, _INT]),
    "rd_kafka_mock_broker_set_down": (_INT, [_PTR, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (_INT, [_PTR, ctypes.c_int32]),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [_PTR, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(_INT)],
    ),
}


def load_librdkafka() -> ctypes.CDLL:
    """The librdkafka that confluent-kafka brings, with the functions above declared.

    Raises:
        ConfigError: confluent-kafka is missing, or its library does not export the mock cluster.
    """
    try:
        import confluent_kafka.cimpl as extension
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    for path in librdkafka_files(Path(extension.__file__)):
        library = ctypes.CDLL(str(path))
        try:
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError:
            continue
        return library
    raise ConfigError(
        "The librdkafka of this confluent-kafka has no mock cluster, so there is no embedded "
        "Kafka broker here. Install the wheel from PyPI: pip install --force-reinstall "
        "--only-binary :all: confluent-kafka"
    )


def librdkafka_files(extension: Path) -> list[Path]:
    """Where librdkafka may be: beside the package in a wheel, else behind the extension module.

    The file's name carries a hash that changes with every release.
    """
    site = extension.parent.parent
    beside = [
        *sorted(site.glob("confluent_kafka.libs/librdkafka*.so*")),
        *sorted(extension.parent.glob(".dylibs/librdkafka*.dylib")),
    ]
    return [*beside, extension]


def serve() -> None:
    """The child: run the cluster until the parent goes."""
    channel, _ = connect()
    try:
        cluster = MockCluster()
        channel.send({"bootstrap": cluster.bootstrap}, timeout_s=_ANSWER_S)
        while True:
            command, _ = channel.receive(timeout_s=None)
            try:
                getattr(cluster, command.pop("do"))(**command)
            except ConfigError as error:
                channel.send({"error": str(error)}, timeout_s=_ANSWER_S)
            else:
                channel.send({}, timeout_s=_ANSWER_S)
    except ConfigError as error:
        channel.send({"error": str(error)}, timeout_s=_ANSWER_S)
    except (ChildGone, ChildStuck):
        return  # the parent has left


if __name__ == "__main__":
    serve()
