"""Dead letters: events that will not be tried again, kept whole for a person.

The body and the key are the original bytes, so a letter can be sent back to the queue as it is.
Why it is here stands in the headers, after the example of Kafka Connect's `__connect.errors.*`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from vault_ml.brokers.port import Delivery, Message, Outgoing, Producer
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
_BRIEF_REASON = 100  # when every byte counts
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
        with_settlement: bool = False,
    ) -> None:
        """Write with `producer`.

        Args:
            producer: of the broker that the events come from.
            destination: the dead-letter queue.
            queue: where the events come from.
            host: the name of this machine or pod.
            version: of this program.
            timeout_s: how long the broker may take to confirm.
            with_settlement: letters are written by the transaction that settles their events; the
                producer writes none.
        """
        self._producer = producer
        self._destination = destination
        self._queue = queue
        self._host = host
        self._version = version
        self._timeout_s = timeout_s
        self._with_settlement = with_settlement

    def send(
        self, delivery: Delivery, error: BaseException, stage: str, *, is_brief: bool = False
    ) -> Sequence[Outgoing]:
        """Write the letter and return when the broker has confirmed it; the caller acks then.

        Args:
            delivery: the event, not settled yet.
            error: why it is given up. The sentence of one of our errors becomes the reason; any
                other is named by its class only, because its text may hold anything.
            stage: the step of the work that failed, such as `decode`.
            is_brief: keep what matters most only, because the whole letter was too large.

        Returns:
            What is to be published by the ack: nothing, or the letter, if it goes with that.

        Raises:
            BrokerUnavailable: it could not be written; the delivery must not be settled.
            ConfigError: there is no such queue, or it is not for us.
            MessageTooLarge: the dead-letter queue takes less than the queue it belongs to.
        """
        headers = self._headers(delivery, error, stage)
        if self._with_settlement:
            return [(self._destination, _letter(delivery, headers, is_brief=is_brief))]
        if not is_brief:
            try:
                self._publish(_letter(delivery, headers, is_brief=False))
            except MessageTooLarge:
                pass  # the event came within a limit that its headers now exceed
            else:
                return ()
        self._publish(_letter(delivery, headers, is_brief=True))
        return ()

    def _publish(self, letter: Message) -> None:
        self._producer.publish(self._destination, letter, timeout_s=self._timeout_s)

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


def _letter(delivery: Delivery, headers: Mapping[str, str], *, is_brief: bool) -> Message:
    if is_brief:
        kept = {name: headers[name] for name in _ESSENTIAL}
        kept[REASON] = kept[REASON][:_BRIEF_REASON]
    else:
        original = {
            name: text
            for name, text in delivery.message.headers.items()
            if name == REDRIVEN or not name.startswith(PREFIX)  # of an earlier death
        }
        kept = {**original, **headers}
    return Message(delivery.message.body, delivery.message.key, kept)


def _reason(error: BaseException) -> str:
    if not isinstance(error, VaultMLError):
        return f"Unexpected {type(error).__name__}; the log has the traceback."
    sentence = " ".join(str(error).split())  # one line, for headers and tables
    return sentence[:_REASON_LIMIT].encode(errors="replace").decode()


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
