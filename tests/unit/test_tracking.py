from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from accuracy.scenes import HEIGHT, LABELS, WIDTH, shoot, things
from vault_ml.detection import Detections
from vault_ml.geometry import SAME_OBJECT_IOU, FrameXyxy, Letterbox, iou
from vault_ml.tracking import likelihood
from vault_ml.tracking.appearance import LENGTH, describe, descriptions
from vault_ml.tracking.assignment import best_pairs
from vault_ml.tracking.boxes import Boxes, boxes_of, same_objects
from vault_ml.tracking.distance import Distance, travel
from vault_ml.tracking.following import follow
from vault_ml.tracking.likelihood import class_scores, weigh
from vault_ml.tracking.motion import MEMORY_S, Motion, noise_var
from vault_ml.tracking.objects import LOG_MOVES, LOG_STANDS, LOOKS, SEEN_AT, Objects
from vault_ml.tracking.pairs import within
from vault_ml.tracking.track import Observation, Track
from vault_ml.tracking.tracker import FORGET_AFTER_S, Tracker
from vault_ml.video.frame import Frame

FRAME_WH = (1280, 720)
Box = tuple[float, float, float, float]
CAR: Box = (200.0, 100.0, 360.0, 180.0)
PERSON: Box = (600.0, 300.0, 660.0, 460.0)


def seen(*objects: tuple[str, Box]) -> Detections:
    return Detections(
        FrameXyxy(np.array([box for _, box in objects], np.float32).reshape(-1, 4)),
        np.linspace(0.9, 0.6, len(objects), dtype=np.float32),
        np.array([LABELS.index(label) for label, _ in objects], np.int64),
        LABELS,
    )


def moved(box: Box, dx: float, dy: float = 0.0) -> Box:
    return (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy)


def tracks_of(*frames: tuple[float, Detections]) -> list[Track]:
    tracker = Tracker(LABELS, FRAME_WH)
    for at, detections in frames:
        tracker.update(at, detections)
    return tracker.tracks()


# --- the life of a track --------------------------------------------------------------------------


def test_without_a_frame_there_is_nothing_to_follow() -> None:
    assert Tracker(LABELS, FRAME_WH).tracks() == []
    with pytest.raises(ValueError, match="no frame"):
        follow([], [])


def test_frames_without_objects_have_no_tracks() -> None:
    nothing = Detections.none(LABELS)
    assert tracks_of((0.0, nothing), (1.0, nothing)) == []


def test_ids_begin_at_one_in_order_of_appearance_and_of_confidence() -> None:
    tracker = Tracker(LABELS, FRAME_WH)
    assert tracker.update(0.0, seen(("car", CAR))) == [1]
    assert tracker.update(1.0, seen(("person", PERSON), ("car", CAR))) == [2, 1]
    assert [(each.id, each.label) for each in tracker.tracks()] == [(1, "car"), (2, "person")]


@pytest.mark.parametrize("gap_s", [0.07, 0.3, 1.0, 5.0])
def test_what_stands_is_one_object_however_far_apart_the_frames(gap_s: float) -> None:
    frames = [(n * gap_s, seen(("car", moved(CAR, (-1) ** n)))) for n in range(5)]
    (track,) = tracks_of(*frames)
    assert [each.frame for each in track.observations] == [0, 1, 2, 3, 4]
    assert travel(track).travelled_px == 0.0


@pytest.mark.parametrize("gap_s", [0.1, 0.33, 1.0, 2.0])
def test_a_walker_is_one_object_however_far_apart_the_frames(gap_s: float) -> None:
    # 1.3 lengths of its own per second, as persons walk.
    frames = [(n * gap_s, seen(("person", moved(PERSON, 120 * gap_s * n)))) for n in range(5)]
    (track,) = tracks_of(*frames)
    assert len(track.observations) == 5


def test_a_jump_across_the_picture_in_a_moment_is_another_object() -> None:
    frames = [(0.0, seen(("person", PERSON))), (0.1, seen(("person", moved(PERSON, 500))))]
    assert len(tracks_of(*frames)) == 2


def test_an_object_that_is_missed_for_a_while_is_the_same() -> None:
    nothing = Detections.none(LABELS)
    frames = [(n * 0.5, seen(("car", CAR)) if n in {0, 1, 9} else nothing) for n in range(10)]
    (track,) = tracks_of(*frames)
    assert [each.frame for each in track.observations] == [0, 1, 9]


