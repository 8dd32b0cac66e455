"""`vault-ml quantize`: an INT8 version of a model, with a manifest that says what it is worth."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from vault_ml.cli.progress import progress

# Which figures must be had again; how many boxes there are may turn on a rounding.
_COMPARED = ("pictures", "marked_pictures", "f1", "mean_score_change", "ap50_fp32", "ap50_int8")
_TOLERANCE = 1e-3


def quantize(
    model: Annotated[str, typer.Argument(help="A known name, or a .cfg, .weights or .onnx file.")],
    calibrate: Annotated[
        Path,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False,
            help="Photos and clips, best of your own cameras; 300 pictures are good.",
        ),
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False,
            help="Other pictures, to measure with; without it a third of --calibrate.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Keep it below the gate as well.")] = False,
    verify: Annotated[
        bool, typer.Option(help="Measure an INT8 version again and compare with its manifest.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
    model_dir: Annotated[
        Path | None,
        typer.Option(envvar="MODEL_DIR", metavar="DIR", help="Folder of the models."),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(envvar="CACHE_DIR", metavar="DIR", help="Folder for converted models."),
    ] = None,
) -> None:  # fmt: skip
    """Make an INT8 version of a model, for PRECISION=int8.

    It is measured against FP32 on pictures that it was not calibrated with, and refused where it
    agrees too little (F1 below 0.93) or loses too much (more than 0.02 of AP50, where label files
    lie beside the photos). The figures stand in its manifest.
    """
    from vault_ml import calibration, quantization
    from vault_ml.models.folders import default_cache_dir, default_model_dir
    from vault_ml.models.prepare import prepare, resolve
    from vault_ml.models.quantized import find_quantized, quantized_folder

    models = model_dir or default_model_dir()
    ready = prepare(resolve(model, models), cache_dir or default_cache_dir())
    files = calibration.files_in(calibrate)
    others = files[::3] if held_out is None else calibration.files_in(held_out)
    if held_out is None:
        files = [path for index, path in enumerate(files) if index % 3]
    wanted = others if verify else files + others
    with progress("reading", len(wanted)) as advance:
        compared = calibration.load(others, ready, advance)
        examples = [] if verify else calibration.load(files, ready, advance)
    if verify:
        found = find_quantized(ready, models)
        now = quantization.compare(ready, found.network, compared)
        _compare_figures(found.figures, now.to_json(), as_json=as_json)
        return
    if len(examples) < quantization.FEW_PICTURES:
        _say(f"{len(examples)} pictures are few to calibrate with; 300 are good")
    target = quantized_folder(ready, models)
    manifest = quantization.quantize(
        ready, target, examples, compared, force=force, tell=_say
    )  # fmt: skip
    print(json.dumps(manifest) if as_json else f"{manifest['verdict']}: {target}")


def _compare_figures(
    told: Mapping[str, float | None], now: Mapping[str, float | None], *, as_json: bool
) -> None:
    """Print both.

    Raises:
        ModelError: they differ.
    """
    from vault_ml.errors import ModelError

    if as_json:
        print(json.dumps({"manifest": dict(told), "measured": dict(now)}))
    else:
        print(f"{'':<20}{'manifest':>12}{'measured':>12}")
        for name, value in now.items():
            print(f"{name:<20}{_figure(told.get(name)):>12}{_figure(value):>12}")
    others = [name for name in _COMPARED if not _is_near(told.get(name), now[name])]
    if others:
        raise ModelError(
            f"{', '.join(others)}: the manifest's figures are not those of these pictures here"
        )


def _is_near(told: float | None, now: float | None) -> bool:
    return told is now is None or (
        told is not None and now is not None and abs(told - now) <= _TOLERANCE
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
