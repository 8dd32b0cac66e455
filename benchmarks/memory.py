"""Whether the worker's memory grows: a line through thousands of recordings.

The worker with its children does one recording after the other. Their memory (what is shared counts
once) is looked at now and then; the first third is left out, where pools and arenas fill up. A
straight line through the rest gives the growth.

usage: python -m benchmarks.memory [--recordings 3000] [--model yolov3-tiny] [--clips FOLDER]
                                   [--json F]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from vault_ml.demo.bench import Work, looking
from vault_ml.demo.clips import sample_clips
from vault_ml.demo.show import stage
from vault_ml.telemetry.logs import configure

EVERY = 20
MIB = 1024**2
LIMIT_MIB = 1.0
"""Per thousand recordings."""


def growth_mib(counts: list[int], sizes: list[int]) -> tuple[float, float]:
    """MiB per thousand recordings, and its standard error, by least squares."""
    x, y = np.array(counts) / 1000, np.array(sizes) / MIB
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--recordings", type=int, default=3000)
    parser.add_argument("--model")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    counts: list[int] = []
    sizes: list[int] = []
    variables = {**looking({}), "LOG_LEVEL": "WARNING"}
    with stage(
        model=words.model, pictures=None, log=configure("auto", "WARNING"), variables=variables
    ) as show:
        work = Work(show, sample_clips(words.clips))
        for number in range(1, words.recordings + 1):
            work.next()
            if number % EVERY == 0:
                counts.append(number)
                sizes.append(work.memory_bytes())
            if number % (50 * EVERY) == 0:
                print(f"{number} recordings, {sizes[-1] / MIB:.1f} MiB", file=sys.stderr)
    begin = len(counts) // 3
    slope, error = growth_mib(counts[begin:], sizes[begin:])
    print(
        f"{words.recordings} recordings: {slope:+.2f} MiB (+- {error:.2f}) per 1,000, after "
        f"{sizes[begin] / MIB:.0f} MiB at {counts[begin]}; less than {LIMIT_MIB:g} is wanted"
    )
    if words.json:
        rows = [{"recordings": n, "bytes": b} for n, b in zip(counts, sizes, strict=True)]
        words.json.write_text(
            json.dumps({"mib_per_1000": slope, "error": error, "looks": rows}) + "\n"
        )


if __name__ == "__main__":
    main()
