"""What one run of the fault machine left behind: the queues, the Vault, and what was done to them.

Nothing in here comes from the worker's own words but the failpoints it says it has reached, and
the checker does not use those.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """One message that was put on the queue, once or several times.

    Attributes:
        body_sha: of its bytes.
        key: the recording it names; None where it names none.
        expects: error classes of which its dead letter must be one; empty for a good event.
        retries: its dead letter comes only after all attempts.
        copies: how often it was put on the queue.
        is_missing: its recording was never stored.
    """

    body_sha: str
    key: str | None
    expects: tuple[str, ...] = ()
    retries: bool = False
    copies: int = 1
    is_missing: bool = False


@dataclass(frozen=True)
class Result:
    """One message of the target queue, in the order it was read.

    Attributes:
        key: the recording.
        run_id: from the header or attribute.
        inner_run_id: from the body.
        body_sha: of its bytes.
        count: objects of interest.
        sent_at: Unix seconds when it was sent, by the broker's record; None where it keeps none.
    """

    key: str
    run_id: str
    inner_run_id: str
    body_sha: str
    count: int
    sent_at: float | None


@dataclass(frozen=True)
class Letter:
    """One message of the dead-letter queue."""

    body_sha: str
    error: str
    stage: str
    attempts: int
    reason: str
    sent_at: float | None


@dataclass(frozen=True)
class VaultCall:
    """One request that the Vault itself saw, or Hub, in the order of arrival.

    Attributes:
        at: Unix seconds.
        what: of the Vault `sign`, `blob`, `remove`, `forward_media`, `forward_metadata` or `other`;
            of Hub `forward_hub` or `forward_detections`.
        status: what it answered, whether or not the answer arrived; 0 for none.
    """

    at: float
    what: str
    key: str
    status: int


@dataclass(frozen=True)
class Fault:
    """One thing that was done to the system.

    Attributes:
        at: Unix seconds.
        kind: such as `failpoint publish.before` or `vault refuses`.
        key: the recording it hit, where it hit one.
        seconds: how long it lasted, for those that last.
    """

    at: float
    kind: str
    key: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Duty:
    """What the workers were told to do.

    Attributes:
        transactions: results become visible together with the settlement of their event.
        remembers: finished runs are kept in an outcome store.
        forwards_hub: results and detections go to Kerberos Hub itself.
    """

    removes: bool
    removes_forwarded: bool
    forwards_media: bool
    forwards_metadata: bool
    object_threshold: int
    max_attempts: int
    transactions: bool = False
    remembers: bool = False
    forwards_hub: bool = False


@dataclass
class History:
    """One run: what was put in, what came out.

    Attributes:
        present: keys in the Vault's folder at the end.
        backlog: digests of what the broker would still deliver at the end.
        is_settled: the broker says that nothing is left to deliver.
        exits: exit codes of the workers that were told to stop, and of those that ended by
            themselves.
        code: digest of the program that was proved, as `program` makes it.
        commit: and where to find it; with a plus sign when it had been changed since.
    """

    system: str
    version: str
    seed: str
    duty: Duty
    events: list[Event] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    calls: list[VaultCall] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    backlog: list[str] = field(default_factory=list)
    is_settled: bool = False
    exits: list[int] = field(default_factory=list)
    took_s: float = 0.0
    code: str = ""
    commit: str = ""

    def save(self, path: Path) -> None:
        """Write it, compressed; whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), separators=(",", ":"))
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(gzip.compress(text.encode(), 6))
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what `save` wrote."""
        raw: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        for entry in raw["events"]:
            entry["expects"] = tuple(entry["expects"])
        return cls(
            **{
                **raw,
                "duty": Duty(**raw["duty"]),
                "events": [Event(**entry) for entry in raw["events"]],
                "results": [Result(**entry) for entry in raw["results"]],
                "letters": [Letter(**entry) for entry in raw["letters"]],
                "calls": [VaultCall(**entry) for entry in raw["calls"]],
                "faults": [Fault(**entry) for entry in raw["faults"]],
            }
        )
