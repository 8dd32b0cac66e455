"""ONNX Runtime behind the port: on the CPU everywhere, on CUDA where `onnxruntime-gpu` is."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.port import RuntimeInfo

Device = Literal["auto", "cpu", "cuda"]
"""`auto` takes CUDA where it really is there, else the CPU; the others insist."""

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# `fp32` shall mean it: by default CUDA rounds the factors of a convolution to TF32, 10 bits.
_CUDA_OPTIONS = {"use_tf32": "0"}
_ERRORS_ONLY = 3


class OnnxRuntime:
    """One `.onnx` on one device; implements `InferenceRuntime`."""

    def __init__(self, model: Path, *, device: Device = "auto", threads: int | None = None) -> None:
        """Load `model`.

        Args:
            model: an ONNX file with one input, float32 (n, 3, h, w), h and w fixed.
            device: where to compute.
            threads: processors for one run; None takes what the affinity and the control group's
                quota allow. Other options stay at their defaults, which measured best
                (docs/adr/0002-children.md).

        Raises:
            ConfigError: onnxruntime is not installed, or the requested device is not there.
            ModelError: the file is missing, not a model, or not a detector's.
        """
        self._ort = _import_onnxruntime()
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cpus()
        options.log_severity_level = _ERRORS_ONLY
        self._session: Any = _open(self._ort, model, options, device)
        self._input_name, self._net_wh = _only_input(self._session, model)
        self._metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        on_cuda = self._session.get_providers()[0] == _CUDA
        self._info = RuntimeInfo(
            runtime=f"onnxruntime {self._ort.__version__}",
            device=f"cuda:0 {_cuda_device_name()}".rstrip() if on_cuda else "cpu",
            precision="fp32",
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

    def infer(self, images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """Run the network; see `InferenceRuntime.infer`.

        Raises:
            ValueError: not (n, 3, h, w) float32 with n >= 1, or already closed.
            DetectorUnavailable: the runtime or its device failed.
        """
        if self._session is None:
            raise ValueError("this runtime is closed")
        w, h = self._net_wh
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, h, w):
            raise ValueError(
                f"images: expected (n, 3, {h}, {w}) float32, got {images.shape} {images.dtype}"
            )
        if len(images) == 0:
            raise ValueError("images: expected at least one")
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input_name: images})
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


def _open(ort: ModuleType, model: Path, options: object, device: Device) -> Any:
    if not model.is_file():
        raise ModelError(f"the model file {model} is not there")
    offered = ort.get_available_providers()
    if device == "cuda" and _CUDA not in offered:
        raise ConfigError(
            "the device 'cuda' was asked for, but this ONNX Runtime has no CUDA provider; "
            "run: pip uninstall onnxruntime && pip install 'vault-ml[gpu]', or ask for 'cpu'"
        )
    try:
        if device != "cpu" and _CUDA in offered:
            session = ort.InferenceSession(
                str(model), options, providers=[(_CUDA, _CUDA_OPTIONS), _CPU]
            )
            # Without a working GPU this library carries on, on the CPU, with a line in its log.
            if session.get_providers()[0] == _CUDA:
                return session
            if device == "cuda":
                raise ConfigError(
                    "the device 'cuda' was asked for, but CUDA does not start: no GPU is visible "
                    "(try nvidia-smi), or the CUDA or cuDNN libraries do not fit ONNX Runtime "
                    f"{ort.__version__}"
                )
            del session
        return ort.InferenceSession(str(model), options, providers=[_CPU])
    except ConfigError:
        raise
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime cannot load {model}: {_first_line(error)}; the file is damaged or not "
            "an ONNX model, convert or download it again"
        ) from error


def _only_input(session: Any, model: Path) -> tuple[str, tuple[int, int]]:
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type == "tensor(float)":
        shape = inputs[0].shape
        if len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:]):
            return inputs[0].name, (shape[3], shape[2])
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
