"""Which program was proved: a digest of what the promise rests on, and the commit.

A campaign takes hours, and what was done is not done again with the same program. Same means: no
module has changed that a recording's way from queue to settlement goes through. What is beside that
way, or belongs to another broker, does not count; PROOF.md names the commit of every run besides.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
_BROKERS = {"kafka": "kafka", "kafka-mock": "kafka", "sqs": "sqs", "rabbitmq": "rabbitmq"}
# Everything else counts. Commands beside `run`, demonstration (the Vault of the proof among it),
# what is seen in a picture, how it is said.
_BESIDE = (
    "annotate.py", "local.py", "web.py", "schemas.py", "cli/", "demo/", "inference/", "models/",
    "settings/", "telemetry/", "video/", "yolo/",
)  # fmt: skip


def digest(system: str) -> str:
    """Of the program as far as it is proved on this broker."""
    found = hashlib.sha256()
    for path in _modules(_BROKERS[system]):
        found.update(str(path.relative_to(SRC)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _modules(broker: str) -> Iterator[Path]:
    package = SRC / "vault_ml"
    others = tuple(f"brokers/{name}/" for name in set(_BROKERS.values()) - {broker})
    for path in sorted(package.rglob("*.py")):
        if not path.relative_to(package).as_posix().startswith((*_BESIDE, *others)):
            yield path


def commit() -> str:
    """The commit that lies here, `-` where there is none; with a plus sign when changed since."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "-"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
