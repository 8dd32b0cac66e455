from __future__ import annotations

import numpy as np
import pytest

from vault_ml.geometry import FrameXyxy, Letterbox, NetXyxy, area, input_wh, iou

EMPTY = np.zeros((0, 4), np.float32)


def boxes(
    *rows: tuple[float, float, float, float],
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("frame_wh", "net_wh", "inner_wh", "offset_xy"),
    [
        pytest.param((608, 608), (608, 608), (608, 608), (0, 0), id="same size"),
        pytest.param((1920, 1080), (608, 608), (608, 342), (0, 133), id="wide"),
        pytest.param((1080, 1920), (608, 608), (342, 608), (133, 0), id="tall"),
        pytest.param((704, 576), (608, 608), (608, 497), (0, 55), id="offset is truncated"),
        pytest.param((100, 50), (416, 416), (416, 208), (0, 104), id="enlarged"),
        pytest.param((773, 512), (416, 416), (415, 275), (0, 70), id="one ratio for both sides"),
        pytest.param((1920, 1080), (608, 352), (608, 342), (0, 5), id="rectangular input"),
        pytest.param((10_000, 1), (416, 416), (416, 1), (0, 207), id="at least one pixel high"),
        pytest.param((1, 10_000), (416, 416), (1, 416), (207, 0), id="at least one pixel wide"),
    ],
)
def test_where_a_frame_lies_in_the_input(
    frame_wh: tuple[int, int],
    net_wh: tuple[int, int],
    inner_wh: tuple[int, int],
    offset_xy: tuple[int, int],
) -> None:
    assert Letterbox.fit(frame_wh, net_wh) == Letterbox(frame_wh, net_wh, inner_wh, offset_xy)


@pytest.mark.parametrize(
    ("frame_wh", "net_wh"),
    [((0, 1), (1, 1)), ((1, 0), (1, 1)), ((1, 1), (0, 1)), ((1, 1), (1, -1))],
)
def test_sizes_that_are_not_positive_are_refused(
    frame_wh: tuple[int, int], net_wh: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="sizes must be positive"):
        Letterbox.fit(frame_wh, net_wh)


def test_no_boxes_stay_no_boxes() -> None:
    letterbox = Letterbox.fit((1920, 1080), (608, 608))

    assert letterbox.to_net(FrameXyxy(EMPTY)).shape == (0, 4)
    assert letterbox.to_frame(NetXyxy(EMPTY)).shape == (0, 4)


def test_the_whole_frame_becomes_the_inner_rectangle_and_back() -> None:
    letterbox = Letterbox.fit((1920, 1080), (608, 608))
    frame = FrameXyxy(boxes((0, 0, 1920, 1080)))

    net = letterbox.to_net(frame)

    np.testing.assert_allclose(net, [[0, 133, 608, 133 + 342]], atol=1e-3)
    np.testing.assert_allclose(letterbox.to_frame(net), frame, atol=1e-3)
    assert net.dtype == letterbox.to_frame(net).dtype == np.float32


def test_what_lies_in_the_bars_is_clipped_to_the_frame() -> None:
    letterbox = Letterbox.fit((1920, 1080), (608, 608))

    found = letterbox.to_frame(NetXyxy(boxes((-50, 0, 700, 608), (10, 20, 30, 40))))

    np.testing.assert_allclose(found[0], [0, 0, 1920, 1080])
    assert found[1, 1] == found[1, 3] == 0


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((0, 0, 2, 3), 6, id="plain"),
        pytest.param((1, 1, 1, 5), 0, id="a line"),
        pytest.param((5, 5, 1, 1), 0, id="inside out"),
    ],
)
def test_area(box: tuple[float, float, float, float], expected: float) -> None:
    assert area(boxes(box)).tolist() == [expected]


def test_area_of_nothing_is_empty() -> None:
    assert area(EMPTY).shape == (0,)


def test_iou_of_nothing_is_an_empty_matrix() -> None:
    assert iou(EMPTY, EMPTY).shape == (0, 0)
    assert iou(EMPTY, boxes((0, 0, 1, 1))).shape == (0, 1)
    assert iou(boxes((0, 0, 1, 1)), EMPTY).shape == (1, 0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param((0, 0, 10, 10), (0, 0, 10, 10), 1, id="same"),
        pytest.param((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3, id="half"),
        pytest.param((0, 0, 10, 10), (10, 0, 20, 10), 0, id="touching"),
        pytest.param((0, 0, 10, 10), (20, 20, 30, 30), 0, id="apart"),
        pytest.param((0, 0, 10, 10), (2, 2, 4, 4), 0.04, id="inside"),
        pytest.param((0, 0, 0, 10), (0, 0, 0, 10), 0, id="no area"),
    ],
)
def test_iou(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float], expected: float
) -> None:
    assert iou(boxes(a), boxes(b)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b", "name"), [((2, 3), (1, 4), "a"), ((1, 4), (4,), "b")])
def test_iou_of_another_shape_is_refused(a: tuple[int, ...], b: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected shape \(n, 4\)"):
        iou(np.zeros(a, np.float32), np.zeros(b, np.float32))


@pytest.mark.parametrize(
    ("frame_wh", "net_wh", "expected"),
    [
        ((1920, 1080), (608, 608), (608, 352)),
        ((1080, 1920), (608, 608), (352, 608)),
        ((1280, 720), (416, 416), (416, 256)),
        ((704, 576), (608, 608), (608, 512)),
        ((640, 640), (416, 416), (416, 416)),
        ((4000, 10), (416, 416), (416, 32)),
        ((64, 48), (64, 48), (64, 48)),
    ],
)
def test_rectangular_input_is_no_larger_than_the_frame_needs(
    frame_wh: tuple[int, int], net_wh: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert input_wh(frame_wh, net_wh, rect=True) == expected
    assert input_wh(frame_wh, net_wh, rect=False) == net_wh
    inside = Letterbox.fit(frame_wh, expected).inner_wh
    assert inside[0] <= expected[0]
    assert inside[1] <= expected[1]
