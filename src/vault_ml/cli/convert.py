"""`vault-ml convert`: darknet files to ONNX."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer


def convert(
    cfg: Annotated[Path, typer.Argument(help="The network, a darknet .cfg file.")],
    weights: Annotated[Path, typer.Argument(help="Its weights, a darknet .weights file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; default: beside the weights, .onnx."),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="The class names, one per line; default: COCO's.")
    ] = None,
    corrections: Annotated[
        bool, typer.Option(help="Mend known mistakes in published files (named when done).")
    ] = True,
) -> None:
    """Convert a darknet model to ONNX and print its layers.

    The file holds what is needed to run it: MODEL=that.onnx works, and so does any ONNX tool. Its
    outputs are the raw maps of the heads; the anchors stand in its metadata.
    """
    import tempfile

    from vault_ml.models.prepare import ModelFiles, prepare

    target = output or weights.with_suffix(".onnx")
    with tempfile.TemporaryDirectory() as cache:
        files = ModelFiles(name=cfg.stem, cfg=cfg, weights=weights, onnx=None, names=names)
        model = prepare(files, Path(cache), corrections=corrections)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.onnx, target)
    print(model.layer_table)
    for sentence in model.corrections:
        print(f"corrected: {sentence}", file=sys.stderr)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