def test_an_object_that_was_away_for_long_is_another_one() -> None:
    late = FORGET_AFTER_S + 0.1
    tracks = tracks_of((0.0, seen(("car", CAR))), (late, seen(("car", CAR))))
    assert [(each.id, len(each.observations)) for each in tracks] == [(1, 1), (2, 1)]


def test_the_class_is_what_most_confidence_was_given_to() -> None:
    labels = ("truck", "car", "car", "truck", "car")
    (track,) = tracks_of(*[(float(n), seen((label, CAR))) for n, label in enumerate(labels)])
    assert (track.label, track.class_id) == ("car", 1)
    assert track.confidence == pytest.approx(0.9)


def test_boxes_of_several_classes_on_one_object_are_one_observation() -> None:
    both = seen(("truck", CAR), ("car", moved(CAR, 2)))
    tracker = Tracker(LABELS, FRAME_WH)
    assert tracker.update(0.0, both) == [1, 1]
    (track,) = tracker.tracks()
    assert track.observations[0].detections == (0, 1)
    assert track.observations[0].xyxy == CAR


def test_a_person_is_not_the_car_it_stands_before() -> None:
    frames = [(0.0, seen(("car", CAR))), (1.0, seen(("person", CAR)))]
    assert [each.label for each in tracks_of(*frames)] == ["car", "person"]


def test_colours_tell_two_persons_apart_that_changed_places() -> None:
    here, there = PERSON, moved(PERSON, 150)
    picture = np.full((720, 1280, 3), 100, np.uint8)
    red, blue = picture.copy(), picture.copy()
    for image, left, right in (
        (red, (220, 30, 30), (30, 30, 220)),
        (blue, (30, 30, 220), (220, 30, 30)),
    ):
        image[300:460, 600:660] = left
        image[300:460, 750:810] = right
    tracker = Tracker(LABELS, FRAME_WH)
    two = seen(("person", here), ("person", there))
    assert tracker.update(0.0, two, describe(red, two.xyxy)) == [1, 2]
    assert tracker.update(4.0, two, describe(blue, two.xyxy)) == [2, 1]


def test_the_same_frames_give_the_same_tracks() -> None:
    shots = shoot(things(3, 8.0), 3, np.arange(0.0, 8.0, 0.5))
    runs = []
    for _ in range(2):
        tracker = Tracker(LABELS, (WIDTH, HEIGHT))
        runs.append(
            [
                tracker.update(s.timestamp_s, s.seen, describe(s.picture, s.picture_boxes))
                for s in shots
            ]
        )
    assert runs[0] == runs[1]


def test_frames_are_followed_with_their_pictures() -> None:
    letterbox = Letterbox.fit(FRAME_WH, (416, 416))
    pixels = np.zeros((416, 416, 3), np.uint8)
    frames = [Frame(n, n * 1.0, letterbox, pixels) for n in range(2)]
    followed = follow(frames, [seen(("car", CAR)), seen(("person", PERSON), ("car", CAR))])
    assert followed.ids == ((1,), (2, 1))
    assert [len(each.observations) for each in followed.tracks] == [2, 1]
    colours = followed.tracks[0].colours
    assert colours is not None
    assert colours.shape == (LENGTH,)


def test_a_car_that_is_also_a_truck_looks_like_its_first_box() -> None:
    letterbox = Letterbox.fit(FRAME_WH, (416, 416))
    rng = np.random.default_rng(1)
    frame = Frame(0, 0.0, letterbox, rng.integers(0, 256, (416, 416, 3), np.uint8))
    both = seen(("truck", CAR), ("car", moved(CAR, 2)), ("person", PERSON))
    followed = follow([frame], [both])
    assert followed.ids == ((1, 1, 2),)
    plain = describe(frame.pixels, letterbox.to_net(both.xyxy))
    for track, row in zip(followed.tracks, (0, 2), strict=True):
        assert track.colours is not None
        np.testing.assert_array_equal(track.colours, plain[row])


def test_the_objects_of_many_frames_are_those_of_one_after_the_other() -> None:
    shots = [each.seen for each in shoot(things(3, 8.0), 3, np.arange(0.0, 8.0, 0.5))]
    shots[2:2] = [Detections.none(LABELS), seen(("truck", CAR), ("car", moved(CAR, 2)))]
    for seen_, many in zip(shots, boxes_of(shots), strict=True):
        (one,) = boxes_of([seen_])
        assert many.members == one.members == same_objects([seen_])[0]
        np.testing.assert_array_equal(many.table, one.table)
        np.testing.assert_array_equal(many.class_id, seen_.class_id[many.first])
    assert boxes_of([]) == []


