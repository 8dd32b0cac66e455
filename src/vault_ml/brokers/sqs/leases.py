"""Keeps what is in our hands hidden from other consumers, and settles it.

One thread asks for all of it, so that no request overtakes another: an extension that arrived
after a release would hide a message that nobody works on. Its order: lengthen what is due, delete
what is acked, give back what is to be retried.

A delivery whose time ran out by our own clock is lost, whatever SQS answers later: on a standard
queue it says yes to the deletion of a message that it has just given to somebody else.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from vault_ml.brokers.port import SettlementLost
from vault_ml.brokers.sqs.clients import Clients
from vault_ml.brokers.sqs.connection import Connection, State
from vault_ml.brokers.sqs.delivery import Held
from vault_ml.brokers.sqs.options import LONGEST_HIDDEN_S, SqsOptions
from vault_ml.brokers.sqs.translation import FOREIGN, LEASE_GONE, translated
from vault_ml.errors import BrokerUnavailable, ConfigError
from vault_ml.telemetry.log import Log

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        ChangeMessageVisibilityBatchRequestEntryTypeDef,
        ChangeMessageVisibilityBatchResultTypeDef,
        DeleteMessageBatchRequestEntryTypeDef,
        DeleteMessageBatchResultTypeDef,
    )

    _Answer = ChangeMessageVisibilityBatchResultTypeDef | DeleteMessageBatchResultTypeDef

_BATCH = 10  # entries that SQS takes in one request
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0  # after a refusal or no answer
# Nothing is hidden up to the last second of SQS's twelve hours: it refuses what would go beyond.
_MARGIN_S = 60
_KNOWN_BY_HEART = 10_000  # messages whose receipts are corrected; the oldest are forgotten


class Leases:
    """What one consumer holds. Methods may be called from any thread.

    Attributes:
        crash: the bug that ended the thread; None while all is well.
    """

    def __init__(
        self, options: SqsOptions, queue: str, clients: Clients, connection: Connection, log: Log
    ) -> None:
        """Start the thread; it asks nothing while nothing is held."""
        self._options = options
        self._queue = queue
        self._clients = clients
        self._connection = connection
        self._log = log
        self._changed = threading.Condition()  # guards everything down to the blank line
        self._url = ""
        self._held: dict[str, Held] = {}  # by receipt, oldest first
        self._uncounted: Counter[str] = Counter()  # receipts that were no try, by message id
        self._is_leaving = False
        self._has_left = False
        self.crash: Exception | None = None

        # Only the thread touches these.
        self._not_before = 0.0
        self._pause_s = _SHORTEST_PAUSE_S
        self._failing = ""  # the operation that did not work last
        self._leave_by = math.inf
        self._thread = threading.Thread(target=self._run, name="sqs-leases", daemon=True)
        self._thread.start()

    def hold(self, url: str, received: Sequence[Held]) -> bool:
        """Take over what was received; False when we have left, and it must be released."""
        with self._changed:
            if self._has_left:
                return False
            self._url = url
            known = {held.message_id: held for held in self._held.values()}
        # Whose time ran out at SQS, and here they are again.
        self._lose(known[held.message_id] for held in received if held.message_id in known)
        with self._changed:
            for held in received:
                held.attempt = max(1, held.attempt - self._uncounted[held.message_id])
                self._held[held.receipt] = held
            self._changed.notify_all()
        return True

    def in_hand(self) -> int:
        """How many are not settled, as far as SQS has confirmed."""
        return len(self._held)

    def refusal(self) -> ConfigError | None:
        """Why nothing can be settled, when SQS refuses it and something is waiting for it."""
        return self._connection.refusal() if self._held else None

    def finish(self, held: Held, future: Future[None]) -> bool:
        """For `SqsDelivery.ack`."""
        with self._changed:
            if held.is_gone:
                return False
            held.acked = future
            self._changed.notify_all()
        return True

    def put_back(self, held: Held, after_s: float, *, burn_attempt: bool) -> None:
        """For `SqsDelivery.retry`."""
        with self._changed:
            if held.is_gone:
                return
            held.return_at = time.monotonic() + max(0.0, after_s)
            if not burn_attempt:
                self._correct(held)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Settle what was asked for, release the rest; False when that took too long."""
        with self._changed:
            self._leave_by = min(self._leave_by, time.monotonic() + timeout_s)
            self._is_leaving = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return True
        self._drop_everything()
        return False

    def _correct(self, held: Held) -> None:
        self._uncounted[held.message_id] += 1
        if len(self._uncounted) > _KNOWN_BY_HEART:
            del self._uncounted[next(iter(self._uncounted))]

    # The thread.

    def _run(self) -> None:
        try:
            while not self._is_leaving:
                self._wait()
                self._step()
            while self._has_wishes() and time.monotonic() < self._leave_by:
                self._wait()
                self._step()
            self._release()
        except Exception as error:  # noqa: BLE001  a bug must not end the thread unheard
            self.crash = error
            self._log.error("broker_thread_failed", exc_info=error)
        finally:
            self._drop_everything()

    def _wait(self) -> None:
        """Until something is due."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = self._due_at()
                if due <= now or (self._is_leaving and now >= self._leave_by):
                    return
                if self._is_leaving and not self._has_wishes():
                    return
                self._changed.wait(min(due, self._leave_by, now + 60) - now)

    def _due_at(self) -> float:
        times = [
            self._not_before
            if held.acked is not None or held.return_at is not None
            else max(self._not_before, min(self._extension_at(held), held.hidden_until))
            for held in self._held.values()
        ]
        return min(times, default=math.inf)

    def _has_wishes(self) -> bool:
        with self._changed:
            return any(
                held.acked is not None or held.return_at is not None for held in self._held.values()
            )

    def _step(self) -> None:
        self._lose(held for held in self._all() if held.hidden_until <= time.monotonic())
        if time.monotonic() < self._not_before:
            return
        is_all_done = True
        for act in (self._extend, self._delete, self._give_back):
            if not act():
                is_all_done = False
                if self._connection.state is State.AWAY:
                    break  # the others would wait in vain; one that is refused stops no other
        if is_all_done:
            self._pause_s = _SHORTEST_PAUSE_S
        else:
            self._not_before = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _all(self) -> list[Held]:
        with self._changed:
            return list(self._held.values())

    def _extension_at(self, held: Held) -> float:
        """When to lengthen: a third of its time is over; never, when SQS's own limit is near."""
        now = time.monotonic()
        if now + self._extension_s(held, now) <= held.hidden_until:
            return math.inf
        return held.hidden_until - self._options.visibility_s * 2 / 3

    def _extension_s(self, held: Held, now: float) -> int:
        left = held.received_at + LONGEST_HIDDEN_S - _MARGIN_S - now
        return max(0, min(self._options.visibility_s, int(left)))

    def _extend(self) -> bool:
        now = time.monotonic()
        due = [held for held in self._all() if self._extension_at(held) <= now]
        for batch in _batches(due):
            at = time.monotonic()
            times = [self._extension_s(held, at) for held in batch]
            failed = self._change_visibility(batch, times)
            if failed is None:
                return False
            for held, seconds in zip(batch, times, strict=True):
                if held.receipt not in failed:
                    held.hidden_until = at + seconds
            if not self._take(failed, "its time at SQS is over"):
                return False
        return True

    def _delete(self) -> bool:
        for batch in _batches([held for held in self._all() if held.acked is not None]):
            entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
                {"Id": str(number), "ReceiptHandle": held.receipt}
                for number, held in enumerate(batch)
            ]
            failed = self._ask("DeleteMessage", batch, partial(self._send_deletes, entries))
            if failed is None:
                return False
            now = time.monotonic()
            deleted = [held for held in batch if held.receipt not in failed]
            self._confirm(held for held in deleted if now <= held.hidden_until)
            self._lose(held for held in deleted if now > held.hidden_until)
            if not self._take(failed, "SQS does not know our receipt any more"):
                return False
        return True

    def _give_back(self) -> bool:
        for batch in _batches([held for held in self._all() if held.return_at is not None]):
            now = time.monotonic()
            times = [
                max(0, min(math.ceil((held.return_at or now) - now), self._latest_return_s(held)))
                for held in batch
            ]
            failed = self._change_visibility(batch, times)
            if failed is None:
                return False
            self._forget(held for held in batch if held.receipt not in failed)
            if not self._take(failed, "it comes back sooner than asked"):
                return False
        return True

    def _latest_return_s(self, held: Held) -> int:
        return int(held.received_at + LONGEST_HIDDEN_S - _MARGIN_S - time.monotonic())

    def _release(self) -> None:
        """What nobody has settled becomes visible to others now."""
        with self._changed:
            self._has_left = True
            rest = list(self._held.values())
        for batch in _batches(rest):
            if time.monotonic() >= self._leave_by:
                return
            if self._change_visibility(batch, [0] * len(batch)) is None:
                return

    def _send_deletes(
        self, entries: list[DeleteMessageBatchRequestEntryTypeDef], client: SQSClient
    ) -> _Answer:
        return client.delete_message_batch(QueueUrl=self._url, Entries=entries)

    def _change_visibility(self, batch: Sequence[Held], times: Sequence[int]) -> _Failed | None:
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": held.receipt, "VisibilityTimeout": seconds}
            for number, (held, seconds) in enumerate(zip(batch, times, strict=True))
        ]
        return self._ask(
            "ChangeMessageVisibility",
            batch,
            lambda client: client.change_message_visibility_batch(
                QueueUrl=self._url, Entries=entries
            ),
        )

    def _ask(
        self, operation: str, batch: Sequence[Held], call: Callable[[SQSClient], _Answer]
    ) -> _Failed | None:
        """What SQS refused of a batch, by receipt; None when it took none of it."""
        try:
            answer = call(self._clients.of(self._queue))
        except FOREIGN as error:
            self._failing = operation
            self._connection.went_wrong(
                translated(error, self._options.where, operation, self._queue)
            )
            return None
        # Only what is said to have gone through has: see `no_sqs`.
        done = {entry["Id"] for entry in answer.get("Successful", [])}
        codes = {entry["Id"]: entry["Code"] for entry in answer.get("Failed", [])}
        failed = {
            held.receipt: (held, codes.get(str(number), ""))
            for number, held in enumerate(batch)
            if str(number) not in done
        }
        if self._failing in ("", operation):
            self._failing = ""
            self._connection.came_up()
        return failed

    def _take(self, failed: _Failed, reason: str) -> bool:
        """Draw the consequences; False when some of it is worth another try later."""
        gone = [held for held, code in failed.values() if code.rpartition(".")[2] in LEASE_GONE]
        self._lose(gone, reason)
        if len(gone) < len(failed):
            self._connection.went_wrong(
                BrokerUnavailable(f"{self._options.where} has trouble of its own.")
            )
            return False
        return True

    # What becomes of it.

    def _confirm(self, deleted: Iterable[Held]) -> None:
        deleted = list(deleted)
        self._forget(deleted)
        for held in deleted:
            self._uncounted.pop(held.message_id, None)
            if held.acked is not None:
                held.acked.set_result(None)

    def _forget(self, done: Iterable[Held]) -> None:
        with self._changed:
            for held in list(done):
                held.is_gone = True
                self._held.pop(held.receipt, None)

    def _lose(self, lost: Iterable[Held], reason: str = "its time is over") -> None:
        """Note that others may get it now, or have it already."""
        unlucky: list[Held] = []
        with self._changed:
            for held in list(lost):
                if not held.is_gone:
                    held.is_gone = True
                    self._held.pop(held.receipt, None)
                    if held.return_at is None:
                        self._correct(held)  # it comes again, through no fault of its own
                        unlucky.append(held)
        for held in unlucky:
            self._log.warning("lease_lost", delivery=held.name, reason=reason)
            if held.acked is not None:
                held.acked.set_exception(SettlementLost(f"{held.name}: {reason}"))

    def _drop_everything(self) -> None:
        with self._changed:
            self._has_left = True
            rest = list(self._held.values())
            self._held.clear()
            for held in rest:
                held.is_gone = True
            self._changed.notify_all()
        for held in rest:
            if held.acked is not None and not held.acked.done():
                held.acked.set_exception(SettlementLost("the consumer was closed before SQS knew"))


_Failed = dict[str, tuple[Held, str]]


def _batches(items: Sequence[Held]) -> Iterable[Sequence[Held]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
