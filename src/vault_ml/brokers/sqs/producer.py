"""The SQS producer: every publish waits for SQS's answer."""

from __future__ import annotations

import threading
import time

from vault_ml.brokers.port import Message
from vault_ml.brokers.queue_names import is_fifo, is_url, sqs_name
from vault_ml.brokers.sqs.clients import Clients, within
from vault_ml.brokers.sqs.connection import Connection, unavailable_in_time
from vault_ml.brokers.sqs.envelope import Envelope, size_bytes, to_sqs
from vault_ml.brokers.sqs.options import SqsOptions
from vault_ml.brokers.sqs.queues import Queues
from vault_ml.brokers.sqs.translation import FOREIGN, code_of, is_no_queue, no_sqs, translated
from vault_ml.errors import BrokerUnavailable, ConfigError, MessageTooLarge, VaultMLError
from vault_ml.telemetry.log import Log

_CALL_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
# What AWS takes today. Queues with a limit of their own, and other services, take less.
_LIMIT_BYTES = 1_048_576
_SMALLEST_LIMIT_BYTES = 1024  # AWS lets nobody set MaximumMessageSize lower


class SqsProducer:
    """Sends to queues given by name or URL; one that does not exist is made when we may.

    A message to a FIFO queue has its key as group, and an identity by which SQS drops its
    repetition within five minutes.
    """

    def __init__(self, options: SqsOptions, queue: str, *, log: Log) -> None:
        """Connect lazily.

        Args:
            options: how to reach the service.
            queue: the one to ask about when the service is pinged.
            log: told every change of state once.

        Raises:
            ConfigError: there is no region, or an address that is none.
        """
        self._options = options
        self._queue = queue
        self._connection = Connection(options.where, log, "producer")
        self._clients = Clients(options, read_timeout_s=_CALL_TIMEOUT_S)
        self._clients.of(queue)
        self._queues = Queues(self._clients, options.where, log)
        self._is_closed = threading.Event()

    def publish(self, destination: str, message: Message, *, timeout_s: float) -> None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        sending = to_sqs(message, fifo=is_fifo(destination))
        pause_s = _FIRST_PAUSE_S
        said: BrokerUnavailable | None = None
        while True:
            try:
                self._try(destination, sending, deadline - time.monotonic())
            except TimeoutError:
                trouble = unavailable_in_time(self._options.where)
            except BrokerUnavailable as error:
                # It tells more than that a later try runs out of time.
                trouble = said = error
            else:
                self._connection.came_up()
                return
            self._connection.went_wrong(trouble)
            if time.monotonic() + pause_s >= deadline or self._is_closed.wait(pause_s):
                raise said or trouble
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def ping(self, timeout_s: float) -> None:
        """As the port says."""
        try:
            within(timeout_s, lambda: self._queues.ping(self._queue))
        except TimeoutError:
            raise unavailable_in_time(self._options.where) from None

    def close(self, timeout_s: float) -> None:  # noqa: ARG002  nothing waits to be sent
        """As the port says."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._clients.close()

    def _try(self, destination: str, sending: Envelope, timeout_s: float) -> None:
        if self._is_closed.is_set():
            raise BrokerUnavailable("The SQS producer is closed.")
        within(timeout_s, lambda: self._send(destination, sending))

    def _send(self, destination: str, sending: Envelope) -> None:
        url = self._queues.url(destination)
        try:
            answer = self._clients.of(destination).send_message(QueueUrl=url, **sending)
        except FOREIGN as error:
            raise self._translated(error, destination, sending) from error
        if "MessageId" not in answer:
            raise no_sqs(self._options.where)

    def _translated(self, error: Exception, destination: str, sending: Envelope) -> VaultMLError:
        name = sqs_name(destination)
        if is_no_queue(error) and not is_url(destination):
            self._queues.forget(destination)  # it was there when we looked: look again
            return BrokerUnavailable(f"The SQS queue {name!r} is not there just now.")
        if code_of(error) in {"InvalidParameterValue", "BatchRequestTooLong"}:
            size = size_bytes(sending)
            if size > _SMALLEST_LIMIT_BYTES:
                return MessageTooLarge(
                    f"SQS refuses a message of {size} bytes on {name!r}; its limit is "
                    f"MaximumMessageSize of the queue, {_LIMIT_BYTES} at most."
                )
            return ConfigError(f"SQS refuses our message on {name!r}; is it a queue of its kind?")
        return translated(error, self._options.where, "SendMessage", name)
