from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.head import (
    DarknetHead,
    HeadSpec,
    candidates,
    head_specs,
    heads_from_json,
    heads_to_json,
)

HEAD = HeadSpec(anchors=((10.0, 20.0), (30.0, 40.0)), classes=3, stride=16)
NET_WH = (64, 32)
NOTHING = -20.0


def empty_map(head: HeadSpec = HEAD) -> NDArray[np.float32]:
    return np.full((head.channels, 2, 4), NOTHING, np.float32)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def put(  # one object into a map of logits
    values: NDArray[np.float32],
    *,
    anchor: int = 0,
    row: int = 0,
    column: int = 0,
    xywh: tuple[float, float, float, float] = (0, 0, 0, 0),
    objectness: float = 0.9,
    classes: dict[int, float] | None = None,
) -> None:
    cell = values.reshape(2, 8, 2, 4)[anchor, :, row, column]
    cell[:4] = xywh
    cell[4] = logit(objectness)
    for class_id, probability in (classes or {0: 0.9}).items():
        cell[5 + class_id] = logit(probability)


def test_no_heads_give_no_candidates() -> None:
    xyxy, confidence, class_id = candidates([], [], NET_WH, 0.5)

    assert (xyxy.shape, confidence.shape, class_id.shape) == ((0, 4), (0,), (0,))
    assert [str(a.dtype) for a in (xyxy, confidence, class_id)] == ["float32", "float32", "int64"]


def test_an_empty_map_gives_no_candidates() -> None:
    xyxy, confidence, class_id = candidates([empty_map()], [HEAD], NET_WH, 0.5)

    assert (xyxy.shape, confidence.shape, class_id.shape) == ((0, 4), (0,), (0,))


def test_a_box_lies_where_darknets_formula_puts_it() -> None:
    values = empty_map()
    put(values, anchor=1, row=1, column=2, xywh=(logit(0.25), logit(0.75), math.log(2), 0))

    xyxy, confidence, class_id = candidates([values], [HEAD], NET_WH, 0.5)

    # centre (2.25, 1.75) cells of 16 pixels, sides 2 * 30 and 40
    np.testing.assert_allclose(xyxy, [[36 - 30, 28 - 20, 36 + 30, 28 + 20]], atol=1e-4)
    np.testing.assert_allclose(confidence, [0.81], atol=1e-6)
    assert class_id.tolist() == [0]


def test_a_grid_that_does_not_divide_the_input_is_taken_as_it_is() -> None:
    values = empty_map()
    put(values, column=1)

    xyxy, _, _ = candidates([values], [HEAD], (66, 33), 0.5)

    assert (xyxy[0, 0] + xyxy[0, 2]) / 2 == pytest.approx(1.5 * 66 / 4)
    assert (xyxy[0, 1] + xyxy[0, 3]) / 2 == pytest.approx(0.5 * 33 / 2)


def test_one_box_gives_a_candidate_for_each_class_above_the_threshold() -> None:
    values = empty_map()
    put(values, classes={0: 0.9, 1: 0.3, 2: 0.7})

    xyxy, confidence, class_id = candidates([values], [HEAD], NET_WH, 0.5)

    assert class_id.tolist() == [0, 2]
    np.testing.assert_allclose(confidence, [0.81, 0.63], atol=1e-6)
    np.testing.assert_array_equal(xyxy[0], xyxy[1])


def test_objectness_alone_does_not_make_a_candidate() -> None:
    values = empty_map()
    put(values, objectness=0.8, classes={0: 0.6})

    assert len(candidates([values], [HEAD], NET_WH, 0.5)[1]) == 0
    assert len(candidates([values], [HEAD], NET_WH, 0.4)[1]) == 1


def test_the_threshold_itself_is_not_enough() -> None:
    values = empty_map()
    put(values, objectness=0.5, classes={0: 1 - 1e-9})

    confidence = candidates([values], [HEAD], NET_WH, 0.4)[1]

    assert confidence.tolist() == [0.5]
    assert len(candidates([values], [HEAD], NET_WH, 0.5)[1]) == 0


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 2 * 3 * 8), (-1.0, 48), (1.0, 0), (2.0, 0)])
def test_a_threshold_at_the_ends_lets_everything_or_nothing_through(
    threshold: float, count: int
) -> None:
    assert len(candidates([empty_map()], [HEAD], NET_WH, threshold)[1]) == count


