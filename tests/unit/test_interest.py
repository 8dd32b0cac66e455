# ruff: noqa: E501  # a table reads best with a row on a line
from __future__ import annotations

import numpy as np
import pytest

from vault_ml.detection import Detections
from vault_ml.errors import ConfigError
from vault_ml.geometry import FrameXyxy
from vault_ml.interest.areas import Area, CameraInterest, Sizes
from vault_ml.interest.judging import Interest
from vault_ml.interest.zones_file import read

LABELS = ("person", "car")
FRAME_WH = (100, 100)
LEFT = Area("left", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
RIGHT_FOR_CARS = Area("right", ((0.5, 0), (1, 0), (1, 1), (0.5, 1)), frozenset({"car"}))


def reasons(here: CameraInterest, *objects: tuple[str, float, int]) -> list[str | None]:
    """Of objects of 10 x 20 pixels, by label, confidence and the middle of their lower edge."""
    seen = Detections(
        FrameXyxy(np.array([[x - 5, 60, x + 5, 80] for _, _, x in objects], np.float32)),
        np.array([confidence for _, confidence, _ in objects], np.float32),
        np.array([LABELS.index(label) for label, _, _ in objects], np.int64),
        LABELS,
    )
    return Interest(cameras={"door": here}).reasons("door", seen, FRAME_WH)


def test_where_nothing_is_said_everything_is_of_interest() -> None:
    assert reasons(CameraInterest(), ("car", 0.9, 50), ("person", 0.5, 5)) == [None, None]
    assert Interest().reasons(None, Detections.none(LABELS), FRAME_WH) == []


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (
            CameraInterest(labels=frozenset({"car"})),
            "person is not among the labels of this camera",
        ),
        (CameraInterest(thresholds={"person": 0.7}), "confidence 0.60 is below 0.7 for person"),
        (CameraInterest(sizes={"person": Sizes(0.05, 1)}), "2.00% of the picture is no size of a"),
        (CameraInterest(sizes={"person": Sizes(0, 0.01)}), "2.00% of the picture is no size of a"),
        (CameraInterest(zones=(LEFT,)), "stands outside left"),
        (CameraInterest(zones=(RIGHT_FOR_CARS,)), "no zone of this camera is for person"),
        (CameraInterest(masks=(Area("road", RIGHT_FOR_CARS.points),)), "stands in the mask road"),
    ],
)
def test_what_is_of_no_interest_has_a_reason(here: CameraInterest, reason: str) -> None:
    (said,) = reasons(here, ("person", 0.6, 70))
    assert said is not None
    assert said.startswith(reason)


def test_an_object_of_the_right_size_is_of_interest() -> None:
    here = CameraInterest(sizes={"person": Sizes(0.01, 0.03)})
    assert reasons(here, ("person", 0.9, 50), ("car", 0.9, 50)) == [None, None]


def test_zones_and_masks_are_for_the_labels_they_name() -> None:
    here = CameraInterest(zones=(LEFT, RIGHT_FOR_CARS))
    assert reasons(here, ("car", 0.9, 70), ("person", 0.8, 20)) == [None, None]
    masked = CameraInterest(masks=(RIGHT_FOR_CARS,))
    assert reasons(masked, ("car", 0.9, 70), ("person", 0.8, 70))[1] is None


def test_a_camera_says_what_differs_from_the_defaults() -> None:
    defaults = CameraInterest(labels=frozenset({"car"}), thresholds={"car": 0.6}, zones=(LEFT,))
    own = CameraInterest(thresholds={"person": 0.7})
    interest = Interest(defaults=defaults, cameras={"door": own})
    assert interest.at("yard") == interest.at(None) == defaults
    assert interest.at("door").thresholds == {"car": 0.6, "person": 0.7}
    assert interest.at("door").zones == (LEFT,)


def test_the_edge_of_the_picture_belongs_to_a_zone_that_reaches_it() -> None:
    whole = Area("all", ((0, 0), (1, 0), (1, 1), (0, 1)))
    seen = Detections(
        FrameXyxy(np.array([[90, 80, 110, 100]], np.float32)),
        np.array([0.9], np.float32),
        np.array([1], np.int64),
        LABELS,
    )
    interest = Interest(defaults=CameraInterest(zones=(whole,)))
    assert interest.reasons("x", seen, FRAME_WH) == [None]


FILE = """\
defaults:
  thresholds: {person: 0.6}
cameras:
  front-door:
    labels: [person, car]
    sizes: {person: {min: 0.002, max: 0.5}}
    zones:
      - name: driveway
        points: [[0.1, 0.6], [0.9, 0.6], [0.9, 1], [0.1, 1]]
    masks:
      - {name: road, points: [[0, 0], [1, 0], [1, 0.2]], labels: [car]}
"""


