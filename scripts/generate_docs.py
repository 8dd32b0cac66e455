#!/usr/bin/env python3
"""Write the generated documents, or check that they are what the code would write.

usage: python scripts/generate_docs.py [--check]

Generated are docs/reference/{settings,commands,errors,metrics,models}.md, the JSON Schemas beside
them, docker/variables.txt, and what stands between the markers in README.md. Everything comes from
the code, so a page can only be wrong together with the program.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer.main

from vault_ml import errors, schemas, settings
from vault_ml.cli import app
from vault_ml.models.catalogue import KNOWN_MODELS, KnownModel
from vault_ml.settings import fields
from vault_ml.telemetry.metrics import Metrics
from vault_ml.yolo.corrections import CORRECTIONS
from vault_ml.yolo.recognise import ULTRALYTICS_PLACING, YOLOX_PLACING
from vault_ml.yolo.rows import FAMILIES, RowsHead

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path("docs/reference")
NOTE = "<!-- Written by scripts/generate_docs.py; change the code, then run `make docs`. -->\n\n"
BEGIN = "<!-- settings: generated, see scripts/generate_docs.py -->"
END = "<!-- end of settings -->"
WIDTH = 88  # characters of a help text: narrow enough for a page, and the same on every terminal


# --- README and settings -------------------------------------------------------------------------


def readme() -> str:
    """README.md with its table written anew."""
    text = (ROOT / "README.md").read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"README.md: the markers {BEGIN} and {END} are not there")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{settings.markdown_table()}\n{END}{after}"


def settings_page() -> str:
    """Every variable: default, meaning, accepted values, other names."""
    rows = [f"| `{fields.variable(f)}` | {cell} |" for f in _fields() if (cell := _accepted(f))]
    aliases = [
        f"| `{alias}` | `{fields.variable(field)}` |"
        for field, others in fields.ALIASES.items()
        for alias in others
    ]
    later = [
        f"| `{fields.variable(field)}` | `{value}` | {instead} |"
        for field, values in fields.NOT_YET.items()
        for value, instead in values.items()
    ]
    return (
        _text(
            "# Settings\n",
            "Settings are environment variables. An empty variable is as good as an unset one. "
            "Secrets and user names may be files instead: `KAFKA_PASSWORD_FILE=/run/secrets/kafka` "
            "reads KAFKA_PASSWORD from there; the same for every variable of this kind below. "
            "At start all problems are told at once, a line "
            "each, and the command ends with 2. `vault-ml config` prints what is in force, with "
            "secrets masked.\n",
            settings.markdown_table(),
            "## Accepted values\n",
            "Choices may be written in any case. `true`, `yes`, `on` and `1` are true; `false`, "
            "`no`, `off` and `0` are false. Sizes take a unit: `500MB`, `1GiB`.\n",
            _table("Name | Accepted", rows),
            "## Other names\n",
            "Names that related programs use are read too. When both are set, the name on the "
            "right wins and the log says so.\n",
            _table("Also read | Same as", aliases),
            _text(
                "## Not in this version yet\n",
                "These values are known and refused with a sentence; taking them silently would "
                "be a lie.\n",
                _table("Name | Value | Instead", later),
            )
            if later
            else "",
        ).rstrip()
        + "\n"
    )


def _fields() -> Iterator[str]:
    return iter(fields.Settings.model_fields)


def _accepted(field: str) -> str:
    """Choices and bounds of a field; '' where there is nothing to say."""
    info = fields.Settings.model_fields[field]
    choices = [f"`{choice}`" for choice in _choices(info.annotation)]
    if choices:
        return ", ".join(choices)
    constraints = [*info.metadata, *_nested_metadata(info.annotation)]
    names = (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most"))
    bounds = [
        f"{words} {getattr(constraint, name)}"
        for name, words in names
        for constraint in _flat(constraints)
        if getattr(constraint, name, None) is not None
    ]
    kind = _kind(info.annotation)
    return ", ".join([*([kind] if kind else []), *bounds])


def _kind(annotation: Any) -> str:
    types_in = set(_leaves(annotation))
    for kind, words in ((bool, "true or false"), (int, "a whole number"), (float, "a number")):
        if kind in types_in:
            return words
    return "a number of bytes" if any("ByteSize" in str(t) for t in types_in) else ""


def _leaves(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _leaves(part)
    elif hasattr(annotation, "__metadata__"):
        yield from _leaves(annotation.__origin__)
    else:
        yield annotation


def _choices(annotation: Any) -> list[str]:
    return [
        str(choice)
        for leaf in _leaves(annotation)
        if get_origin(leaf) is Literal
        for choice in get_args(leaf)
    ]


def _nested_metadata(annotation: Any) -> list[Any]:
    """Constraints inside `Annotated[...] | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [item for part in get_args(annotation) for item in _nested_metadata(part)]
    return list(getattr(annotation, "__metadata__", ()))


def _flat(constraints: list[Any]) -> Iterator[Any]:
    for constraint in constraints:
        yield constraint
        yield from getattr(constraint, "metadata", ())  # pydantic's FieldInfo holds its own


# --- commands ------------------------------------------------------------------------------------


def commands_page() -> str:
    """The help of every command."""
    about = (
        "What `vault-ml COMMAND --help` prints. Data goes to standard output, everything else to "
        "standard error. Exit codes: 0 fine, 1 something failed, 2 the configuration must be "
        "changed, 3 a dependency cannot be reached, 130 interrupted.\n"
    )
    parts = ["# Commands\n", about]
    for words, command in _commands(typer.main.get_command(app), ("vault-ml",)):
        # Click asks the terminal for its width otherwise.
        parent: click.Context | None = None
        for word in words[:-1]:
            parent = click.Context(click.Group(word), info_name=word, parent=parent)
        context = click.Context(
            command, info_name=words[-1], parent=parent, terminal_width=WIDTH,
            max_content_width=WIDTH,
        )  # fmt: skip
        help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts += [f"## {' '.join(words)}\n", f"```text\n{help_text}\n```\n"]
    return "\n".join(parts)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*words, name))


# --- errors --------------------------------------------------------------------------------------


def errors_page() -> str:
    """The tree of errors, what each says by default, what the worker does about it."""
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    doing = {
        match[1]: match[2].removeprefix("us: ")
        for line in drawing.splitlines()
        if (match := re.search(r"(\w+) {2,}(.+)$", line))
    }
    rows = []
    for cls in _error_classes(errors.VaultMLError):
        family = next((c.__name__ for c in cls.__mro__ if c.__name__ in doing), "")
        sentence = (inspect.getdoc(cls) or "").split("\n", 1)[0]
        rows.append(f"| `{cls.__name__}` | {sentence} | {doing.get(family, '')} |")
    return _text(
        "# Errors\n",
        "The class stands in log lines, in the dead letter's header `vault-ml-error-class`, "
        "and in `vault-ml detect --json`. The sentence in the log is more exact than the one "
        "here: it names the setting, the recording or the address.\n",
        f"```text\n{drawing}\n```\n",
        _table("Class | In a sentence | What the worker does", rows),
        "Everything else is a bug of ours: the log has the traceback, the event is tried once "
        "more and then becomes a dead letter, and the worker goes on.\n",
        "Exit codes of the commands: a `ConfigError` gives 2, an `UnavailableError` 3, any "
        "other 1.\n",
    )


def _error_classes(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    yield cls
    for inner in cls.__subclasses__():
        if inner.__module__ == errors.__name__:
            yield from _error_classes(inner)


# --- metrics -------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Every metric of ours."""
    metrics = Metrics()
    metrics.runs(version="", model="", runtime="", device="", precision="")
    rows = []
    for family in metrics.registry.collect():
        if not family.name.startswith("vault_ml_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels: dict[str, list[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le" and value not in labels.setdefault(label, []):
                    labels[label].append(value)
        shown = "; ".join(
            f"`{label}`: {', '.join(f'`{v}`' for v in values if v)}".rstrip(": ")
            for label, values in labels.items()
        )
        text = family.documentation.replace("|", "\\|")
        rows.append(f"| `{name}` | {family.type} | {text} | {shown} |")
    return _text(
        "# Metrics\n",
        "Served in Prometheus' text format at `/metrics` of `WEB_ADDRESS`. Labels are closed "
        "sets, so the number of series stays what it is. A histogram has `_bucket`, `_sum` and "
        "`_count`.\n",
        _table("Name | Kind | Meaning | Labels", rows),
        "Beside these: `process_*`, `python_info` and `python_gc_*` of the Prometheus client "
        "library. They tell of the worker process itself; decoders and the detector are "
        "processes of their own.\n",
    )


# --- models --------------------------------------------------------------------------------------


def models_page() -> str:
    """The known models: files, addresses, sums, licences, corrections."""
    return _text(
        "# Known models\n",
        "`MODEL=` and `vault-ml models pull` take these names. No file of theirs is part of this "
        "project. `pull` looks for the Python package where one is named, then tries the "
        "addresses, then fetches that package from the index; a file whose sum differs is never "
        "used. How to use a model of your own: "
        "[models](../howto/models.md).\n",
        *(part for model in KNOWN_MODELS.values() for part in _model(model)),
        "## ONNX models of other projects\n",
        "`MODEL=` also takes an `.onnx` file of these families, recognised by its shapes and "
        "metadata; `vault-ml models explain FILE` says as which. Each has one input of float32 or "
        "float16, (n, 3, height, width), and one output. A fixed n of 1 is kept to. Where a family "
        "wants other colours or numbers than RGB from 0 to 1, nodes that convert are put in front "
        "of its graph, in a copy in CACHE_DIR.\n",
        _table(
            "Family | Models | Output | Pictures | Overlaps",
            [
                f"| `{kind.family}` | {kind.title} | `{_output_shape(kind)}` | "
                f"{_pictures(kind)} | "
                f"{'resolved by the network' if kind.is_suppressed else 'NMS_THRESHOLD'} |"
                for kind in FAMILIES.values()
            ],
        ),
        "*points* are the cells of the grids of stride 8, 16 and 32 (8,400 for 640x640), three "
        "times as many for `yolov5`; other grids are known for `yolov8` and `yolov5`. A YOLOX "
        "model that was exported with decoded boxes is read as `yolov5`, with YOLOX's pictures. "
        "As with darknet, one box may be told once for each class above the threshold; end to end "
        "the network decides.\n",
        "## Corrections\n",
        "Known mistakes in published files are mended when they are loaded. The log names each "
        "(`model_corrected`), `MODEL_CORRECTIONS=false` switches them off, and results with and "
        "without them differ in their run id. Why: [accuracy](../explanation/accuracy.md).\n",
        *(f"- {_first_code(correction.sentence)}." for correction in CORRECTIONS),
        "",
    )


def _output_shape(kind: type[RowsHead]) -> str:
    """The shape at the beginning of the class's docstring."""
    return (kind.__doc__ or "").partition(":")[0]


def _pictures(kind: type[RowsHead]) -> str:
    is_yolox = kind is FAMILIES["yolox"]
    placing = YOLOX_PLACING if is_yolox else ULTRALYTICS_PLACING
    colours = "BGR, 0 to 255" if is_yolox else "RGB, 0 to 1"
    place = "in the middle" if placing.is_centred else "top left"
    return f"{colours}; {place}, bars of {placing.fill}"


def _model(model: KnownModel) -> list[str]:
    rows = [
        f"| `{file.file_name}` | {file.size_bytes:,} | `{file.sha256}` | {file.sum_source} |"
        for file in model.files
    ]
    parts = [
        f"## {model.name}\n",
        f"{model.summary}. Licence: {model.licence}.\n",
        _table("File | Bytes | sha256 | The sum is from", rows),
        "Fetched from, tried in order:\n",
        *(f"- <{url}>" for file in model.files for url in file.urls),
        "",
    ]
    if model.package is not None:
        package = model.package
        parts.append(
            f"Also in the Python package `{package.distribution}=={package.version}` (archive "
            f"sha256 `{package.archive_sha256}`), in `{package.folder}/`. Its files are found, "
            "never imported.\n"
        )
        if differing := [f for f in model.files if package.sha256[f.file_name] != f.sha256]:
            parts.append(
                "There "
                + ", ".join(
                    f"`{f.file_name}` has sha256 `{package.sha256[f.file_name]}`" for f in differing
                )
                + ": the same text without the line break at its end.\n"
            )
    return parts


def _first_code(sentence: str) -> str:
    name, _, rest = sentence.partition(": ")
    return f"**`{name}`**: {rest}"


# --- all of them ---------------------------------------------------------------------------------


def _text(*parts: str) -> str:
    return "\n".join(parts)


def _table(head: str, rows: list[str]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", f"|{' --- |' * columns}", *rows]) + "\n"


def _page(text: Callable[[], str]) -> Callable[[], str]:
    return lambda: NOTE + text()


def _schema(schema: Callable[[], dict[str, Any]]) -> Callable[[], str]:
    return lambda: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


# The images set these themselves.
_OF_THE_IMAGE = {"CACHE_DIR", "MODEL_DIR", "WEB_ADDRESS"}
# Read by AWS' own library.
_AWS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
}


def variables_of_an_image() -> str:
    """The variables that run-cpu.sh and run-gpu.sh hand on, one a line."""
    ours = {name for field in _fields() for name in fields.names(field)}
    return "\n".join(sorted((ours - _OF_THE_IMAGE) | _AWS)) + "\n"


DOCUMENTS: dict[Path, Callable[[], str]] = {
    Path("README.md"): readme,
    Path("docker/variables.txt"): variables_of_an_image,
    REFERENCE / "settings.md": _page(settings_page),
    REFERENCE / "commands.md": _page(commands_page),
    REFERENCE / "errors.md": _page(errors_page),
    REFERENCE / "metrics.md": _page(metrics_page),
    REFERENCE / "models.md": _page(models_page),
    REFERENCE / "event.schema.json": _schema(schemas.event_schema),
    REFERENCE / "result.schema.json": _schema(schemas.result_schema),
    REFERENCE / "hub-result.schema.json": _schema(schemas.hub_result_schema),
}


def main(words: list[str]) -> int:
    """Write, or with `--check` compare; the exit code."""
    if words not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = 0
    for relative, document in DOCUMENTS.items():
        path = ROOT / relative
        wanted = document()
        there = path.read_text() if path.exists() else ""
        if there == wanted:
            continue
        if words:
            stale += 1
            sys.stdout.writelines(
                difflib.unified_diff(
                    there.splitlines(keepends=True), wanted.splitlines(keepends=True),
                    str(relative), f"{relative} (as the code says)", n=1,
                )
            )  # fmt: skip
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted)
            print(f"wrote {relative}")
    if stale:
        print(f"generate_docs: {stale} generated documents are stale; run: make docs",
              file=sys.stderr)  # fmt: skip
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
