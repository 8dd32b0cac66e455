"""A network that takes as long as the real one, where its weights are not to be had.

The time of a convolution does not depend on its weights. What is seen does: these see nothing, as
on most recordings.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from reference.darknet_weights import random_weights
from vault_ml.calibration import load
from vault_ml.models.prepare import PreparedModel, prepare, resolve
from vault_ml.models.quantized import quantized_folder
from vault_ml.quantization import quantize


def write_random_model(cfg: Path, folder: Path) -> Path:
    """Weights for a .cfg, and the .cfg beside them; returns the latter."""
    copy = folder / cfg.name
    shutil.copy(cfg, copy)
    copy.with_suffix(".weights").write_bytes(random_weights(cfg.read_text(), sees_nothing=True))
    return copy


def quantize_for_speed(cfg: Path, clip: Path, models: Path, cache: Path) -> PreparedModel:
    """An INT8 version; its manifest says that it is for measuring speed only."""
    model = prepare(resolve(str(cfg), models), cache)
    examples = load([clip], model, lambda _name: None)
    manifest = quantize(
        model, quantized_folder(model, models), examples, examples, force=False,
        tell=lambda _sentence: None,
    )  # fmt: skip
    assert manifest["verdict"] == "speed-only"
    return model
