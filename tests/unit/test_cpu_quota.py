"""Threads follow the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vault_ml.inference.cpu_quota import (
    quota_of_cfs,
    quota_of_cpu_max,
    threads_for,
    usable_cpus,
)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        pytest.param("", None, id="empty"),
        pytest.param("max 100000\n", None, id="no-limit"),
        pytest.param("150000 100000\n", 1.5, id="one-and-a-half"),
        pytest.param("50000", 0.5, id="period-left-out"),
        pytest.param("0 100000", None, id="zero"),
        pytest.param("100000 0", None, id="no-period"),
        pytest.param("what is this", None, id="nonsense"),
    ],
)
def test_reads_cpu_max(text: str, quota: float | None) -> None:
    assert quota_of_cpu_max(text) == quota


@pytest.mark.parametrize(
    ("quota_us", "period_us", "quota"),
    [
        pytest.param("", "", None, id="empty"),
        pytest.param("-1\n", "100000\n", None, id="no-limit"),
        pytest.param("200000\n", "100000\n", 2.0, id="two"),
    ],
)
def test_reads_cfs(quota_us: str, period_us: str, quota: float | None) -> None:
    assert quota_of_cfs(quota_us, period_us) == quota


@pytest.mark.parametrize(
    ("affinity", "quotas", "threads"),
    [
        pytest.param(4, [], 4, id="nothing-known"),
        pytest.param(4, [None, None], 4, id="no-limit"),
        pytest.param(64, [0.5], 1, id="half-a-core"),
        pytest.param(64, [1.5], 2, id="rounded-up"),
        pytest.param(64, [8.0, 2.0], 2, id="tightest-wins"),
        pytest.param(2, [8.0], 2, id="affinity-is-tighter"),
    ],
)
def test_tightest_limit_decides(affinity: int, quotas: list[float | None], threads: int) -> None:
    assert threads_for(affinity, quotas) == threads


def test_reads_an_ancestors_limit(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/container\n")
    folder = tmp_path / "sys/fs/cgroup/pod/container"
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
    (folder.parent / "cpu.max").write_text("70000 100000\n")
    assert usable_cpus(tmp_path) == 1


def test_reads_the_container_root_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,cpuacct:/docker/0123\n")
    (tmp_path / "sys/fs/cgroup/cpu").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path) == 1


def test_this_machine_has_a_processor() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
