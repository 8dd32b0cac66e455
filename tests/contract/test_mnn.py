"""MNN keeps the contract, agrees with ONNX Runtime, and prints nothing."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest

from contract.runtime_contract import RuntimeContract, some_images
from tiny_detector import NET_WH, write_tiny_model
from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.inference import mnn
from vault_ml.inference.mnn import Mnn
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.inference.opening import Opening, memory_bytes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.onnx")


class TestMnn(RuntimeContract):
    @pytest.fixture
    def runtime(self, model: Path, tmp_path: Path) -> Iterator[Mnn]:
        runtime = Mnn(model, NET_WH, threads=2, cache=tmp_path / "cache")
        yield runtime
        runtime.close()

    def test_gives_what_onnx_runtime_gives(self, runtime: Mnn, model: Path) -> None:
        images = some_images(3)
        (ours,) = runtime.infer(images)
        (theirs,) = OnnxRuntime(model, device="cpu", threads=1).infer(images)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("limit_bytes", "lanes"),
    [pytest.param(10**12, 4, id="room-for-all"), pytest.param(1, 1, id="room-for-none")],
)
def test_has_as_many_copies_as_a_quarter_of_the_memory_holds(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, lanes: int
) -> None:
    monkeypatch.setattr(mnn, "memory_limit", lambda: (limit_bytes, "the test's"))
    runtime = Mnn(model, NET_WH, threads=4, cache=tmp_path)
    assert runtime.lanes == lanes
    file_bytes = model.stat().st_size
    assert mnn.copies_of(model, 4, any_size=False).memory_bytes == lanes * 6 * file_bytes
    assert (
        memory_bytes(model, Opening(engine="mnn", threads=4, rect=True)) == lanes * 12 * file_bytes
    )
    assert memory_bytes(model, Opening(engine="openvino")) == 2 * file_bytes
    images = some_images(8)
    alone = Mnn(model, NET_WH, threads=1, cache=tmp_path).infer(images)[0]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: runtime.infer(image[None])[0][0], images))
    np.testing.assert_array_equal(together, alone)


def test_makes_further_lanes_when_they_are_first_wanted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[mnn._Lane] = []

    class Counted(mnn._Lane):
        def __init__(self, *how: Any) -> None:
            super().__init__(*how)
            made.append(self)

    monkeypatch.setattr(mnn, "_Lane", Counted)
    runtime = Mnn(model, NET_WH, threads=4, cache=tmp_path)
    for image in some_images(3):
        runtime.infer(image[None])
    assert len(made) == 1
    both_at_work = Barrier(2, timeout=10)
    run = Counted.run
    monkeypatch.setattr(
        Counted, "run", lambda lane, *picture: (both_at_work.wait(), run(lane, *picture))[1]
    )
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda image: runtime.infer(image[None]), some_images(2)))
    assert len(made) == 2


def test_a_lane_that_cannot_be_made_is_said_and_leaves_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Mnn(model, NET_WH, threads=2, cache=tmp_path)
    (converted,) = tmp_path.glob("*.mnn")
    converted.unlink()
    one_at_work, may_end, run = Event(), Event(), mnn._Lane.run

    def slowly(lane: mnn._Lane, *picture: Any) -> Any:
        one_at_work.set()
        assert may_end.wait(10)
        return run(lane, *picture)

    monkeypatch.setattr(mnn._Lane, "run", slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(runtime.infer, some_images(1))
        assert one_at_work.wait(10)
        with pytest.raises(DetectorUnavailable, match="cannot load"):
            runtime.infer(some_images(1))
        may_end.set()
        first.result(10)
    runtime.infer(some_images(1))


def test_without_a_cache_nothing_is_left(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder := tmp_path / "temporary"))
    folder.mkdir()
    runtime = Mnn(model, NET_WH, threads=1)
    runtime.close()
    runtime.close()
    assert list(folder.iterdir()) == []


def test_lanes_that_meet_a_new_size_at_once_leave_the_outputs_as_they_were(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: _print_nothing(), range(8)))
    os.write(1, b"still there")
    assert capfd.readouterr() == ("still there", "")


def _print_nothing() -> None:
    with mnn._nothing_printed():
        os.write(1, b"noise")


def test_converts_once_and_prints_nothing(
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    cache = tmp_path / "cache"
    Mnn(model, NET_WH, threads=1, cache=cache).close()
    (converted,) = cache.iterdir()
    made = converted.stat().st_mtime_ns
    Mnn(model, NET_WH, threads=1, cache=cache).close()
    assert (list(cache.iterdir()), converted.stat().st_mtime_ns) == ([converted], made)
    assert capfd.readouterr() == ("", "")
    assert list(here.iterdir()) == []


def test_missing_library_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MNN", None)
    with pytest.raises(ConfigError, match=r"pip install 'vault-ml\[mnn\]'"):
        Mnn(model, NET_WH)


def test_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx is not there"):
        Mnn(tmp_path / "gone.onnx", NET_WH)


def test_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"RUNTIME=onnxruntime"):
        Mnn(path, NET_WH)
