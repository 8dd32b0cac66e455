from __future__ import annotations

from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.corrections import CORRECTIONS, YOLOV3_TINY_WEIGHTS_SHA256, correct

ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


def cfg(*masks: str) -> str:
    heads = "".join(
        f"[convolutional]\nfilters=24\n[yolo]\nmask={mask}\nanchors={ANCHORS}\nclasses=3\nnum=6\n"
        "[route]\nlayers=0\n"
        for mask in masks
    )
    return f"[net]\nwidth=64\nheight=64\n{heads}"


PUBLISHED = parse_cfg(cfg("3,4,5", "0,1,2"), "yolov3-tiny.cfg")


def test_the_mask_of_the_released_yolov3_tiny_is_mended_and_the_log_told() -> None:
    mended, applied = correct(PUBLISHED, YOLOV3_TINY_WEIGHTS_SHA256)

    assert [head.mask for head in mended.heads] == [(3, 4, 5), (1, 2, 3)]
    assert list(mended.heads[1].anchors) == [(23, 27), (37, 58), (81, 82)]
    assert [correction.name for correction in applied] == ["yolov3-tiny-mask"]
    assert "mask=1,2,3" in applied[0].sentence
    assert applied == CORRECTIONS, "each of them is documented"
    assert PUBLISHED.heads[1].mask == (0, 1, 2), "the parsed cfg itself is not touched"


def test_nothing_else_changes() -> None:
    mended, _ = correct(PUBLISHED, YOLOV3_TINY_WEIGHTS_SHA256)

    assert mended.net_wh == PUBLISHED.net_wh
    different = [
        index
        for index, (a, b) in enumerate(zip(mended.layers, PUBLISHED.layers, strict=True))
        if a != b
    ]
    assert different == [4]


def test_other_weights_under_the_same_cfg_are_left_alone() -> None:
    assert correct(PUBLISHED, "00" * 32) == (PUBLISHED, ())


def test_a_cfg_that_is_right_already_is_left_alone() -> None:
    right = parse_cfg(cfg("3,4,5", "1,2,3"), "yolov3-tiny.cfg")

    assert correct(right, YOLOV3_TINY_WEIGHTS_SHA256) == (right, ())
