"""INT8 models that `vault-ml quantize` made: a folder with the network and a manifest.

The manifest says what the network was made from and how far it was found to agree with it. Without
one that fits, byte by byte, nothing is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from vault_ml.errors import ModelError
from vault_ml.models.prepare import PreparedModel

NETWORK, WEIGHTS, MANIFEST = "network.xml", "network.bin", "manifest.json"
MANIFEST_FORMAT = 1
Verdict = Literal["passed", "forced", "speed-only"]


@dataclass(frozen=True, slots=True)
class Quantized:
    """An INT8 model whose files are what its manifest says.

    Attributes:
        network: the file that OpenVINO loads.
        sha256: digest of its files, for the run id.
        verdict: `passed`; `forced`, below the gate and taken all the same; `speed-only`, of a
            model that sees nothing to compare.
        figures: what was measured.
    """

    network: Path
    sha256: str
    verdict: Verdict
    figures: Mapping[str, Any]

    def sentence(self) -> str:
        """For the log."""
        if self.verdict == "speed-only":
            return "this INT8 model is for measuring speed: how well it sees is not known"
        told = f"F1 {self.figures['f1']:.3f} against FP32 on {self.figures['pictures']} pictures"
        if self.verdict == "forced":
            return f"this INT8 model did not pass its gate and was kept by force: {told}"
        return f"this INT8 model passed its gate: {told}"


def quantized_folder(model: PreparedModel, model_dir: Path) -> Path:
    """Where the INT8 version of exactly this model is, or would be."""
    return model_dir / f"{model.name}-{model.sha256[:12]}-int8"


def find_quantized(model: PreparedModel, model_dir: Path) -> Quantized:
    """The INT8 version of a model.

    Raises:
        ModelError: there is none, or its files are not what its manifest says.
    """
    folder = quantized_folder(model, model_dir)
    how = f"make it with: vault-ml quantize {model.name} --calibrate FOLDER"
    try:
        found = json.loads((folder / MANIFEST).read_text())
        files, source = dict(found["files"]), str(found["model_sha256"])
        verdict, figures = found["verdict"], dict(found["figures"])
        is_known = found["format"] == MANIFEST_FORMAT
    except FileNotFoundError:
        raise ModelError(
            f"PRECISION=int8: there is no INT8 version of this {model.name} in {folder.parent}; "
            f"{how}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"PRECISION=int8: {folder / MANIFEST} cannot be read; {how}") from error
    if not is_known or verdict not in ("passed", "forced", "speed-only"):
        raise ModelError(f"PRECISION=int8: {folder / MANIFEST} is of another version; {how}")
    if source != model.sha256 or set(files) != {NETWORK, WEIGHTS}:
        raise ModelError(f"PRECISION=int8: {folder / MANIFEST} is of another model; {how}")
    for name, sum_ in files.items():
        if sha256_of(folder / name) != sum_:
            raise ModelError(
                f"PRECISION=int8: {folder / name} is not the file that its manifest names; {how}"
            )
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return Quantized(folder / NETWORK, digest, cast("Verdict", verdict), figures)


def sha256_of(path: Path) -> str:
    """Hexadecimal; '' where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
