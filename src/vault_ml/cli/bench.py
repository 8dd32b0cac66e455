"""`vault-ml bench`: how much one worker does on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault_ml.cli.progress import seconds_of

if TYPE_CHECKING:
    from vault_ml.demo.bench import Bench


def bench(
    clips: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Recordings of your cameras instead of the samples."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=5, max=3600, help="How long to measure, after a warm-up.")
    ] = 30.0,
    model: Annotated[
        str | None, typer.Option(help="As MODEL; default: yolov3 if it is here, else yolov3-tiny.")
    ] = None,
    head_room: Annotated[
        float, typer.Option(min=0, max=0.9, help="Part of the capacity to leave free.")
    ] = 0.3,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for `vault-ml plan --bench`.")
    ] = False,
) -> None:
    """Measure the worker on this machine, and say how many cameras it carries.

    An embedded Kafka and Vault give the ordinary worker always more to do. It takes what the
    environment says about model, frames and precision (MODEL, PRESET, NUMBER_OF_PREDICTIONS, ...).
    Nothing leaves this machine, and nothing is left on it.
    """
    import os
    from dataclasses import asdict

    from vault_ml.demo.bench import looking, measure
    from vault_ml.demo.clips import sample_clips
    from vault_ml.demo.show import stage
    from vault_ml.inference.cpu_quota import usable_cpus
    from vault_ml.telemetry.logs import configure

    chosen = sample_clips(clips)
    variables = {**looking(os.environ), "LOG_LEVEL": "WARNING"}
    if (load := os.getloadavg()[0]) > usable_cpus() / 2:
        _say(f"others are at work here (load {load:.1f}); alone, the worker would do more")
    _say("starting an embedded Kafka, an embedded Vault and the worker ...")
    with (
        stage(
            model=model, pictures=None, log=configure("auto", "WARNING"), variables=variables
        ) as show,
        seconds_of("measuring", seconds) as tell,
    ):
        found = measure(show, chosen, seconds=seconds, tell=tell)
    if as_json:
        print(json.dumps({**asdict(found), "cameras": found.cameras(head_room)}))
        return
    print("\n".join(_lines(found, len(chosen), head_room)))


def _say(sentence: str) -> None:
    print(f"bench: {sentence}", file=sys.stderr, flush=True)


def _lines(found: Bench, clips: int, head_room: float) -> list[str]:
    run = found.run
    many = "" if clips == 1 else "s, on average"
    return [
        (
            f"{run['model']} ({run['precision']}) by {run['runtime']} on {run['device']}; "
            f"{run['looked_at']} frames of a recording, {run['sampling']}"
        ),
        f"{clips} clip{many} {found.recording_s:.1f} s long",
        (
            f"{found.recordings_per_s:.2f} recordings/s ({found.slowest_per_s:.2f} to "
            f"{found.fastest_per_s:.2f} in fifths of {found.seconds:.0f} s), "
            f"{found.recordings_per_s * 3600:,.0f} an hour"
        ),
        f"{found.busy_cpus:.2f} of {found.cpus} processors busy with it",
        f"{found.peak_memory_bytes / 1024**2:,.0f} MiB at most, all its processes together",
        (
            f"carries {found.cameras(head_room)} cameras that record such clips without pause, "
            f"{head_room:.0%} of the capacity left free"
        ),
        (
            "For more: vault-ml bench --json > worker.json; vault-ml plan --cameras 200 --bench "
            "worker.json"
        ),
    ]
