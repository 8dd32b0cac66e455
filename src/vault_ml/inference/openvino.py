"""OpenVINO behind the port: x86 and ARM CPUs, FP32 from ONNX and INT8 from `vault-ml quantize`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.inference.compiled_sizes import CompiledSizes
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.lanes import lanes_for
from vault_ml.inference.pictures import check_pictures
from vault_ml.inference.port import RuntimeInfo

_TELEMETRY = "openvino_telemetry"


class OpenVino:
    """One model on the CPU, compiled for each size it meets; implements `InferenceRuntime`.

    One configuration of threads per process: several cap each other at the speed of one thread
    (measured).
    """

    def __init__(
        self,
        model: Path,
        net_wh: tuple[int, int],
        *,
        precision: str = "fp32",
        any_size: bool = False,
        first_wh: tuple[int, int] | None = None,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Load `model` and compile it for a first size.

        Args:
            model: an ONNX file, or OpenVINO's `.xml`, with one input, float32 (n, 3, h, w).
            net_wh: the largest input, pixels.
            precision: what the model is, for `info`; the model itself decides.
            any_size: take smaller inputs as well.
            first_wh: the size that is made ready now; `net_wh` where None.
            threads: processors to use; None takes what affinity and quota allow.
            cache: folder of compiled models, so that the next start is fast; None keeps none.

        Raises:
            ConfigError: OpenVINO is not installed.
            ModelError: the file is missing or not a model of that kind.
        """
        self._ov = import_openvino()
        self._net_wh, self._any_size = net_wh, any_size
        self._lanes, each = lanes_for(threads or usable_cpus())
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(self._lanes),
            "INFERENCE_NUM_THREADS": str(self._lanes * each),
            # On processors with AMX its default would be bfloat16, which is not what fp32 says.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if cache is not None:
            self._options["CACHE_DIR"] = str(cache)
        self._core: Any = self._ov.Core()
        self._model: Any = _read(self._core, model)
        self._sizes: CompiledSizes[_Compiled] = CompiledSizes()
        self._info = RuntimeInfo(f"openvino {_version(self._ov)}", "cpu", precision)
        self._is_closed = False
        try:
            self._compiled(first_wh or net_wh)
        except Exception as error:
            raise ModelError(
                f"OpenVINO cannot compile {model}: {_last_line(error)}; convert it again, or set "
                "RUNTIME=onnxruntime"
            ) from error

    @property
    def info(self) -> RuntimeInfo:
        """What really runs."""
        return self._info

    @property
    def net_wh(self) -> tuple[int, int]:
        """The largest input, pixels."""
        return self._net_wh

    @property
    def lanes(self) -> int:
        """As many as there are streams."""
        return self._lanes

    def infer(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Run the network; see `InferenceRuntime.infer`.

        Raises:
            ValueError: not pictures of a size that the model takes, or already closed.
            DetectorUnavailable: the runtime failed.
        """
        if self._is_closed:
            raise ValueError("this runtime is closed")
        wh = check_pictures(pixels, self._net_wh, any_size=self._any_size)
        try:
            compiled = self._compiled(wh)
            # One picture per run: a batch wins nothing here, and would change the last bits.
            each = [compiled.run(picture) for picture in pixels]
        except Exception as error:  # its errors share no base class
            raise DetectorUnavailable(
                f"{self._info.runtime} failed on cpu: {_last_line(error)}"
            ) from error
        return [np.concatenate(parts) for parts in zip(*each, strict=True)]

    def close(self) -> None:
        """Release the compiled models. Idempotent."""
        self._is_closed = True
        self._sizes.clear()
        self._model = self._core = None

    def _compiled(self, wh: tuple[int, int]) -> _Compiled:
        return self._sizes.get(wh, lambda: _Compiled(self._compile(wh)))

    def _compile(self, wh: tuple[int, int]) -> Any:
        """Bytes go in, as they lie in memory; conversion and scaling are the graph's."""
        from openvino.preprocess import PrePostProcessor

        model = self._model.clone()
        model.reshape([1, 3, wh[1], wh[0]])
        steps = PrePostProcessor(model)
        picture = steps.input()
        picture.tensor().set_element_type(self._ov.Type.u8).set_layout(self._ov.Layout("NHWC"))
        picture.model().set_layout(self._ov.Layout("NCHW"))
        picture.preprocess().convert_element_type(self._ov.Type.f32).scale(255.0)
        return self._core.compile_model(steps.build(), "CPU", self._options)


@dataclass(slots=True)
class _Compiled:
    """A compiled model and its idle requests; each request is one thread's at a time."""

    model: Any
    idle: LifoQueue[Any] = field(default_factory=LifoQueue)

    def run(self, picture: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Outputs of one picture, copied: the request's memory is used again."""
        try:
            request = self.idle.get_nowait()
        except Empty:
            request = self.model.create_infer_request()
        try:
            request.infer({0: np.ascontiguousarray(picture[None])}, share_inputs=True)
            count = len(self.model.outputs)
            return [np.array(request.get_output_tensor(index).data) for index in range(count)]
        finally:
            self.idle.put(request)


def import_openvino() -> Any:
    """The library, without its usage reports.

    Merely importing it sends an event to a web service, unless the package that does so is absent:
    then it takes a stub of its own. So for this process that package is absent.

    Raises:
        ConfigError: it is not installed.
    """
    modules: dict[str, Any] = sys.modules  # None means: not importable
    if "openvino" not in modules:
        modules[_TELEMETRY] = None
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            "OpenVINO is not installed; run: pip install 'vault-ml[openvino]', or set "
            "RUNTIME=onnxruntime"
        ) from error
    return openvino


def _read(core: Any, model: Path) -> Any:
    if not model.is_file():
        raise ModelError(f"the model file {model} is not there")
    try:
        network = core.read_model(str(model))
        inputs: Sequence[Any] = network.inputs
        if len(inputs) != 1 or inputs[0].partial_shape.rank.get_length() != 4:
            raise ModelError(f"{model} is not a detector we can feed: expected one input (n,3,h,w)")
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"OpenVINO cannot load {model}: {_last_line(error)}; the file is damaged or not a "
            "model, convert or quantize it again"
        ) from error
    return network


def _version(openvino: Any) -> str:
    """`2026.4.1`, of a text like `2026.4.1-22204-abcdef-releases/2026/4`."""
    return str(openvino.__version__).split("-", 1)[0]


def _last_line(error: Exception) -> str:
    """What went wrong: the lines before it name places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
