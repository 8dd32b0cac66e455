"""FP32 -> INT8, with figures that say how much of its sight the model kept.

NNCF finds from the calibration pictures in which ranges the numbers of each layer lie. INT8
everywhere is tried first; if that does not pass the gate, the first convolution and those before
the heads stay in floating point, where boxes and scores are decided.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Any

from vault_ml.agreement import Agreement, Marked, agreement, ap50
from vault_ml.calibration import Example
from vault_ml.detection import Detections
from vault_ml.detector import Detector
from vault_ml.detector_child import head_and_labels
from vault_ml.errors import ConfigError, ModelError
from vault_ml.inference.onnx_file import read_metadata
from vault_ml.inference.openvino import OpenVino, import_openvino
from vault_ml.inference.pictures import to_tensor
from vault_ml.models.prepare import PreparedModel
from vault_ml.models.quantized import (
    MANIFEST,
    MANIFEST_FORMAT,
    NETWORK,
    WEIGHTS,
    Verdict,
    sha256_of,
)

LEAST_F1 = 0.93
MOST_AP50_LOST = 0.02
FEW_PICTURES = 100
# Boxes are compared above darknet's usual threshold for showing them; the curve needs nearly all.
_COMPARED_ABOVE, _CURVE_FROM = 0.25, 0.01
_NMS_IOU = 0.45
# A trained model sees a handful of objects in a picture. One with random weights sees none, or
# hundreds everywhere: there is nothing whose agreement would mean anything.
_SENSIBLE_PER_PICTURE = 100
_Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on the held-out pictures.

    Attributes:
        pictures: how many.
        f1: agreement of INT8 with FP32, boxes above 0.25.
        mean_score_change: of the boxes that both saw.
        boxes_fp32, boxes_int8: how many boxes each saw.
        marked_pictures: of how many there were label files.
        ap50_fp32, ap50_int8: against them; None without.
    """

    pictures: int
    f1: float
    mean_score_change: float
    boxes_fp32: int
    boxes_int8: int
    marked_pictures: int
    ap50_fp32: float | None
    ap50_int8: float | None

    @property
    def ap50_lost(self) -> float | None:
        """FP32 minus INT8; None without label files."""
        if self.ap50_fp32 is None or self.ap50_int8 is None:
            return None
        return self.ap50_fp32 - self.ap50_int8

    def to_json(self) -> dict[str, float | None]:
        """As the manifest has them."""
        return {**asdict(self), "ap50_lost": self.ap50_lost}

    def shortcomings(self) -> list[str]:
        """Why the gate refuses; empty where it lets through."""
        found = []
        if self.f1 < LEAST_F1:
            found.append(f"F1 {self.f1:.3f} is below {LEAST_F1}")
        if self.ap50_lost is not None and self.ap50_lost > MOST_AP50_LOST:
            found.append(f"{self.ap50_lost:.3f} of AP50 is lost, more than {MOST_AP50_LOST}")
        return found

    @property
    def says_nothing(self) -> bool:
        """FP32 itself sees nothing, or everything everywhere: random weights."""
        per_picture = self.boxes_fp32 / self.pictures
        return self.boxes_fp32 == 0 or per_picture > _SENSIBLE_PER_PICTURE


def quantize(
    model: PreparedModel,
    target: Path,
    calibration: Sequence[Example],
    held_out: Sequence[Example],
    *,
    force: bool,
    tell: _Tell,
) -> dict[str, Any]:
    """Make the INT8 version of a model, measure it, and keep it if it passes.

    Args:
        model: ready to run in FP32.
        target: folder to write; an older one there is replaced only by one that passed.
        calibration: pictures that show the ranges.
        held_out: others, to measure with.
        force: keep it below the gate as well; the manifest says so.
        tell: given a sentence now and then.

    Returns:
        The manifest.

    Raises:
        ConfigError: NNCF or OpenVINO is not installed.
        ModelError: it did not pass; the sentence says by how much. Nothing is kept.
    """
    nncf = _import_nncf()
    before = _look(model, OpenVino(model.onnx, model.net_wh), held_out)
    for kept_in_float in (False, True):
        tell("INT8 everywhere" if not kept_in_float else "first and head convolutions in FP32")
        with tempfile.TemporaryDirectory(dir=_made(target.parent), prefix=".int8-") as name:
            folder = Path(name)
            _write_network(nncf, model, calibration, folder, kept_in_float=kept_in_float)
            figures = compare(model, folder / NETWORK, held_out, before)
            tell(f"F1 {figures.f1:.3f}, mean score change {figures.mean_score_change:.3f}")
            short = [] if figures.says_nothing else figures.shortcomings()
            if short and not kept_in_float:
                continue
            if short and not force:
                raise ModelError(
                    f"the INT8 version of {model.name} is refused: {'; '.join(short)}. Calibrate "
                    "with more pictures, and with such as your cameras make (300 are good), or "
                    "keep it all the same with --force"
                )
            verdict: Verdict = (
                "speed-only" if figures.says_nothing else "forced" if short else "passed"
            )
            manifest = _manifest(
                model, folder, verdict, figures, calibration, held_out, kept_in_float=kept_in_float
            )
            (folder / MANIFEST).write_text(dumps(manifest, indent=1) + "\n")
            _move(folder, target)
            return manifest
    raise AssertionError("the second attempt returns or raises")


