"""The first rows of YOLOv3's table, as the first vault-ml's README shows them."""

from __future__ import annotations

from pathlib import Path

from conftest import shared_file
from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.layer_table import layer_table

GOLDEN = Path(__file__).parent / "original_layer_table.txt"


def test_yolov3_at_608_begins_with_the_rows_that_the_original_shows() -> None:
    text = shared_file("models/yolov3-tiny/yolov3.cfg").read_text()
    table = layer_table(parse_cfg(text, "yolov3.cfg").resized((608, 608)))
    golden = GOLDEN.read_text().splitlines()

    # darknet right-aligns the layer number in five places; the README's rows have lost that.
    # Everything else is compared to the character.
    assert len(golden) == 13
    assert [row.lstrip(" ") for row in table.splitlines()[:13]] == golden
    assert [row[:6] for row in table.splitlines()[1:13]] == [f"{n:5d} " for n in range(12)]
