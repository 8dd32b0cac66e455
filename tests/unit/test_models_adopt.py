"""ONNX models of other projects under our port: what their graphs give for our input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from conftest import shared_file
from foreign_models import BOX, LABELS, NAMES, NET_WH, write_model
from vault_ml.detector import Detector
from vault_ml.detector_child import head_and_labels, load
from vault_ml.detector_host import DetectorOptions
from vault_ml.errors import ModelError
from vault_ml.geometry import DARKNET_PLACING, Letterbox
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.models.prepare import PreparedModel, prepare, resolve
from vault_ml.yolo.recognise import ULTRALYTICS_PLACING, YOLOX_PLACING

FAMILIES = ("yolov8", "yolov5", "yolox", "yolox-decoded", "end2end")
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def named(path: Path, family: str) -> None:
    """YOLOX has no metadata: its names lie beside it."""
    if family.startswith("yolox"):
        path.with_suffix(".names").write_text("\n".join(LABELS))


def made_ready(path: Path, cache: Path) -> PreparedModel:
    return prepare(resolve(str(path), path.parent), cache)


@pytest.mark.parametrize("half", [pytest.param(False, id="single"), pytest.param(True, id="half")])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_the_input_it_was_trained_with(
    family: str, half: bool, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.onnx", family, half=half)
    named(path, family)
    model = made_ready(path, tmp_path / "cache")
    runtime = OnnxRuntime(model.onnx, device="cpu", threads=1)
    head, labels = head_and_labels(runtime.metadata, model.onnx)
    assert (model.labels, labels, model.net_wh) == (LABELS, LABELS, NET_WH)
    assert model.placing == (YOLOX_PLACING if "yolox" in family else ULTRALYTICS_PLACING)
    detector = Detector(runtime, head, labels, NET_WH, 0.5, 0.45)
    whole = Letterbox.fit(NET_WH, NET_WH)
    pixels = np.zeros((3, NET_WH[1], NET_WH[0], 3), np.uint8)
    pixels[:] = np.array(COLOURS, np.uint8)[:, None, None]

    seen = detector.detect(pixels, [whole] * 3)

    # Blue comes first for YOLOX; the end-to-end model knows red only, and calls it a dog.
    expected = [["cat"], ["dog"], ["bird"]]
    if family == "end2end":
        expected = [["dog"], [], []]
    elif "yolox" in family:
        expected.reverse()
    assert [[each.label(i) for i in range(len(each))] for each in seen] == expected
    for each in seen:
        if len(each):
            np.testing.assert_allclose(each.xyxy, [BOX], atol=0.1 if half else 1e-3)
            assert each.confidence[0] == pytest.approx(1, abs=2e-3)
    runtime.close()


def test_open_sides_are_fixed_by_the_metadata(tmp_path: Path) -> None:
    metadata = {**NAMES, "imgsz": str([NET_WH[1], NET_WH[0]])}
    path = write_model(tmp_path / "m.onnx", "yolov8", sides=("height", "width"), metadata=metadata)
    model = made_ready(path, tmp_path / "cache")
    (given,) = onnx.load(model.onnx).graph.input
    sides = [each.dim_value or each.dim_param for each in given.type.tensor_type.shape.dim]
    assert sides == ["batch", 3, NET_WH[1], NET_WH[0]]


@pytest.mark.parametrize("name", ["yolov8n-random", "yolo11n-random"])
def test_what_ultralytics_exporter_writes_is_understood(name: str, tmp_path: Path) -> None:
    model = made_ready(shared_file(f"models/onnx/{name}.onnx"), tmp_path)
    assert (model.family, model.net_wh, len(model.labels)) == ("yolov8", (640, 640), 80)
    runtime = OnnxRuntime(model.onnx, device="cpu")
    (output,) = runtime.infer(np.zeros((1, 640, 640, 3), np.uint8))
    assert output.shape == (1, 84, 8400)
    runtime.close()


def test_an_export_for_one_picture_never_gets_two(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8", batch=1)
    model = made_ready(path, tmp_path / "cache")
    assert onnx.load(model.onnx).metadata_props[-1].value == "1"
    options = dataclasses.asdict(DetectorOptions(device="cpu", threads=1))
    loop, _ = load(model.onnx, options, print)
    assert loop.batch == 1


def test_same_model_is_converted_once_and_other_names_make_it_another(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8")
    first = made_ready(path, tmp_path / "cache")
    first.onnx.write_bytes(first.onnx.read_bytes())
    before = first.onnx.stat().st_mtime_ns
    assert made_ready(path, tmp_path / "cache").onnx.stat().st_mtime_ns == before
    (tmp_path / "m.labels").write_text("Katze\nHund\nVogel\n")
    other = made_ready(path, tmp_path / "cache")
    assert other.labels == ("Katze", "Hund", "Vogel")
    assert other.sha256 != first.sha256


def test_a_setting_names_the_classes_before_all_else(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8")
    (tmp_path / "m.names").write_text("a\nb\nc\n")
    (tmp_path / "mine.txt").write_text("x\ny\nz\n")
    files = resolve(str(path), tmp_path, tmp_path / "mine.txt")
    assert prepare(files, tmp_path / "cache").labels == ("x", "y", "z")


def test_yolox_of_80_classes_is_taken_for_coco_and_says_so(tmp_path: Path) -> None:
    model = made_ready(shared_file("models/onnx/yolox_nano.onnx"), tmp_path)
    assert (model.family, model.placing, model.labels[2]) == ("yolox", YOLOX_PLACING, "car")
    assert "taken for COCO's" in model.notes[-1]
    assert "BGR from 0 to 255, float32, the frame top left between bars of 114" in model.notes[0]


def test_what_we_adopted_is_a_model_of_ours(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolox")
    named(path, "yolox")
    adopted = made_ready(path, tmp_path / "cache")
    again = made_ready(adopted.onnx, tmp_path / "cache")
    assert again.onnx == adopted.onnx
    assert (again.family, again.placing, again.labels) == ("yolox", YOLOX_PLACING, LABELS)
    adopted.onnx.with_suffix(".names").write_text("a\nb\nc")
    with pytest.raises(ModelError, match=r"has other names than .* convert it again, with --names"):
        made_ready(adopted.onnx, tmp_path / "cache")


def test_models_of_ours_without_a_placing_are_darknets(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8")
    adopted = made_ready(path, tmp_path / "cache").onnx
    model = onnx.load(adopted)
    kept = {p.key: p.value for p in model.metadata_props if p.key != "vault_ml.placing"}
    helper.set_model_props(model, kept)
    onnx.save(model, adopted)
    assert made_ready(adopted, tmp_path).placing == DARKNET_PLACING


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("vault_ml.net_wh", None, id="no-size"),
        pytest.param("vault_ml.heads", "{}", id="no-head"),
        pytest.param("vault_ml.placing", '{"a": 1}', id="other-placing"),
    ],
)
def test_a_damaged_model_of_ours_says_what_to_do(
    key: str, value: str | None, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8")
    adopted = made_ready(path, tmp_path / "cache").onnx
    model = onnx.load(adopted)
    properties = {p.key: p.value for p in model.metadata_props if p.key != key}
    helper.set_model_props(model, properties if value is None else {**properties, key: value})
    onnx.save(model, adopted)
    with pytest.raises(ModelError, match=r"says that vault-ml made it, but not how to use it"):
        made_ready(adopted, tmp_path)


def test_classes_without_names_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolox")
    with pytest.raises(
        ModelError, match=r"m\.onnx: it has 3 classes, .* name such a file in MODEL"
    ):
        made_ready(path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("metadata", "sides", "why"),
    [
        pytest.param(
            {**NAMES, "task": "pose"}, (48, 64), "exported for the task 'pose'", id="task"
        ),
        pytest.param({**NAMES, "names": "{"}, (48, 64), "no literal of names", id="names"),
        pytest.param(NAMES, ("h", "w"), "nothing says how large", id="open"),
        pytest.param(NAMES, (96, 96), "fits no known head of a 96x96 input", id="other-size"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(
    metadata: dict[str, str], sides: tuple[int | str, int | str], why: str, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8", metadata=metadata, sides=sides)
    with pytest.raises(ModelError, match=rf"m\.onnx: .*{why}"):
        made_ready(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_input_of_another_kind_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64, 64, 3])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 64, 64, 3])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Seen: input x uint8 \(1, 64, 64, 3\); output y uint8"):
        made_ready(tmp_path / "m.onnx", tmp_path / "cache")


def test_weights_beside_the_file_come_along(tmp_path: Path) -> None:
    inside = write_model(tmp_path / "inside.onnx", "yolov8")
    folder = tmp_path / "outside"
    folder.mkdir()
    onnx.save(onnx.load(inside), folder / "m.onnx", save_as_external_data=True, size_threshold=0)
    model = made_ready(folder / "m.onnx", tmp_path / "cache")
    runtime = OnnxRuntime(model.onnx, device="cpu", threads=1)
    (output,) = runtime.infer(np.full((1, NET_WH[1], NET_WH[0], 3), 255, np.uint8))
    assert output[0, 4:, 5].tolist() == [1, 1, 1]
    runtime.close()
    for weights in folder.iterdir():
        if weights.suffix != ".onnx":
            weights.unlink()
    with pytest.raises(ModelError, match=r"m\.onnx is not an ONNX model|cannot be read"):
        made_ready(folder / "m.onnx", tmp_path / "cache")


def test_metadata_of_the_exporter_is_kept(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", "yolov8")
    kept = {p.key: p.value for p in onnx.load(made_ready(path, tmp_path).onnx).metadata_props}
    assert kept["task"] == "detect"
    assert json.loads(kept["vault_ml.heads"]) == {"family": "yolov8", "classes": 3}
