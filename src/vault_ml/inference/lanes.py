"""How many pictures at once, and on a CPU how many threads for each."""

from __future__ import annotations

_MOST_LANES = 16
"""Each lane has the network's intermediate results in memory: 0.2 GB for YOLOv3 at 608."""

_IDLE_SHARE = 0.1
"""Processors that may be without work, so that lanes have as many threads each."""

MOST_GPU_BATCH = 32
"""Pictures in one run on a GPU, at most; how many are best is measured at start."""


def lanes_for(cpus: int, most: int = _MOST_LANES) -> tuple[int, int]:
    """Lanes, and threads in each. Pictures side by side win over threads in one picture.

    Measured: two lanes of one thread give 9 to 35 % more than one of two (docs/reference/
    performance.md). Beyond `most` processors a lane gets several, and there are as many lanes as
    leave at most a tenth of the processors without work.

    >>> lanes_for(2)
    (2, 1)
    >>> lanes_for(64)
    (16, 4)
    >>> lanes_for(6, most=4)
    (3, 2)
    """
    lanes = next(
        lanes for lanes in range(min(cpus, most), 0, -1) if cpus % lanes <= _IDLE_SHARE * cpus
    )
    return lanes, cpus // lanes
