"""Which control groups limit us, on machines that are written into a folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from vault_ml.control_groups import control_groups, paths_of_groups, read_kernel_file


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        pytest.param("", (None, None), id="empty"),
        pytest.param("0::/a/b\n", (PurePosixPath("/a/b"), None), id="v2"),
        pytest.param(
            "5:memory:/m\n4:cpu,cpuacct:/c\n1:name=systemd:/s\n",
            (None, PurePosixPath("/c")),
            id="v1",
        ),
        pytest.param("nonsense\n", (None, None), id="nonsense"),
    ],
)
def test_finds_the_groups(
    text: str, groups: tuple[PurePosixPath | None, PurePosixPath | None]
) -> None:
    assert paths_of_groups(text, "cpu") == groups


@pytest.mark.parametrize(
    ("line", "folders", "named"),
    [
        pytest.param(
            "0::/pod/worker",
            ["", "pod", "pod/worker"],
            ["/pod/worker", "/pod", "/"],
            id="v2-nearest-first",
        ),
        pytest.param("0::/host/path", [""], ["/"], id="v2-in-a-container"),
        pytest.param(
            "4:cpu:/pod\n0::/pod",
            ["cpu", "cpu/pod", "unified/pod"],
            ["/pod", "/pod", "/"],
            id="hybrid",
        ),
        pytest.param("4:cpu,cpuacct:/pod", ["cpu,cpuacct/pod"], ["/pod"], id="v1-joined"),
        pytest.param("4:cpuacct,cpu:/pod", ["cpu,cpuacct/pod"], ["/pod"], id="v1-in-any-order"),
        pytest.param("4:cpu:/host/path", ["cpu"], ["/"], id="v1-in-a-container"),
        pytest.param("5:cpuset:/pod", ["cpuset/pod"], [], id="another-controller"),
        pytest.param("0::/", ["", "cpu"], ["/"], id="v2-group-called-as-a-controller"),
        pytest.param("0::/\n4:cpu:/", ["cpu"], ["/"], id="v1-root"),
        pytest.param("", ["", "cpu"], ["/", "/"], id="nothing-told"),
        pytest.param("0::worker", ["", "worker"], ["/"], id="no-absolute-path"),
    ],
)
def test_every_group_above_limits_us(
    tmp_path: Path, line: str, folders: list[str], named: list[str]
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line + "\n")
    for folder in folders:
        path = tmp_path / "sys/fs/cgroup" / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "limit").write_text(f"{folder}\n")

    found = [group for group in control_groups("cpu", tmp_path) if group.read("limit")]
    assert [group.name for group in found] == named
    mount = tmp_path / "sys/fs/cgroup"
    assert all(mount / group.read("limit").strip() == group.folder for group in found)


def test_a_machine_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert not any(group.read("cpu.max") for group in control_groups("cpu", tmp_path))


def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert read_kernel_file(tmp_path) == ""
    assert read_kernel_file(tmp_path / "none") == ""
