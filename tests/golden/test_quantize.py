"""INT8: an honest calibration passes, a broken one is refused, and figures can be had again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import shared_file
from reference.darknet_weights import random_weights
from vault_ml import calibration
from vault_ml.cli import main
from vault_ml.errors import ConfigError, ModelError
from vault_ml.models.prepare import PreparedModel, prepare, resolve
from vault_ml.models.quantized import MANIFEST, NETWORK, WEIGHTS, find_quantized, quantized_folder
from vault_ml.quantization import quantize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder with yolov3-tiny in it, and a cache."""
    models = tmp_path_factory.mktemp("models")
    for name in ("yolov3-tiny.cfg", "yolov3-tiny.weights"):
        (models / name).symlink_to(shared_file(f"models/yolov3-tiny/{name}"))
    return models, tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(folders: tuple[Path, Path]) -> PreparedModel:
    models, cache = folders
    return prepare(resolve("yolov3-tiny", models), cache)


def photos() -> Path:
    return shared_file("images/coco_val_by27/images/000000000285.jpg").parent


def command(folders: tuple[Path, Path], *words: str) -> int:
    models, cache = folders
    with pytest.raises(SystemExit) as ended:
        main(["quantize", "yolov3-tiny", "--model-dir", str(models), "--cache-dir", str(cache),
              *words])  # fmt: skip
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def manifest(folders: tuple[Path, Path], model: PreparedModel) -> dict[str, Any]:
    assert command(folders, "--calibrate", str(photos())) == 0
    found: dict[str, Any] = json.loads((quantized_folder(model, folders[0]) / MANIFEST).read_text())
    return found


def test_honest_calibration_passes_and_says_what_it_is_worth(
    manifest: dict[str, Any], model: PreparedModel, folders: tuple[Path, Path]
) -> None:
    assert manifest["verdict"] == "passed"
    figures = manifest["figures"]
    assert figures["f1"] >= 0.93
    assert figures["ap50_lost"] <= 0.02
    assert (
        figures["pictures"] == figures["marked_pictures"] == manifest["held_out"]["pictures"] == 9
    )
    assert manifest["calibration"]["pictures"] == 18
    assert not set(manifest["held_out"]["names"]) & set(manifest["calibration"]["names"])
    assert "passed its gate: F1" in find_quantized(model, folders[0]).sentence()


def test_figures_of_the_manifest_can_be_had_again(
    manifest: dict[str, Any], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(folders, "--calibrate", str(photos()), "--verify", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measured"].keys() == manifest["figures"].keys()
    for figure in ("f1", "mean_score_change", "ap50_fp32", "ap50_int8"):
        assert told["measured"][figure] == pytest.approx(manifest["figures"][figure], abs=1e-3)
    assert command(folders, "--calibrate", str(photos()), "--verify") == 0
    assert "ap50_int8" in capsys.readouterr().out
    # Other pictures give other figures, and that is said.
    other = shared_file("images/darknet/dog.jpg").parent
    assert command(folders, "--calibrate", str(other), "--verify") == 2
    assert "the manifest's figures are not those of these pictures" in capsys.readouterr().err


def test_broken_calibration_is_refused_and_leaves_what_was_there(
    manifest: dict[str, Any],
    model: PreparedModel,
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = find_quantized(model, folders[0]).sha256
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
    words = ("--calibrate", str(tmp_path), "--held-out", str(photos()))
    assert command(folders, *words) == 2
    said = capsys.readouterr().err
    assert "is refused: F1" in said
    assert "4 pictures are few" in said
    assert find_quantized(model, folders[0]).sha256 == before
    assert [path for path in folders[0].iterdir() if path.name.startswith(".int8")] == []


def test_below_the_gate_it_is_kept_by_force_and_its_manifest_says_so(
    folders: tuple[Path, Path], model: PreparedModel, tmp_path: Path
) -> None:
    black, models = tmp_path / "black", tmp_path / "models"
    black.mkdir()
    models.mkdir()
    for path in folders[0].glob("yolov3-tiny.*"):
        (models / path.name).symlink_to(path.resolve())
    for number in range(4):
        cv2.imwrite(str(black / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
    words = ("--calibrate", str(black), "--held-out", str(photos()), "--force")
    assert command((models, folders[1]), *words) == 0
    kept = find_quantized(model, models)
    assert kept.verdict == "forced"
    assert kept.figures["f1"] < 0.93
    assert "did not pass" in kept.sentence()


def test_a_network_that_sees_nothing_gets_a_manifest_for_speed_only(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    cfg = tmp_path / "random.cfg"
    shutil.copy(shared_file("models/yolo-fastest/yolo-fastest-1.1.cfg"), cfg)
    cfg.with_suffix(".weights").write_bytes(random_weights(cfg.read_text(), sees_nothing=True))
    model = prepare(resolve(str(cfg), tmp_path), folders[1])
    examples = calibration.load(calibration.files_in(photos())[:4], model, lambda _name: None)
    target = quantized_folder(model, tmp_path)
    manifest = quantize(model, target, examples, examples, force=False, tell=lambda _said: None)
    assert manifest["verdict"] == find_quantized(model, tmp_path).verdict == "speed-only"
    assert "speed" in find_quantized(model, tmp_path).sentence()


@pytest.mark.parametrize("damage", ["network", "weights", "manifest", "other-model", "gone"])
def test_only_what_its_manifest_says_is_loaded(
    manifest: dict[str, Any],
    model: PreparedModel,
    folders: tuple[Path, Path],
    tmp_path: Path,
    damage: str,
) -> None:
    folder = quantized_folder(model, tmp_path)
    shutil.copytree(quantized_folder(model, folders[0]), folder)
    find_quantized(model, tmp_path)
    match damage:
        case "network":
            (folder / NETWORK).write_text("<net/>")
        case "weights":
            (folder / WEIGHTS).write_bytes(b"")
        case "manifest":
            (folder / MANIFEST).write_text("{")
        case "other-model":
            (folder / MANIFEST).write_text(json.dumps({**manifest, "model_sha256": "0" * 64}))
        case "gone":
            (folder / MANIFEST).unlink()
    with pytest.raises(ModelError, match=r"PRECISION=int8: .*vault-ml quantize"):
        find_quantized(model, tmp_path)


def test_label_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    with pytest.raises(ConfigError, match=r"a\.txt is not a label file"):
        calibration.marked_in(tmp_path / "a.jpg", (10, 10))
    with pytest.raises(ConfigError, match="holds no photo or clip"):
        calibration.files_in(tmp_path)
