from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vault_ml.geometry import FrameXyxy, Letterbox, NetXyxy, iou
from vault_ml.yolo.nms import per_class_nms

SIDES = st.integers(1, 8192)
NET_SIDES = st.sampled_from([32, 320, 352, 416, 608])


@st.composite
def box_arrays(draw: st.DrawFn, max_size: int = 12) -> NDArray[np.float32]:
    """(n, 4) float32, xyxy, corners in order; many of them overlap."""
    corner, side = st.integers(0, 50), st.integers(0, 40)
    rows = draw(st.lists(st.tuples(corner, corner, side, side), max_size=max_size))
    return np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32).reshape(-1, 4)


@given(SIDES, SIDES, NET_SIDES, NET_SIDES, st.data())
def test_letterbox_inverse_is_exact_within_a_thousandth_of_a_pixel(
    frame_w: int, frame_h: int, net_w: int, net_h: int, data: st.DataObject
) -> None:
    letterbox = Letterbox.fit((frame_w, frame_h), (net_w, net_h))
    x, y = data.draw(st.tuples(st.floats(0, net_w), st.floats(0, net_h)))
    left, top = letterbox.offset_xy
    inner_w, inner_h = letterbox.inner_wh
    # A point of the input that shows the frame, not a bar.
    point = (left + x / net_w * inner_w, top + y / net_h * inner_h)
    net = NetXyxy(np.array([[*point, *point]], np.float32))

    back = letterbox.to_net(letterbox.to_frame(net))

    np.testing.assert_allclose(back, net, atol=1e-3)


@given(SIDES, SIDES, NET_SIDES, NET_SIDES)
def test_the_scaled_frame_fits_and_touches_two_sides_of_the_input(
    frame_w: int, frame_h: int, net_w: int, net_h: int
) -> None:
    letterbox = Letterbox.fit((frame_w, frame_h), (net_w, net_h))

    free = [net - inner for net, inner in zip((net_w, net_h), letterbox.inner_wh, strict=True)]
    assert min(letterbox.inner_wh) >= 1
    assert min(free) in (0, 1), "one column or row may be lost to rounding"
    assert letterbox.offset_xy == (free[0] // 2, free[1] // 2)


@given(SIDES, SIDES, NET_SIDES, box_arrays())
def test_boxes_in_frame_pixels_lie_inside_the_frame(
    frame_w: int, frame_h: int, net: int, boxes: NDArray[np.float32]
) -> None:
    found = Letterbox.fit((frame_w, frame_h), (net, net)).to_frame(NetXyxy(boxes * 20 - 100))

    assert found.min(initial=0) >= 0
    assert found[:, [0, 2]].max(initial=0) <= frame_w
    assert found[:, [1, 3]].max(initial=0) <= frame_h


@given(box_arrays(), box_arrays())
def test_iou_is_symmetric_and_between_0_and_1(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> None:
    ratio = iou(a, b)

    np.testing.assert_array_equal(ratio, iou(b, a).T)
    assert ratio.min(initial=0) >= 0
    assert ratio.max(initial=0) <= 1


@given(box_arrays())
def test_iou_of_a_box_with_itself_is_1_where_it_has_an_area(boxes: NDArray[np.float32]) -> None:
    sides = boxes[:, 2:] - boxes[:, :2]

    np.testing.assert_array_equal(np.diag(iou(boxes, boxes)), (sides.min(axis=1) > 0))


@given(box_arrays(), st.data(), st.sampled_from([0.0, 0.3, 0.45, 0.9]))
def test_nms_keeps_a_subset_and_a_second_pass_changes_nothing(
    boxes: NDArray[np.float32], data: st.DataObject, threshold: float
) -> None:
    n = len(boxes)
    scores = st.sampled_from([0.5, 0.6, 0.7, 0.8])
    confidence = np.array(data.draw(st.lists(scores, min_size=n, max_size=n)), np.float32)
    classes = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    class_id = np.array(data.draw(classes), np.int64)

    keep = per_class_nms(NetXyxy(boxes), confidence, class_id, threshold)
    again = per_class_nms(NetXyxy(boxes[keep]), confidence[keep], class_id[keep], threshold)

    assert len(set(keep.tolist())) == len(keep)
    assert set(keep.tolist()) <= set(range(n))
    assert np.all(np.diff(confidence[keep]) <= 0)
    assert again.tolist() == list(range(len(keep)))
    overlaps = iou(boxes[keep], boxes[keep]) > threshold
    same_class = class_id[keep][:, None] == class_id[keep][None, :]
    assert not (overlaps & same_class & ~np.eye(len(keep), dtype=np.bool_)).any()
    # What went, went because of a box of its class that stayed and is at least as confident.
    for index in set(range(n)) - set(keep.tolist()):
        rivals = keep[(class_id[keep] == class_id[index]) & (confidence[keep] >= confidence[index])]
        assert (iou(boxes[[index]], boxes[rivals]) > threshold).any()


@given(SIDES, SIDES, NET_SIDES, st.integers(0, 2**32 - 1))
def test_frame_to_net_and_back_is_exact_for_boxes_inside_the_frame(
    frame_w: int, frame_h: int, net: int, seed: int
) -> None:
    letterbox = Letterbox.fit((frame_w, frame_h), (net, net))
    low, high = np.sort(np.random.default_rng(seed).random((2, 5, 2)), axis=0)
    size = np.array([frame_w, frame_h])
    boxes = FrameXyxy(np.concatenate([low * size, high * size], axis=1).astype(np.float32))

    back = letterbox.to_frame(letterbox.to_net(boxes))

    # A thousandth of a network pixel, seen in the frame.
    tolerance = 1e-3 * max(1.0, frame_w / letterbox.inner_wh[0], frame_h / letterbox.inner_wh[1])
    np.testing.assert_allclose(back, boxes, atol=tolerance)
