"""ONNX Runtime behind the port: CPUs everywhere, CUDA and TensorRT with `onnxruntime-gpu`."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.geometry import INPUT_MULTIPLE
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.lanes import MOST_GPU_BATCH, lanes_for
from vault_ml.inference.pictures import check_pictures, to_tensor
from vault_ml.inference.port import RuntimeInfo
from vault_ml.yolo.metadata import METADATA_NET_WH

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
"""`auto` takes CUDA where it really is there, else the CPU; the others insist."""

_TENSORRT = "TensorrtExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_PROVIDER_OF: Mapping[str, str] = {"cuda": _CUDA, "tensorrt": _TENSORRT}
# `fp32` shall mean it: by default CUDA rounds the factors of a convolution to TF32, 10 bits.
_CUDA_OPTIONS = {"use_tf32": "0"}
_ERRORS_ONLY = 3
# TensorRT builds one engine for a range of shapes, at its best in the middle of it. A shape beyond
# the range has it build anew, for minutes, while recordings wait: the range is said beforehand.
_USUAL_GPU_BATCH = 8
# Two runs at once on one GPU have not been measured (docs/reference/performance.md).
_GPU_LANES = 1


class OnnxRuntime:
    """One `.onnx` on one device; implements `InferenceRuntime`."""

    def __init__(
        self,
        model: Path,
        *,
        device: Device = "auto",
        threads: int | None = None,
        half: bool = False,
        engine_cache: Path | None = None,
        first_wh: tuple[int, int] | None = None,
    ) -> None:
        """Load `model`.

        Args:
            model: an ONNX file with one input, float32 (n, 3, h, w); h and w fixed, or any up to
                what its metadata name.
            device: where to compute.
            threads: processors to use; None takes what the affinity and the control group's
                quota allow. Other options stay at their defaults, which measured best
                (docs/adr/0002-children.md).
            half: compute in FP16, with TensorRT only.
            engine_cache: folder where TensorRT keeps the engines it has built; building one takes
                minutes. None builds anew.
            first_wh: the size that most pictures will have, pixels, for which TensorRT is at its
                best; the model's own where None.

        Raises:
            ConfigError: onnxruntime is not installed, or the requested device is not there.
            ModelError: the file is missing, not a model, or not a detector's.
        """
        self._ort = _import_onnxruntime()
        if half and device != "tensorrt":
            raise ConfigError("PRECISION=fp16 needs RUNTIME=tensorrt; set it, or PRECISION=fp32")
        self._lanes, each = lanes_for(threads or usable_cpus())
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = each
        options.log_severity_level = _ERRORS_ONLY
        _refuse_missing(self._ort, model, device)
        tensorrt: Mapping[str, str] = {}
        if device == "tensorrt":
            shapes = _input_shapes(self._ort, model, first_wh)
            tensorrt = _tensorrt_options(shapes, half, engine_cache)
        providers = _providers(device, tensorrt)
        self._session: Any = _open(self._ort, model, options, device, providers)
        self._metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._input_name, self._net_wh, self._any_size = _only_input(
            self._session, self._metadata, model
        )
        running = self._session.get_providers()[0]
        if running != _CPU:
            self._lanes = _GPU_LANES
        self._info = RuntimeInfo(
            runtime=f"onnxruntime {self._ort.__version__}"
            + (" tensorrt" if running == _TENSORRT else ""),
            device="cpu" if running == _CPU else f"cuda:0 {_cuda_device_name()}".rstrip(),
            precision="fp16" if half else "fp32",
        )

    @property
    def info(self) -> RuntimeInfo:
        """What really runs."""
        return self._info

    @property
    def net_wh(self) -> tuple[int, int]:
        """Size of the model's input, pixels."""
        return self._net_wh

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's own properties (`metadata_props`)."""
        return self._metadata

    @property
    def lanes(self) -> int:
        """One thread of the network per processor, each with a picture of its own."""
        return self._lanes

    def infer(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Run the network; see `InferenceRuntime.infer`.

        Raises:
            ValueError: not pictures of a size that the model takes, or already closed.
            DetectorUnavailable: the runtime or its device failed.
        """
        session = self._session
        if session is None:
            raise ValueError("this runtime is closed")
        check_pictures(pixels, self._net_wh, any_size=self._any_size)
        images = to_tensor(pixels)
        try:
            outputs: list[NDArray[np.float32]] = session.run(None, {self._input_name: images})
        except Exception as error:  # its errors share no base class
            raise DetectorUnavailable(
                f"{self._info.runtime} failed on {self._info.device}: {_first_line(error)}"
            ) from error
        return outputs

    def close(self) -> None:
        """Release the session and its memory. Idempotent."""
        self._session = None


def _import_onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "ONNX Runtime is not installed; run: pip install 'vault-ml[cpu]' "
            "(or 'vault-ml[gpu]' on a machine with an NVIDIA GPU)"
        ) from error
    # A machine without a GPU is not worth a warning per start.
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    module: ModuleType = onnxruntime
    return module


def _providers(
    device: Device, tensorrt: Mapping[str, str]
) -> list[str | tuple[str, Mapping[str, str]]]:
    """What to ask for, best first; each with its options."""
    cuda = (_CUDA, _CUDA_OPTIONS)
    if device == "cpu":
        return [_CPU]
    if device != "tensorrt":
        return [cuda, _CPU]
    # What TensorRT cannot run goes to CUDA, never to the CPU.
    return [(_TENSORRT, tensorrt), cuda]


def _tensorrt_options(
    shapes: Mapping[str, str], half: bool, engine_cache: Path | None
) -> dict[str, str]:
    """Source: ONNX Runtime's page on this provider, "Configurations" and "Explicit shape range"."""
    options = {"trt_fp16_enable": "1" if half else "0", **shapes}
    if engine_cache is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engine_cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engine_cache),
        }
    return options