def test_a_closed_track_keeps_what_it_looked_like() -> None:
    tracker = Tracker(LABELS, FRAME_WH)
    picture = np.zeros((720, 1280, 3), np.uint8)
    for at in (0.0, FORGET_AFTER_S + 1):
        frame = seen(("car", CAR))
        tracker.update(at, frame, describe(picture, frame.xyxy))
    assert [each.colours is None for each in tracker.tracks()] == [False, False]


# --- appearance and motion ------------------------------------------------------------------------


def test_a_description_has_length_one_and_equal_colours_are_alike() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, :100] = (250, 10, 10)
    boxes = np.array([[0, 0, 50, 100], [50, 0, 100, 100], [120, 0, 170, 100]], np.float32)
    rows = describe(picture, boxes)
    assert rows.shape == (3, LENGTH)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert rows[0] @ rows[1] == pytest.approx(1.0, abs=1e-5)
    assert rows[0] @ rows[2] < 0.1


def test_boxes_outside_the_picture_and_none_can_be_described() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    assert describe(picture, np.zeros((0, 4), np.float32)).shape == (0, LENGTH)
    outside = np.array([[-50, -50, -40, -40], [5, 5, 5, 5]], np.float32)
    assert np.isfinite(describe(picture, outside)).all()


def test_the_descriptions_of_many_pictures_are_those_of_one_after_the_other() -> None:
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for w, h in ((90, 40), (50, 60), (9, 9))]
    boxes = [rng.uniform(-20, 100, (n, 4)).astype(np.float32) for n in (4, 0, 3)]
    for picture, each, rows in zip(pictures, boxes, descriptions(pictures, boxes), strict=True):
        np.testing.assert_array_equal(rows, describe(picture, each))


@pytest.mark.parametrize("with_colours", [False, True])
def test_few_pairs_are_weighed_as_many_are(
    monkeypatch: pytest.MonkeyPatch, *, with_colours: bool
) -> None:
    shots = shoot(things(5, 12.0), 5, np.arange(0.0, 12.0, 0.7))
    found = []
    for few in (0, 10**9):
        monkeypatch.setattr(likelihood, "_FEW", few)
        tracker = Tracker(LABELS, (WIDTH, HEIGHT))
        found.append(
            [
                tracker.update(
                    each.timestamp_s,
                    each.seen,
                    describe(each.picture, each.picture_boxes) if with_colours else None,
                )
                for each in shots
            ]
        )
    assert found[0] == found[1]
    assert max(map(max, found[0])) > 3


def after(motion: Motion, *steps: float) -> Motion:
    then = Motion(motion.table.copy())
    for seconds in steps:
        then.go_on(seconds)
    return then


def test_what_is_not_seen_may_be_anywhere_but_not_ever_faster() -> None:
    start = Motion.at_rest(np.zeros((2, 1)), np.array([2500.0]))
    soon, later, late = (after(start, seconds) for seconds in (0.1, 1.0, 100.0))
    assert soon.place_var[0] < later.place_var[0] < late.place_var[0]
    assert late.velocity_var[0] == pytest.approx(start.velocity_var[0])
    # The way grows with the root of the time: a hundred times as long is ten times as far.
    assert late.place_var[0] == pytest.approx(2 * MEMORY_S * 100 * start.velocity_var[0], rel=0.1)


def test_many_steps_of_time_are_one_of_all_of_it() -> None:
    start = Motion.at_rest(np.array([[3.0, 80.0], [5.0, 9.0]]), np.array([2500.0, 40.0]))
    start.velocity[:] = [[20.0, -4.0], [0.0, 7.0]]
    many = after(start, 0.07, 0.4, 0.0, 3.0, 0.13)
    np.testing.assert_allclose(many.table, after(start, 3.6).table, rtol=1e-9, atol=1e-9)


def test_a_velocity_is_learnt_and_forgotten() -> None:
    area = np.array([2500.0])
    motion = Motion.at_rest(np.zeros((2, 1)), area)
    for n in range(1, 6):
        motion.go_on(0.5)
        motion.correct(np.array([[30.0 * n], [0.0]]), area, noise_var(area))
    assert motion.velocity[0, 0] == pytest.approx(60, rel=0.25)
    ahead = after(motion, 60.0)
    assert ahead.place[0, 0] - motion.place[0, 0] == pytest.approx(
        MEMORY_S * motion.velocity[0, 0], rel=0.01
    )


