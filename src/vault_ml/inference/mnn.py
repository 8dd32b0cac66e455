"""MNN behind the port: the fastest FP32 on many CPUs (Winograd's convolutions).

Only the core of the package is used. `MNN.tools` installs a package that reports usage to a web
service, so it is never imported; the converter is called as the native module that it wraps.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vault_ml.control_groups import memory_limit
from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.inference.compiled_sizes import CompiledSizes
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.lanes import lanes_for
from vault_ml.inference.pictures import check_pictures, to_tensor
from vault_ml.inference.port import RuntimeInfo

_SUCCESS = 0
# A copy of the model keeps its weights as read and as transformed for Winograd's convolutions:
# 5.4 times the file for YOLOv3, 6.1 times for YOLOv3-tiny, with what is between the layers.
_LANE_BYTES_PER_BYTE = 6
# Where sizes vary: each has its own, and cameras of one site rarely have more than two.
_SIZES = 2
_MEMORY_SHARE = 0.25
# The outputs are the process': two lanes that redirect them at once would lose them for good.
_QUIET = threading.Lock()


@dataclass(frozen=True, slots=True)
class Copies:
    """How a model is in memory.

    Attributes:
        count: how often.
        threads: of each.
        memory_bytes: of all of them, about.
    """

    count: int
    threads: int
    memory_bytes: int


def copies_of(model: Path, threads: int | None, *, any_size: bool) -> Copies:
    """As many copies as a quarter of the memory holds, at least one.

    Args:
        model: an ONNX file.
        threads: processors to use; None takes what affinity and quota allow.
        any_size: inputs are of several sizes.
    """
    each_bytes = _LANE_BYTES_PER_BYTE * model.stat().st_size * (_SIZES if any_size else 1)
    most = int(_MEMORY_SHARE * memory_limit()[0] / each_bytes)
    count, threads = lanes_for(threads or usable_cpus(), max(1, most))
    return Copies(count, threads, count * each_bytes)


class Mnn:
    """One model on the CPU, a copy of it for each lane; implements `InferenceRuntime`."""

    def __init__(
        self,
        model: Path,
        net_wh: tuple[int, int],
        *,
        any_size: bool = False,
        first_wh: tuple[int, int] | None = None,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Convert `model`, unless `cache` holds the result, and load it.

        Args:
            model: an ONNX file with one input, float32 (n, 3, h, w).
            net_wh: the largest input, pixels.
            any_size: take smaller inputs as well.
            first_wh: the size that is made ready now; `net_wh` where None.
            threads: processors to use; None takes what affinity and quota allow.
            cache: folder of converted models; None converts anew each time.

        Raises:
            ConfigError: MNN is not installed.
            ModelError: the file is missing, or MNN cannot convert it.
        """
        mnn = _import_mnn()
        if not model.is_file():
            raise ModelError(f"the model file {model} is not there")
        self._net_wh, self._any_size = net_wh, any_size
        self._info = RuntimeInfo(f"mnn {version('MNN')}", "cpu", "fp32")
        copies = copies_of(model, threads, any_size=any_size)
        self._lanes = copies.count
        with contextlib.ExitStack() as stack:
            folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            converted = folder / f"{model.stem}-mnn-{version('MNN')}.mnn"
            if not converted.is_file():
                _convert(model, converted)
            self._new_lane = partial(_Lane, mnn, model, converted, copies.threads)
            first = self._new_lane()
            first.session(first_wh or net_wh)
            self._until_closed = stack.pop_all()
        # Packing the weights takes half a second for YOLOv3-tiny, three for YOLOv3, and nothing
        # else in the process gets on meanwhile: further lanes (None) are made when first wanted.
        # The one that was used last is taken first: its memory is still in the caches.
        self._free: queue.LifoQueue[_Lane | None] = queue.LifoQueue()
        for lane in (*[None] * (self._lanes - 1), first):
            self._free.put(lane)
        self._is_closed = False

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
        """As many as processors, and as a quarter of the memory holds copies of the model."""
        return self._lanes

    def infer(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Run the network; see `InferenceRuntime.infer`.

        Raises:
            ValueError: not pictures of a size that the model takes, or already closed.
            DetectorUnavailable: the runtime failed.
        """
        wh = check_pictures(pixels, self._net_wh, any_size=self._any_size)
        lane = self._free.get()
        try:
            if self._is_closed:
                raise ValueError("this runtime is closed")
            lane = lane or self._new_lane()
            each = [lane.run(wh, picture[None]) for picture in pixels]
        except (_RunFailed, ModelError) as failure:
            raise DetectorUnavailable(f"{self._info.runtime} failed on cpu: {failure}") from failure
        finally:
            self._free.put(lane)
        return [np.concatenate(parts) for parts in zip(*each, strict=True)]

    def close(self) -> None:
        """Release the lanes that are not at work. Idempotent."""
        self._is_closed = True
        free = []
        with contextlib.suppress(queue.Empty):
            while True:
                free.append(self._free.get_nowait())
        for lane in free:
            if lane:
                lane.close()
            self._free.put(lane)  # somebody may be waiting for one, and shall hear of the end
        self._until_closed.close()


class _RunFailed(Exception):
    """MNN's own code of what went wrong."""


class _Lane:
    """A copy of the model, for one thread at a time, with a session per size of input.

    Sessions of one copy share a lock, whatever thread they run on.
    """

    def __init__(self, mnn: Any, model: Path, converted: Path, threads: int) -> None:
        self._mnn = mnn
        self._options = {"backend": "CPU", "numThread": threads, "precision": "high"}
        self._net: Any = None
        with _nothing_printed(), contextlib.suppress(Exception):  # it has no other type for this
            self._net = mnn.Interpreter(str(converted))
        if not self._net:
            raise ModelError(f"MNN cannot load {model}; set RUNTIME=onnxruntime")
        self._sizes: CompiledSizes[Any] = CompiledSizes()

    def run(self, wh: tuple[int, int], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        session = self.session(wh)
        images = to_tensor(pixels)
        layout, kind = self._mnn.Tensor_DimensionType_Caffe, self._mnn.Halide_Type_Float
        source = self._mnn.Tensor(images.shape, kind, images, layout)
        self._net.getSessionInput(session).copyFrom(source)
        if (code := self._net.runSession(session)) != _SUCCESS:
            raise _RunFailed(f"code {code}")
        outputs = self._net.getSessionOutputAll(session)
        results = []
        for name in sorted(outputs, key=_in_order):
            shape = outputs[name].getShape()
            values = np.zeros(shape, np.float32)
            target = self._mnn.Tensor(shape, kind, values, layout)
            outputs[name].copyToHostTensor(target)
            # A copy: what it gives is a view of memory that goes with `target`.
            results.append(np.array(target.getNumpyData(), np.float32).reshape(shape))
        return results

    def session(self, wh: tuple[int, int]) -> Any:
        return self._sizes.get(wh, lambda: self._resized(wh))

    def close(self) -> None:
        self._sizes.clear()
        self._net = None

    def _resized(self, wh: tuple[int, int]) -> Any:
        with _nothing_printed():
            session = self._net.createSession(self._options)
            self._net.resizeTensor(self._net.getSessionInput(session), (1, 3, wh[1], wh[0]))
            self._net.resizeSession(session)
        return session


def _import_mnn() -> Any:
    try:
        with _nothing_printed():
            import MNN
    except ImportError as error:
        raise ConfigError(
            "MNN is not installed; run: pip install 'vault-ml[mnn]', or set RUNTIME=onnxruntime"
        ) from error
    return MNN


def _convert(model: Path, target: Path) -> None:
    """ONNX to MNN's own format, beside `target` and then renamed: a reader sees all or nothing."""
    with _nothing_printed():
        import _tools  # the native module; see the head of this file
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".mnn-") as folder:
        made = Path(folder).resolve() / target.name
        # It leaves a file in the current folder.
        with _nothing_printed(), contextlib.chdir(folder):
            _tools.mnnconvert(
                [
                    *("mnnconvert", "-f", "ONNX", "--bizCode", "vault-ml"),
                    *("--modelFile", str(model.resolve()), "--MNNModel", str(made)),
                ]
            )
        if not made.is_file():
            raise ModelError(f"MNN cannot convert {model}; set RUNTIME=onnxruntime")
        made.replace(target)


def _in_order(name: str) -> tuple[str, int]:
    """`head_10` after `head_9`."""
    number = re.search(r"\d+$", name)
    return (name[: number.start()], int(number.group())) if number else (name, 0)


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """The library writes to both outputs from C, past Python and past any log level."""
    with _QUIET:
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [(fd, os.dup(fd)) for fd in (1, 2)]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            for fd, _ in kept:
                os.dup2(nowhere, fd)
            yield
        finally:
            for fd, copy in kept:
                os.dup2(copy, fd)
                os.close(copy)
            os.close(nowhere)
