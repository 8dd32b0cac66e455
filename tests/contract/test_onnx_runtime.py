"""ONNX Runtime keeps the contract; what it refuses, it refuses with a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contract.runtime_contract import RuntimeContract, some_images
from tiny_detector import NET_WH, write_tiny_model
from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.inference import onnx_runtime
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.yolo.metadata import METADATA_NET_WH


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.onnx")


class TestOnnxRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self, model: Path) -> Iterator[OnnxRuntime]:
        runtime = OnnxRuntime(model, device="cpu", threads=2)
        yield runtime
        runtime.close()

    def test_batch_changes_no_bit_on_the_cpu(self, runtime: OnnxRuntime) -> None:
        images = some_images(4)
        (together,) = runtime.infer(images)
        for index in range(4):
            (alone,) = runtime.infer(images[index : index + 1])
            np.testing.assert_array_equal(together[index], alone[0])


def test_auto_without_a_gpu_is_the_cpu_and_says_so(model: Path) -> None:
    import onnxruntime

    runtime = OnnxRuntime(model)
    assert runtime.info.runtime == f"onnxruntime {onnxruntime.__version__}"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert runtime.info.device == "cpu"
    assert runtime.net_wh == NET_WH
    assert "vault_ml.heads" in runtime.metadata


def test_cuda_that_is_not_offered_is_an_error(model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ConfigError, match=r"pip install 'vault-ml\[gpu\]'"):
        OnnxRuntime(model, device="cuda")


class FakeOrt(SimpleNamespace):
    """An ONNX Runtime built with CUDA and TensorRT, on a machine with or without a GPU."""

    def __init__(self, *, has_gpu: bool, has_tensorrt: bool = True) -> None:
        import onnxruntime

        self.asked: list[Any] = []

        def session(path: str, options: object, *, providers: list[Any]) -> Any:
            self.asked.append(providers)
            names = [each if isinstance(each, str) else each[0] for each in providers]
            running = names if has_gpu else ["CPUExecutionProvider"]
            if not has_tensorrt and "TensorrtExecutionProvider" in running:
                running.remove("TensorrtExecutionProvider")
            real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return SimpleNamespace(
                get_providers=lambda: running,
                get_inputs=real.get_inputs,
                get_modelmeta=real.get_modelmeta,
                run=real.run,
            )

        super().__init__(
            get_available_providers=lambda: [
                "TensorrtExecutionProvider",
                "CUDAExecutionProvider",
                "CPUExecutionProvider",
            ],
            InferenceSession=session,
            SessionOptions=onnxruntime.SessionOptions,
            GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
            set_default_logger_severity=lambda level: None,
            __version__="9.9",
        )


def test_cuda_that_does_not_start_is_an_error_and_auto_takes_the_cpu(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeOrt(has_gpu=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(ConfigError, match="'cuda' was asked for, but it does not start") as caught:
        OnnxRuntime(model, device="cuda")
    assert not isinstance(caught.value, ModelError)
    assert OnnxRuntime(model, device="auto").info.device == "cpu"
    assert fake.asked[-1] == ["CPUExecutionProvider"]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_cuda_that_works_is_taken_with_full_precision(
    model: Path, monkeypatch: pytest.MonkeyPatch, device: Any
) -> None:
    fake = FakeOrt(has_gpu=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(onnx_runtime, "_cuda_device_name", lambda: "NVIDIA L4")
    assert OnnxRuntime(model, device=device).info.device == "cuda:0 NVIDIA L4"
    assert fake.asked == [[("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]]


@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_is_told_the_range_of_shapes_and_keeps_its_engines(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    fake = FakeOrt(has_gpu=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(onnx_runtime, "_cuda_device_name", lambda: "NVIDIA L4")
    runtime = OnnxRuntime(model, device="tensorrt", half=half, engine_cache=tmp_path)
    assert (runtime.info.runtime, runtime.info.device) == (
        "onnxruntime 9.9 tensorrt", "cuda:0 NVIDIA L4",
    )  # fmt: skip
    assert runtime.info.precision == ("fp16" if half else "fp32")
    (name, options), cuda = fake.asked[-1]
    width, height = NET_WH
    assert (name, cuda[0]) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options == {
        "trt_fp16_enable": "1" if half else "0",
        "trt_profile_min_shapes": f"images:1x3x{height}x{width}",
        "trt_profile_opt_shapes": f"images:8x3x{height}x{width}",
        "trt_profile_max_shapes": f"images:32x3x{height}x{width}",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param(
            ["n", 3, "h", "w"], ["1x3x32x32", "8x3x352x608", "32x3x608x608"], id="any-size"
        ),
        pytest.param([4, 3, 608, 608], None, id="one-shape"),
    ],
)
def test_tensorrt_range_follows_what_the_model_leaves_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: list[int | str],
    expected: list[str] | None,
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    helper.set_model_props(model, {METADATA_NET_WH: "[608, 608]"})
    onnx.save(model, tmp_path / "open.onnx")
    fake = FakeOrt(has_gpu=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    OnnxRuntime(tmp_path / "open.onnx", device="tensorrt", first_wh=(608, 352))
    (_, options), _ = fake.asked[-1]
    ranges = [options.get(f"trt_profile_{which}_shapes") for which in ("min", "opt", "max")]
    assert ranges == ([f"x:{each}" for each in expected] if expected else [None] * 3)


def test_tensorrt_that_does_not_start_is_an_error_and_never_cuda(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeOrt(has_gpu=True, has_tensorrt=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(ConfigError, match="'tensorrt' was asked for, but it does not start"):
        OnnxRuntime(model, device="tensorrt")


def test_cpu_does_not_touch_cuda(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOrt(has_gpu=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    OnnxRuntime(model, device="cpu")
    assert fake.asked == [["CPUExecutionProvider"]]


def test_device_name_is_a_word_or_nothing() -> None:
    assert isinstance(onnx_runtime._cuda_device_name(), str)


def test_missing_library_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'vault-ml\[cpu\]'"):
        OnnxRuntime(model)


def test_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx is not there"):
        OnnxRuntime(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    "keep", [pytest.param(0, id="empty"), pytest.param(0.5, id="half"), pytest.param(-1, id="text")]
)
def test_damaged_file_says_what_to_do(model: Path, keep: float) -> None:
    content = model.read_bytes()
    model.write_bytes(b"not a model" if keep < 0 else content[: int(len(content) * keep)])
    with pytest.raises(ModelError, match="damaged or not an ONNX model"):
        OnnxRuntime(model)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param(TensorProto.FLOAT, ["n", 3, "h", "w"], id="size-not-fixed"),
        pytest.param(TensorProto.FLOAT, ["n", 1, 48, 64], id="grey"),
        pytest.param(TensorProto.FLOAT, ["n", 3], id="no-picture"),
        pytest.param(TensorProto.UINT8, ["n", 3, 48, 64], id="bytes"),
    ],
)
def test_model_that_takes_no_pictures_is_refused(
    tmp_path: Path, kind: int, shape: list[str | int]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    other.ir_version = 8
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"not a detector we can feed: .* got x tensor"):
        OnnxRuntime(tmp_path / "other.onnx")


def test_failure_of_a_run_is_translated(model: Path) -> None:
    runtime = OnnxRuntime(model, device="cpu")

    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("CUDA failure 2: out of memory\nwith a long trace")

    runtime._session = Broken()
    with pytest.raises(DetectorUnavailable, match=r"failed on cpu: CUDA failure 2: out of memory$"):
        runtime.infer(some_images(1))
