"""The detector over a runtime that answers what the test wrote: real arrays, no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tiny_detector import CELL, HEADS, LABELS, NET_WH, picture, tiny_weights
from vault_ml.detection import Detections
from vault_ml.detector import Detector
from vault_ml.errors import DetectorUnavailable, ModelError
from vault_ml.geometry import Letterbox
from vault_ml.inference.pictures import to_tensor
from vault_ml.inference.port import RuntimeInfo
from vault_ml.yolo.head import DarknetHead, Head, HeadSpec

WHOLE = Letterbox.fit(NET_WH, NET_WH)


class TinyRuntime:
    """Computes the tiny network in numpy; may be told to answer something else."""

    def __init__(self, outputs: Sequence[NDArray[np.float32]] | None = None) -> None:
        self.outputs = outputs
        self.batches: list[int] = []
        self.info = RuntimeInfo("numpy 2", "cpu", "fp32")
        self.net_wh = NET_WH
        self.lanes = 1

    def infer(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        self.batches.append(len(pixels))
        images = to_tensor(pixels)
        if self.outputs is not None:
            return self.outputs
        weights, bias = tiny_weights()
        n, _, h, w = images.shape
        cells = images.reshape(n, 3, h // CELL, CELL, w // CELL, CELL)
        maps = np.einsum("ncyixj,kcij->nkyx", cells, weights) + bias[:, None, None]
        return [maps.astype(np.float32)]

    def close(self) -> None:
        pass


def make(
    runtime: TinyRuntime,
    head: Head = HEADS,
    labels: Sequence[str] = LABELS,
    threshold: float = 0.5,
) -> Detector:
    return Detector(runtime, head, labels, NET_WH, threshold, 0.45)


def blank_map() -> NDArray[np.float32]:
    """(1, 16, 6, 8): nothing anywhere; a box would be its anchor, in the middle of its cell."""
    values = np.full((1, 16, 6, 8), -20, np.float32)
    values[:, [0, 1, 2, 3, 8, 9, 10, 11]] = 0
    return values


def see(values: NDArray[np.float32], letterbox: Letterbox = WHOLE) -> Detections:
    (seen,) = make(TinyRuntime([values])).detect(picture()[None], [letterbox])
    return seen


def test_no_frames_run_nothing() -> None:
    runtime = TinyRuntime()
    assert make(runtime).detect(np.zeros((0, 48, 64, 3), np.uint8), []) == []
    assert runtime.batches == []


def test_frame_with_nothing_was_looked_at() -> None:
    runtime = TinyRuntime()
    (seen,) = make(runtime).detect(picture()[None], [WHOLE])
    assert len(seen) == 0
    assert runtime.batches == [1]


def test_finds_what_is_there_in_each_frame() -> None:
    pixels = np.stack([picture((3, 2)), picture(), picture((1, 4), colour=(255, 0, 255))])
    cat, nothing, dog = make(TinyRuntime()).detect(pixels, [WHOLE] * 3)
    assert [cat.label(0), len(nothing), dog.label(0)] == ["cat", 0, "dog"]
    # The anchor of 16x8 around the middle of cell (3, 2).
    np.testing.assert_allclose(cat.xyxy, [[20, 16, 36, 24]], atol=1e-4)
    np.testing.assert_allclose(dog.xyxy, [[4, 32, 20, 40]], atol=1e-4)
    assert cat.confidence[0] == pytest.approx(1, abs=1e-6)
    assert cat.labels == LABELS


def test_object_of_two_classes_is_told_twice() -> None:
    (seen,) = make(TinyRuntime()).detect(picture((3, 2), colour=(255, 255, 255))[None], [WHOLE])
    assert [seen.label(0), seen.label(1)] == ["cat", "dog"]
    assert seen.confidence[0] == seen.confidence[1]


def test_boxes_come_in_pixels_of_the_frame() -> None:
    letterbox = Letterbox.fit((128, 48), NET_WH)  # 64x24 inside, 12 rows of bar above
    assert letterbox.offset_xy == (0, 12)
    (seen,) = make(TinyRuntime()).detect(picture((3, 2))[None], [letterbox])
    np.testing.assert_allclose(seen.xyxy, [[40, 8, 72, 24]], atol=1e-4)


def test_box_is_clipped_to_the_frame() -> None:
    (seen,) = make(TinyRuntime()).detect(picture((0, 0))[None], [WHOLE])
    np.testing.assert_allclose(seen.xyxy, [[0, 0, 12, 8]], atol=1e-4)


def test_box_in_the_bars_is_dropped() -> None:
    letterbox = Letterbox.fit((128, 48), NET_WH)
    (seen,) = make(TinyRuntime()).detect(picture((3, 0))[None], [letterbox])
    assert len(seen) == 0


def test_overlapping_boxes_of_a_class_are_one() -> None:
    values = blank_map()
    for column, objectness in ((2, 2.0), (3, 3.0)):
        values[0, 4:6, 2, column] = objectness, 20
        values[0, 2, 2, column] = 1.5  # 72 px wide: neighbours overlap by far more than half
    assert len(see(values)) == 1
    assert see(values).confidence[0] == pytest.approx(1 / (1 + np.exp(-3)), rel=1e-6)


def test_order_is_falling_confidence_then_class_then_box() -> None:
    values = blank_map()
    for (column, row), objectness, class_channel in (
        ((6, 5), 1.0, 5),
        ((6, 1), 2.0, 6),
        ((1, 1), 2.0, 6),
        ((4, 3), 2.0, 5),
    ):
        values[0, 4, row, column] = objectness
        values[0, class_channel, row, column] = 20
    seen = see(values)
    assert seen.class_id.tolist() == [0, 1, 1, 0]
    assert seen.xyxy[:, 0].tolist() == [28, 4, 44, 44]
    assert (np.diff(seen.confidence) <= 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 4, 15])
def test_output_that_is_no_number_is_not_nothing(value: float, channel: int) -> None:
    values = blank_map()
    values[0, channel, 5, 7] = value
    with pytest.raises(DetectorUnavailable, match="not a finite number"):
        see(values)


def test_box_without_end_is_not_nothing() -> None:
    head = DarknetHead((HeadSpec(HEADS.specs[0].anchors, 3, CELL, new_coords=True),))
    values = np.zeros((1, 16, 6, 8), np.float32)
    values[0, 2, 2, 3] = 1e30  # finite, but its square is not
    values[0, 4:6, 2, 3] = 1
    detector = make(TinyRuntime([values]), head=head)
    with (
        np.errstate(over="ignore"),
        pytest.raises(DetectorUnavailable, match="box without end"),
    ):
        detector.detect(picture()[None], [WHOLE])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        pytest.param([], "0 outputs where 1 heads", id="none"),
        pytest.param([np.zeros((1, 18, 6, 8), np.float32)], r"\(1, 16, h, w\)", id="channels"),
        pytest.param([np.zeros((2, 16, 6, 8), np.float32)], r"\(1, 16, h, w\)", id="batch"),
        pytest.param([np.zeros((1, 16, 48), np.float32)], r"\(1, 16, h, w\)", id="axes"),
    ],
)
def test_network_that_answers_something_else_is_a_model_error(
    outputs: list[NDArray[np.float32]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        make(TinyRuntime(outputs)).detect(picture()[None], [WHOLE])


def test_model_without_heads_is_refused() -> None:
    with pytest.raises(ModelError, match="no detection head"):
        DarknetHead(())


def test_heads_that_disagree_are_refused() -> None:
    other = HeadSpec(HEADS.specs[0].anchors, 4, CELL)
    with pytest.raises(ModelError, match="different numbers of classes"):
        DarknetHead((*HEADS.specs, other))


def test_labels_of_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match=r"knows 3 classes but there are 2.*\.names"):
        make(TinyRuntime(), labels=("cat", "dog"))


@pytest.mark.parametrize(
    ("pixels", "letterboxes", "message"),
    [
        pytest.param(np.zeros((48, 64, 3), np.uint8), [], "expected", id="no-batch-axis"),
        pytest.param(np.zeros((1, 64, 48, 3), np.uint8), [WHOLE], "expected", id="swapped"),
        pytest.param(np.zeros((1, 48, 64, 3), np.float32), [WHOLE], "uint8", id="floats"),
        pytest.param(np.zeros((2, 48, 64, 3), np.uint8), [WHOLE], "1 letterboxes", id="one-short"),
        pytest.param(
            np.zeros((1, 48, 64, 3), np.uint8),
            [Letterbox.fit((10, 10), (32, 32))],
            r"\(32, 32\) came with",
            id="other-network",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    pixels: NDArray[np.uint8], letterboxes: list[Letterbox], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(TinyRuntime()).detect(pixels, letterboxes)


def test_says_what_runs() -> None:
    assert make(TinyRuntime()).info.runtime == "numpy 2"


def test_tensor_is_planes_of_unit_values() -> None:
    pixels = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor[1, 2, 3, 4] == np.float32(pixels[1, 3, 4, 2]) / np.float32(255)
