"""SQS as a system for the contract suite."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import boto3

from connected.gate import Gate
from contract.said_log import SaidLog
from vault_ml.brokers.browsing import HoldingBrowser
from vault_ml.brokers.dead_letter import dead_letter_name
from vault_ml.brokers.sqs import SqsConsumer, SqsOptions, SqsProducer

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

REGION = "us-east-1"


class SqsSystem:
    """A service that speaks SQS, behind a gate of ours where it is our own."""

    max_message_bytes: int | None = 1_048_576

    def __init__(self, endpoint: str, gate: Gate | None, *, fifo: bool = False) -> None:
        self.endpoint = endpoint
        self.gate = gate
        self.can_go_down = gate is not None
        self.ending = ".fifo" if fifo else ""
        self.log = SaidLog()
        self.visibility_s = 30
        self._names: list[str] = []

    def options(self, **changed: Any) -> SqsOptions:
        return SqsOptions(
            **{
                "endpoint_url": self.endpoint,
                "region": REGION,
                "visibility_s": self.visibility_s,
                **changed,
            }
        )

    def name(self) -> str:
        self._names.append(f"vault-ml-test-{uuid.uuid4().hex[:8]}{self.ending}")
        return self._names[-1]

    def remove_queues(self) -> None:
        """For a service that is not ours: leave it as it was."""
        for name in self._names:
            for made in (name, dead_letter_name(name, "SQS")):
                if self.exists(made):
                    self.client().delete_queue(QueueUrl=self.url(made))

    def new_queue(self, partitions: int = 1) -> str:
        name = self.name()
        self.client().create_queue(
            QueueName=name, Attributes={"FifoQueue": "true"} if self.ending else {}
        )
        return name

    def consumer(self, queue: str, *, ahead: int = 0, **options: Any) -> SqsConsumer:
        return SqsConsumer(self.options(**options), queue, log=self.log, ahead=ahead)

    def producer(self) -> SqsProducer:
        return SqsProducer(self.options(), f"vault-ml-test-ping{self.ending}", log=self.log)

    def browser(self, queue: str) -> HoldingBrowser:
        return HoldingBrowser(lambda: self.consumer(queue, ahead=9), quiet_s=2.0)

    def set_down(self) -> None:
        assert self.gate is not None
        self.gate.shut()

    def set_up(self) -> None:
        assert self.gate is not None
        self.gate.open()

    def client(self) -> SQSClient:
        """A client of the test's own."""
        return boto3.client("sqs", endpoint_url=self.endpoint, region_name=REGION)

    def url(self, queue: str) -> str:
        return self.client().get_queue_url(QueueName=queue)["QueueUrl"]

    def exists(self, queue: str) -> bool:
        client = self.client()
        try:
            client.get_queue_url(QueueName=queue)
        except client.exceptions.QueueDoesNotExist:
            return False
        return True

    def hidden(self, queue: str) -> int:
        """How many messages are in somebody's hands."""
        answer = self.client().get_queue_attributes(
            QueueUrl=self.url(queue), AttributeNames=["ApproximateNumberOfMessagesNotVisible"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessagesNotVisible"])

    def take(self, queue: str, timeout_s: float = 10.0, visibility_s: int = 30) -> dict[str, Any]:
        """The next message, as another consumer gets it."""
        client = self.client()
        url = self.url(queue)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = client.receive_message(
                QueueUrl=url,
                WaitTimeSeconds=1,
                VisibilityTimeout=visibility_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            for message in answer.get("Messages", []):
                return dict(message)
        raise AssertionError(f"nothing came from {queue} within {timeout_s:g} s")
