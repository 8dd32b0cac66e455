"""A network small enough to reason about: it sees a red cell, and calls it by its other colours.

64x48 pixels, one head of 8x6 cells and two anchors. A cell that is fully red is an object; green
in it makes it a `cat`, blue a `dog`. Its box is the anchor, centred on the cell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vault_ml.geometry import Letterbox
from vault_ml.video.frame import Frame
from vault_ml.video.shared_frames import SharedFrames
from vault_ml.yolo.head import DarknetHead, HeadSpec, heads_to_json
from vault_ml.yolo.metadata import METADATA_HEADS, METADATA_LABELS, METADATA_NET_WH

NET_WH = (64, 48)
CELL = 8
LABELS = ("cat", "dog", "bird")
HEADS = DarknetHead((HeadSpec(anchors=((16.0, 8.0), (6.0, 12.0)), classes=3, stride=CELL),))

_STEEP = 40.0  # logit of full colour is +20, of none -20: all but 1 and 0


def tiny_weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(16, 3, 8, 8) and (16,): per anchor x, y, w, h, objectness and three classes."""
    weights = np.zeros((16, 3, CELL, CELL), np.float32)
    bias = np.zeros(16, np.float32)
    for anchor in (0, 8):
        for channel, colour in ((4, 0), (5, 1), (6, 2)):
            weights[anchor + channel, colour] = _STEEP / CELL**2
            bias[anchor + channel] = -_STEEP / 2
        bias[anchor + 7] = -_STEEP / 2
    bias[8 + 4] = -_STEEP  # the second anchor never sees anything
    return weights, bias


def write_tiny_model(
    path: Path,
    *,
    weights: NDArray[np.float32] | None = None,
    metadata: dict[str, str] | None = None,
    nan_when_white: bool = False,
    repeat: int = 0,
) -> Path:
    """Write the model; `repeat` adds that many costly layers which change nothing."""
    w, h = NET_WH
    kernel, bias = tiny_weights()
    nodes = []
    constants = [
        numpy_helper.from_array(kernel if weights is None else weights, "kernel"),
        numpy_helper.from_array(bias, "bias"),
    ]
    tensor = "images"
    for index in range(repeat):
        constants.append(numpy_helper.from_array(_identity(), f"identity_{index}"))
        nodes.append(
            helper.make_node(
                "Conv", [tensor, f"identity_{index}"], [f"same_{index}"], pads=[15] * 4
            )
        )
        tensor = f"same_{index}"
    nodes.append(
        helper.make_node("Conv", [tensor, "kernel", "bias"], ["map"], strides=[CELL, CELL])
    )
    if nan_when_white:
        constants += [
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ]
        nodes += [
            helper.make_node("ReduceMin", ["images"], ["darkest"], axes=[1, 2, 3]),
            helper.make_node("Sub", ["one", "darkest"], ["left"]),
            helper.make_node("Log", ["left"], ["log"]),
            helper.make_node("Mul", ["zero", "log"], ["nothing"]),
            helper.make_node("Add", ["map", "nothing"], ["head_0"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["map"], ["head_0"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, h, w])],
        [helper.make_tensor_value_info("head_0", TensorProto.FLOAT, ["batch", 16, None, None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    helper.set_model_props(model, tiny_metadata() if metadata is None else metadata)
    onnx.save(model, path)
    return path


def tiny_metadata() -> dict[str, str]:
    """As the exporter writes it."""
    return {
        METADATA_HEADS: heads_to_json(HEADS),
        METADATA_LABELS: json.dumps(LABELS),
        METADATA_NET_WH: json.dumps(NET_WH),
    }


def picture(
    *cells: tuple[int, int], colour: tuple[int, int, int] = (255, 255, 0)
) -> NDArray[np.uint8]:
    """(48, 64, 3) uint8 RGB, black but for `cells` (column, row) in `colour`."""
    w, h = NET_WH
    pixels = np.zeros((h, w, 3), np.uint8)
    for column, row in cells:
        pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = colour
    return pixels


def share(
    pictures: Sequence[NDArray[np.uint8]], frame_wh: tuple[int, int] = NET_WH
) -> tuple[SharedFrames, list[Frame]]:
    """Put pictures where a decoder would; the caller closes the first of the pair."""
    shared = SharedFrames.create(max(1, len(pictures)), NET_WH)
    letterbox = Letterbox.fit(frame_wh, NET_WH)
    frames = []
    for index, pixels in enumerate(pictures):
        shared.pixels[index] = pixels
        frames.append(Frame(index, float(index), letterbox, shared.pixels[index]))
    return shared, frames


def _identity() -> NDArray[np.float32]:
    kernel = np.zeros((3, 3, 31, 31), np.float32)
    kernel[range(3), range(3), 15, 15] = 1
    return kernel
