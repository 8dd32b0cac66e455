"""Questions about queues: where is one, and if it is not there, make it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vault_ml.brokers.queue_names import is_fifo, is_url
from vault_ml.brokers.sqs.clients import Clients
from vault_ml.brokers.sqs.translation import FOREIGN, code_of, is_no_queue, no_sqs, translated
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected
from vault_ml.telemetry.log import Log

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType

# Of the queues that we make: the longest that SQS keeps a message. Dead letters wait for a person.
_RETENTION_S = 14 * 24 * 3600


@dataclass(frozen=True, slots=True)
class RedrivePolicy:
    """What SQS does by itself with a message that was received too often.

    Attributes:
        max_receives: after so many receipts it is moved, without a reason.
        target: the name of the queue it is moved to.
    """

    max_receives: int
    target: str


class Queues:
    """Finds queues by name or URL, and makes those that are missing. Thread-safe."""

    def __init__(self, clients: Clients, where: str, log: Log) -> None:
        """Ask by `clients`; `where` names the service."""
        self._clients = clients
        self._where = where
        self._log = log
        self._lock = threading.Lock()
        self._urls: dict[str, str] = {}

    def url(self, queue: str) -> str:
        """The URL of a queue, made by us if need be.

        Raises:
            ConfigError: it does not exist and cannot be made, or is not for us.
            BrokerUnavailable: the service does not answer.
        """
        if is_url(queue):
            return queue
        with self._lock:
            known = self._urls.get(queue)
        if known is None:
            known = self._find(queue) or self._make(queue)
            with self._lock:
                self._urls[queue] = known
        return known

    def forget(self, queue: str) -> None:
        """Look again next time: it was there, and is not."""
        with self._lock:
            self._urls.pop(queue, None)

    def ping(self, queue: str) -> None:
        """Return when the service answers a question about `queue`, whether it exists or not.

        Raises:
            BrokerUnavailable: it does not answer.
            ConfigError: it answers that we may not ask.
        """
        if is_url(queue):
            try:
                answer = self._clients.of(queue).get_queue_attributes(
                    QueueUrl=queue, AttributeNames=["QueueArn"]
                )
            except FOREIGN as error:
                raise self._translated(error, "GetQueueAttributes", queue) from error
            if "QueueArn" not in answer.get("Attributes", {}):
                raise no_sqs(self._where)
        else:
            self._find(queue)

    def messages(self, queue: str) -> int | None:
        """How many messages are in a queue, hidden ones among them, about; None if it is not said.

        Raises:
            CredentialsRejected: we may not ask.
            BrokerUnavailable: the service does not answer.
        """
        try:
            answer = self._clients.of(queue).get_queue_attributes(
                QueueUrl=self.url(queue),
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )
        except FOREIGN as error:
            raise self._translated(error, "GetQueueAttributes", queue) from error
        try:
            return sum(int(count) for count in answer["Attributes"].values())
        except (KeyError, ValueError):
            return None

    def redrive_policy(self, queue: str) -> RedrivePolicy | None:
        """The policy of a queue; None when it has none, or one we cannot read.

        Raises:
            CredentialsRejected: we may not ask.
            BrokerUnavailable: the service does not answer.
        """
        try:
            answer = self._clients.of(queue).get_queue_attributes(
                QueueUrl=self.url(queue), AttributeNames=["RedrivePolicy"]
            )
        except FOREIGN as error:
            raise self._translated(error, "GetQueueAttributes", queue) from error
        try:
            policy = json.loads(answer.get("Attributes", {})["RedrivePolicy"])
            arn = str(policy["deadLetterTargetArn"])
            return RedrivePolicy(int(policy["maxReceiveCount"]), arn.rpartition(":")[2])
        except (KeyError, ValueError, TypeError):
            return None

    def _find(self, queue: str) -> str | None:
        try:
            answer = self._clients.of(queue).get_queue_url(QueueName=queue)
        except FOREIGN as error:
            if is_no_queue(error):
                return None
            raise self._translated(error, "GetQueueUrl", queue) from error
        if not answer.get("QueueUrl"):
            raise no_sqs(self._where)
        return answer["QueueUrl"]

    def _make(self, queue: str) -> str:
        attributes: dict[QueueAttributeNameType, str] = {
            "MessageRetentionPeriod": str(_RETENTION_S)
        }
        if is_fifo(queue):
            attributes["FifoQueue"] = "true"
        try:
            answer = self._clients.of(queue).create_queue(QueueName=queue, Attributes=attributes)
        except FOREIGN as error:
            raise self._not_made(error, queue) from error
        if not answer.get("QueueUrl"):
            raise no_sqs(self._where)
        self._log.info("queue_created", queue=queue, broker=self._where)
        return answer["QueueUrl"]

    def _not_made(self, error: Exception, queue: str) -> Exception:
        code = code_of(error)
        if code == "QueueNameExists":  # somebody was faster, with other attributes
            return BrokerUnavailable(f"{self._where} is making the queue {queue!r} just now.")
        if code == "QueueDeletedRecently":
            return BrokerUnavailable(
                f"The SQS queue {queue!r} was deleted; AWS lets nobody make it again for a minute."
            )
        ours = self._translated(error, "CreateQueue", queue)
        if isinstance(ours, CredentialsRejected):
            return CredentialsRejected(
                f"The SQS queue {queue!r} does not exist, and we may not make it. Create it, or "
                "allow us sqs:CreateQueue; check the name, the region and the account."
            )
        if isinstance(ours, ConfigError):
            return ConfigError(
                f"The SQS queue {queue!r} does not exist and cannot be made ({code}). Create it, "
                "or check its name."
            )
        return ours

    def _translated(self, error: Exception, operation: str, queue: str) -> Exception:
        return translated(error, self._where, operation, queue)
