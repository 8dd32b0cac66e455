"""RUNTIME=auto takes the fastest, says why, and measures once per model and machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tiny_detector import NET_WH, write_tiny_model
from vault_ml.errors import ConfigError, ModelError
from vault_ml.inference import choosing
from vault_ml.inference.choosing import Choice, choose, cpu_name, fastest, measure, recall
from vault_ml.inference.lanes import lanes_for
from vault_ml.inference.opening import (
    Engine,
    Opening,
    installed_engines,
    open_runtime,
    opening_from_json,
    opening_to_json,
)

MODEL = "0" * 64


def answer(rate: float, device: str = "cpu") -> dict[str, Any]:
    return {"runtime": "x 1", "device": device, "pictures_per_s": rate}


def test_the_fastest_is_taken_and_all_are_told() -> None:
    choice = fastest({"onnxruntime": answer(10), "openvino": answer(12), "mnn": answer(16)})
    assert choice.engine == "mnn"
    for told in ("onnxruntime 10", "openvino 12", "mnn 16"):
        assert told in choice.reason


def test_what_is_hardly_faster_does_not_displace_onnx_runtime() -> None:
    assert fastest({"onnxruntime": answer(10), "mnn": answer(10.9)}).engine == "onnxruntime"
    assert fastest({"onnxruntime": answer(10), "mnn": answer(11.1)}).engine == "mnn"


def test_a_gpu_wins_whatever_the_rates() -> None:
    choice = fastest({"onnxruntime": answer(5, "cuda:0 NVIDIA L4"), "mnn": answer(10)})
    assert (choice.engine, choice.reason) == ("onnxruntime", "it runs on cuda:0 NVIDIA L4")


def test_who_cannot_run_the_model_is_left_out_and_named() -> None:
    choice = fastest({"onnxruntime": answer(5), "mnn": {"refused": "no such layer"}})
    assert choice.engine == "onnxruntime"
    assert "mnn cannot run it" in choice.reason


def test_nobody_can_run_it() -> None:
    with pytest.raises(ConfigError, match="mnn: no such layer"):
        fastest({"mnn": {"refused": "no such layer"}})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Stands for the measurements; the list tells which were made."""
    made: list[Engine] = []

    def instead(model: Path, net_wh: object, how: Opening, engine: Engine) -> Mapping[str, Any]:
        made.append(engine)
        return answer({"onnxruntime": 1, "openvino": 2, "mnn": 3}[engine])

    monkeypatch.setattr(choosing, "measure", instead)
    monkeypatch.setattr(choosing, "installed_engines", lambda: ("onnxruntime", "openvino", "mnn"))
    return made


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def test_what_was_measured_on_a_crowded_machine_is_not_remembered(
    tmp_path: Path, measured: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = 4.0 * (os.cpu_count() or 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (crowd + 1, 0.0, 0.0))
    first = choose(tmp_path / "m.onnx", MODEL, NET_WH, Opening(), tmp_path)
    assert "crowded, not remembered" in first.reason
    times = len(measured)
    monkeypatch.setattr(os, "getloadavg", lambda: (crowd, 0.0, 0.0))
    assert not choose(tmp_path / "m.onnx", MODEL, NET_WH, Opening(), tmp_path).is_remembered
    assert len(measured) == 2 * times
    assert choose(tmp_path / "m.onnx", MODEL, NET_WH, Opening(), tmp_path).is_remembered


def test_measures_once_per_model_and_machine(tmp_path: Path, measured: list[Engine]) -> None:
    first = choose(tmp_path / "m.onnx", MODEL, NET_WH, Opening(), tmp_path / "cache")
    assert (first.engine, first.is_remembered) == ("mnn", False)
    assert measured == ["onnxruntime", "openvino", "mnn"]
    second = choose(tmp_path / "m.onnx", MODEL, NET_WH, Opening(), tmp_path / "cache")
    assert (second.engine, second.is_remembered, second.rates) == ("mnn", True, first.rates)
    assert "remembered" in second.reason
    assert len(measured) == 3


@pytest.mark.parametrize("change", ["model", "shape", "quota", "processor", "versions"])
def test_measures_again_when_something_is_different(
    tmp_path: Path, measured: list[Engine], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    choose(tmp_path / "m.onnx", MODEL, NET_WH, Opening(), tmp_path)
    match change:
        case "quota":
            monkeypatch.setattr(choosing, "usable_cpus", lambda: 77)
        case "processor":
            monkeypatch.setattr(choosing, "cpu_name", lambda: "another")
        case "versions":
            monkeypatch.setattr(choosing, "_versions", lambda packages: {"onnxruntime": "99"})
    sha256 = "1" * 64 if change == "model" else MODEL
    how = Opening(rect=change == "shape")
    assert not choose(tmp_path / "m.onnx", sha256, NET_WH, how, tmp_path).is_remembered
    assert len(measured) == 6


@pytest.mark.parametrize("content", ["", "[]", '{"engine": "abacus", "reason": "", "rates": {}}'])
def test_a_memory_that_makes_no_sense_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "runtime.json"
    path.write_text(content)
    assert recall(path) is None
    assert recall(tmp_path / "gone.json") is None


def test_a_folder_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, measured: list[Engine]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for _ in range(2):
        assert choose(tmp_path / "m", MODEL, NET_WH, Opening(), in_the_way).engine == "mnn"
    assert len(measured) == 6


def test_only_one_runtime_needs_no_measuring(
    tmp_path: Path, measured: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "installed_engines", lambda: ("onnxruntime",))
    assert choose(tmp_path / "m", MODEL, NET_WH, Opening(), tmp_path).engine == "onnxruntime"
    assert measured == []
    monkeypatch.setattr(choosing, "installed_engines", lambda: ())
    with pytest.raises(ConfigError, match="no runtime is installed"):
        choose(tmp_path / "m", MODEL, NET_WH, Opening(), tmp_path)


def test_really_measures_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.onnx")
    for engine in installed_engines():
        found = measure(model, NET_WH, Opening(cache=tmp_path / "cache"), engine)
        assert found["pictures_per_s"] > 0
        assert found["runtime"].startswith(engine)


def test_a_model_that_does_not_load_is_refused_by_each(tmp_path: Path) -> None:
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"not a model")
    found = measure(model, NET_WH, Opening(), "onnxruntime")
    assert "damaged or not an ONNX model" in found["refused"]


def test_names_the_processor(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Some CPU\n")
    assert cpu_name(path) == "Some CPU @ 2 GHz"
    assert cpu_name(tmp_path / "gone") == ""


@pytest.mark.parametrize(
    ("cpus", "lanes", "each"),
    [(1, 1, 1), (2, 2, 1), (16, 16, 1), (64, 16, 4), (24, 12, 2), (17, 16, 1)],
)
def test_lanes_use_the_processors(cpus: int, lanes: int, each: int) -> None:
    assert lanes_for(cpus) == (lanes, each)


def test_opening_crosses_to_a_child_whole(tmp_path: Path) -> None:
    how = Opening("openvino", "cpu", "int8", True, 3, tmp_path / "n.xml", tmp_path)
    assert opening_from_json(json.loads(json.dumps(opening_to_json(how)))) == how
    assert opening_from_json(json.loads(json.dumps(opening_to_json(Opening())))) == Opening()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (Opening("onnxruntime", precision="int8"), "OpenVINO only"),
        (Opening("openvino", precision="int8"), "OpenVINO only"),
        (Opening("mnn", device="cuda"), "CPU only"),
        (Opening("onnxruntime", precision="fp16"), "RUNTIME=tensorrt"),
    ],
)
def test_what_no_runtime_can_do_is_an_error(tmp_path: Path, how: Opening, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        open_runtime(write_tiny_model(tmp_path / "tiny.onnx"), NET_WH, how)
    assert not isinstance(caught.value, ModelError)


def test_choice_is_plain() -> None:
    assert Choice("mnn", "why", {}).is_remembered is False
