"""`make proof`: proof that no recording is lost, by faults from seeds and a checker of its own.

usage: python -m proof [--long] [--systems kafka,sqs,rabbitmq] [--seeds N] [--events N] [--lanes N]
                       [--fresh] [--judge] [--older]

Without anything it is the short form: two seeds on Apache Kafka, one of them with transactions,
and the planted bugs on the quickest broker. `--long` is 51 seeds of 600 events, 17 on each broker,
every planted bug on each, and PROOF.md. What was done with the same program is not done again; with
`--older` neither is what was done with another one (PROOF.md says so). `--judge` does nothing new.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from proof import jobs as todo
from proof import planted, systems
from proof.campaign import Campaign, clock, do, forget_logs
from proof.checker import Expected, Finding
from proof.history import History
from proof.jobs import Job
from proof.report import write_report

_ROOT = Path(__file__).resolve().parents[2]
_HISTORIES = Path(__file__).parent / "histories"
_SHORT = {"seeds": 2, "events": 40}
_LONG = {"seeds": 17, "events": 600}
# Kafka has the longest waits (a dead member's session) and the most planted bugs. More lanes than
# these on two processors, and leases run out because nobody has the time to lengthen them.
_LANES = {"kafka": 2}
_MOCK_LANES = 2


def main() -> int:
    """1 when something was found, or a planted bug was not."""
    options = _options()
    if options.lane:
        todo.lane(options.lane, Path(options.folder))
        return 0
    campaign = Campaign(_HISTORIES, _jobs(options), takes_older=options.older)
    if options.fresh:
        for job in campaign.jobs:
            (campaign.folder / job.path).unlink(missing_ok=True)
    if not options.judge:
        lanes = {name: options.lanes or _LANES.get(name, 1) for name in options.systems}
        if any(job.system == systems.MOCK for job in campaign.jobs):
            lanes[systems.MOCK] = _MOCK_LANES
        _do(campaign, lanes)
    return _judge(campaign, is_long=options.long)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--systems", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--events", type=int)
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    parser.add_argument("--judge", action="store_true", help="only judge what was done before")
    parser.add_argument("--older", action="store_true", help="take what another program did")
    parser.add_argument("--lane", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    form = _LONG if options.long else _SHORT
    for name, value in form.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.systems = options.systems or (list(systems.NAMES) if options.long else ["kafka"])
    return options


def _jobs(options: argparse.Namespace) -> list[Job]:
    jobs: list[Job] = []
    for system in options.systems:
        if reason := systems.why_not(system):
            sys.exit(reason)
        first = systems.NAMES.index(system) * options.seeds if system in systems.NAMES else 0
        jobs += todo.seed_jobs(system, range(first, first + options.seeds), options.events)
        if options.long:
            jobs += todo.planted_jobs(system, tuple(planted.BUGS), controls=True)
    if options.long:
        return jobs
    return [*jobs, *todo.planted_jobs(systems.MOCK, planted.ASKED_FOR, controls=False)]


def _do(campaign: Campaign, lanes: dict[str, int]) -> None:
    started = time.monotonic()
    left = len(campaign.left())
    done = 0
    lock = threading.Lock()
    if left < len(campaign.jobs):
        print(f"{len(campaign.jobs) - left} of {len(campaign.jobs)} jobs were done before")

    def say(job: Job, history: History | None) -> None:
        nonlocal done
        with lock:
            done += 1
            seen = "failed" if history is None else _words(history)
            print(f"{clock(started)}  {done}/{left}  {job}: {seen}", flush=True)

    do(campaign, lanes, say)


def _words(history: History) -> str:
    faults = Counter(fault.kind.partition(" ")[0] for fault in history.faults)
    return (
        f"{len(history.events)} events in {history.took_s:g} s, {len(history.results)} results, "
        f"{len(history.letters)} dead letters; "
        + (", ".join(f"{count} {kind}" for kind, count in faults.most_common()) or "no faults")
    )


def _judge(campaign: Campaign, *, is_long: bool) -> int:
    trouble = [f"{job}: {reason}" for job, reason in campaign.failures.items()]
    try:
        expected = campaign.expected()
    except ValueError as error:
        expected, trouble = {}, [*trouble, str(error)]
    clean: list[Job] = []
    for job in campaign.jobs:
        findings = campaign.findings(job, expected)
        if findings is None:
            if job not in campaign.failures:
                trouble.append(f"{job}: not done")
        elif sentences := _verdict(job, findings):
            trouble += sentences
        else:
            clean.append(job)
    forget_logs(campaign, clean)
    if is_long:
        write_report(_ROOT / "PROOF.md", campaign, expected)
    _print_verdict(campaign, expected, trouble)
    return 1 if trouble else 0


def _verdict(job: Job, findings: list[Finding]) -> list[str]:
    """What is wrong with a job; nothing when it came out as it must."""
    if job.kind == "planted":
        wanted = planted.BUGS[job.name].caught_as
        if not wanted & {finding.kind for finding in findings}:
            return [f"{job}: the planted bug was not caught ({' or '.join(sorted(wanted))})"]
        return []
    return [f"{job}: {f.kind}: {f.key}: {f.sentence}" for f in findings]


def _print_verdict(campaign: Campaign, expected: dict[str, Expected], trouble: list[str]) -> None:
    print()
    for system in dict.fromkeys(job.system for job in campaign.jobs):
        seeds = [job for job in campaign.jobs if job.system == system and job.kind == "seed"]
        histories = [h for h in map(campaign.history, seeds) if h is not None]
        if not histories:
            continue
        good = sum(not event.expects for h in histories for event in h.events)
        print(
            f"{system}: {len(histories)} seeds, {good} events, "
            f"{sum(len(h.faults) for h in histories)} faults ({histories[0].version})"
        )
    bugs = [job for job in campaign.jobs if job.kind == "planted"]
    caught = [
        job
        for job in bugs
        if (findings := campaign.findings(job, expected)) and not _verdict(job, findings)
    ]
    print(f"planted bugs: {len(caught)} of {len(bugs)} caught")
    for sentence in trouble[:40]:
        print(f"FOUND  {sentence}")
    print(f"{len(trouble)} findings" if trouble else "nothing found")


if __name__ == "__main__":
    sys.exit(main())
