"""The proof's patience: slow is not stuck."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from proof.patience import Patience, with_descendants


def test_patience_is_used_up_by_the_clock_while_nobody_stands_in_line() -> None:
    now = [100.0]
    patience = Patience(list, lambda: now[0])
    now[0] += 7.0
    assert patience.look() == 7.0
    now[0] += 2.0
    assert patience.look() == 9.0
    patience.renew()
    assert patience.look() == 0.0


def test_time_in_line_for_a_processor_uses_up_no_patience() -> None:
    """More who never rest than processors: each stands in line most of the time."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(4 * len(os.sched_getaffinity(0)))
    ]
    try:
        patience = Patience(lambda: [process.pid for process in busy])
        started = time.monotonic()
        while time.monotonic() - started < 2.0:
            time.sleep(0.1)
            used_s = patience.look()
        assert used_s < 0.8 * (time.monotonic() - started)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_descendants_are_watched_as_well() -> None:
    assert os.getpid() in with_descendants([os.getppid()])
