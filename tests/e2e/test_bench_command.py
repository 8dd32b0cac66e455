"""`vault-ml bench`, and the plan that is made of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import shared_file
from e2e.stand import bare_environment
from vault_ml.demo import process_tree
from vault_ml.inference.cpu_quota import usable_cpus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def vault_ml(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vault_ml", *map(str, words)],
        capture_output=True, text=True, timeout=360, check=False, stdin=subprocess.DEVNULL,
        env={**bare_environment(), **variables},
    )  # fmt: skip


def test_what_bench_measures_is_what_plan_reads(small_model: str, tmp_path: Path) -> None:
    clip = shared_file("video/one_person_5s_768x432_10fps.mp4")
    (tmp_path / clip.name).symlink_to(clip)
    done = vault_ml(
        "bench", "--json", "--seconds", "5", "--clips", tmp_path, "--model", small_model,
        NUMBER_OF_PREDICTIONS="2", RUNTIME="onnxruntime", QUEUE_NAME="not-this-one",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"]["looked_at"] == 2
    assert found["run"]["runtime"].startswith("onnxruntime")
    assert found["recording_s"] == pytest.approx(5, abs=0.5)
    assert found["recordings"] >= 5
    assert found["recordings_per_s"] == pytest.approx(found["recordings"] / found["seconds"])
    assert found["slowest_per_s"] <= found["recordings_per_s"] <= found["fastest_per_s"]
    assert found["cpus"] == usable_cpus()
    assert 0 < found["busy_cpus"] < 1.1 * (os.cpu_count() or 1)
    # Python, the network's runtime and a decoder; not the test that asked.
    assert 100 * 2**20 < found["peak_memory_bytes"] < 4 * 2**30
    assert found["cameras"] == int(found["recordings_per_s"] * 0.7 * found["recording_s"])

    measured = tmp_path / "worker.json"
    measured.write_text(done.stdout)
    planned = vault_ml("plan", "--cameras", "200", "--clip", "5s", "--bench", measured, "--json")
    assert planned.returncode == 0, planned.stderr
    per_replica = json.loads(planned.stdout)["capacity_per_s"]
    assert per_replica == pytest.approx(0.7 * found["recordings_per_s"])


def test_a_folder_without_clips_is_one_sentence(tmp_path: Path) -> None:
    done = vault_ml("bench", "--clips", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"vault-ml: {tmp_path} holds no clip")


def test_a_process_is_counted_with_all_that_it_started() -> None:
    grandchild = "import time; sum(range(5_000_000)); print('up', flush=True); time.sleep(60)"
    child = (
        "import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}]); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == b"up\n"
            (below,) = process_tree.descendants(started.pid)
            assert below not in (started.pid, os.getpid())
            assert process_tree.memory_bytes(below) > 1 << 20
            assert process_tree.cpu_s(below) > 0
            assert 0 < process_tree.age_s(below) <= process_tree.age_s(started.pid) < 60
        finally:
            for pid in process_tree.descendants(started.pid):
                os.kill(pid, 9)
            started.kill()
    # Ended and waited for; who waits for the one below, and when, is the machine's affair.
    assert process_tree.cpu_s(started.pid) == process_tree.age_s(started.pid) == 0
    assert process_tree.memory_bytes(started.pid) == 0
