"""PROOF.md: what was done, how often, on what, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from proof import planted
from proof.campaign import Campaign, systems_of
from proof.checker import KINDS, Expected, is_late_copy
from proof.history import Event, History, Letter
from proof.program import digest
from vault_ml.failpoints import NAMES as FAILPOINTS


def write_report(path: Path, campaign: Campaign, expected: dict[str, Expected]) -> None:
    """Write it anew."""
    systems = systems_of(campaign.jobs)
    seeds = {
        system: [
            history
            for job in campaign.jobs
            if job.system == system and job.kind == "seed" and (history := campaign.history(job))
        ]
        for system in systems
    }
    parts = [
        _HEAD,
        _program_table(campaign),
        _verdict_table(campaign, seeds, expected),
        _fault_table(seeds),
        _failpoint_table(seeds),
        _planted_table(campaign, expected),
        _FOUND,
        _HOLES,
    ]
    path.write_text("\n".join(parts))


_HEAD = """\
# Proof that no recording is lost

Written by `make proof LONG=1`; do not edit by hand. How it works: [tests/proof](tests/proof).

A fault machine puts events with small recordings on a broker, runs several `vault-ml run` as
processes, and kills, cuts off, holds up and takes away whatever the seed says. A checker that
shares no code with the worker then reads the queues, the requests that the Vault saw, and the
Vault's folder, and says what was promised and not kept. A small fixed network stands in for YOLO;
it is loaded and run by the real detector process. Everything else is what an operator runs.

`python -m proof --long --systems kafka` (in `tests`) does part of it again; what was done is kept
and not done twice with the same program. Each broker has seeds of its own. A seed's plan depends on
the seed alone; the moments at which things happen depend on the machine.
"""

_FOUND = """\
## What it has found, and what became of it

Found by earlier runs of the same seeds. The tables above are of the programs named there.

- **Kafka, seeds 011 and 016**: events of one partition were never read again. librdkafka
  remembers the pause of a partition beyond its assignment, so one that went while paused and came
  back stayed paused. Mended: it is resumed when it goes (`tests/faults/test_kafka_faults.py`).
- **RabbitMQ, seed 045**: a connection that was reset in the moment it was made ended the
  producer's thread; three results could not be published until the worker was restarted. Mended:
  it is made again, and a dead thread is heard (`tests/faults/test_rabbitmq_link.py`).
- **SQS, an earlier seed 021**: a truncated download at a late delivery made a dead letter of a
  good recording, because SQS counts deliveries. Mended: a download that breaks off is begun again
  before it costs a try.
- **SQS, earlier seeds 018 and 019; Kafka, seed 010 with transactions**: called stuck on a machine
  with twenty processes for each processor, while the workers still worked. The leases of two
  seconds could not be lengthened in time, and the machine's patience ran on while the broker
  stood in line for a processor. The leases are longer now, and patience stands still for the
  broker as well.
- **The planted bug "remove before settled"** was caught in one run of two: it showed only where the
  kill came before the commit. Its plan now holds an event up, so that nothing behind it can be
  committed.
"""

_HOLES = """\
## Holes of the brokers themselves, and what this does not prove

- **Kafka**: one node, so no replica ever took over: `acks=all` on one node is one copy. What was
  confirmed and is in the memory of a machine that loses its power is lost; `kill -9` is survived.
  Transactions of Kafka brokers before KIP-890 can tear (Jepsen, Bufstream, 2024); the guarantee
  here rests on the run id, not on them.
- **SQS** is played by ministack, in memory: its outages are shut and silent connections, never a
  restart. A standard queue of AWS may deliver an event again after it was deleted. With
  REMOVE_AFTER_PROCESSED the recording is gone by then, and the copy ends in the dead-letter
  queue as not found, beside its result. AWS's throttling and partial failures are not played.
- **RabbitMQ**: an acknowledgement has no answer, so one that was sent into a breaking connection
  may not have arrived; the event comes again, and with REMOVE_AFTER_PROCESSED the copy may end in
  the dead-letter queue as not found, beside its result. One node, as with Kafka.
- An event that was put on the queue twice (the machine does that) and whose recording was removed
  after the first copy ends in the dead-letter queue as not found, beside its result. It is counted
  above as a late copy.
- Not covered: full disks, clocks that jump, a Vault that loses what it stored or answers with
  another recording, machines that lie about writes, more than one machine, GPUs, hostile videos
  (they have tests of their own), work that lasts for hours.
