from __future__ import annotations

import subprocess
import sys
import time
import timeit

import pytest

from vault_ml.errors import ConfigError
from vault_ml.failpoints import NAMES, Failpoints


def test_nothing_happens_when_nothing_is_armed() -> None:
    points = Failpoints()
    points.arm("")
    for name in NAMES:
        points.reach(name)


def test_process_ends_at_the_nth_reach_and_not_before() -> None:
    program = (
        "from vault_ml.failpoints import arm, reach\n"
        "arm('publish.before=kill@3, settle.after=kill@1')\n"
        "for n in range(1, 9):\n"
        "    print(n, flush=True)\n"
        "    reach('publish.before')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -9
    assert done.stdout.split() == ["1", "2", "3"]
    assert done.stderr == "failpoint publish.before@3\n"


def test_thread_sleeps_once_at_its_reach(capfd: pytest.CaptureFixture[str]) -> None:
    points = Failpoints()
    points.arm("retry.after=sleep:0.2@2")
    spent = []
    for _ in range(3):
        started = time.monotonic()
        points.reach("retry.after")
        points.reach("retry.before")  # another place does not count
        spent.append(time.monotonic() - started)
    assert spent[1] >= 0.2
    assert max(spent[0], spent[2]) < 0.2
    assert capfd.readouterr().err == "failpoint retry.after@2\n"


def test_a_place_may_be_armed_more_than_once(capfd: pytest.CaptureFixture[str]) -> None:
    points = Failpoints()
    points.arm("settled=sleep:0@1,settled=sleep:0@3")
    for _ in range(4):
        points.reach("settled")
    assert capfd.readouterr().err == "failpoint settled@1\nfailpoint settled@3\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nowhere=kill@1", id="unknown place"),
        pytest.param("settled=explode@1", id="unknown action"),
        pytest.param("settled=kill", id="no count"),
        pytest.param("settled=kill@0", id="count from 1"),
        pytest.param("settled=kill:2@1", id="kill takes no time"),
        pytest.param("settled=sleep@1", id="sleep takes a time"),
        pytest.param("settled=sleep:-1@1", id="negative time"),
        pytest.param("settled", id="no action"),
    ],
)
def test_what_is_not_understood_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="VAULT_ML_FAILPOINTS") as refusal:
        Failpoints().arm(text)
    assert "unset it" in str(refusal.value)


def test_an_inert_place_costs_next_to_nothing() -> None:
    """Twenty places per recording; even on a slow machine that is far below a millisecond."""
    points = Failpoints()
    assert timeit.timeit(lambda: points.reach("settled"), number=10_000) < 1.0
