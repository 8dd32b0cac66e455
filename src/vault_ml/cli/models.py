"""`vault-ml models`: known models, and how to get them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vault_ml.cli.progress import download_progress

app = typer.Typer(help="List known models, fetch them, explain a file.", no_args_is_help=True)

_ModelDir = Annotated[
    Path | None, typer.Option(envvar="MODEL_DIR", help="Folder of the models.", metavar="DIR")
]


@app.command("list")
def list_models(
    model_dir: _ModelDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per model.")] = False,
) -> None:
    """List the known models: size, licence, whether they are here."""
    from vault_ml.errors import ModelError
    from vault_ml.models.catalogue import KNOWN_MODELS
    from vault_ml.models.folders import default_model_dir
    from vault_ml.models.prepare import resolve

    folder = model_dir or default_model_dir()
    for known in KNOWN_MODELS.values():
        try:
            where = str(resolve(known.name, folder).weights)
        except ModelError:
            where = None
        if as_json:
            row = {
                "name": known.name,
                "summary": known.summary,
                "licence": known.licence,
                "bytes": known.size_bytes,
                "installed": where,
                "files": [
                    {"name": f.file_name, "urls": f.urls, "bytes": f.size_bytes, "sha256": f.sha256}
                    for f in known.files
                ],
            }
            print(json.dumps(row))
        else:
            print(f"{known.name:<12} {known.size_bytes / 1e6:6.0f} MB  {known.summary}")
            here = where or f"not here: vault-ml models pull {known.name}"
            print(f"{'':<22} {known.licence}; {here}")
    if not as_json:
        print(f"model folder: {folder}", file=sys.stderr)


@app.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="A name that `vault-ml models list` shows.")],
    model_dir: _ModelDir = None,
) -> None:
    """Fetch a known model into the model folder and check it.

    A transfer that was broken off goes on where it stopped.
    """
    from vault_ml.models.folders import default_model_dir
    from vault_ml.models.pull import pull

    folder = model_dir or default_model_dir()
    with download_progress(name) as progress:
        files = pull(
            name,
            folder,
            progress=progress,
            note=lambda sentence: print(sentence, file=sys.stderr),
        )
    print(files.weights)


@app.command("explain")
def explain_model(
    model: Annotated[
        str, typer.Argument(help="What MODEL would be: a name, or a .cfg, .weights or .onnx file.")
    ],
    model_dir: _ModelDir = None,
    model_labels: Annotated[
        Path | None,
        typer.Option(envvar="MODEL_LABELS", metavar="FILE", help="Class names, one a line."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say how a model would be used: its family, input, classes, and what was assumed.

    Nothing is run and nothing is kept. A model that cannot be used is refused with what was seen.
    """
    import tempfile

    from vault_ml.models.folders import default_model_dir
    from vault_ml.models.prepare import prepare, resolve

    files = resolve(model, model_dir or default_model_dir(), model_labels)
    with tempfile.TemporaryDirectory() as cache:
        found = prepare(files, Path(cache))
    width, height = found.net_wh
    notes = [*files.notes, *found.notes, *found.corrections]
    if as_json:
        row = {
            "name": found.name,
            "family": found.family,
            "input_wh": [width, height],
            "labels": list(found.labels),
            "placing": asdict(found.placing),
            "sha256": found.sha256,
            "notes": notes,
        }
        print(json.dumps(row))
        return
    print(f"{found.name}: {found.family}, {width}x{height}, {len(found.labels)} classes")
    for note in notes:
        print(f"  {note}")
    print(f"  classes: {', '.join(found.labels)}")
