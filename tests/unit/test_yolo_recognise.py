"""Families told from shapes and metadata; what is not certain is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vault_ml.errors import ModelError
from vault_ml.yolo.head import Head
from vault_ml.yolo.recognise import (
    ULTRALYTICS_PLACING,
    YOLOX_PLACING,
    Interface,
    Tensor,
    input_size,
    names_of,
    recognise,
)
from vault_ml.yolo.rows import EndToEndHead, Yolov5Head, Yolov8Head, YoloxHead

Shape = tuple[int | None, ...]
SQUARE = (640, 640)


def interface(
    output: Shape,
    *,
    given: Shape = (1, 3, 640, 640),
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
    exp: bool = False,
    outputs: int = 1,
    inputs: int = 1,
) -> Interface:
    return Interface(
        (Tensor("images", dtype, given),) * inputs,
        (Tensor("output0", dtype if dtype != "uint8" else "float32", output),) * outputs,
        metadata or {},
        exp,
    )


@pytest.mark.parametrize(
    ("described", "labels", "head"),
    [
        pytest.param(interface((1, 84, 8400)), None, Yolov8Head(80), id="yolov8"),
        pytest.param(interface((None, 5, 8400)), None, Yolov8Head(1), id="one-class"),
        pytest.param(interface((1, 6, 8400)), None, Yolov8Head(2), id="two-classes"),
        pytest.param(interface((1, 84, 8500)), None, Yolov8Head(80), id="four-grids"),
        pytest.param(interface((1, 84, 34000)), None, Yolov8Head(80), id="fine-grids"),
        pytest.param(interface((1, 84, None)), ["x"] * 80, Yolov8Head(80), id="open-with-names"),
        pytest.param(interface((1, 84, 8400), dtype="float16"), None, Yolov8Head(80), id="half"),
        pytest.param(interface((1, 300, 6)), None, EndToEndHead(80), id="end-to-end"),
        pytest.param(interface((1, 300, 6)), ["x"] * 3, EndToEndHead(3), id="end-to-end-names"),
        pytest.param(
            interface((1, None, 6), metadata={"end2end": "True"}), ["x"], EndToEndHead(1),
            id="end-to-end-open",
        ),
        pytest.param(interface((1, 8400, 85)), None, YoloxHead(80), id="yolox"),
        pytest.param(interface((1, 8400, 6)), None, YoloxHead(1), id="yolox-one-class"),
        pytest.param(interface((1, 8400, 85), exp=True), None, Yolov5Head(80), id="decoded"),
        pytest.param(interface((1, 25200, 85)), None, Yolov5Head(80), id="yolov5"),
        pytest.param(interface((1, 25200, 6)), ["x"], Yolov5Head(1), id="yolov5-one-class"),
    ],
)  # fmt: skip
def test_a_family_is_told_by_its_shapes(
    described: Interface, labels: list[str] | None, head: Head
) -> None:
    net_wh = input_size(described)
    found = recognise(described, net_wh, labels)
    assert (net_wh, found.head) == (SQUARE, head)
    is_yolox = described.outputs[0].shape[1] == 8400
    assert found.placing == (YOLOX_PLACING if is_yolox else ULTRALYTICS_PLACING)
    assert (found.is_bgr, found.scale) == ((True, 255) if is_yolox else (False, 1))


@pytest.mark.parametrize(
    ("described", "labels", "why"),
    [
        pytest.param(interface((1, 84, 8400), outputs=2), None, "2 outputs", id="outputs"),
        pytest.param(interface((1, 84, 8400), outputs=0), None, "0 outputs", id="no-output"),
        pytest.param(interface((1, 3, 80, 80, 85)), None, "no list of boxes", id="raw-maps"),
        pytest.param(interface((1, 100, 77)), None, "fits no known head", id="unknown"),
        pytest.param(interface((1, 84, None)), None, "fits no known head", id="open"),
        pytest.param(interface((1, 84, None)), ["x"], "fits no known head", id="open-other-names"),
        pytest.param(interface((1, None, 6)), ["x"], "fits no known head", id="open-rows"),
        pytest.param(interface((1, 5000, 6)), ["x"], "fits no known head", id="too-many-rows"),
        pytest.param(interface((1, None, None)), ["x"], "fits no known head", id="all-open"),
        pytest.param(interface((1, 4, 8400)), None, "fits no known head", id="no-class"),
        pytest.param(
            interface((1, 116, 8400), metadata={"task": "segment"}), None, "task 'segment'",
            id="segments",
        ),
        pytest.param(
            interface((1, 8400, 85), metadata={"stride": "32"}), None, "fits no known head",
            id="points-first-of-ultralytics",
        ),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused_with_what_was_seen(
    described: Interface, labels: list[str] | None, why: str
) -> None:
    with pytest.raises(ModelError) as caught:
        recognise(described, SQUARE, labels)
    said = str(caught.value)
    assert why in said
    assert "Seen: input images float32 (1, 3, 640, 640); output" in said
    assert "Accepted are" in said


def test_names_of_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match="2 names are given, but the model has 80 classes"):
        recognise(interface((1, 84, 8400)), SQUARE, ["a", "b"])


@pytest.mark.parametrize(
    ("imgsz", "expected"),
    [("[480, 640]", (640, 480)), ("640", (640, 640)), ("(32, 64)", (64, 32))],
)
def test_an_open_size_is_the_metadatas(imgsz: str, expected: tuple[int, int]) -> None:
    described = interface((1, 84, None), given=(None, 3, None, None), metadata={"imgsz": imgsz})
    assert input_size(described) == expected


@pytest.mark.parametrize(
    ("described", "why"),
    [
        pytest.param(interface((1,), inputs=2), "2 inputs", id="two-inputs"),
        pytest.param(interface((1,), inputs=0), "0 inputs", id="no-input"),
        pytest.param(interface((1,), dtype="uint8"), "its input is uint8", id="bytes"),
        pytest.param(interface((1,), given=(1, 1, 64, 64)), "three channels", id="grey"),
        pytest.param(interface((1,), given=(1, 64)), "three channels", id="flat"),
        pytest.param(interface((1,), given=(1, 3, 16, 64)), "64x16", id="small"),
        pytest.param(interface((1,), given=(1, 3, 64, 10_000)), "10000x64", id="large"),
        pytest.param(interface((1,), given=(1, 3, None, 64)), "nothing says", id="open"),
        *(
            pytest.param(
                interface((1,), given=(1, 3, None, None), metadata={"imgsz": text}),
                "nothing says", id=f"imgsz-{text[:8]}",
            )
            for text in ("", "[640", "[640, 'x']", "exit()", "[1, 2, 3]", "(" * 99)
        ),
    ],
)  # fmt: skip
def test_an_input_that_is_no_picture_is_refused(described: Interface, why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        input_size(described)
    assert "Accepted are" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("{0: 'person', 1: 'traffic light'}", ("person", "traffic light"), id="dict"),
        pytest.param("{1: 'b', 0: 'a'}", ("a", "b"), id="any-order"),
        pytest.param("['a', 'b']", ("a", "b"), id="list"),
        pytest.param("{0: ' a\\n b ', 1: ''}", ("a b", "1"), id="spaces-and-empty"),
    ],
)
def test_names_are_a_literal(text: str | None, expected: tuple[str, ...] | None) -> None:
    assert names_of({} if text is None else {"names": text}) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("__import__('os').getcwd()", "no literal", id="code"),
        pytest.param("{0: 'a'", "no literal", id="cut-off"),
        pytest.param("[" * 5000, "no literal", id="nested"),
        pytest.param("{[]: 'a'}", "no literal", id="unhashable"),
        pytest.param("5", "no list of names", id="number"),
        pytest.param("{}", "no list of names", id="empty"),
        pytest.param("{0: 'a', 2: 'b'}", "number its classes from 0", id="gap"),
        pytest.param("{'a': 'b'}", "number its classes from 0", id="words"),
        pytest.param(str(["a"] * 60_000), "too many", id="long"),
        pytest.param(str(list(range(20_000))), "no list of names", id="many"),
    ],
)
def test_names_that_are_none_are_refused(text: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        names_of({"names": text})
