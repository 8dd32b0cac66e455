"""Which runtime runs a model: the one place that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from vault_ml.errors import ConfigError
from vault_ml.geometry import input_wh
from vault_ml.inference.onnx_runtime import Device, OnnxRuntime
from vault_ml.inference.port import InferenceRuntime

Engine = Literal["onnxruntime", "openvino", "mnn"]
ENGINES: tuple[Engine, ...] = ("onnxruntime", "openvino", "mnn")
_MODULES: dict[Engine, str] = {"onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN"}

# What most cameras send; other shapes are compiled when the first recording of one comes.
_USUAL_FRAME_WH = (1920, 1080)


@dataclass(frozen=True, slots=True)
class Opening:
    """How to load a model.

    Attributes:
        engine: which runtime.
        device: where it computes; only ONNX Runtime knows others than the CPU.
        precision: `fp32`, `fp16` (TensorRT) or `int8` (OpenVINO, with `quantized`).
        rect: inputs as small as the frames' shapes allow, instead of one square.
        threads: processors to use; None takes what affinity and quota allow.
        quantized: the INT8 network, for OpenVINO.
        cache: folder for what the runtime compiles or converts; None keeps nothing.
    """

    engine: Engine = "onnxruntime"
    device: Device = "auto"
    precision: str = "fp32"
    rect: bool = False
    threads: int | None = None
    quantized: Path | None = None
    cache: Path | None = None


def opening_to_json(how: Opening) -> dict[str, Any]:
    """For a child process."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(how).items()
    }


def opening_from_json(message: Mapping[str, Any]) -> Opening:
    """The reverse of `opening_to_json`."""
    paths = {
        name: Path(message[name]) if message[name] else None for name in ("quantized", "cache")
    }
    return Opening(**{**message, **paths})


def installed_engines() -> tuple[Engine, ...]:
    """The runtimes that could be imported, without importing them."""
    return tuple(engine for engine in ENGINES if find_spec(_MODULES[engine]) is not None)


def memory_bytes(model: Path, how: Opening) -> int:
    """What the network takes in memory, about: a sum for `vault-ml doctor`."""
    if how.engine == "mnn":
        from vault_ml.inference.mnn import copies_of

        return copies_of(model, how.threads, any_size=how.rect).memory_bytes
    # The weights once as read and once as packed for the processor.
    return 2 * model.stat().st_size


def first_wh(net_wh: tuple[int, int], *, rect: bool) -> tuple[int, int]:
    """The size of input that is made ready at start."""
    return input_wh(_USUAL_FRAME_WH, net_wh, rect=rect)


def open_runtime(model: Path, net_wh: tuple[int, int], how: Opening) -> InferenceRuntime:
    """Load `model`.

    Args:
        model: the ONNX file; with `rect` one that takes any size.
        net_wh: size of its largest input, pixels.
        how: by which runtime.

    Raises:
        ConfigError: the runtime is not installed, or cannot do what is asked.
        ModelError: the model cannot be loaded.
    """
    if how.precision == "int8" and (how.engine != "openvino" or how.quantized is None):
        raise ConfigError("PRECISION=int8 runs on OpenVINO only; set RUNTIME=auto or openvino")
    if how.engine != "onnxruntime" and how.device not in ("auto", "cpu"):
        raise ConfigError(f"{how.engine} computes on the CPU only, not on {how.device}")
    if how.engine == "openvino":
        from vault_ml.inference.openvino import OpenVino

        return OpenVino(
            how.quantized or model,
            net_wh,
            precision=how.precision,
            any_size=how.rect,
            first_wh=first_wh(net_wh, rect=how.rect),
            threads=how.threads,
            cache=how.cache,
        )
    if how.engine == "mnn":
        from vault_ml.inference.mnn import Mnn

        return Mnn(
            model,
            net_wh,
            any_size=how.rect,
            first_wh=first_wh(net_wh, rect=how.rect),
            threads=how.threads,
            cache=how.cache,
        )
    return OnnxRuntime(
        model,
        device=how.device,
        threads=how.threads,
        half=how.precision == "fp16",
        engine_cache=how.cache,
        first_wh=first_wh(net_wh, rect=how.rect),
    )
