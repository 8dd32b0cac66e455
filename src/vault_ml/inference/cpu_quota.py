"""How many processors we may really use: a container's quota, not the machine's size.

`os.cpu_count()` tells a pod with half a core that it has 64; a network run on 64 threads is then
throttled for most of every scheduling period. The functions over file contents are pure; only
`usable_cpus` reads the machine.

Source: Linux `Documentation/admin-guide/cgroup-v2.rst` (cpu.max) and
`Documentation/scheduler/sched-bwc.rst` (cpu.cfs_quota_us).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vault_ml.control_groups import control_groups


def quota_of_cpu_max(text: str) -> float | None:
    """The quota in a cgroup v2 `cpu.max`, in processors.

    >>> quota_of_cpu_max("150000 100000")
    1.5

    Returns:
        None where there is no limit (`max 100000`) or the text says nothing usable.
    """
    words = text.split()
    return _ratio(words[0], words[1] if len(words) > 1 else "100000") if words else None


def quota_of_cfs(quota_us: str, period_us: str) -> float | None:
    """The quota in cgroup v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`, in processors.

    Returns:
        None where there is no limit (a quota of -1) or the text says nothing usable.
    """
    return _ratio(quota_us.strip(), period_us.strip())


def threads_for(affinity: int, quotas: Iterable[float | None]) -> int:
    """Threads that `affinity` processors and the tightest of `quotas` can keep busy.

    A fraction is rounded up: a quota of 1.5 on two threads does 1.5 processors of work, throttled
    for a quarter of the time, where one thread would leave half a processor unused.

    >>> threads_for(8, [None, 1.5])
    2

    Returns:
        At least 1.
    """
    limit = min((quota for quota in quotas if quota is not None), default=math.inf)
    return max(1, affinity if limit >= affinity else math.ceil(limit))


def usable_cpus(root: Path = Path("/")) -> int:
    """Processors this process may use: its affinity mask and the quotas of its control groups.

    Args:
        root: where `proc` and `sys/fs/cgroup` are.
    """
    return threads_for(len(os.sched_getaffinity(0)), _quotas(root))


def _quotas(root: Path) -> Iterator[float | None]:
    for group in control_groups("cpu", root):
        yield quota_of_cpu_max(group.read("cpu.max"))
        yield quota_of_cfs(group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us"))


def _ratio(quota_us: str, period_us: str) -> float | None:
    try:
        quota, period = int(quota_us), int(period_us)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None
