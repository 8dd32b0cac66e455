"""A seed's plan: what is done to the system, and when.

Drawn from the seed alone, so a run that found something can be run again. "When" is a share of
the events that have their outcome, not a time: machines differ in speed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from proof.history import Duty
from vault_ml.failpoints import NAMES

Kind = Literal[
    "kill",  # kill -9 of a worker
    "freeze",  # stopped for longer than its lease, then goes on with what it believes is its own
    "leave",  # told to stop, and started again
    "join",  # one worker more for a while
    "vault refuses",  # nobody listens
    "vault resets",  # connections are reset
    "vault errs",  # 503 to everything
    "vault hangs",  # accepts and never answers
    "hub refuses",  # the same of Kerberos Hub
    "hub errs",
    "broker killed",  # kill -9, started again
    "broker freezes",  # stopped for a while
    "broker refuses",  # nobody listens, what it keeps is kept
    "broker resets",  # connections are reset
    "broker errs",  # 503 to everything
]
HUB_TROUBLE: tuple[Kind, ...] = ("hub refuses", "hub errs")
VAULT_TROUBLE: tuple[Kind, ...] = ("vault refuses", "vault resets", "vault errs", "vault hangs")

# Those that only a certain duty or poison can reach.
_PUBLISH = frozenset({"publish.before", "publish.after"})
_REMOVAL = frozenset({"settled", "remove.before", "remove.after"})
_MEDIA = frozenset({"forward_media.before", "forward_media.after"})
_METADATA = frozenset({"forward_metadata.before", "forward_metadata.after"})
_HUB = frozenset(
    {"forward_hub.before", "forward_hub.after", "forward_detections.before",
     "forward_detections.after"}
)  # fmt: skip
_POISON = frozenset({"retry.before", "retry.after", "dead_letter.before", "dead_letter.after"})


@dataclass(frozen=True)
class Act:
    """Something that is done when `after` of all events have their outcome."""

    after: float
    kind: Kind
    seconds: float = 0.0


@dataclass(frozen=True)
class Weather:
    """How the way to the Vault is all the time: chances per reply."""

    stall: float = 0.0
    trickle: float = 0.0
    cut: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What one seed does.

    Attributes:
        duty: what the workers are told to do.
        workers: how many at once.
        copies: shares of the good events that are put on the queue twice.
        poison: how many events are poison.
        failpoints: for each start of a worker, in order, what it is armed with.
        acts: in order of `after`.
        lease_s: the shortest lease the workers are given (session, visibility).
    """

    seed: str
    duty: Duty
    workers: int
    concurrency: int
    copies: float = 0.0
    poison: int = 0
    failpoints: tuple[str, ...] = ()
    acts: tuple[Act, ...] = ()
    weather: Weather = field(default_factory=Weather)
    lease_s: float = 3.0

    @property
    def is_calm(self) -> bool:
        """True when nothing happens but what is said above."""
        return self.weather == Weather()


def fault_free(poison: int) -> Plan:
    """Nothing is done to the system; what comes out is what must always come out."""
    # One worker: a second that joins takes over what is in flight, which is a duplicate.
    # A lease that outlasts a busy machine: one that runs out is a fault as well.
    return Plan("none", _duty(removes=False), workers=1, concurrency=4, poison=poison, lease_s=60.0)


def draw(
    number: int, events: int, troubles: Sequence[Kind], *, has_transactions: bool = False
) -> Plan:
    """The plan of seed `number`.

    Args:
        number: the seed.
        events: how many good events there will be.
        troubles: of the broker, as far as this one can have them.
        has_transactions: this broker has them; every third seed uses them then.
    """
    rng = random.Random(f"vault-ml proof {number}")  # text: hashed the same way by every Python
    # Removal in three of four, with and without forwards: the sharpest promise, the most room.
    removes = number % 4 != 3
    forwards = number % 2 == 0
    duty = _duty(
        removes=removes,
        removes_forwarded=removes and forwards and rng.random() < 0.7,
        forwards_media=forwards,
        forwards_metadata=forwards and rng.random() < 0.6,
        transactions=has_transactions and number % 3 == 1,
        remembers=number % 5 == 2,
        forwards_hub=number % 4 == 1 or number % 8 == 2,
    )
    workers = rng.choice((2, 2, 3))
    return Plan(
        str(number),
        duty,
        workers=workers,
        concurrency=rng.choice((2, 3, 4)),
        copies=rng.choice((0.0, 0.03, 0.08)),
        poison=rng.randint(3, 8),
        failpoints=_failpoints(rng, number, duty, events // workers),
        acts=_acts(rng, (*troubles, *(HUB_TROUBLE if duty.forwards_hub else ()))),
        weather=Weather(*(rng.choice((0.0, chance)) for chance in (0.05, 0.03, 0.04))),
        # As short as a busy machine allows: whoever works on a third of a processor must still be
        # able to lengthen what he holds.
        lease_s=rng.choice((5.0, 6.0, 8.0)),
    )


def _duty(
    *,
    removes: bool,
    removes_forwarded: bool = False,
    forwards_media: bool = False,
    forwards_metadata: bool = False,
    transactions: bool = False,
    remembers: bool = False,
    forwards_hub: bool = False,
) -> Duty:
    return Duty(
        removes=removes,
        removes_forwarded=removes_forwarded,
        forwards_media=forwards_media,
        forwards_metadata=forwards_metadata,
        object_threshold=1,
        max_attempts=4,
        transactions=transactions,
        remembers=remembers,
        forwards_hub=forwards_hub,
    )


def _failpoints(rng: random.Random, number: int, duty: Duty, share: int) -> tuple[str, ...]:
    """Three places, the next three for the next seed, so that every place has its turn."""
    places = [name for name in NAMES if _is_reached(name, duty)]
    chosen = [places[(3 * number + turn) % len(places)] for turn in range(3)]
    armed = []
    for name in chosen:
        most = 2 if name in _POISON else max(2, share // 4)
        armed.append(f"{name}=kill@{rng.randint(1, most)}")
    return tuple(armed)


def _is_reached(name: str, duty: Duty) -> bool:
    return not (
        (name in _PUBLISH and duty.transactions)  # then it is a part of settling
        or (name in _REMOVAL and not duty.removes)
        or (name in _MEDIA and not duty.forwards_media)
        or (name in _METADATA and not duty.forwards_metadata)
        or (name in _HUB and not duty.forwards_hub)
    )


def _acts(rng: random.Random, troubles: Sequence[Kind]) -> tuple[Act, ...]:
    acts = [
        Act(rng.uniform(0.05, 0.95), "kill"),
        Act(rng.uniform(0.05, 0.9), "vault refuses", rng.uniform(0.5, 3.0)),
    ]
    pool: list[Kind] = ["freeze", "leave", "join", "kill", *VAULT_TROUBLE, *troubles]
    for kind in rng.sample(pool, 3):
        seconds = {"freeze": rng.uniform(1.0, 6.0), "join": rng.uniform(1.0, 4.0)}
        acts.append(Act(rng.uniform(0.05, 0.9), kind, seconds.get(kind, rng.uniform(0.3, 3.0))))
    if rng.random() < 0.2:  # a storm: members come and go one after another
        acts += [Act(0.2 + 0.1 * n, rng.choice(("leave", "join")), 1.0) for n in range(5)]
    return tuple(sorted(acts, key=lambda act: act.after))
