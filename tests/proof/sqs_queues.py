"""SQS, played by ministack, for the machine: workers reach it by an unreliable way."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from connected.start_ministack import ACCESS_KEY, SECRET_KEY, Ministack
from proof.history import Fault
from proof.plan import Kind, Weather
from proof.queues import Raw, freeze, thaw
from proof.unreliable_way import Mode, UnreliableWay

_REGION = "us-east-1"
_GROUPS = 12  # of a FIFO queue: events of one group are worked on one after another
_WEATHER = Weather(stall=0.01, trickle=0.005, cut=0.01)
_MODES: dict[Kind, Mode] = {
    "broker refuses": "refuses",
    "broker resets": "resets",
    "broker errs": "errs",
}
_SENT_AT_ONCE = 10


class SqsSystem:
    """A ministack of its own. It keeps all in memory, so it is shut off and held up, not killed."""

    name = "sqs"
    has_transactions = False
    troubles: tuple[Kind, ...] = (*_MODES, "broker freezes")

    def __init__(self) -> None:
        self._server = Ministack()
        self._server.start()
        self._way = UnreliableWay("sqs", _WEATHER, to="broker")
        self._way.lead_to(self._server.port)
        self._runs = 0
        boto = metadata.version("boto3")
        self.version = f"ministack {metadata.version('ministack')}, boto3 {boto}"

    def open(self, run: str, lease_s: float, *, is_calm: bool) -> SqsQueues:
        self._runs += 1
        self._way.set_weather(Weather() if is_calm else _WEATHER)
        # Every third run has a FIFO queue for its events.
        is_fifo = self._runs % 3 == 0
        return SqsQueues(self._server.port, self._way, run, lease_s, is_fifo=is_fifo)

    def begin(self, trouble: Kind) -> None:
        if trouble == "broker freezes":
            freeze(self._server)
        else:
            self._way.set_mode(_MODES[trouble])

    def end(self, trouble: Kind) -> None:
        if trouble == "broker freezes":
            thaw(self._server)
        else:
            self._way.set_mode("open")

    def close(self) -> None:
        self._way.close()
        self._server.close()


class SqsQueues:
    """Three queues, and a reader that takes what comes to two of them."""

    def __init__(
        self, port: int, way: UnreliableWay, run: str, lease_s: float, *, is_fifo: bool
    ) -> None:
        self._way = way
        self._faults_before = len(way.faults)
        self._lease_s = lease_s
        self._is_fifo = is_fifo
        self._client = _client(port)
        self._events = f"proof-{run}{'.fifo' if is_fifo else ''}"
        # Standard queues: a FIFO one would drop repeated results, and the checker wants them all.
        self._target, self._dead = f"proof-{run}-results", f"proof-{run}-dead"
        self._url = self._make(self._events, {"FifoQueue": "true"} if is_fifo else {})
        self.results: list[Raw] = []
        self.letters: list[Raw] = []
        self._sources = [
            (self._make(self._target, {}), self.results),
            (self._make(self._dead, {}), self.letters),
        ]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=source, daemon=True)
            for source in self._sources
        ]
        for thread in self._threads:
            thread.start()

    @property
    def variables(self) -> Mapping[str, str]:
        return {
            "QUEUE_SYSTEM": "SQS",
            "QUEUE_NAME": self._events,
            "QUEUE_TARGET": self._target,
            "QUEUE_DEAD_LETTER": self._dead,
            "SQS_ENDPOINT_URL": self._way.url,
            "SQS_VISIBILITY_S": str(max(2, round(self._lease_s))),
            "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    @property
    def faults(self) -> Sequence[Fault]:
        return self._way.faults[self._faults_before :]

    def send(self, bodies: Sequence[bytes]) -> None:
        entries = [self._entry(number, body) for number, body in enumerate(bodies)]
        for start in range(0, len(entries), _SENT_AT_ONCE):
            some = entries[start : start + _SENT_AT_ONCE]
            answer = self._client.send_message_batch(QueueUrl=self._url, Entries=some)
            if len(answer.get("Successful", [])) != len(some):
                raise RuntimeError(f"events were not sent: {answer.get('Failed')}")

    def is_settled(self) -> bool:
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        try:
            answer = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)
        except (BotoCoreError, ClientError):
            return False
        return all(int(answer["Attributes"][name]) == 0 for name in names)

    def finish(self) -> list[bytes]:
        # The readers take until nothing comes; what a dead worker still holds must become visible.
        deadline = time.monotonic() + self._lease_s + 120
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for source, raws in self._sources:
            while self._take(source, raws, wait_s=0):
                pass
        left: list[Raw] = []
        while not self.is_settled() and time.monotonic() < deadline:
            self._take(self._url, left, wait_s=1)
        return [raw.body for raw in left]

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _make(self, name: str, attributes: dict[str, str]) -> str:
        url: str = self._client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def _entry(self, number: int, body: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"Id": str(number % _SENT_AT_ONCE)}
        try:
            entry["MessageBody"] = body.decode()
        except UnicodeDecodeError:  # SQS takes text; our own envelope for what is none
            entry["MessageBody"] = base64.b64encode(body).decode()
            entry["MessageAttributes"] = {
                "vault-ml.body": {"DataType": "String", "StringValue": "base64"}
            }
        if self._is_fifo:
            entry["MessageGroupId"] = f"group-{number % _GROUPS}"
            entry["MessageDeduplicationId"] = uuid.uuid4().hex
        return entry

    def _read(self, url: str, raws: list[Raw]) -> None:
        while not self._stop.is_set():
            try:
                self._take(url, raws, wait_s=1)
            except (BotoCoreError, ClientError):
                time.sleep(0.2)

    def _take(self, url: str, raws: list[Raw], wait_s: int) -> bool:
        """Note a few, and only then delete them; True if there were any."""
        answer = self._client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=300,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        messages = answer.get("Messages", [])
        for message in messages:
            raws.append(_raw(message))
            self._client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bool(messages)


def _raw(message: Mapping[str, Any]) -> Raw:
    attributes = {
        name: value.get("StringValue", "")
        for name, value in message.get("MessageAttributes", {}).items()
    }
    body = message["Body"].encode()
    match attributes.get("vault-ml.body"):
        case "base64":
            body = base64.b64decode(body)
        case "empty":
            body = b""
    more = json.loads(attributes.get("vault-ml.headers", "{}"))
    return Raw(body, {**attributes, **more}, int(message["Attributes"]["SentTimestamp"]) / 1000)


def _client(port: int) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=_REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            connect_timeout=3, read_timeout=20, retries={"max_attempts": 3}, max_pool_connections=8
        ),
    )
