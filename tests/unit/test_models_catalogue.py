from __future__ import annotations

import hashlib
import re

import pytest

from conftest import shared_file
from vault_ml.errors import ModelError
from vault_ml.models.catalogue import KNOWN_MODELS, KnownModel, known_model


def test_the_models_of_the_issue_are_known() -> None:
    assert list(KNOWN_MODELS) == ["yolov3", "yolov3-spp", "yolov3-tiny"]


def test_an_unknown_name_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(ModelError, match=r"no known model 'yolo9'; known are yolov3, yolov3-spp"):
        known_model("yolo9")


@pytest.mark.parametrize("model", KNOWN_MODELS.values(), ids=KNOWN_MODELS.keys())
def test_every_file_has_an_address_a_size_and_a_sum(model: KnownModel) -> None:
    assert known_model(model.name) is model
    assert model.licence
    assert model.summary
    assert [file.file_name for file in model.files] == [
        f"{model.name}.cfg",
        f"{model.name}.weights",
    ]
    for file in model.files:
        assert all(re.fullmatch(r"https://[a-z.]+/\S+", url) for url in file.urls)
        assert file.urls
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.sum_source
    assert model.size_bytes == model.cfg.size_bytes + model.weights.size_bytes
    if model.package is not None:
        assert set(model.package.sha256) == {file.file_name for file in model.files}
        assert model.package_name == f"{model.package.distribution} {model.package.version}"
    else:
        assert model.package_name == ""


@pytest.mark.parametrize(
    "path",
    ["yolov3-tiny/yolov3.cfg", "cfg/yolov3-spp.cfg", "yolov3-tiny/yolov3-tiny.cfg",
     "yolov3-tiny/yolov3-tiny.weights"],
)  # fmt: skip
def test_sums_and_sizes_are_those_of_the_real_files(path: str) -> None:
    content = shared_file(f"models/{path}").read_bytes()
    files = {file.file_name: file for model in KNOWN_MODELS.values() for file in model.files}
    expected = files[path.rpartition("/")[2]]

    assert len(content) == expected.size_bytes
    assert hashlib.sha256(content).hexdigest() == expected.sha256
    assert expected.sum_source == "the file itself"


def test_the_package_carries_the_same_cfg_without_its_last_newline() -> None:
    content = shared_file("models/yolov3-tiny/yolov3-tiny.cfg").read_bytes()
    package = known_model("yolov3-tiny").package

    assert package is not None
    assert hashlib.sha256(content[:-1]).hexdigest() == package.sha256["yolov3-tiny.cfg"]
