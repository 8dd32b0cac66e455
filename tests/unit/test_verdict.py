from __future__ import annotations

import numpy as np
import pytest

from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy
from vault_ml.verdict import Verdict, judge, objects_of_interest, unknown_labels

LABELS = ("person", "car", "truck", "bus")
CAR = (100.0, 100.0, 200.0, 200.0)
SAME_PLACE = (101.0, 101.0, 201.0, 201.0)  # IoU 0.96 with CAR
BESIDE = (150.0, 100.0, 250.0, 200.0)  # IoU 0.33 with CAR


def seen(*objects: tuple[str, tuple[float, float, float, float]]) -> Detections:
    """Objects of one frame, confidence falling in the order given."""
    return Detections(
        FrameXyxy(np.array([box for _, box in objects], np.float32).reshape(-1, 4)),
        np.linspace(0.9, 0.6, len(objects), dtype=np.float32),
        np.array([LABELS.index(label) for label, _ in objects], np.int64),
        LABELS,
    )


def test_without_a_frame_nothing_can_be_said() -> None:
    with pytest.raises(ValueError, match="no frame"):
        judge([], threshold=1, allowed=None)


def test_frames_without_objects_count_none() -> None:
    nothing = Detections.none(LABELS)
    verdict = judge([nothing, nothing], threshold=1, allowed=None)
    assert verdict == Verdict(0, "objects in one frame >= 1", is_interesting=False)
    assert judge([nothing], threshold=0, allowed=None).is_interesting


def test_the_largest_number_in_one_frame_counts_and_not_the_sum() -> None:
    frames = [seen(("car", CAR)), seen(("car", CAR), ("person", BESIDE)), seen(("car", CAR))]
    assert judge(frames, threshold=1, allowed=None).count == 2


@pytest.mark.parametrize(("threshold", "is_interesting"), [(0, True), (2, True), (3, False)])
def test_the_threshold_is_reached_by_as_many(threshold: int, is_interesting: bool) -> None:
    frames = [seen(("car", CAR), ("person", BESIDE))]
    verdict = judge(frames, threshold=threshold, allowed=None)
    assert verdict.is_interesting is is_interesting
    assert verdict.rule == f"objects in one frame >= {threshold}"


def test_a_car_that_is_also_a_truck_counts_once() -> None:
    assert objects_of_interest(seen(("car", CAR), ("truck", SAME_PLACE)), None) == 1
    three = seen(("car", CAR), ("truck", SAME_PLACE), ("bus", CAR))
    assert objects_of_interest(three, None) == 1


def test_boxes_that_overlap_little_or_are_of_one_class_are_separate_objects() -> None:
    assert objects_of_interest(seen(("car", CAR), ("truck", BESIDE)), None) == 2
    assert objects_of_interest(seen(("car", CAR), ("car", SAME_PLACE)), None) == 2


def test_an_overlap_of_exactly_the_limit_is_two_objects() -> None:
    car, truck = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0)  # IoU 0.8
    assert objects_of_interest(seen(("car", car), ("truck", truck)), None) == 2


def test_only_allowed_labels_count() -> None:
    frame = seen(("car", CAR), ("person", BESIDE), ("truck", SAME_PLACE))
    assert objects_of_interest(frame, frozenset({"person"})) == 1
    assert objects_of_interest(frame, frozenset({"truck", "person"})) == 2
    assert objects_of_interest(frame, frozenset({"bus"})) == 0
    assert objects_of_interest(frame, frozenset()) == 0


def test_labels_that_the_model_does_not_have_are_found() -> None:
    assert unknown_labels([], LABELS) == []
    assert unknown_labels(frozenset({"car", "persn", "Car"}), LABELS) == ["Car", "persn"]
