"""`vault-ml plan`: how many workers so many cameras need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def plan(
    cameras: Annotated[int, typer.Option(min=1, help="How many cameras.")],
    clip: Annotated[
        str, typer.Option(metavar="SECONDS", help="Length of a recording, such as 30s.")
    ] = "30s",
    recordings_per_hour: Annotated[
        float | None,
        typer.Option(min=0.001, help="Of one camera in its busiest hour; default: without pause."),
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A measurement of one worker, JSON.")
    ] = None,
    recordings_per_s: Annotated[
        float | None, typer.Option(help="Measured of one worker, instead of a file.")
    ] = None,
    cpus: Annotated[float, typer.Option(help="Processors that worker had.")] = 2.0,
    memory_mib: Annotated[float, typer.Option(help="Its peak of memory, MiB.")] = 1024.0,
    head_room: Annotated[float, typer.Option(help="Part of the capacity to leave free.")] = 0.3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Reckon replicas, processors, memory and Kafka partitions from measured figures.

    The figures are of your model on your machine: a file with recordings_per_s, cpus and
    peak_memory_bytes, or options.
    """
    from dataclasses import asdict

    from vault_ml.errors import ConfigError
    from vault_ml.sizing import Measured
    from vault_ml.sizing import plan as reckon

    if bench is not None:
        try:
            measured = Measured.from_json(bench.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--bench {bench} cannot be read") from error
    elif recordings_per_s is not None:
        measured = Measured(recordings_per_s, cpus, memory_mib * 1024**2)
    else:
        raise ConfigError("give --bench FILE, or --recordings-per-s of one worker")
    try:
        seconds = float(clip.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"--clip {clip} is no length; write it as 30s")
    hourly = recordings_per_hour if recordings_per_hour is not None else 3600 / seconds
    found = reckon(measured, cameras=cameras, recordings_per_hour=hourly, head_room=head_room)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    for line in found.arithmetic:
        print(line)
