"""Which control groups limit this process, and what their files say: cgroup v2, v1, and both.

Source: Linux `Documentation/admin-guide/cgroup-v2.rst` (the `0::` line, limits of ancestors) and
`Documentation/admin-guide/cgroup-v1/cgroups.rst`; systemd's "Control Group APIs and Delegation" for
the hybrid mount `unified`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """One group; it may not be there.

    Attributes:
        folder: where its files are.
        name: its path in the hierarchy, as `/pod/worker`; `/` is the root of what is mounted.
    """

    folder: Path
    name: str

    def read(self, name: str) -> str:
        """The text of its file `name`; '' where there is none, or none that we may read."""
        return read_kernel_file(self.folder / name)


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
    """Our group and each one above it, in every hierarchy that may hold `controller`.

    A limit of any ancestor limits us too. In a container the path may be the host's, which is not
    mounted there: then only the root of what is mounted can be read, and it is ours.

    Args:
        controller: `cpu`, `memory`, `pids`.
        root: where `proc` and `sys/fs/cgroup` are.
    """
    mount = root / "sys/fs/cgroup"
    unified, legacy = paths_of_groups(read_kernel_file(root / "proc/self/cgroup"), controller)
    for base in (mount, mount / "unified"):
        yield from _with_ancestors(base, unified)
    # Under v2 alone a folder `memory` would be somebody's group, not the mount of a controller.
    if legacy is not None or unified is None:
        for base in _legacy_mounts(mount, controller):
            yield from _with_ancestors(base, legacy)


def paths_of_groups(
    proc_self_cgroup: str, controller: str
) -> tuple[PurePosixPath | None, PurePosixPath | None]:
    """The v2 group and the v1 group of `controller` in a `/proc/self/cgroup`.

    >>> paths_of_groups("0::/user.slice", "cpu")
    (PurePosixPath('/user.slice'), None)
    """
    unified = legacy = None
    for line in proc_self_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if number == "0" and not controllers:
            unified = PurePosixPath(path)
        elif controller in controllers.split(","):
            legacy = PurePosixPath(path)
    return unified, legacy


def read_kernel_file(path: Path) -> str:
    """The text of a file of `proc` or `sys`; '' where there is none, or none that we may read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def memory_limit(root: Path = Path("/")) -> tuple[int, str]:
    """The memory that may be used, bytes, and whose limit that is."""
    total = 0
    for line in read_kernel_file(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    found = (total, "the machine's")
    for group in control_groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = group.read(name).strip()
            if text.isascii() and text.isdigit() and (total == 0 or int(text) < found[0]):
                found = (int(text), "the control group's limit")
    return found


def _legacy_mounts(mount: Path, controller: str) -> list[Path]:
    """Where a v1 controller is: alone, or mounted with others as in `cpu,cpuacct`."""
    try:
        return sorted(each for each in mount.iterdir() if controller in each.name.split(","))
    except OSError:
        return []


def _with_ancestors(base: Path, path: PurePosixPath | None) -> Iterator[ControlGroup]:
    nearest = path if path is not None and path.is_absolute() else PurePosixPath("/")
    for each in (nearest, *nearest.parents):
        yield ControlGroup(base.joinpath(*each.parts[1:]), str(each))
