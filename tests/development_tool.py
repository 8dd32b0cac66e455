"""Programs that tests run and that PyPI has for most machines."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """Where the program `name` is: beside this Python, or on the path. Skips where it is not."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here, and PyPI has none for this machine")
    return found