# --- how pairs are weighed ------------------------------------------------------------------------


def a_crowd(t: int, d: int, seconds: float, rng: np.random.Generator) -> tuple[Objects, Boxes]:
    """Objects, each gone on for up to so many seconds until 0, and boxes; half of them match."""
    gap = rng.uniform(0.01, 1.0, t) * seconds

    def boxes(n: int) -> Boxes:
        colours = rng.random((n, 8)).astype(np.float32)
        colours /= np.linalg.norm(colours, axis=1, keepdims=True)
        centre = np.stack([rng.uniform(0, 1280, n), rng.uniform(0, 720, n)])
        log_size = rng.normal(4, 0.2, (2, n))
        area = np.exp(log_size.sum(axis=0))
        table = np.concatenate([centre, log_size, area[None], noise_var(area)[None]])
        return Boxes([(i,) for i in range(n)], table, rng.integers(0, len(LABELS), n), colours)

    before, now = boxes(t), boxes(d)
    both = min(t, d) // 2  # of which some are where they were
    now.table[:2, :both] = before.table[:2, :both] + rng.normal(0, 8, (2, both))
    now.class_id[:both] = before.class_id[:both]
    known = Objects.begun(1, before, np.arange(t), 0.0)
    known.motion.velocity[:] = rng.normal(0, 60, (2, t))
    stands = rng.uniform(0.02, 0.98, t)
    known.table[LOG_STANDS], known.table[LOG_MOVES] = np.log(stands), np.log1p(-stands)
    known.table[SEEN_AT] = -gap
    for i in range(t):
        Motion(known.motion.table[:, i : i + 1]).go_on(gap[i])
    return known, now


