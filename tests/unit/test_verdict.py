from __future__ import annotations

import numpy as np
import pytest

from vault_ml.detection import Detections
from vault_ml.geometry import FrameXyxy
from vault_ml.interest.judging import Interest
from vault_ml.tracking.distance import Distance
from vault_ml.tracking.tracker import Tracker
from vault_ml.verdict import Exclusion, Rules, Verdict, judge, unknown_labels

Allowed = frozenset[str] | None
Box = tuple[float, float, float, float]
FRAME_WH = (900, 600)
FAR = (500.0, 300.0, 540.0, 400.0)
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


def judged(*frames: Detections, rules: Rules | None = None, allowed: Allowed = None) -> Verdict:
    """As the pipeline judges, the frames a second apart."""
    tracker = Tracker(LABELS, FRAME_WH)
    for number, each in enumerate(frames):
        tracker.update(float(number), each)
    interest = Interest(allowed)
    return judge(
        frames,
        tracker.tracks(),
        [interest.reasons(None, each, FRAME_WH) for each in frames],
        rules or Rules(1),
        frame_wh=FRAME_WH,
    )


def test_without_a_frame_nothing_can_be_said() -> None:
    with pytest.raises(ValueError, match="no frame"):
        judge([], [], [], Rules(1), frame_wh=FRAME_WH)


def test_frames_without_objects_count_none() -> None:
    nothing = Detections.none(LABELS)
    assert judged(nothing, nothing) == Verdict(0, "objects in one frame >= 1", is_interesting=False)
    assert judged(nothing, rules=Rules(0)).is_interesting


def test_the_largest_number_in_one_frame_counts_and_not_the_sum() -> None:
    frames = [seen(("car", CAR)), seen(("car", CAR), ("person", BESIDE)), seen(("car", CAR))]
    assert judged(*frames).count == 2


@pytest.mark.parametrize(("threshold", "is_interesting"), [(0, True), (2, True), (3, False)])
def test_the_threshold_is_reached_by_as_many(threshold: int, is_interesting: bool) -> None:
    verdict = judged(seen(("car", CAR), ("person", BESIDE)), rules=Rules(threshold))
    assert verdict.is_interesting is is_interesting
    assert verdict.rule == f"objects in one frame >= {threshold}"


def test_a_car_that_is_also_a_truck_counts_once() -> None:
    assert judged(seen(("car", CAR), ("truck", SAME_PLACE))).count == 1
    assert judged(seen(("car", CAR), ("truck", SAME_PLACE), ("bus", CAR))).count == 1


def test_boxes_that_overlap_little_or_are_of_one_class_are_separate_objects() -> None:
    assert judged(seen(("car", CAR), ("truck", BESIDE))).count == 2
    assert judged(seen(("car", CAR), ("car", SAME_PLACE))).count == 2


def test_only_allowed_labels_count() -> None:
    frame = seen(("car", CAR), ("person", BESIDE), ("truck", SAME_PLACE))
    assert judged(frame, allowed=frozenset({"person"})).count == 1
    assert judged(frame, allowed=frozenset({"truck", "person"})).count == 2
    assert judged(frame, allowed=frozenset({"bus"})).count == 0
    assert judged(frame, allowed=frozenset()).count == 0


def shifted(box: Box, by: float) -> Box:
    return (box[0] + by, box[1], box[2] + by, box[3])


def test_with_a_distance_those_count_that_got_as_far() -> None:
    frames = [seen(("car", CAR), ("person", shifted(FAR, 40 * n))) for n in range(4)]
    rules = Rules(1, move_distance=Distance(100))
    verdict = judged(*frames, rules=rules)
    assert (verdict.count, verdict.is_interesting) == (1, True)
    assert verdict.rule == "objects that travelled 100 px >= 1"
    car, person = verdict.tracks
    assert (car.is_static, car.exclusion, car.reason) == (
        True, Exclusion.STILL, "travelled 0 px of 100",
    )  # fmt: skip
    assert (person.travelled_px, person.is_static, person.reason) == (120.0, False, None)
    # 5 % of this diagonal are 54 px, 20 % are 216.
    assert judged(*frames, rules=Rules(1, Distance(5, is_percent=True))).count == 1
    assert judged(*frames, rules=Rules(1, Distance(20, is_percent=True))).count == 0


def test_who_comes_back_has_travelled_and_is_not_away() -> None:
    way = (0, 60, 120, 60, 0)
    frames = [seen(("person", shifted(FAR, by))) for by in way]
    assert judged(*frames, rules=Rules(1, move_distance=Distance(100))).count == 1
    away = judged(*frames, rules=Rules(1, static_distance=Distance(50)))
    assert (away.count, away.tracks[0].reason) == (0, "ended up 0 px of 50")
    both = Rules(1, Distance(100), Distance(50))
    assert str(both) == "objects that travelled 100 px and ended 50 px away >= 1"
    assert judged(*frames, rules=both).count == 0


def test_what_is_seen_too_rarely_does_not_count() -> None:
    frames = [seen(("car", CAR)), seen(("car", CAR), ("person", FAR))]
    verdict = judged(*frames, rules=Rules(1, min_detections=2))
    assert verdict.count == 1
    assert [each.exclusion for each in verdict.tracks] == [None, Exclusion.FEW_DETECTIONS]
    assert verdict.tracks[1].reason == "seen in 1 of the looked-at frames, MIN_DETECTIONS is 2"


def test_what_was_there_before_does_not_count() -> None:
    frames = [seen(("car", CAR), ("person", FAR))]
    tracker = Tracker(LABELS, FRAME_WH)
    tracker.update(0.0, frames[0])
    known = {1: "same car as 09:12:04, IoU 0.97"}
    verdict = judge(
        frames, tracker.tracks(), [[None, None]], Rules(1), frame_wh=FRAME_WH, known=known
    )
    assert verdict.count == 1
    assert (verdict.tracks[0].exclusion, verdict.tracks[0].reason) == (Exclusion.KNOWN, known[1])


def test_an_object_that_was_once_of_interest_is() -> None:
    frames = [seen(("car", CAR)), seen(("truck", CAR)), seen(("car", CAR))]
    (track,) = judged(*frames, allowed=frozenset({"truck"})).tracks
    assert (track.track.label, track.exclusion) == ("car", None)
    (track,) = judged(*frames, allowed=frozenset({"bus"})).tracks
    assert track.reason == "car is not among the allowed labels"


def test_an_object_seen_once_is_not_known_to_stand() -> None:
    assert not judged(seen(("car", CAR))).tracks[0].is_static
    assert judged(seen(("car", CAR)), seen(("car", CAR))).tracks[0].is_static


def test_labels_that_the_model_does_not_have_are_found() -> None:
    assert unknown_labels([], LABELS) == []
    assert unknown_labels(frozenset({"car", "persn", "Car"}), LABELS) == ["Car", "persn"]