def _input_shapes(ort: ModuleType, model: Path, first_wh: tuple[int, int] | None) -> dict[str, str]:
    """The range of shapes that this model will be given, as TensorRT's options; {} if only one."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(model), options, providers=[_CPU])
    except Exception as error:
        raise _unloadable(model, error) from error
    metadata = session.get_modelmeta().custom_metadata_map
    name, (width, height), any_size = _only_input(session, metadata, model)
    if isinstance(session.get_inputs()[0].shape[0], int):
        return {}
    least_w, least_h = (INPUT_MULTIPLE, INPUT_MULTIPLE) if any_size else (width, height)
    usual_w, usual_h = first_wh or (width, height)
    return {
        "trt_profile_min_shapes": f"{name}:1x3x{least_h}x{least_w}",
        "trt_profile_opt_shapes": f"{name}:{_USUAL_GPU_BATCH}x3x{usual_h}x{usual_w}",
        "trt_profile_max_shapes": f"{name}:{MOST_GPU_BATCH}x3x{height}x{width}",
    }


def _refuse_missing(ort: ModuleType, model: Path, device: Device) -> None:
    """Only what can be told without opening the model.

    Raises:
        ModelError: there is no such file.
        ConfigError: this build of ONNX Runtime does not know the device.
    """
    if not model.is_file():
        raise ModelError(f"the model file {model} is not there")
    wanted = _PROVIDER_OF.get(device)
    if wanted is not None and wanted not in ort.get_available_providers():
        raise ConfigError(
            f"the device '{device}' was asked for, but this ONNX Runtime has no {wanted}; "
            "run: pip uninstall onnxruntime && pip install 'vault-ml[gpu]', or ask for 'cpu'"
        )


def _unloadable(model: Path, error: Exception) -> ModelError:
    return ModelError(
        f"ONNX Runtime cannot load {model}: {_first_line(error)}; the file is damaged or not "
        "an ONNX model, convert or download it again"
    )


def _open(
    ort: ModuleType, model: Path, options: object, device: Device, providers: Sequence[Any]
) -> Any:
    offered = ort.get_available_providers()
    wanted = _PROVIDER_OF.get(device)
    try:
        if device == "cpu" or _CUDA not in offered:
            return ort.InferenceSession(str(model), options, providers=[_CPU])
        session = ort.InferenceSession(str(model), options, providers=list(providers))
        # Without a working GPU this library carries on, on the CPU, with a line in its log.
        if session.get_providers()[0] == (wanted or _CUDA):
            return session
        if wanted is not None:
            raise ConfigError(
                f"the device '{device}' was asked for, but it does not start: no GPU is visible "
                "(try nvidia-smi), or the CUDA, cuDNN or TensorRT libraries do not fit ONNX "
                f"Runtime {ort.__version__}"
            )
        del session
        return ort.InferenceSession(str(model), options, providers=[_CPU])
    except ConfigError:
        raise
    except Exception as error:
        raise _unloadable(model, error) from error


def _only_input(
    session: Any, metadata: Mapping[str, str], model: Path
) -> tuple[str, tuple[int, int], bool]:
    """Name and largest size of the input, and whether it takes smaller ones."""
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type == "tensor(float)":
        shape = inputs[0].shape
        if len(shape) == 4 and shape[1] == 3:
            if all(isinstance(side, int) for side in shape[2:]):
                return inputs[0].name, (shape[3], shape[2]), False
            if METADATA_NET_WH in metadata and not any(isinstance(s, int) for s in shape[2:]):
                width, height = json.loads(metadata[METADATA_NET_WH])
                return inputs[0].name, (int(width), int(height)), True
    described = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
    raise ModelError(
        f"{model} is not a detector we can feed: expected one input of float32 (n, 3, h, w) with "
        f"fixed h and w, got {described}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _cuda_device_name() -> str:
    """Product name of the first visible GPU, '' where the driver does not say."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    name, device = ctypes.create_string_buffer(256), ctypes.c_int()
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
    ):
        return ""
    return name.value.decode(errors="replace")
