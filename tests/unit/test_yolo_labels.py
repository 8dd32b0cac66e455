from __future__ import annotations

import pytest

from conftest import shared_file
from vault_ml.errors import ModelError
from vault_ml.yolo.labels import COCO, parse_names


@pytest.mark.parametrize("text", ["", "\n\n"], ids=["empty", "blank lines"])
def test_a_file_without_names_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"x\.names: there are no class names"):
        parse_names(text, "x.names")


def test_names_are_read_in_order() -> None:
    assert parse_names("\ufeffperson\r\ntraffic light \n\n", "x.names") == (
        "person",
        "traffic light",
    )


def test_a_gap_between_names_is_an_error_because_it_would_shift_the_rest() -> None:
    with pytest.raises(ModelError, match=r"x\.names, line 2: a class name is missing"):
        parse_names("person\n\ncar\n", "x.names")


def test_the_built_in_names_are_those_of_darknets_coco_names() -> None:
    text = shared_file("models/yolov3-tiny/coco.names").read_text()

    assert parse_names(text, "coco.names") == COCO
    assert len(COCO) == len(set(COCO)) == 80
