"""MNN keeps the contract, agrees with ONNX Runtime, and prints nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.runtime_contract import RuntimeContract, some_images
from tiny_detector import NET_WH, write_tiny_model
from vault_ml.errors import ConfigError, ModelError
from vault_ml.inference.mnn import Mnn
from vault_ml.inference.onnx_runtime import OnnxRuntime


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
