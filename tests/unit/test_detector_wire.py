"""What crosses the socket arrives exactly, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tiny_detector import LABELS, NET_WH, picture, share
from vault_ml.detection import Detections
from vault_ml.detector_wire import Picture, Ready, pack_seen, parse_seen, slot_of
from vault_ml.geometry import FrameXyxy, Letterbox
from vault_ml.inference.port import RuntimeInfo

FRAME_WH = (1920, 1080)


def travel(message: dict[str, Any]) -> dict[str, Any]:
    arrived: dict[str, Any] = json.loads(json.dumps(message, allow_nan=False))
    return arrived


def test_nothing_seen_arrives_as_nothing_seen() -> None:
    seen = parse_seen(travel(pack_seen(1, 0, Detections.none(LABELS))), FRAME_WH, LABELS)
    assert len(seen) == 0
    assert seen.xyxy.shape == (0, 4)


def test_floats_arrive_to_the_last_bit() -> None:
    random = np.random.default_rng(3)
    corner = random.random((50, 2), dtype=np.float32) * np.float32(1000)
    sent = Detections(
        FrameXyxy(np.concatenate([corner, corner + np.float32(0.1)], axis=1)),
        np.sort(random.random(50, dtype=np.float32))[::-1],
        random.integers(0, 3, 50),
        LABELS,
    )
    seen = parse_seen(travel(pack_seen(1, 0, sent)), FRAME_WH, LABELS)
    np.testing.assert_array_equal(seen.xyxy, sent.xyxy)
    np.testing.assert_array_equal(seen.confidence, sent.confidence)
    np.testing.assert_array_equal(seen.class_id, sent.class_id)
    assert {seen.xyxy.dtype, seen.confidence.dtype} == {np.dtype(np.float32)}


def test_box_at_the_edge_of_the_frame_is_inside() -> None:
    message = {"xyxy": [[0.0, 0.0, 1920.0, 1080.0]], "confidence": [1.0], "class_id": [0]}
    assert len(parse_seen(message, FRAME_WH, LABELS)) == 1


GOOD: dict[str, Any] = {
    "xyxy": [[1.0, 2.0, 3.0, 4.0], [5, 6, 7, 8]],
    "confidence": [0.9, 0.5],
    "class_id": [0, 2],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("xyxy", None, id="no-boxes"),
        pytest.param("xyxy", {}, id="boxes-not-a-list"),
        pytest.param("xyxy", [], id="fewer-boxes"),
        pytest.param("xyxy", [1.0, 2.0], id="flat-boxes"),
        pytest.param("xyxy", [[1, 2, 3], [4, 5, 6]], id="three-sides"),
        pytest.param("xyxy", [[1, 2, 3, 4], [5]], id="ragged"),
        pytest.param("xyxy", [["1", "2", "3", "4"]] * 2, id="texts"),
        pytest.param("xyxy", [[1, 2, 3, 4], [5, 6, 5, 8]], id="no-width"),
        pytest.param("xyxy", [[1, 2, 3, 4], [5, 6, 7, 1081]], id="below-the-frame"),
        pytest.param("xyxy", [[1, 2, 3, 4], [-1, 6, 7, 8]], id="left-of-the-frame"),
        pytest.param("xyxy", [[1, 2, 3, 4], [float("nan"), 6, 7, 8]], id="nan-box"),
        pytest.param("xyxy", [[1, 2, 3, 4], [5, 6, 1e39, 8]], id="beyond-float32"),
        pytest.param("confidence", [0.9], id="fewer-confidences"),
        pytest.param("confidence", [1.1, 0.5], id="above-one"),
        pytest.param("confidence", [0.9, -0.1], id="below-zero"),
        pytest.param("confidence", [float("nan"), 0.5], id="nan-confidence"),
        pytest.param("confidence", [0.5, 0.9], id="rising"),
        pytest.param("confidence", [[0.9, 0.5]], id="nested"),
        pytest.param("confidence", [True, False], id="bools"),
        pytest.param("class_id", [0, 3], id="no-such-class"),
        pytest.param("class_id", [0, -1], id="negative-class"),
        pytest.param("class_id", [0.0, 1.0], id="float-class"),
        pytest.param("class_id", [0, 2**80], id="huge-class"),
    ],
)
def test_what_cannot_be_detections_is_refused(name: str, value: object) -> None:
    assert len(parse_seen(GOOD, FRAME_WH, LABELS)) == 2
    with pytest.raises(ValueError, match=r"\w"):
        parse_seen({**GOOD, name: value}, FRAME_WH, LABELS)


def test_ready_arrives_whole() -> None:
    ready = Ready(RuntimeInfo("onnxruntime 1", "cpu", "fp32"), LABELS, NET_WH, 0.25)
    assert Ready.parse(travel(ready.pack())) == ready


def test_picture_arrives_whole() -> None:
    sent = Picture(3, Letterbox.fit((704, 576), NET_WH))
    assert Picture.unpack(json.loads(json.dumps(sent.pack()))) == sent


def test_slot_is_found_by_address_and_nothing_else_passes() -> None:
    shared, frames = share([picture(), picture(), picture()])
    with shared:
        assert [slot_of(shared, frame) for frame in reversed(frames)] == [2, 1, 0]
        for pixels in (
            picture(),
            shared.pixels[1][1:],
            shared.pixels[1][:-1],
            shared.pixels[1][:, ::-1],
            shared.pixels.reshape(-1)[7 : 7 + 48 * 64 * 3].reshape(48, 64, 3),
        ):
            with pytest.raises(ValueError, match="frame 0 does not lie in the shared memory"):
                slot_of(shared, replace(frames[0], pixels=pixels))