"""


def _program_table(campaign: Campaign) -> str:
    done = Counter(
        (history.commit, history.code, job.system)
        for job in campaign.jobs
        if (history := campaign.history(job))
    )
    rows: list[list[object]] = [["commit", "digest of what the promise rests on", "broker", "runs"]]
    for (commit, code, system), count in done.items():
        is_now = "" if code == digest(system) else " (another one than beside this file)"
        rows.append([f"`{commit}`", f"`{code}`{is_now}", system, count])
    return f"## Programs\n\n{_PROGRAM_WORDS}\n{_table(rows)}\n"


_PROGRAM_WORDS = """\
Runs: seeds, runs without faults, planted bugs and their plans without the bug. The digest is that
of every module which a recording's way from queue to settlement goes through on this broker (see
`tests/proof/program.py`). A plus sign after a commit: `src` had been changed since.
"""


def _verdict_table(
    campaign: Campaign, seeds: dict[str, list[History]], expected: dict[str, Expected]
) -> str:
    rows: list[list[object]] = [["", *seeds]]

    def row(name: str, cell: object) -> None:
        assert callable(cell)
        rows.append([name, *(cell(histories) for histories in seeds.values())])

    row("version", lambda hs: hs[0].version if hs else "not run")
    row("seeds", len)
    row("events, without poison", lambda hs: sum(_good(h) for h in hs))
    row("results", lambda hs: sum(len(h.results) for h in hs))
    row("of these repeated, with the same run id and bytes", _repeated)
    row("poison events put in", lambda hs: sum(len(h.events) - _good(h) for h in hs))
    row("dead letters", lambda hs: sum(len(h.letters) for h in hs))
    row("of these late copies of removed recordings", _late_copies)
    row("recordings removed", _removed)
    row("forwards accepted", _forwarded)
    row("minutes of running, all lanes together", lambda hs: round(sum(h.took_s for h in hs) / 60))
    found: dict[str, Counter[str]] = {}
    for system in seeds:
        found[system] = Counter(
            finding.kind
            for job in campaign.jobs
            if job.system == system and job.kind == "seed"
            for finding in campaign.findings(job, expected) or ()
        )
    for kind, meaning in KINDS.items():
        rows.append([f"**{kind}**: {meaning}", *(found[system][kind] for system in seeds)])
    undone = [str(job) for job in campaign.left()]
    note = f"\nNot done: {', '.join(undone)}.\n" if undone else ""
    return f"## Verdict\n\n{_table(rows)}\n{note}"


def _fault_table(seeds: dict[str, list[History]]) -> str:
    counts = {system: Counter(_kinds(histories)) for system, histories in seeds.items()}
    kinds = sorted({kind for counter in counts.values() for kind in counter})
    rows: list[list[object]] = [["what was done, how often", *seeds]]
    rows += [[kind, *(counts[system][kind] for system in seeds)] for kind in kinds]
    rows.append(["together", *(counts[system].total() for system in seeds)])
    return f"## Faults\n\n{_table(rows)}\n\n{_FAULT_WORDS}"


_FAULT_WORDS = """\
`failpoint` is kill -9 at a numbered step (below); `kill` at any moment; `freeze` stops a worker
for longer than its lease and lets it go on; `leave` and `join` are members that come and go;
`weather` is what the way to the Vault did to single replies: cut off, held up, in small pieces;
`vault` is the Vault away for a while, in four ways; `doubled event` was put on the queue twice.
"""


def _kinds(histories: Sequence[History]) -> list[str]:
    return [
        "failpoint" if fault.kind.startswith("failpoint") else fault.kind
        for history in histories
        for fault in history.faults
    ]


def _failpoint_table(seeds: dict[str, list[History]]) -> str:
    counts = {
        system: Counter(fault.kind for history in histories for fault in history.faults)
        for system, histories in seeds.items()
    }
    rows: list[list[object]] = [["killed at", *seeds]]
    rows += [
        [f"`{name}`", *(counts[system][f"failpoint {name}"] for system in seeds)]
        for name in FAILPOINTS
    ]
    return f"## Kill -9 at every step\n\n{_table(rows)}\n"


def _planted_table(campaign: Campaign, expected: dict[str, Expected]) -> str:
    systems = systems_of(campaign.jobs)
    rows: list[list[object]] = [["planted bug", "what it does", *systems]]
    for name, bug in planted.BUGS.items():
        cells = [_caught(campaign, expected, system, name) for system in systems]
        rows.append([name, bug.what, *cells])
    return (
        "## Planted bugs\n\nEach was put into a worker from outside. The checker must find it, and "
        "must find nothing when the\nsame faults are done to a worker without it.\n\n"
        f"{_table(rows)}\n"
    )


def _caught(campaign: Campaign, expected: dict[str, Expected], system: str, name: str) -> str:
    jobs = {job.kind: job for job in campaign.jobs if job.system == system and job.name == name}
    if "planted" not in jobs:
        return "cannot be made"
    findings = campaign.findings(jobs["planted"], expected)
    control = jobs.get("control")
    beside = campaign.findings(control, expected) if control else []
    if findings is None or beside is None:
        return "not run"
    kinds = planted.BUGS[name].caught_as & {finding.kind for finding in findings}
    if not kinds:
        return "**not caught**"
    return f"caught ({', '.join(sorted(kinds))})" + ("; **found without it**" if beside else "")


def _good(history: History) -> int:
    return sum(not event.expects for event in history.events)


def _repeated(histories: Sequence[History]) -> int:
    return sum(len(h.results) - len({r.key for r in h.results}) for h in histories)


def _late_copies(histories: Sequence[History]) -> int:
    count = 0
    for history in histories:
        events = {event.body_sha: event for event in history.events if not event.expects}
        count += sum(
            letter.body_sha in events and _is_late(history, events[letter.body_sha], letter)
            for letter in history.letters
        )
    return count


def _is_late(history: History, event: Event, letter: Letter) -> bool:
    return is_late_copy(history, event, [letter])


def _removed(histories: Sequence[History]) -> int:
    return sum(
        len({c.key for c in h.calls if c.what == "remove" and c.status == 200}) for h in histories
    )


def _forwarded(histories: Sequence[History]) -> int:
    return sum(c.what.startswith("forward") and c.status == 200 for h in histories for c in h.calls)


def _table(rows: Sequence[Sequence[object]]) -> str:
    head, *body = [[str(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
