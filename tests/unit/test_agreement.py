"""Agreement of two ways of looking, and AP50: worked out by hand, and by COCO's own tool."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from vault_ml.agreement import Marked, agreement, ap50
from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy

LABELS = ("a", "b")


def seen(*rows: tuple[float, ...]) -> Detections:
    values = np.array(rows, np.float32).reshape(-1, 6)
    values = values[np.argsort(-values[:, 4], kind="stable")]
    return Detections(FrameXyxy(values[:, :4]), values[:, 4], values[:, 5].astype(np.int64), LABELS)


def marked(*rows: tuple[float, ...]) -> Marked:
    values = np.array(rows, np.float32).reshape(-1, 5)
    return Marked(values[:, :4], values[:, 4].astype(np.int64))


BOX = (0, 0, 10, 10)
FAR = (50, 50, 60, 60)


def test_two_that_see_nothing_agree() -> None:
    found = agreement([seen()], [seen()], 0.25)
    assert (found.f1, found.mean_score_change, found.pairs) == (1.0, 0.0, 0)


def test_equal_boxes_of_one_class_are_a_pair() -> None:
    found = agreement([seen((*BOX, 0.9, 0))], [seen((*BOX, 0.6, 0))], 0.25)
    assert (found.f1, found.pairs) == (1.0, 1)
    assert found.mean_score_change == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(
    "other", [seen((*FAR, 0.9, 0)), seen((*BOX, 0.9, 1)), seen((*BOX, 0.2, 0)), seen()]
)
def test_elsewhere_another_class_or_too_weak_is_none(other: Detections) -> None:
    assert agreement([seen((*BOX, 0.9, 0))], [other], 0.25).pairs == 0


def test_one_box_is_in_one_pair() -> None:
    found = agreement([seen((*BOX, 0.9, 0), (0, 0, 10, 9, 0.8, 0))], [seen((*BOX, 0.9, 0))], 0.25)
    assert found.pairs == 1
    assert found.f1 == pytest.approx(2 / 3)


def test_nothing_marked_has_no_curve() -> None:
    assert ap50([seen((*BOX, 0.9, 0))], [marked()]) is None


def test_all_found_is_one_and_nothing_found_is_none() -> None:
    assert ap50([seen((*BOX, 0.9, 0))], [marked((*BOX, 0))]) == pytest.approx(1)
    assert ap50([seen()], [marked((*BOX, 0))]) == 0
    assert ap50([seen((*BOX, 0.9, 1))], [marked((*BOX, 0))]) == 0


def test_agrees_with_cocos_own_tool() -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(5)
    pictures = 30
    truths: list[Marked] = []
    results: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: list[Detections] = []
    for picture in range(pictures):
        corner = rng.uniform(0, 80, (6, 2))
        sides = rng.uniform(5, 20, (6, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        classes = rng.integers(0, 2, 6)
        truths.append(
            marked(*((*map(float, b), int(c)) for b, c in zip(boxes, classes, strict=True)))
        )
        moved = boxes + rng.normal(0, 1.5, boxes.shape)
        scores = rng.uniform(0.05, 0.99, 6)
        found.append(
            seen(*((*map(float, b), float(s), int(c))
                   for b, s, c in zip(moved, scores, classes, strict=True)))
        )  # fmt: skip
        for box, kind in zip(truths[-1].xyxy, classes, strict=True):
            w, h = box[2] - box[0], box[3] - box[1]
            annotations.append(_coco(picture, box, w, h, kind, id=len(annotations) + 1))
        for index, box in enumerate(found[-1].xyxy):
            w, h = box[2] - box[0], box[3] - box[1]
            kind = found[-1].class_id[index]
            score = float(found[-1].confidence[index])
            results.append(_coco(picture, box, w, h, kind, score=score))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(pictures)],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": annotations,
            "info": {},
        }
        truth.createIndex()
        tool = COCOeval(truth, truth.loadRes(results), "bbox")
        tool.params.iouThrs = np.array([0.5])
        tool.evaluate()
        tool.accumulate()
    theirs = float(tool.eval["precision"][0, :, :, 0, -1].mean())
    assert 0.3 < theirs < 0.99
    assert ap50(found, truths) == pytest.approx(theirs, abs=1e-3)


def _coco(image: int, box: Any, w: Any, h: Any, kind: Any, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "bbox": [float(box[0]), float(box[1]), float(w), float(h)],
        "category_id": int(kind),
        "area": float(w * h),
        "iscrowd": 0,
        **more,
    }
