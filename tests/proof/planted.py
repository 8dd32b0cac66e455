"""Bugs that the checker must find: a worker with one mistake, and the plan that shows it.

`python -m proof.planted NAME` is `vault-ml run` with that mistake put in from outside. Nothing of
it is in the product.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from proof.history import Duty
from proof.plan import Act, Plan

_KEEPS = Duty(
    removes=False,
    removes_forwarded=False,
    forwards_media=False,
    forwards_metadata=False,
    object_threshold=1,
    max_attempts=4,
)
_REMOVES = Duty(
    removes=True,
    removes_forwarded=False,
    forwards_media=False,
    forwards_metadata=False,
    object_threshold=1,
    max_attempts=4,
)
_FORWARDS = Duty(
    removes=True,
    removes_forwarded=True,
    forwards_media=True,
    forwards_metadata=False,
    object_threshold=1,
    max_attempts=4,
)
_TO_HUB = replace(_REMOVES, forwards_hub=True)


@dataclass(frozen=True)
class Planted:
    """One mistake.

    Attributes:
        what: in a few words.
        install: puts it into this process.
        plan: what shows it; harmless to a worker without it.
        caught_as: kinds of findings, of which the checker must have one.
        systems: where it can be made; empty for everywhere.
    """

    what: str
    install: Callable[[], None]
    plan: Plan
    caught_as: frozenset[str]
    systems: frozenset[str] = frozenset()


def _plan(name: str, duty: Duty, **more: Any) -> Plan:
    return Plan(f"planted-{name}", duty, **{"workers": 1, "concurrency": 2, "lease_s": 4.0, **more})


# --- the mistakes --------------------------------------------------------------------------------


def _put(where: Any, name: str, mistake: Any) -> Any:
    """Replace `where.name`, which must be there, and return what it was."""
    original = getattr(where, name)
    setattr(where, name, mistake)
    return original


def ack_before_publish() -> None:
    """The event is settled, and only then its result is published."""
    from vault_ml.sinks.publish import Publish
    from vault_ml.worker import Worker

    here = threading.local()

    def handle_early(self: Any, delivery: Any) -> None:
        here.delivery = _AckedEarly(delivery)
        handle(self, here.delivery)

    def wants_late(self: Any, processed: Any) -> Any:
        here.delivery.ack().result(20)
        return wants(self, processed)

    handle = _put(Worker, "_handle", handle_early)
    wants = _put(Publish, "wants", wants_late)


def remove_before_forward() -> None:
    """The recording is removed, and only then its forward is asked for."""
    from vault_ml.vault.client import VaultClient

    def forward_late(self: Any, key: str) -> None:
        self.remove(key, "local")
        forward(self, key)

    forward = _put(VaultClient, "forward_media", forward_late)


def remove_before_hub() -> None:
    """The recording is removed, and only then Hub gets its result."""
    from vault_ml.sinks.forward_hub import ForwardToHubQueue
    from vault_ml.vault.client import VaultClient

    vaults = []

    def remembered(self: Any, *args: Any, **more: Any) -> None:
        vaults.append(self)
        init(self, *args, **more)

    def send_late(self: Any, processed: Any) -> None:
        vaults[0].remove(processed.event.key, "local")
        send(self, processed)

    init = _put(VaultClient, "__init__", remembered)
    send = _put(ForwardToHubQueue, "send", send_late)


def commit_beyond_a_hole() -> None:
    """What is committed is the last finished event, whatever is unfinished before it."""
    from vault_ml.brokers.offsets import FinishedPrefix

    def finish_beyond(self: Any, offset: int) -> None:
        finish(self, offset)
        self._position = max(self._position or 0, offset + 1)

    finish = _put(FinishedPrefix, "finish", finish_beyond)


def dead_letter_on_outage() -> None:
    """A Vault that is away counts as the event's own trouble."""
    from vault_ml.errors import RetryableError, UnavailableError
    from vault_ml.outage import Outages

    def impatiently(_self: Any, _dependency: str, step: Any, **_: Any) -> Any:
        try:
            return step()
        except UnavailableError as error:
            raise RetryableError(str(error)) from error

    _put(Outages, "patiently", impatiently)


def attempts_lost_at_restart() -> None:
    """Attempts are counted in memory, and anew after a restart."""
    from vault_ml.brokers.kafka import partition

    _put(partition, "decode", lambda _text: {})


def attempts_never_counted() -> None:
    """Every try is the first."""
    from vault_ml.worker import Worker

    def handle_first(self: Any, delivery: Any) -> None:
        handle(self, _FirstTry(delivery))

    handle = _put(Worker, "_handle", handle_first)