def weighed_plainly(t: int, d: int, seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What `weigh` says of a random scene, and what a plain loop over all pairs says."""
    known, boxes = a_crowd(t, d, seconds, np.random.default_rng(seed))
    area, classes = 1280.0 * 720.0, class_scores(LABELS)
    pairs = weigh(known, boxes, 0.0, classes, area)
    assert (pairs.score > 0).all()
    got, plain = np.zeros((t, d)), np.zeros((t, d))
    got[pairs.row, pairs.column] = pairs.score
    assert known.colours is not None
    assert boxes.colours is not None
    for i in range(t):
        looks, stands = known.table[LOOKS][:, i], np.exp(known.table[LOG_STANDS][i])
        for j in range(d):
            box = boxes.table[:4, j]
            noise = noise_var(boxes.table[4, j])
            density = 0.0
            for place, var, weight in (
                (known.motion.place[:, i], known.motion.place_var[i], 1 - stands),
                (looks[:2], noise_var(np.exp(looks[2:].sum())), stands),
            ):
                off = np.square(place - box[:2]).sum()
                density += weight * np.exp(-off / (2 * (var + noise))) / (2 * np.pi * (var + noise))
            size_var = 0.12**2 - 0.10**2 * known.table[SEEN_AT, i]
            off = np.square(looks[2:] - box[2:]).sum()
            total = (
                np.log(max(density, 1e-300) * area)
                + np.log(0.7**2 / size_var)
                - off / (2 * size_var)
                + classes[known.class_id[i], boxes.class_id[j]]
                + 12 * (float(known.colours[i] @ boxes.colours[j]) - 0.75)
            )
            plain[i, j] = max(total, 0.0)
    return got, plain


@pytest.mark.parametrize("seconds", [0.1, 1.0, 12.0])
def test_all_pairs_at_once_are_weighed_as_one_after_the_other(seconds: float) -> None:
    got, plain = weighed_plainly(40, 30, seconds, seed=5)
    assert np.count_nonzero(plain) > 10
    np.testing.assert_allclose(got, plain, atol=1e-4)


def test_without_objects_or_boxes_there_are_no_pairs() -> None:
    assert weighed_plainly(0, 3, 1.0, seed=5)[0].shape == (0, 3)
    assert weighed_plainly(3, 0, 1.0, seed=5)[0].shape == (3, 0)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.6])
def test_the_best_pairs_are_those_of_an_assignment_of_all_rows_and_columns(density: float) -> None:
    rng = np.random.default_rng(7)
    for shape in ((1, 1), (12, 20), (30, 30), (40, 9)):
        score = np.where(rng.random(shape) < density, rng.uniform(0.1, 20, shape), 0.0)
        row, column = np.nonzero(score)
        rows, columns = best_pairs(row, column, score[row, column], shape)
        assert len(set(rows.tolist())) == len(rows) == len(set(columns.tolist())) == len(columns)
        assert (score[rows, columns] > 0).all()
        best = score[linear_sum_assignment(score, maximize=True)].sum()
        assert score[rows, columns].sum() == pytest.approx(best)


# --- distances ------------------------------------------------------------------------------------


def track(*boxes: Box, gap_s: float = 1.0) -> Track:
    observations = [Observation(n, (0,), n * gap_s, box, 0.9) for n, box in enumerate(boxes)]
    return Track(1, 0, "person", tuple(observations))


def travelled(*boxes: Box, gap_s: float = 1.0) -> tuple[float, float]:
    way = travel(track(*boxes, gap_s=gap_s))
    return way.travelled_px, way.displacement_px


def test_an_object_seen_once_got_nowhere() -> None:
    assert travelled(CAR) == (0.0, 0.0)


def test_a_way_is_the_sum_of_its_steps_and_a_displacement_is_straight() -> None:
    assert travelled(PERSON, moved(PERSON, 60), moved(PERSON, 60, 80)) == (140.0, 100.0)
    assert travelled(PERSON, moved(PERSON, 90), PERSON) == (180.0, 0.0)


def test_a_box_that_trembles_does_not_travel() -> None:
    rng = np.random.default_rng(0)
    boxes = [tuple(np.array(CAR) + rng.normal(0, 4, 4)) for _ in range(200)]
    assert travelled(*boxes, gap_s=0.1) == (0.0, 0.0)


def test_a_car_that_somebody_walks_past_does_not_travel() -> None:
    left_half = (CAR[0], CAR[1], CAR[0] + 80, CAR[3])
    right_half = (CAR[0] + 80, CAR[1], CAR[2], CAR[3])
    assert travelled(CAR, left_half, CAR, right_half, CAR) == (0.0, 0.0)


def test_one_box_that_is_off_is_no_way() -> None:
    way = [CAR] * 4 + [moved(CAR, 70)] + [CAR] * 4
    assert travelled(*way, gap_s=0.2) == (0.0, 0.0)


def test_who_comes_straight_at_the_camera_travels() -> None:
    nearer = (570.0, 300.0, 690.0, 620.0)
    assert travelled(PERSON, nearer) == (160.0, 160.0)


def test_slow_steps_add_up() -> None:
    way = [moved(PERSON, 5 * n) for n in range(21)]
    far, away = travelled(*way, gap_s=0.1)
    assert far == pytest.approx(100, abs=15)
    assert away == pytest.approx(100, abs=10)


def test_a_distance_is_pixels_or_a_part_of_the_diagonal() -> None:
    assert Distance(30).in_pixels((800, 600)) == 30
    assert Distance(5, is_percent=True).in_pixels((800, 600)) == 50
    assert [str(Distance(30)), str(Distance(2.5, is_percent=True))] == [
        "30 px",
        "2.5 % of the diagonal",
    ]


# --- pairs ----------------------------------------------------------------------------------------


def test_pairs_within_a_stretch_are_those_that_a_look_at_every_pair_finds() -> None:
    rng = np.random.default_rng(2)
    low, values = rng.integers(0, 20, 30).astype(float), rng.integers(0, 20, 25).astype(float)
    high = low + rng.integers(-2, 6, 30).astype(float)
    rows, columns = within(low, high, values)
    inside = (low[:, None] <= values) & (values <= high[:, None])
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (int(row), int(column)) for row, column in np.argwhere(inside)
    ]
    assert len(within(low[:0], high[:0], values)[0]) == 0
    assert len(within(low, high, values[:0])[0]) == 0


def test_the_glance_for_one_object_with_two_names_misses_none() -> None:
    rng = np.random.default_rng(4)
    told = 0
    for _ in range(300):
        box = np.array([100, 100, 100 + rng.uniform(20, 200), 100 + rng.uniform(20, 200)])
        sides = np.tile(box[2:] - box[:2], 2)
        other = box + rng.normal(0, 0.08, 4) * sides
        both = seen(("car", tuple(box)), ("truck", tuple(other)))
        is_one = float(iou(both.xyxy, both.xyxy)[0, 1]) > SAME_OBJECT_IOU
        told += is_one
        assert same_objects([both]) == [[(0, 1)] if is_one else [(0,), (1,)]]
    assert 50 < told < 250