def compare(
    model: PreparedModel,
    network: Path,
    held_out: Sequence[Example],
    before: Sequence[Detections] | None = None,
) -> Figures:
    """Measure an INT8 network against FP32 on pictures; what `--verify` repeats."""
    if before is None:
        before = _look(model, OpenVino(model.onnx, model.net_wh), held_out)
    after = _look(model, OpenVino(network, model.net_wh, precision="int8"), held_out)
    found: Agreement = agreement(after, before, _COMPARED_ABOVE)
    marked = [(index, each.marked) for index, each in enumerate(held_out) if each.marked]
    return Figures(
        pictures=len(held_out),
        f1=round(found.f1, 6),
        mean_score_change=round(found.mean_score_change, 6),
        boxes_fp32=found.theirs,
        boxes_int8=found.ours,
        marked_pictures=len(marked),
        ap50_fp32=_curve(before, marked),
        ap50_int8=_curve(after, marked),
    )


def _curve(seen: Sequence[Detections], marked: Sequence[tuple[int, Marked]]) -> float | None:
    found = ap50([seen[index] for index, _ in marked], [each for _, each in marked])
    return None if found is None else round(found, 6)


def _look(model: PreparedModel, runtime: OpenVino, examples: Sequence[Example]) -> list[Detections]:
    head, labels = head_and_labels(read_metadata(model.onnx), model.onnx)
    detector = Detector(runtime, head, labels, model.net_wh, _CURVE_FROM, _NMS_IOU)
    try:
        return [
            detector.detect(example.pixels[None], [example.letterbox])[0] for example in examples
        ]
    finally:
        runtime.close()


def _write_network(
    nncf: Any,
    model: PreparedModel,
    calibration: Sequence[Example],
    folder: Path,
    *,
    kept_in_float: bool,
) -> None:
    openvino = import_openvino()
    network = openvino.Core().read_model(str(model.onnx))
    network.reshape([1, 3, model.net_wh[1], model.net_wh[0]])
    ignored = nncf.IgnoredScope(names=_edge_convolutions(network)) if kept_in_float else None
    with contextlib.redirect_stdout(sys.stderr):  # it draws its progress there
        smaller = nncf.quantize(
            network,
            nncf.Dataset([example.pixels for example in calibration], lambda p: to_tensor(p[None])),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=ignored,
        )
    openvino.save_model(smaller, str(folder / NETWORK), compress_to_fp16=False)


def _edge_convolutions(network: Any) -> list[str]:
    """Names of the first convolution, and of the last one before each output."""
    convolutions = [
        each for each in network.get_ordered_ops() if "Convolution" in each.get_type_name()
    ]
    names = [convolutions[0].get_friendly_name()] if convolutions else []
    for result in network.get_results():
        node = result
        while "Convolution" not in node.get_type_name() and node.inputs():
            node = node.input(0).get_source_output().get_node()
        if node.get_friendly_name() not in names and node.inputs():
            names.append(node.get_friendly_name())
    return names


def _manifest(
    model: PreparedModel,
    folder: Path,
    verdict: Verdict,
    figures: Figures,
    calibration: Sequence[Example],
    held_out: Sequence[Example],
    *,
    kept_in_float: bool,
) -> dict[str, Any]:
    return {
        "format": MANIFEST_FORMAT,
        "model": model.name,
        "model_sha256": model.sha256,
        "verdict": verdict,
        "figures": figures.to_json(),
        "gate": {"least_f1": LEAST_F1, "most_ap50_lost": MOST_AP50_LOST},
        "kept_in_float": "first and head convolutions" if kept_in_float else "nothing",
        "calibration": _pictures(calibration),
        "held_out": _pictures(held_out),
        "made_with": {each: version(each) for each in ("nncf", "openvino")},
        "files": {name: sha256_of(folder / name) for name in (NETWORK, WEIGHTS)},
    }


def _pictures(examples: Sequence[Example]) -> Mapping[str, Any]:
    """Their names, and what they look like to the network: the same pictures, the same digest."""
    digest = sha256()
    for example in sorted(examples, key=lambda each: each.name):
        digest.update(example.name.encode() + b"\0" + example.pixels.tobytes())
    return {
        "pictures": len(examples),
        "sha256": digest.hexdigest(),
        "names": sorted(example.name for example in examples),
    }


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


def _move(folder: Path, target: Path) -> None:
    """Files first, the manifest last: a folder without one is no model."""
    target.mkdir(exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)
    for name in (NETWORK, WEIGHTS, MANIFEST):
        (folder / name).chmod(0o644)
        shutil.move(folder / name, target / name)


def _import_nncf() -> Any:
    """The library, without its usage reports (see `inference.openvino`) and its chatter."""
    import_openvino()
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import nncf
    except ImportError as error:
        raise ConfigError("NNCF is not installed; run: pip install 'vault-ml[quantize]'") from error
    if "openvino_telemetry.backend" in sys.modules:
        raise ConfigError("openvino_telemetry was loaded before; quantize in a process of its own")
    nncf.set_log_level(logging.ERROR)
    return nncf
