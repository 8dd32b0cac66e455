"""`vault-ml demo`: the main job on real clips, on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vault_ml.demo.show import Seen


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Show each clip once and end, instead of serving on.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print result messages, one per line, and nothing else.")
    ] = False,
    clips: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Clips of your own instead of the samples."),
    ] = None,
    pictures: Annotated[
        Path, typer.Option(metavar="DIR", help="Where pictures with boxes are written.")
    ] = Path("demo-output"),
    model: Annotated[
        str | None, typer.Option(help="As MODEL; default: yolov3 if it is here, else yolov3-tiny.")
    ] = None,
) -> None:
    """Show real detections: an embedded Kafka and Vault, real clips, the ordinary worker.

    Nothing leaves this machine, and nothing is left on it but the pictures.
    """
    import time

    from vault_ml.demo.clips import sample_clips
    from vault_ml.demo.show import stage
    from vault_ml.telemetry.logs import configure

    chosen = sample_clips(clips)
    log = configure("auto", "WARNING")
    started = time.monotonic()
    _say("starting an embedded Kafka, an embedded Vault and the worker ...")
    with stage(model=model, pictures=pictures, log=log) as show:
        _say(f"ready after {time.monotonic() - started:.1f} s; uploading {len(chosen)} clips")
        for seen in show.results_of(chosen):
            print(seen.body.decode() if as_json else _text(seen), flush=True)
        _say(f"pictures with boxes: {pictures}/")
        if once:
            return
        _say(f"health and metrics: {show.worker.web_url}/readyz, {show.worker.web_url}/metrics")
        _say("a clip comes in every 10 s; Ctrl-C ends it")
        number = 0
        while True:
            show.upload(chosen[number % len(chosen)])
            number += 1
            seen_now = show.next_result(10.0)
            if seen_now is not None:
                print(seen_now.body.decode() if as_json else _text(seen_now), flush=True)
                time.sleep(10.0)


def _say(sentence: str) -> None:
    print(f"demo: {sentence}", file=sys.stderr, flush=True)


def _text(seen: Seen) -> str:
    data = seen.document["data"]
    run = data["run"]
    head = (
        f"{seen.clip.camera}: at most {run['count']} in one frame; "
        f"{run['looked_at']} frames looked at by {run['model']['name']} ({run['device']})"
    )
    rows = [
        f"  {time_s:6.1f} s  "
        + ", ".join(f"{label} {p:.0%}" for label, p in zip(labels, probabilities, strict=True))
        for time_s, labels, probabilities in zip(
            run["timestamps_s"], data["labels"], data["probabilities"], strict=True
        )
    ]
    return "\n".join([head, *(rows or ["  nothing above the threshold"])])
