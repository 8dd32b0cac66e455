"""Dead letters: events that will not be tried again, kept whole for a person.

The body and the key are the original bytes, so a letter can be sent back to the queue as it is.
Why it is here stands in the headers, after the example of Kafka Connect's `__connect.errors.*`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from vault_ml.brokers.port import Delivery, Message, Producer
from vault_ml.errors import MessageTooLarge, VaultMLError

PREFIX = "vault-ml-"
REASON = PREFIX + "reason"
STAGE = PREFIX + "stage"
ERROR_CLASS = PREFIX + "error-class"
ATTEMPTS = PREFIX + "attempts"
FIRST_RECEIVED_AT = PREFIX + "first-received-at"
DEAD_LETTERED_AT = PREFIX + "dead-lettered-at"
QUEUE = PREFIX + "queue"
DELIVERY_ID = PREFIX + "delivery-id"
HOST = PREFIX + "host"
VERSION = PREFIX + "version"
# Of an event that was sent back from here: how often. The only one that outlives the next death.
REDRIVEN = PREFIX + "redriven"

_REASON_LIMIT = 1000  # characters; a reason is a sentence, not a document
_ESSENTIAL = (REASON, STAGE, ERROR_CLASS, ATTEMPTS, FIRST_RECEIVED_AT, DEAD_LETTERED_AT)


def dead_letter_name(queue: str, system: str = "KAFKA") -> str:
    """The dead-letter queue of a queue, when none is set.

    >>> dead_letter_name("ml-queue")
    'ml-queue.dlq'
    >>> dead_letter_name("classify.fifo", "SQS")
    'classify-dlq.fifo'
    """
    if system.upper() != "SQS":
        return f"{queue}.dlq"
    if queue.endswith(".fifo"):  # AWS asks for this ending
        return f"{queue.removesuffix('.fifo')}-dlq.fifo"
    return f"{queue}-dlq"


class DeadLetters:
    """Writes dead letters to one destination."""

    def __init__(
        self,
        producer: Producer,
        destination: str,
        *,
        queue: str,
        host: str,
        version: str,
        timeout_s: float = 30.0,
    ) -> None:
        """Write with `producer`.

        Args:
            producer: of the broker that the events come from.
            destination: the dead-letter queue.
            queue: where the events come from.
            host: the name of this machine or pod.
            version: of this program.
            timeout_s: how long the broker may take to confirm.
        """
        self._producer = producer
        self._destination = destination
        self._queue = queue
        self._host = host
        self._version = version
        self._timeout_s = timeout_s

    def send(self, delivery: Delivery, error: BaseException, stage: str) -> None:
        """Write the letter and return when the broker has confirmed it; the caller acks then.

        Args:
            delivery: the event, not settled yet.
            error: why it is given up. The sentence of one of our errors becomes the reason; any
                other is named by its class only, because its text may hold anything.
            stage: the step of the work that failed, such as `decode`.

        Raises:
            BrokerUnavailable: it could not be written; the delivery must not be settled.
            ConfigError: there is no such queue, or it is not for us.
            MessageTooLarge: the dead-letter queue takes less than the queue it belongs to.
        """
        headers = self._headers(delivery, error, stage)
        original = {
            name: text
            for name, text in delivery.message.headers.items()
            if name == REDRIVEN or not name.startswith(PREFIX)  # of an earlier death
        }
        try:
            self._publish(delivery, {**original, **headers})
        except MessageTooLarge:
            # The event came within a limit that its headers now exceed: keep what matters most.
            headers[REASON] = headers[REASON][:100]
            self._publish(delivery, {name: headers[name] for name in _ESSENTIAL})

    def _publish(self, delivery: Delivery, headers: Mapping[str, str]) -> None:
        message = Message(delivery.message.body, delivery.message.key, headers)
        self._producer.publish(self._destination, message, timeout_s=self._timeout_s)

    def _headers(self, delivery: Delivery, error: BaseException, stage: str) -> dict[str, str]:
        return {
            REASON: _reason(error),
            STAGE: stage,
            ERROR_CLASS: type(error).__name__,
            ATTEMPTS: str(delivery.attempt),
            FIRST_RECEIVED_AT: _iso(delivery.first_received_at),
            DEAD_LETTERED_AT: _iso(time.time()),
            QUEUE: self._queue,
            DELIVERY_ID: delivery.id,
            HOST: self._host,
            VERSION: self._version,
        }


def _reason(error: BaseException) -> str:
    if not isinstance(error, VaultMLError):
        return f"Unexpected {type(error).__name__}; the log has the traceback."
    sentence = " ".join(str(error).split())  # one line, for headers and tables
    return sentence[:_REASON_LIMIT].encode(errors="replace").decode()


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
