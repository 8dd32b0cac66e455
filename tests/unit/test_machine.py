"""What `doctor` finds on machines that are written into a folder."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from vault_ml import machine
from vault_ml.control_groups import memory_limit
from vault_ml.machine import Level

GIB = 1024**3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 8 GiB, and us in the control group /pod/worker."""
    for name, text in {
        "proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "0::/pod/worker\n",
    }.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.mark.usefixtures("quiet")
def test_processors_are_counted_by_the_quota(root: Path) -> None:
    write(root, "sys/fs/cgroup/pod/cpu.max", "100000 100000\n")
    found = machine.processors(root)
    assert found.level is Level.OK
    assert found.sentence == f"1 of {os.cpu_count()} processors may be used"


@pytest.mark.usefixtures("quiet")
def test_a_quota_that_stops_the_work_is_doubtful(root: Path) -> None:
    write(root, "sys/fs/cgroup/pod/worker/cpu.stat", "nr_periods 100\nnr_throttled 11\n")
    found = machine.processors(root)
    assert found.level is Level.DOUBTFUL
    assert "the quota of /pod/worker stopped work in 11%" in found.sentence
    assert "Raise the CPU limit" in found.advice
    write(root, "sys/fs/cgroup/pod/worker/cpu.stat", "nr_periods 100\nnr_throttled 10\n")
    assert machine.processors(root).level is Level.OK


def test_a_crowded_machine_is_doubtful(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = os.cpu_count() or 1
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 2.0 * there + 1, 0.0))
    assert "programs want them" in machine.processors(root).sentence


@pytest.mark.parametrize(
    ("files", "limit", "whose"),
    [
        ({}, 8 * GIB, "the machine's"),
        ({"sys/fs/cgroup/pod/worker/memory.max": "max"}, 8 * GIB, "the machine's"),
        ({"sys/fs/cgroup/pod/memory.max": str(GIB)}, GIB, "the control group's limit"),
        (
            {
                "sys/fs/cgroup/pod/memory.max": str(2 * GIB),
                "sys/fs/cgroup/pod/worker/memory.max": str(GIB),
            },
            GIB,
            "the control group's limit",
        ),
        # In a container the path is the host's, and only the root is mounted.
        ({"sys/fs/cgroup/memory.max": str(GIB)}, GIB, "the control group's limit"),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n4:memory:/pod\n",
                "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": str(GIB),
            },
            GIB,
            "the control group's limit",
        ),
    ],
)
def test_memory_is_the_tightest_limit(
    root: Path, files: dict[str, str], limit: int, whose: str
) -> None:
    for name, text in files.items():
        write(root, name, text)
    assert memory_limit(root) == (limit, whose)


def test_memory_that_is_not_enough_says_how_much_is(root: Path) -> None:
    sizes = {"in_flight": 3, "decoders": 2, "network_bytes": 500 * 1024**2, "typical_bytes": 2**24}
    assert machine.memory(**sizes, root=root).level is Level.OK
    write(root, "sys/fs/cgroup/memory.max", str(GIB))
    found = machine.memory(**sizes, root=root)
    assert found.level is Level.WRONG
    assert found.sentence.startswith("1.0 GiB (the control group's limit); 3 recordings")
    assert "Raise the memory limit to 1.6 GiB" in found.advice


def test_a_cache_that_cannot_be_written_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.cache(tmp_path / "not" / "yet").level is Level.OK
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    full = machine.cache(tmp_path)
    assert (full.level, full.sentence) == (Level.DOUBTFUL, f"5 MiB free at {tmp_path}")
    assert machine.cache(Path("/proc/none")).level is Level.WRONG


@pytest.mark.parametrize(
    ("files", "pids", "level", "advice"),
    [
        ((20000, 20000), None, Level.OK, ""),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), "max", Level.OK, ""),
        ((256, 4096), None, Level.DOUBTFUL, "ulimit -n 1024"),
        ((256, 512), None, Level.DOUBTFUL, "raise the hard limit"),
        ((20000, 20000), "64", Level.DOUBTFUL, "Raise the limit of processes"),
    ],
)
def test_limits_that_are_tight_are_doubtful(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: tuple[int, int],
    pids: str | None,
    level: Level,
    advice: str,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: files)
    if pids is not None:
        write(root, "sys/fs/cgroup/pod/worker/pids.max", pids)
    found = machine.limits(root)
    assert found.level is level
    assert advice in found.advice


def test_a_gpu_that_is_not_used_is_doubtful() -> None:
    there = [Path("/dev/nvidia0")]
    assert machine.gpu("cpu", []).level is Level.OK
    assert machine.gpu("cuda:0", there).level is Level.OK
    unused = machine.gpu("cpu", there)
    assert unused.level is Level.DOUBTFUL
    assert "vault-ml[gpu]" in unused.advice


@pytest.mark.parametrize(
    ("ahead_s", "level", "sentence"),
    [
        (None, Level.OK, "the Vault does not tell its time"),
        (0.4, Level.OK, "our clock is 0 s ahead of the Vault's"),
        (-20.0, Level.DOUBTFUL, "our clock is 20 s behind the Vault's"),
        (3600.0, Level.WRONG, "our clock is 3600 s ahead of the Vault's"),
    ],
)
def test_clocks_that_differ_are_told(ahead_s: float | None, level: Level, sentence: str) -> None:
    found = machine.clock(ahead_s)
    assert (found.level, found.sentence) == (level, sentence)
    assert bool(found.advice) == (level is not Level.OK)


def test_this_machine_can_be_looked_at() -> None:
    limit, _ = memory_limit()
    assert limit > 0
    assert machine.processors().sentence
    assert machine.limits().sentence
    assert machine.gpu("cpu").sentence
