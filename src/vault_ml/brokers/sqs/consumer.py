"""The SQS consumer: one thread that asks for messages, and only for as many as are waited for.

Nothing is fetched ahead: SQS counts every receipt, and hides what we hold from consumers that have
nothing to do. While nothing is in our hands a request waits up to 20 seconds at SQS; while
something is, it waits one, because a request that is still open when we leave may swallow what
we give back, and a second is what leaving may take.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

from vault_ml.brokers.queue_names import is_fifo, sqs_name
from vault_ml.brokers.sqs import envelope
from vault_ml.brokers.sqs.clients import Clients, within
from vault_ml.brokers.sqs.connection import Connection, State, unavailable_in_time
from vault_ml.brokers.sqs.delivery import Held, SqsDelivery
from vault_ml.brokers.sqs.leases import Leases
from vault_ml.brokers.sqs.options import SqsOptions
from vault_ml.brokers.sqs.queues import Queues
from vault_ml.brokers.sqs.redrive import warn_of_redrive
from vault_ml.brokers.sqs.translation import FOREIGN, is_no_queue, no_sqs, translated
from vault_ml.errors import VaultMLError
from vault_ml.telemetry.log import Log

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        ChangeMessageVisibilityBatchRequestEntryTypeDef,
        MessageTypeDef,
        ReceiveMessageResultTypeDef,
    )

_MOST_AT_ONCE = 10  # messages that SQS gives in one answer
_SHORT_POLL_S = 1  # the shortest that still asks all of SQS's servers
_SLACK_S = 10.0  # an answer may come this much later than the request is to wait
_LONGEST_CALL_S, _SHORTEST_CALL_S = 10.0, 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 4.0
_COUNT_EVERY_S, _COUNT_S = 5.0, 1.0  # how many are in the queue: how often, how long it may take
_LOOK_EVERY_S = 0.5  # a refusal wakes nobody


class SqsConsumer:
    """One of any number of consumers of a queue.

    The queue is made when it does not exist and we may. Of a FIFO queue one message is asked for
    at a time, so that those behind it in its group stay at SQS, uncounted, until it is settled.
    """

    def __init__(
        self,
        options: SqsOptions,
        queue: str,
        *,
        log: Log,
        max_attempts: int | None = None,
        ahead: int = 0,
    ) -> None:
        """Start the broker threads; connecting happens there.

        Args:
            options: how to reach the service.
            queue: name or URL.
            log: told every change of state once.
            max_attempts: tries for one event; a queue that moves messages away before is warned of.
            ahead: so many messages more than are waited for; for reading through a queue, not for
                work. Not of a FIFO queue.

        Raises:
            ConfigError: there is no region, or an address that is none.
        """
        self._options = options
        self._queue = queue
        self._name = sqs_name(queue)
        self._is_fifo = is_fifo(queue)
        self._max_attempts = max_attempts
        self._ahead = ahead
        self._log = log
        self._connection = Connection(options.where, log, "consumer")
        self._poll_clients = Clients(options, read_timeout_s=options.long_poll_s + _SLACK_S)
        self._clients = Clients(options, read_timeout_s=_call_timeout_s(options))
        self._poll_clients.of(queue)
        self._queues = Queues(self._clients, options.where, log)
        leases_connection = Connection(options.where, log, "leases")
        self._leases = Leases(options, queue, self._clients, leases_connection, log)
        self._changed = threading.Condition()  # guards everything down to the blank line
        self._ready: deque[Held] = deque()
        self._waiting = 0
        self._is_paused = False
        self._is_closing = False
        self._crash: Exception | None = None

        self._counting = threading.Lock()  # guards the two below
        self._count_at = 0.0
        self._in_queue: int | None = None
        self._is_short_poll = True
        self._receive_id = uuid.uuid4().hex
        self._thread = threading.Thread(target=self._run, name="sqs-receive", daemon=True)
        self._thread.start()

    # The port: any thread.

    def receive(self, timeout_s: float) -> SqsDelivery | None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                while True:
                    self._raise_trouble()
                    if self._is_closing:
                        return None
                    while self._ready and not self._is_paused:
                        held = self._ready.popleft()
                        if not held.is_gone:
                            return SqsDelivery(held, self._leases)
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return None
                    self._changed.wait(min(left, _LOOK_EVERY_S))
            finally:
                self._waiting -= 1

    def pause(self) -> None:
        """As the port says."""
        with self._changed:
            self._is_paused = True

    def resume(self) -> None:
        """As the port says."""
        with self._changed:
            self._is_paused = False
            self._changed.notify_all()

    def lag(self) -> int | None:
        """As the port says; SQS is asked once in 5 s at most."""
        with self._counting:
            now = time.monotonic()
            if now < self._count_at:
                return self._in_queue
            self._count_at, self._in_queue = now + _COUNT_EVERY_S, None
        if self._is_closing or self._connection.state in (State.AWAY, State.REFUSED):
            return None
        with contextlib.suppress(TimeoutError, VaultMLError):  # receiving says what is wrong
            count = within(_COUNT_S, lambda: self._queues.messages(self._queue))
            with self._counting:
                self._in_queue = count
            return count
        return None

    def ping(self, timeout_s: float) -> None:
        """As the port says."""
        try:
            within(timeout_s, lambda: self._queues.ping(self._queue))
        except TimeoutError:
            raise unavailable_in_time(self._options.where) from None

    def close(self, timeout_s: float) -> None:
        """As the port says."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            is_first = not self._is_closing
            self._is_closing = True
            self._changed.notify_all()
        if not is_first:
            return
        if self._is_short_poll:
            self._thread.join(min(timeout_s / 2, _SHORT_POLL_S + 1.0))
        if self._leases.close(max(0.1, deadline - time.monotonic())):
            self._clients.close()
        else:
            self._log.warning(
                "broker_left_waiting",
                reason=f"{self._options.where} did not take our leave within {timeout_s:g} s; what "
                "is not settled comes again when its time is over.",
            )

    def _raise_trouble(self) -> None:
        if crash := self._crash or self._leases.crash:
            raise RuntimeError("the SQS broker thread died") from crash
        if refusal := self._connection.refusal() or self._leases.refusal():
            raise refusal

    # The thread that receives.

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            warned = False
            while (count := self._wanted()) is not None:
                try:
                    url = self._queues.url(self._queue)
                    if not warned:
                        self._warn_of_redrive()
                        warned = True
                    self._poll(url, count)
                except VaultMLError as error:
                    self._connection.went_wrong(error)
                    self._sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                else:
                    self._connection.came_up()
                    pause_s = _FIRST_PAUSE_S
        except Exception as error:  # noqa: BLE001  a bug must not end the thread unheard
            self._crash = error
            self._log.error("broker_thread_failed", exc_info=error)
        finally:
            self._poll_clients.close()

    def _wanted(self) -> int | None:
        """How many messages to ask for, once any are waited for; None when we are closing."""
        with self._changed:
            while not self._is_closing:
                if self._connection.refusal() is not None:
                    return 1  # nobody waits while we are refused; how else to learn that it ended?
                missing = self._waiting - len(self._ready)
                if missing > 0 and not self._is_paused and self._leases.refusal() is None:
                    return 1 if self._is_fifo else min(missing + self._ahead, _MOST_AT_ONCE)
                self._changed.wait(_LOOK_EVERY_S)
        return None

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, seconds)

    def _poll(self, url: str, count: int) -> None:
        is_in_trouble = self._connection.state in (State.AWAY, State.REFUSED)
        self._is_short_poll = is_in_trouble or self._leases.in_hand() > 0
        wait_s = _SHORT_POLL_S if self._is_short_poll else self._options.long_poll_s
        if self._is_closing:
            return
        asked_at = time.monotonic()
        try:
            answer = self._ask(self._poll_clients.of(self._queue), url, count, wait_s)
        except FOREIGN as error:
            if is_no_queue(error):
                self._queues.forget(self._queue)  # deleted while we were on it
            raise translated(error, self._options.where, "ReceiveMessage", self._name) from error
        finally:
            self._is_short_poll = True
        self._receive_id = uuid.uuid4().hex
        kind = answer["ResponseMetadata"]["HTTPHeaders"].get("content-type", "")
        if kind.startswith("text/html"):
            raise no_sqs(self._options.where)
        received = [self._held(raw, asked_at) for raw in answer.get("Messages", [])]
        if not received:
            # A service that does not wait as it was asked to must not be asked without a break.
            if time.monotonic() - asked_at < wait_s / 2:
                self._sleep(_FIRST_PAUSE_S)
            return
        if not self._leases.hold(url, received):
            self._release(url, received)
            return
        with self._changed:
            self._ready.extend(received)
            self._changed.notify_all()

    def _ask(
        self, client: SQSClient, url: str, count: int, wait_s: int
    ) -> ReceiveMessageResultTypeDef:
        # After an answer that was lost on its way, a FIFO queue gives the same messages again.
        again = {"ReceiveRequestAttemptId": self._receive_id} if self._is_fifo else {}
        return client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=self._options.visibility_s,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=[
                "ApproximateReceiveCount",
                "ApproximateFirstReceiveTimestamp",
                "MessageGroupId",
            ],
            **again,  # type: ignore[arg-type]  # one text
        )

    def _held(self, raw: MessageTypeDef, asked_at: float) -> Held:
        now = time.monotonic()
        about = raw.get("Attributes", {})
        first_ms = about.get("ApproximateFirstReceiveTimestamp")
        visibility_s = self._options.visibility_s
        message_id = raw.get("MessageId", "")
        return Held(
            message=envelope.from_sqs(raw),
            name=f"{self._name}@{message_id}",
            message_id=message_id,
            receipt=raw.get("ReceiptHandle", ""),
            attempt=int(about.get("ApproximateReceiveCount", 1)),
            first_received_at=int(first_ms) / 1000 if first_ms else time.time(),
            received_at=asked_at,
            # It is hidden since some moment of our request. Of a long one we do not know which,
            # so it counts as due, and its time is lengthened first of all.
            hidden_until=max(asked_at + visibility_s, now + visibility_s / 3),
        )

    def _release(self, url: str, received: list[Held]) -> None:
        """What came after we had left goes back at once."""
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": held.receipt, "VisibilityTimeout": 0}
            for number, held in enumerate(received)
        ]
        try:
            self._poll_clients.of(self._queue).change_message_visibility_batch(
                QueueUrl=url, Entries=entries
            )
        except FOREIGN as error:
            raise translated(
                error, self._options.where, "ChangeMessageVisibility", self._name
            ) from error

    def _warn_of_redrive(self) -> None:
        if self._max_attempts is not None:
            warn_of_redrive(self._queues, self._queue, self._max_attempts, self._log)


def _call_timeout_s(options: SqsOptions) -> float:
    """No call may last as long as what it is to save."""
    return max(_SHORTEST_CALL_S, min(_LONGEST_CALL_S, options.visibility_s / 4))
