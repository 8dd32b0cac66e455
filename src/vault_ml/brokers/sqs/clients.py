"""boto3's clients, one per region and address, and calls that end in time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from vault_ml.brokers.queue_names import is_url
from vault_ml.brokers.sqs.options import SqsOptions
from vault_ml.brokers.sqs.translation import FOREIGN, translated

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_CONNECT_TIMEOUT_S = 3.0
_POOL = 32  # sockets kept; requests above it open one more and close it again
# https://sqs.eu-west-1.amazonaws.com, also -fips; https://eu-west-1.queue.amazonaws.com of old;
# https://vpce-0a1b.sqs.eu-west-1.vpce.amazonaws.com of a private network.
_AWS_HOST = re.compile(
    r"(?:(?P<private>.+\.)?sqs(?:-fips)?\.(?P<region>[a-z0-9-]+)(?:\.vpce)?|(?P<old>[a-z0-9-]+)\.queue)"
    r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws)"
)
_ANY_REGION = "us-east-1"  # to sign with, for a service that is not AWS and has no regions

T = TypeVar("T")


class Clients:
    """Clients by the region and address of a queue. Thread-safe, as the clients are."""

    def __init__(self, options: SqsOptions, *, read_timeout_s: float) -> None:
        """Make clients whose calls wait so long for an answer; they never repeat one."""
        self._options = options
        self._config = Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            retries={"total_max_attempts": 1},  # when to try again is our decision
            max_pool_connections=_POOL,
            tcp_keepalive=True,
        )
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], SQSClient] = {}

    def of(self, queue: str) -> SQSClient:
        """The client for a queue, given by name or URL.

        Raises:
            ConfigError: there is no region, no profile or no address to be used.
        """
        region, endpoint = place(queue, self._options)
        with self._lock:
            if (region, endpoint) not in self._clients:
                self._clients[region, endpoint] = self._new(region, endpoint)
            return self._clients[region, endpoint]

    def close(self) -> None:
        """Let the sockets go."""
        with self._lock:
            for client in self._clients.values():
                client.close()

    def _new(self, region: str, endpoint: str) -> SQSClient:
        try:
            session = boto3.session.Session()
            known = region or session.region_name or (_ANY_REGION if endpoint else None)
            if endpoint and not self._options.endpoint_url:
                # AWS_ENDPOINT_URL_SQS, where it is set, knows better than the URL of a queue.
                client = session.client("sqs", region_name=known, config=self._config)
                if not _is_aws(client.meta.endpoint_url):
                    return client
            return session.client(
                "sqs", region_name=known, endpoint_url=endpoint or None, config=self._config
            )
        except FOREIGN as error:
            raise translated(error, self._options.where, "", "") from error


def place(queue: str, options: SqsOptions) -> tuple[str, str]:
    """The region and the address that a queue is asked for at; empty for boto3's own choice.

    >>> place("https://sqs.eu-west-1.amazonaws.com/1/q", SqsOptions(region="us-east-1"))
    ('eu-west-1', '')
    >>> place("http://emulator:4566/000000000000/q", SqsOptions())
    ('', 'http://emulator:4566')
    """
    if options.endpoint_url or not is_url(queue):
        return options.region, options.endpoint_url
    parts = urlsplit(queue)
    address = f"{parts.scheme}://{parts.netloc}"
    if found := _AWS_HOST.fullmatch(parts.hostname or ""):
        return found["region"] or found["old"], address if found["private"] else ""
    return options.region, "" if _is_aws(address) else address


def _is_aws(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def within(timeout_s: float, call: Callable[[], T]) -> T:
    """What `call` returns, or its exception, if that comes in time.

    boto3 knows no deadline of a single call. A call that is given up ends by itself at its
    client's own timeout.

    Raises:
        TimeoutError: it did not.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  it is raised again where it is awaited
            answer.set_exception(error)

    threading.Thread(target=run, name="sqs-call", daemon=True).start()
    return answer.result(max(0.0, timeout_s))