def test_the_order_is_head_anchor_row_column_class() -> None:
    first, second = empty_map(), empty_map()
    put(first, anchor=1)
    put(first, row=1)
    put(first, column=3, classes={2: 0.9, 1: 0.95})
    put(second, objectness=0.99)

    xyxy, confidence, class_id = candidates([first, second], [HEAD, HEAD], NET_WH, 0.5)

    assert class_id.tolist() == [1, 2, 0, 0, 0]
    centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    assert centres.tolist() == [[56, 8], [56, 8], [8, 24], [8, 8], [8, 8]]
    assert confidence[-1] > confidence[-2]


def test_scale_x_y_lets_a_centre_leave_its_cell() -> None:
    head = HeadSpec(HEAD.anchors, 3, 16, scale_x_y=1.2)
    values = empty_map()
    put(values, row=1, column=1, xywh=(20, -20, 0, 0))

    xyxy, _, _ = candidates([values], [head], NET_WH, 0.5)

    centre = (xyxy[0, :2] + xyxy[0, 2:]) / 2
    np.testing.assert_allclose(centre, [(1 + 1.1) * 16, (1 - 0.1) * 16], atol=1e-4)


def test_new_coords_are_values_not_logits_and_sides_are_squared() -> None:
    head = HeadSpec(HEAD.anchors, 3, 16, scale_x_y=2.0, new_coords=True)
    values = np.zeros((head.channels, 2, 4), np.float32)
    values.reshape(2, 8, 2, 4)[1, :, 0, 1] = [0.5, 0.75, 0.5, 0.25, 0.9, 0.1, 0.8, 0.0]

    xyxy, confidence, class_id = candidates([values], [head], NET_WH, 0.5)

    # centre x: 1 + 0.5 * 2 - 0.5, y: 0.75 * 2 - 0.5; sides (2 * 0.5)^2 * 30, (2 * 0.25)^2 * 40
    np.testing.assert_allclose(xyxy, [[24 - 15, 16 - 5, 24 + 15, 16 + 5]], atol=1e-4)
    np.testing.assert_allclose(confidence, [0.72], atol=1e-6)
    assert class_id.tolist() == [1]


def test_a_side_that_overflows_stays_finite() -> None:
    values = empty_map()
    put(values, xywh=(0, 0, 500, -500))

    xyxy, _, _ = candidates([values], [HEAD], NET_WH, 0.5)

    assert np.isfinite(xyxy).all()
    assert xyxy[0, 0] < -1e5
    assert xyxy[0, 2] > 1e5
    assert xyxy[0, 1] == xyxy[0, 3]


@pytest.mark.parametrize("channel", [0, 3, 4, 5], ids=["x", "h", "objectness", "class"])
def test_nan_is_an_error_and_never_nothing_seen(channel: int) -> None:
    values = empty_map()
    put(values)
    values[channel, 0, 0] = np.nan

    with pytest.raises(ValueError, match="it could not look at this frame"):
        candidates([values], [HEAD], NET_WH, 0.5)


@pytest.mark.parametrize("shape", [(15, 2, 4), (16, 2), (1, 16, 2, 4)])
def test_a_map_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"map: expected shape \(16, h, w\), got"):
        candidates([np.zeros(shape, np.float32)], [HEAD], NET_WH, 0.5)


def test_another_number_of_maps_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected 1 maps, one per head, got 0"):
        candidates([], [HEAD], NET_WH, 0.5)


def test_head_specs_are_read_off_the_network() -> None:
    network = parse_cfg(
        "[net]\nwidth=64\nheight=32\n"
        "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\n"
        "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\n"
        "[yolo]\nmask=1\nanchors=1,2,3,4\nclasses=3\nnum=2\nscale_x_y=1.05\n"
        "[route]\nlayers=0\n[yolo]\nmask=0\nanchors=1,2,3,4\nclasses=3\nnum=2\nnew_coords=1\n",
        "my.cfg",
    )

    assert head_specs(network) == (
        HeadSpec(((3.0, 4.0),), 3, 4, 1.05, False),
        HeadSpec(((1.0, 2.0),), 3, 2, 1.0, True),
    )


def test_heads_survive_json() -> None:
    heads = DarknetHead((HEAD, HeadSpec(((1.5, 2.0),), 3, 8, 1.05, True)))

    assert heads_from_json(heads_to_json(heads)) == heads


@pytest.mark.parametrize(
    "text",
    ["", "1", "[1]", "[{}]", json.dumps([{"anchors": [[1]], "classes": 1, "stride": 1}])],
)
def test_other_json_is_not_taken_for_heads(text: str) -> None:
    with pytest.raises(ValueError, match="not the heads of a model that vault-ml converted"):
        heads_from_json(text)