def test_the_file_is_read() -> None:
    found = read(FILE, "zones.yaml", labels=LABELS, least_confidence=0.5)
    assert found.defaults.thresholds == {"person": 0.6}
    door = found.cameras["front-door"]
    assert door.labels == frozenset(LABELS)
    assert door.sizes == {"person": Sizes(0.002, 0.5)}
    assert [zone.name for zone in door.zones] == ["driveway"]
    assert door.masks[0].labels == frozenset({"car"})
    assert read("", "zones.yaml").cameras == {}
    assert read("cameras:\n", "zones.yaml").cameras == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[0.9, 0.6]", "[1.9, 0.6]"), "line 9, cameras.front-door.zones[0].points[1]: must be parts"),
        (("[0.9, 0.6]", "[0.9]"), "line 9, cameras.front-door.zones[0].points[1]: must be [x, y]"),
        (("[0.9, 0.6]", "0.9"), "line 9, cameras.front-door.zones[0].points[1]: must be [x, y]"),
        (("[[0, 0], [1, 0], [1, 0.2]]", "[[0, 0], [1, 0]]"), "line 11, cameras.front-door.masks[0].points: a polygon has at least 3"),
        (("[1, 0.2]]", "[0.5, 0]]"), "line 11, cameras.front-door.masks[0].points: these points enclose"),
        (("points: [[0, 0], [1, 0], [1, 0.2]], ", ""), "line 11, cameras.front-door.masks[0]: has no points"),
        (("[[0, 0], [1, 0], [1, 0.2]]", "here"), "line 11, cameras.front-door.masks[0].points: must be a list"),
        (("name: road", "name: [road]"), "line 11, cameras.front-door.masks[0].name: must be a text"),
        (("name: driveway", "title: driveway"), "line 8, cameras.front-door.zones[0].title: is unknown; known are labels, name, points"),
        (("{person: 0.6}", "{person: 60%}"), "line 2, defaults.thresholds.person: must be a confidence from 0 to 1 (it is 60%)"),
        (("{person: 0.6}", "{person: [1]}"), "line 2, defaults.thresholds.person: must be a confidence"),
        (("{person: 0.6}", "{person: 0.4}"), "line 2, defaults.thresholds.person: is below CONFIDENCE_THRESHOLD (0.5)"),
        (("{person: 0.6}", "{persn: 0.6}"), "line 2, defaults.thresholds.persn: persn is not a label of the model"),
        (("{person: 0.6}", "0.6"), "line 2, defaults.thresholds: must be names with values"),
        (("labels: [person, car]", "labels: []"), "line 5, cameras.front-door.labels: names no label"),
        (("labels: [person, car]", "labels: [person, cra]"), "line 5, cameras.front-door.labels[1]: cra is not a label"),
        (("min: 0.002, max: 0.5", "min: 0.6, max: 0.5"), "line 6, cameras.front-door.sizes.person: min is above max"),
        (("min: 0.002, max: 0.5", "least: 0.6"), "line 6, cameras.front-door.sizes.person.least: is unknown"),
        (("defaults:", "default:"), "line 2, default: is unknown; known are cameras, defaults"),
        (("cameras:", "defaults:"), "line 3, defaults: is there twice"),
        (("    masks:", "    labels: [car]\n    masks:"), "line 10, cameras.front-door.labels: is there twice"),
        (("[0.1, 0.6]", "[0.1, 0.6"), "line 10: is not YAML"),
        (("front-door", "\x00"), "is not YAML"),
    ],
)  # fmt: skip
def test_an_error_names_line_and_field(change: tuple[str, str], message: str) -> None:
    assert change[0] in FILE
    text = FILE.replace(*change, 1)
    with pytest.raises(ConfigError) as error:
        read(text, "zones.yaml", labels=LABELS, least_confidence=0.5)
    assert any(
        line.startswith("ZONES: zones.yaml") and message in line
        for line in str(error.value).splitlines()
    ), str(error.value)


def test_all_errors_are_told_at_once() -> None:
    text = FILE.replace("0.6}", "6}").replace("[0.9, 0.6]", "[9, 0.6]").replace("0.002", "x")
    with pytest.raises(ConfigError) as error:
        read(text, "zones.yaml")
    assert len(str(error.value).splitlines()) == 3


def test_two_zones_of_one_name_and_files_without_end_are_refused() -> None:
    zone = "{name: a, points: [[0, 0], [1, 0], [1, 1]]}"
    with pytest.raises(ConfigError, match=r"zones\[1\].name: a is there twice"):
        read(f"defaults: {{zones: [{zone}, {zone}]}}", "z")
    assert read("defaults: {masks: [{points: [[0, 0], [1, 0], [1, 1]]}]}", "z").defaults.masks
    with pytest.raises(ConfigError, match="larger than"):
        read("#" * 1_000_001, "z")
