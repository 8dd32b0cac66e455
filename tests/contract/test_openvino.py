"""OpenVINO keeps the contract, agrees with ONNX Runtime, and reports to nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.runtime_contract import RuntimeContract, some_images
from tiny_detector import NET_WH, write_tiny_model
from vault_ml.errors import ConfigError, ModelError
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.inference.openvino import OpenVino

pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.onnx")


class TestOpenVino(RuntimeContract):
    @pytest.fixture
    def runtime(self, model: Path) -> Iterator[OpenVino]:
        runtime = OpenVino(model, NET_WH, threads=2)
        yield runtime
        runtime.close()

    def test_has_a_stream_for_each_processor(self, runtime: OpenVino) -> None:
        assert runtime.lanes == 2

    def test_gives_what_onnx_runtime_gives(self, runtime: OpenVino, model: Path) -> None:
        images = some_images(3)
        (ours,) = runtime.infer(images)
        (theirs,) = OnnxRuntime(model, device="cpu", threads=1).infer(images)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_kept_models_are_used_again(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "compiled"
    OpenVino(model, NET_WH, threads=1, cache=cache).close()
    made = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert made
    again = OpenVino(model, NET_WH, threads=1, cache=cache)
    assert again.infer(some_images(1))[0].shape == (1, 16, 6, 8)
    again.close()
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == made


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"other\.onnx"):
        OpenVino(path, NET_WH)


def test_missing_library_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"pip install 'vault-ml\[openvino\]'"):
        OpenVino(model, NET_WH)


NO_SOCKETS = """
import socket, sys, threading
def no_sockets(event, arguments):
    if event.startswith("socket."):
        sys.__stderr__.write(f"{event} {arguments}"); sys.__stderr__.flush()
        import os; os._exit(3)
sys.addaudithook(no_sockets)
from pathlib import Path
from vault_ml.inference.opening import Opening, open_runtime
runtime = open_runtime(Path(sys.argv[1]), (64, 48), Opening(engine=sys.argv[2], threads=1))
for thread in threading.enumerate():
    if thread is not threading.main_thread() and not thread.daemon:
        thread.join()
loaded = [name for name in sys.modules if name.startswith(("openvino_telemetry.", "MNN.tools"))]
assert not loaded, loaded
print(runtime.info.runtime)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "mnn"])
def test_no_runtime_speaks_to_anybody(model: Path, engine: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NO_SOCKETS, str(model), engine],
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(engine)
