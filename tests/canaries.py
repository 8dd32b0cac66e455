"""Secrets that tests plant, looked for in everything that the suite prints.

A test that gives the product a secret has the word `canary` in it. Whatever a test, a library or a
child prints while it runs, and the logs that workers under test leave, must not contain that word:
each test that passes is looked through (`conftest.py`), so a leak fails the test it happens in.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

# The words that tests plant, and the keys of the Vault that every stand has.
_PLANTED = re.compile(r"canary|(?:access|secret)!@#\$%\d{5}", re.IGNORECASE)
_AROUND = 60


def leaks(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Where a planted secret stands, for (name, text) pairs; a little of what is before it."""
    return [
        f"{name}: ...{text[max(0, found.start() - _AROUND) : found.start()]!r}"
        for name, text in texts
        if (found := _PLANTED.search(text))
    ]


def _outputs(item: pytest.Item, report: pytest.TestReport) -> Iterable[tuple[str, str]]:
    # What pytest itself hears of log records has not passed the product's gate, which has tests of
    # its own; what the product makes of them is in its output.
    yield from (section for section in report.sections if "Captured log" not in section[0])
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if isinstance(folder, Path):
        for log in folder.rglob("*.log"):
            if log.is_file():
                yield log.name, log.read_text(errors="replace")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose output holds a secret that was planted."""
    report = yield
    if call.when == "teardown" and report.passed and (found := leaks(_outputs(item, report))):
        report.outcome = "failed"
        report.longrepr = "a planted secret was printed\n" + "\n".join(found)
    return report
