"""What is to run, and how: from the settings' words to the options of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vault_ml.detector_process import DetectorOptions
from vault_ml.inference.choosing import choose, remembered_choice
from vault_ml.inference.onnx_runtime import Device
from vault_ml.inference.opening import Engine, Opening
from vault_ml.models.any_size import any_size
from vault_ml.models.prepare import PreparedModel
from vault_ml.models.quantized import find_quantized

AUTO = "auto"
_ENGINES: Mapping[str, tuple[Engine, Device]] = MappingProxyType(
    {
        "onnxruntime": ("onnxruntime", "auto"),
        "openvino": ("openvino", "auto"),
        "mnn": ("mnn", "auto"),
        "cuda": ("onnxruntime", "cuda"),
        "tensorrt": ("onnxruntime", "tensorrt"),
    }
)


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """A model and how it runs.

    Attributes:
        model: as the detector takes it.
        how: which runtime, on which device, in which precision and shape of input.
        reason: why this runtime; a sentence.
        identity: what stands for the runtime in a run id; None for the name and version of what
            really runs. `auto` stands for all runtimes of one precision (ADR 14).
        quantized_sha256: digest of the INT8 network; '' where there is none.
        notes: sentences worth a warning.
    """

    model: PreparedModel
    how: Opening
    reason: str
    identity: str | None
    quantized_sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def rect(self) -> bool:
        """Whether inputs are as small as the frames' shapes allow."""
        return self.how.rect

    def detector_options(
        self, *, confidence_threshold: float, nms_threshold: float, deadline_s: float = 30.0
    ) -> DetectorOptions:
        """For `DetectorProcess`."""
        how = self.how
        return DetectorOptions(
            confidence_threshold=confidence_threshold,
            nms_threshold=nms_threshold,
            engine=how.engine,
            device=how.device,
            precision=how.precision,
            rect=how.rect,
            quantized=None if how.quantized is None else str(how.quantized),
            cache=None if how.cache is None else str(how.cache),
            threads=how.threads,
            deadline_s=deadline_s,
        )


def runtime_for(
    model: PreparedModel,
    *,
    runtime: str,
    precision: str,
    rect: bool,
    model_dir: Path,
    cache_dir: Path,
    may_measure: bool = True,
) -> RuntimePlan:
    """Decide how a model runs.

    Args:
        model: as it was prepared.
        runtime: `auto`, a library, `cuda` or `tensorrt`.
        precision: `fp32`, `fp16` or `int8`.
        rect: inputs as small as the frames' shapes allow.
        model_dir: where INT8 versions are.
        cache_dir: where converted and compiled models, and measurements, are kept.
        may_measure: with `auto`, measure where nothing is remembered; else take ONNX Runtime.

    Raises:
        ModelError: there is no INT8 version, or the model takes no other sizes.
        ConfigError: no runtime fits.
    """
    notes: tuple[str, ...] = ()
    quantized_path, quantized_sha256 = None, ""
    if precision == "int8":
        quantized = find_quantized(model, model_dir)
        quantized_path, quantized_sha256 = quantized.network, quantized.sha256
        if quantized.verdict != "passed":
            notes = (quantized.sentence(),)
    if rect:
        model = any_size(model, cache_dir)
    how = Opening(precision=precision, rect=rect, quantized=quantized_path, cache=cache_dir)
    if runtime != AUTO:
        engine, device = _ENGINES[runtime]
        reason, identity = f"RUNTIME={runtime}", None
    else:
        engine, reason = _chosen(model, how, cache_dir, may_measure=may_measure)
        device, identity = "auto", AUTO
    how = Opening(engine, device, precision, rect, None, quantized_path, cache_dir)
    return RuntimePlan(model, how, reason, identity, quantized_sha256, notes)


def _chosen(
    model: PreparedModel, how: Opening, cache_dir: Path, *, may_measure: bool
) -> tuple[Engine, str]:
    if may_measure or how.precision == "int8":
        choice = choose(model.onnx, model.sha256, model.net_wh, how, cache_dir)
        return choice.engine, choice.reason
    remembered = remembered_choice(model.sha256, how, cache_dir)
    if remembered is None:
        return "onnxruntime", "nothing was measured on this machine yet"
    return remembered.engine, remembered.reason
