"""The suite notices a planted secret wherever it is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from canaries import leaks

TESTS = Path(__file__).parents[1]

INNER = """
import subprocess, sys

def test_says_nothing():
    print("all is well")

def test_prints():
    print("key=CAN" + "ARY-1")

def test_complains():
    print("can" + "ary-2", file=sys.stderr)

def test_child_crashes():
    code = "raise SystemExit('can' + 'ary-3')"
    subprocess.run([sys.executable, "-c", code], check=False)

def test_worker_logs(tmp_path):
    (tmp_path / "worker.log").write_text("sec" + "ret!@#$%67890")
"""


def test_every_way_out_of_a_test_is_watched(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from canaries import pytest_runtest_makereport\n")
    (tmp_path / "test_inner.py").write_text(INNER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider",
         "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)],
        env={"PYTHONPATH": str(TESTS), "PATH": ""}, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "5 passed, 4 errors" in done.stdout
    assert done.stdout.count("a planted secret was printed") >= 4


@pytest.mark.parametrize("text", ["", "all is well", "can ary", "access!@#$%"])
def test_what_holds_no_secret_is_no_leak(text: str) -> None:
    assert leaks([("output", text)]) == []


def test_a_leak_is_told_without_the_secret() -> None:
    planted = "CAN" + "ARY-7"
    assert leaks([("stderr", f"before {planted} after")]) == ["stderr: ...'before '"]
