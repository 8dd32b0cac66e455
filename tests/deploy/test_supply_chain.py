"""What is shipped besides our own code: under which licences, and how it is made."""

from __future__ import annotations

import hashlib
import http.server
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import yaml

from development_tool import tool

ROOT = Path(__file__).resolve().parents[2]
# Copyleft that reaches whoever uses a program over a network, or links to it. LGPL and MPL do not.
_REFUSED = re.compile(r"AGPL|Affero|(?<!L)GPL(?!-compatible)|(?<!Lesser )General Public|SSPL|BUSL")
# Inside PyAV's wheel; see docs/adr/0018-what-pyav-brings.md.
_KNOWN_GPL = {"libx264", "libx265"}


def locked(file: str) -> list[str]:
    text = (ROOT / "requirements" / file).read_text()
    return sorted(set(re.findall(r"^([a-z0-9][\w.-]*)==", text, re.MULTILINE)))


def licence(name: str) -> str | None:
    """What the package `name` says; None where it is not installed (another platform's)."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    classifiers = [
        each for each in metadata.get_all("Classifier") or [] if each.startswith("License ::")
    ]
    # Some put the whole text there; its first line names it.
    texts = metadata.get_all("License-Expression") or metadata.get_all("License") or []
    return " | ".join([*classifiers, *(each.strip().split("\n")[0] for each in texts)])


def test_no_package_that_is_shipped_has_a_licence_that_reaches_its_users() -> None:
    said = {name: licence(name) for name in locked("run.txt")}
    here = {name: text for name, text in said.items() if text is not None}
    assert len(here) > 40
    assert [name for name, text in here.items() if not text] == [], "no licence is named"
    assert {name: text for name, text in here.items() if _REFUSED.search(text)} == {}


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("AGPL-3.0-only", True),
        ("GPL-2.0-or-later", True),
        ("License :: OSI Approved :: GNU Affero General Public License v3", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("LGPL-3.0-or-later", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MPL-2.0", False),
        ("MIT OR Apache-2.0", False),
    ],
)
def test_the_gate_tells_licences_apart(text: str, is_refused: bool) -> None:
    assert bool(_REFUSED.search(text.replace("(LGPLv3)", ""))) is is_refused


def test_what_pyav_brings_is_what_the_decision_names() -> None:
    """A new library under the GPL, or a build of FFmpeg that is, must be decided on again."""
    folder = Path(av.__file__).parents[1] / "av.libs"
    if not folder.is_dir():
        pytest.skip("PyAV was not installed from a wheel")
    brought = {re.split(r"[-.]", each.name)[0] for each in folder.iterdir()}
    under_gpl = {"libx264", "libx265", "libxvidcore", "libpostproc", "librubberband", "libvidstab",
                 "libfdk", "libcdio", "libdavs2", "libxavs2"}  # fmt: skip
    assert brought & under_gpl == _KNOWN_GPL
    assert int(av.ffmpeg_version_info.lstrip("n").split(".")[0]) >= 7


def test_the_wheel_can_be_made_again_bit_by_bit(tmp_path: Path) -> None:
    digests = []
    for number, umask in enumerate((0o022, 0o077)):
        source = tmp_path / f"source{number}"
        shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for path in source.rglob("*.py"):
            os.utime(path, (number * 1e6, number * 1e6))
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "dist", "."],
            cwd=source, check=True, capture_output=True, umask=umask,
        )  # fmt: skip
        (wheel,) = (source / "dist").iterdir()
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


# --- known vulnerabilities -----------------------------------------------------------------------


class Osv(http.server.BaseHTTPRequestHandler):
    """Answers as https://google.github.io/osv.dev/post-v1-query/ says, in two pages."""

    pages: list[dict[str, Any]]
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(question)
        body = json.dumps(self.pages[len(self.asked) - 1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def osv() -> Iterator[tuple[str, type[Osv]]]:
    handler = type("Handler", (Osv,), {"pages": [], "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()
    thread.join(10)


def look(address: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts/bundled_vulnerabilities.py"
    return subprocess.run(
        [sys.executable, str(script), "--osv", address], capture_output=True, text=True
    )


def test_the_ffmpeg_inside_the_wheel_is_asked_about(osv: tuple[str, type[Osv]]) -> None:
    address, server = osv
    server.pages = [
        {"vulns": [{"id": "OSV-1", "aliases": ["CVE-1"]}], "next_page_token": "more"},
        {"vulns": [{"id": "OSV-2"}]},
    ]
    ended = look(address)
    assert ended.returncode == 1
    assert "OSV-1 CVE-1" in ended.stdout
    assert "OSV-2" in ended.stdout
    first, second = server.asked
    assert first["version"] == f"n{av.ffmpeg_version_info}"
    assert second["page_token"] == "more"

    server.asked.clear()
    server.pages = [{}]
    ended = look(address)
    assert (ended.returncode, "OSV knows of nothing" in ended.stdout) == (0, True)


def test_a_database_that_does_not_answer_is_no_clean_bill() -> None:
    ended = look("http://127.0.0.1:9")
    assert ended.returncode == 3
    assert "gave no answer" in ended.stderr


# --- the workflows -------------------------------------------------------------------------------


def test_the_workflows_are_as_safe_as_a_linter_can_tell() -> None:
    ended = subprocess.run(
        [tool("zizmor"), "--offline", "--no-progress", str(ROOT / ".github")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout


def test_the_workflows_call_what_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in (ROOT / ".github/workflows").glob("*.yaml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            assert job["timeout-minutes"] <= 90
            for step in job["steps"]:
                called = step.get("run", "")
                assert set(re.findall(r"^make ([a-z-]+)", called, re.MULTILINE)) <= targets
                for script in re.findall(r"scripts/[\w./]+", called):
                    assert (ROOT / script).exists(), script