def remove_before_settled() -> None:
    """The recording is removed when the settlement is under way."""
    from vault_ml.removal import Removals

    def at_once(self: Any, _settled: Any, *args: Any, **more: Any) -> None:
        done: Future[None] = Future()
        done.set_result(None)
        after(self, done, *args, **more)

    after = _put(Removals, "after", at_once)


def random_run_id() -> None:
    """A redelivered event gets another run id."""
    from vault_ml import pipeline

    _put(pipeline, "run_id", lambda *_, **__: str(uuid.uuid4()))


def nothing_seen_without_looking() -> None:
    """Frames that nobody looked at count as frames without objects."""
    from vault_ml.detection import Detections
    from vault_ml.detector_process import DetectorProcess

    def blind(_self: Any, _shared: Any, frames: Any) -> list[Detections]:
        return [Detections.none(()) for _ in frames]

    _put(DetectorProcess, "detect", blind)


class _AckedEarly:
    """A delivery that is settled once, however often it is asked to."""

    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery
        self._settled: Future[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)

    def ack(self, *args: Any, **more: Any) -> Future[None]:
        if self._settled is None:
            self._settled = self._delivery.ack(*args, **more)
        return self._settled

    def retry(self, *args: Any, **more: Any) -> None:
        if self._settled is None:
            self._delivery.retry(*args, **more)


class _FirstTry:
    """A delivery that is always the first."""

    attempt = 1

    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)


_KAFKA = frozenset({"kafka", "kafka-mock"})

BUGS: Mapping[str, Planted] = MappingProxyType(
    {
        "ack before publish": Planted(
            "the event is settled before its result is published",
            ack_before_publish,
            _plan("ack", _KEEPS, failpoints=("publish.before=kill@3",)),
            frozenset({"lost"}),
        ),
        "remove before forward": Planted(
            "the recording is removed before its forward is asked for",
            remove_before_forward,
            _plan("forward", _FORWARDS),
            frozenset({"removed too early"}),
        ),
        "remove before Hub has it": Planted(
            "the recording is removed before Hub has confirmed its result",
            remove_before_hub,
            _plan("hub", _TO_HUB),
            frozenset({"removed too early"}),
        ),
        "commit beyond a hole": Planted(
            "the last finished event is committed, not the finished prefix",
            commit_beyond_a_hole,
            _plan(
                "hole",
                _KEEPS,
                failpoints=("publish.before=sleep:30@2",),
                acts=(Act(0.5, "kill"),),
            ),
            frozenset({"lost"}),
            _KAFKA,
        ),
        "dead-letter on outage": Planted(
            "a Vault that is away counts as the event's own trouble",
            dead_letter_on_outage,
            _plan("outage", _KEEPS, acts=(Act(0.1, "vault refuses", 8.0),)),
            frozenset({"unexpected dead letter"}),
        ),
        "lost attempt count": Planted(
            "attempts are counted anew after a restart",
            attempts_lost_at_restart,
            _plan("restart", _KEEPS, poison=1, failpoints=("retry.after=kill@3",) * 3),
            frozenset({"attempts lost"}),
            _KAFKA,
        ),
        "attempts never counted": Planted(
            "every try is the first, so nothing is ever given up",
            attempts_never_counted,
            _plan("first", _KEEPS, poison=1),
            frozenset({"stuck"}),
        ),
        "remove before settled": Planted(
            "the recording is removed while its event may still come again",
            remove_before_settled,
            # One event is held up before its result, so that nothing behind it in its partition
            # can be committed; what is removed all the same is missing when it comes again.
            _plan(
                "settled",
                _REMOVES,
                failpoints=("publish.before=sleep:30@2",),
                acts=(Act(0.5, "kill"),),
            ),
            frozenset({"unexpected dead letter", "lost", "removed too early"}),
            _KAFKA,
        ),
        "random run id": Planted(
            "a redelivered event gets another run id",
            random_run_id,
            _plan("random", _KEEPS, failpoints=("settle.before=kill@3",)),
            frozenset({"differing duplicates", "wrong result"}),
        ),
        "nothing seen without looking": Planted(
            "frames that were not looked at count as frames without objects",
            nothing_seen_without_looking,
            _plan("blind", _KEEPS),
            frozenset({"wrong result"}),
        ),
    }
)
# Those that the project was asked for; the others came while it was built.
ASKED_FOR = (
    "ack before publish",
    "remove before forward",
    "commit beyond a hole",
    "dead-letter on outage",
    "lost attempt count",
)


def command(name: str) -> tuple[str, ...]:
    """What Python is to run."""
    return ("-m", "proof.planted", name)


if __name__ == "__main__":
    BUGS[sys.argv[1]].install()
    from vault_ml.app import work

    work(os.environ)
