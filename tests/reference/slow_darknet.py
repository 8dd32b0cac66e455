"""Darknet once more, slow and obvious: the oracle of the golden tests.

Plain loops after the C source, one function per C function, named like it. Shares no code with
`src`, on purpose: not even the reader of the cfg. Numbers are float64 throughout, so this is also
the more exact of the two.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]  # (channels, h, w)
Options = dict[str, str]


def read_cfg(text: str) -> list[tuple[str, Options]]:
    """`src/parser.c` read_cfg."""
    sections: list[tuple[str, Options]] = []
    for raw in text.splitlines():
        line = raw.replace(" ", "").replace("\t", "")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            sections.append((line.strip("[]"), {}))
        else:
            key, value = line.split("=", 1)
            sections[-1][1].setdefault(key, value)
    return sections


@dataclass
class Layer:
    """A layer, its options resolved, its arrays, and its output after `forward`."""

    kind: str
    options: Options
    c: int
    h: int
    w: int
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    output: Image | None = None

    def integer(self, key: str, default: int) -> int:
        return int(self.options.get(key, default))


def resolve(index: int, layer_count: int) -> int:
    return index if index >= 0 else layer_count + index


def make_network(text: str) -> tuple[int, int, list[Layer]]:
    """`src/parser.c` parse_network_cfg: width, height and the layers with their output sizes."""
    sections = read_cfg(text)
    net = sections[0][1]
    c, h, w = 3, int(net["height"]), int(net["width"])
    width, height = w, h
    layers: list[Layer] = []
    for kind, options in sections[1:]:
        layer = Layer(kind, options, 0, 0, 0)
        if kind == "convolutional":
            size, stride = layer.integer("size", 1), layer.integer("stride", 1)
            pad = size // 2 if layer.integer("pad", 0) else layer.integer("padding", 0)
            stride_x, stride_y = (
                layer.integer("stride_x", stride),
                layer.integer("stride_y", stride),
            )
            layer.c = layer.integer("filters", 1)
            layer.h = (h + 2 * pad - size) // stride_y + 1
            layer.w = (w + 2 * pad - size) // stride_x + 1
            options["in_channels"] = str(c)
            options["resolved_pad"] = str(pad)
        elif kind == "maxpool":
            stride = layer.integer("stride", 1)
            size = layer.integer("size", stride)
            padding = layer.integer("padding", size - 1)
            layer.c = c
            layer.h = (h + padding - size) // stride + 1
            layer.w = (w + padding - size) // stride + 1
        elif kind == "upsample":
            stride = layer.integer("stride", 2)
            layer.c, layer.h, layer.w = c, h * stride, w * stride
        elif kind == "route":
            groups = layer.integer("groups", 1)
            sources = [
                layers[resolve(int(part), len(layers))] for part in options["layers"].split(",")
            ]
            layer.c = sum(source.c for source in sources) // groups
            layer.h, layer.w = sources[0].h, sources[0].w
        else:  # shortcut, dropout, yolo
            layer.c, layer.h, layer.w = c, h, w
        layers.append(layer)
        c, h, w = layer.c, layer.h, layer.w
    return width, height, layers


def load_weights(layers: list[Layer], data: bytes) -> None:
    """`src/parser.c` load_weights_upto, load_convolutional_weights."""
    major, minor, _revision = struct.unpack_from("<iii", data)
    offset = 20 if major * 10 + minor >= 2 and major < 1000 and minor < 1000 else 16

    def take(*shape: int) -> NDArray[np.float64]:
        nonlocal offset
        count = math.prod(shape)
        values = struct.unpack_from(f"<{count}f", data, offset)
        offset += 4 * count
        return np.array(values, np.float64).reshape(shape)

    for layer in layers:
        if layer.kind != "convolutional":
            continue
        n, size = layer.c, layer.integer("size", 1)
        layer.arrays["biases"] = take(n)
        if layer.integer("batch_normalize", 0):
            layer.arrays["scales"] = take(n)
            layer.arrays["mean"] = take(n)
            layer.arrays["variance"] = take(n)
        per_group = layer.integer("in_channels", 0) // layer.integer("groups", 1)
        layer.arrays["weights"] = take(n, per_group, size, size)
    assert offset == len(data)


def activate(value: float, name: str) -> float:
    """`src/activations.h`."""
    match name:
        case "linear":
            return value
        case "leaky":
            return value if value > 0 else 0.1 * value
        case "relu":
            return max(value, 0.0)
        case "relu6":
            return min(max(value, 0.0), 6.0)
        case "logistic":
            return 1.0 / (1.0 + math.exp(-value))
        case "tanh":
            return math.tanh(value)
        case "swish":
            return value / (1.0 + math.exp(-value))
        case "mish":
            return value * math.tanh(math.log1p(math.exp(value)))
    raise AssertionError(name)


def activate_array(values: Image, name: str) -> Image:
    flat = np.array([activate(float(value), name) for value in values.ravel()])
    return flat.reshape(values.shape)


def forward_convolutional_layer(layer: Layer, image: Image) -> Image:
    """`src/convolutional_layer.c`, with im2col's window as a slice."""
    size, groups = layer.integer("size", 1), layer.integer("groups", 1)
    pad, stride = layer.integer("resolved_pad", 0), layer.integer("stride", 1)
    stride_x, stride_y = layer.integer("stride_x", stride), layer.integer("stride_y", stride)
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    weights = layer.arrays["weights"]
    per_group = weights.shape[1]
    output = np.zeros((layer.c, layer.h, layer.w))
    for n in range(layer.c):
        first = (n // (layer.c // groups)) * per_group
        for i in range(layer.h):
            for j in range(layer.w):
                top, left = i * stride_y, j * stride_x
                window = padded[first : first + per_group, top : top + size, left : left + size]
                output[n, i, j] = float(np.sum(window * weights[n]))
        if "scales" in layer.arrays:  # src/blas.c normalize_cpu, the CPU formula
            mean, variance = layer.arrays["mean"][n], layer.arrays["variance"][n]
            output[n] = (output[n] - mean) / (math.sqrt(variance) + 0.000001)
            output[n] *= layer.arrays["scales"][n]
        output[n] += layer.arrays["biases"][n]
    return activate_array(output, layer.options.get("activation", "logistic"))


def forward_maxpool_layer(layer: Layer, image: Image) -> Image:
    """`src/maxpool_layer.c`: the window may lie outside, where nothing counts."""
    stride = layer.integer("stride", 1)
    size = layer.integer("size", stride)
    offset = -(layer.integer("padding", size - 1) // 2)
    output = np.zeros((layer.c, layer.h, layer.w))
    _, h, w = image.shape
    for k in range(layer.c):
        for i in range(layer.h):
            for j in range(layer.w):
                best = -math.inf
                for n in range(size):
                    for m in range(size):
                        row, column = offset + i * stride + n, offset + j * stride + m
                        if 0 <= row < h and 0 <= column < w:
                            best = max(best, float(image[k, row, column]))
                output[k, i, j] = best
    return output


def forward_upsample_layer(layer: Layer, image: Image) -> Image:
    """`src/blas.c` upsample_cpu."""
    stride = layer.integer("stride", 2)
    output = np.zeros((layer.c, layer.h, layer.w))
    for k in range(layer.c):
        for i in range(layer.h):
            for j in range(layer.w):
                output[k, i, j] = image[k, i // stride, j // stride]
    return output


def forward_shortcut_layer(layer: Layer, image: Image, added: Image) -> Image:
    """`src/shortcut_layer.c`, `src/blas.c` shortcut_cpu: only common channels are added."""
    output = image.copy()
    for k in range(min(image.shape[0], added.shape[0])):
        output[k] += added[k]
    return activate_array(output, layer.options.get("activation", "linear"))


def forward_route_layer(layer: Layer, layers: list[Layer], index: int) -> Image:
    """`src/route_layer.c`; groups as in the AlexeyAB fork."""
    groups, group_id = layer.integer("groups", 1), layer.integer("group_id", 0)
    parts = []
    for word in layer.options["layers"].split(","):
        output = layers[resolve(int(word), index)].output
        assert output is not None
        part = output.shape[0] // groups
        parts.append(output[part * group_id : part * (group_id + 1)])
    return np.concatenate(parts)


def forward(layers: list[Layer], image: Image) -> list[Image]:
    """`src/network.c` forward_network: what goes into each `[yolo]` layer, in order."""
    heads: list[Image] = []
    for index, layer in enumerate(layers):
        if layer.kind == "convolutional":
            image = forward_convolutional_layer(layer, image)
        elif layer.kind == "maxpool":
            image = forward_maxpool_layer(layer, image)
        elif layer.kind == "upsample":
            image = forward_upsample_layer(layer, image)
        elif layer.kind == "shortcut":
            source = layers[resolve(int(layer.options["from"]), index)].output
            assert source is not None
            image = forward_shortcut_layer(layer, image, source)
        elif layer.kind == "route":
            image = forward_route_layer(layer, layers, index)
        elif layer.kind == "yolo":
            heads.append(image)
        layer.output = image
    return heads


@dataclass
class Detection:
    """`include/darknet.h` detection: a relative box (centre, size) and one score per class."""

    x: float
    y: float
    w: float
    h: float
    objectness: float
    prob: list[float]


def get_yolo_detections(
    layer: Layer, values: Image, net_w: int, net_h: int, thresh: float
) -> list[Detection]:
    """`src/yolo_layer.c` forward_yolo_layer, get_yolo_box, get_yolo_detections."""
    classes = layer.integer("classes", 20)
    flat = [float(word) for word in layer.options["anchors"].split(",")]
    mask = [int(word) for word in layer.options["mask"].split(",")]
    scale = float(layer.options.get("scale_x_y", 1))
    new_coords = layer.integer("new_coords", 0)
    found = []
    for n, anchor in enumerate(mask):
        for row in range(layer.h):
            for col in range(layer.w):
                entry = [
                    float(v) for v in values[n * (5 + classes) : (n + 1) * (5 + classes), row, col]
                ]
                if not new_coords:
                    for k in [0, 1, *range(4, 5 + classes)]:
                        entry[k] = activate(entry[k], "logistic")
                objectness = entry[4]
                if objectness <= thresh:
                    continue
                x = (col + entry[0] * scale - 0.5 * (scale - 1)) / layer.w
                y = (row + entry[1] * scale - 0.5 * (scale - 1)) / layer.h
                if new_coords:
                    w = entry[2] * entry[2] * 4 * flat[2 * anchor] / net_w
                    h = entry[3] * entry[3] * 4 * flat[2 * anchor + 1] / net_h
                else:
                    w = math.exp(entry[2]) * flat[2 * anchor] / net_w
                    h = math.exp(entry[3]) * flat[2 * anchor + 1] / net_h
                prob = [objectness * entry[5 + j] for j in range(classes)]
                prob = [p if p > thresh else 0.0 for p in prob]
                found.append(Detection(x, y, w, h, objectness, prob))
    return found


def overlap(x1: float, w1: float, x2: float, w2: float) -> float:
    """`src/box.c`."""
    return min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2)


def box_iou(a: Detection, b: Detection) -> float:
    """`src/box.c`."""
    w, h = overlap(a.x, a.w, b.x, b.w), overlap(a.y, a.h, b.y, b.h)
    common = 0.0 if w < 0 or h < 0 else w * h
    return common / (a.w * a.h + b.w * b.h - common)


def do_nms_sort(found: list[Detection], classes: int, thresh: float) -> None:
    """`src/box.c`."""
    for k in range(classes):
        found.sort(key=lambda detection: -detection.prob[k])
        for i, a in enumerate(found):
            if a.prob[k] == 0:
                continue
            for b in found[i + 1 :]:
                if box_iou(a, b) > thresh:
                    b.prob[k] = 0.0


def detect(
    cfg: str, weights: bytes, image: Image, thresh: float, nms: float
) -> tuple[list[Image], list[dict[str, Any]]]:
    """Raw maps, and what `examples/detector.c` would draw, by falling score, net pixels."""
    net_w, net_h, layers = make_network(cfg)
    load_weights(layers, weights)
    maps = forward(layers, image)
    heads = [layer for layer in layers if layer.kind == "yolo"]
    found: list[Detection] = []
    for layer, values in zip(heads, maps, strict=True):
        found += get_yolo_detections(layer, values, net_w, net_h, thresh)
    classes = heads[0].integer("classes", 20)
    do_nms_sort(found, classes, nms)
    seen = [
        {
            "class_id": k,
            "score": d.prob[k],
            "box": [
                (d.x - d.w / 2) * net_w,
                (d.y - d.h / 2) * net_h,
                (d.x + d.w / 2) * net_w,
                (d.y + d.h / 2) * net_h,
            ],
        }
        for d in found
        for k in range(classes)
        if d.prob[k] > 0
    ]
    return maps, sorted(seen, key=lambda entry: -entry["score"])
