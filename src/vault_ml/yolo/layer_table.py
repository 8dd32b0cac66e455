"""The table of layers that darknet prints when it loads a model.

People check a model by eye with it, and the first vault-ml printed it at start, so ours does too,
to the character.

Source: the formats of darknet's `make_*_layer` functions and of `parse_network_cfg`.
"""

from __future__ import annotations

from vault_ml.yolo.cfg import (
    Convolutional,
    Dropout,
    MaxPool,
    Network,
    Route,
    Shortcut,
    Upsample,
)
from vault_ml.yolo.shapes import Shape, infer_shapes, input_shape

_HEADER = "layer     filters    size              input                output"


def layer_table(network: Network) -> str:
    """Darknet's start-up table, one line per layer, no newline at the end.

    Args:
        network: a parsed cfg; `network.resized(...)` shows another input size.

    Raises:
        ModelError: the layers do not fit together.
    """
    shapes = infer_shapes(network)
    rows = [
        f"{index:5d} {_row(network, index, input_shape(network, shapes, index), shapes)}"
        for index in range(len(network.layers))
    ]
    return "\n".join([_HEADER, *rows])


def _row(network: Network, index: int, before: Shape, shapes: tuple[Shape, ...]) -> str:
    layer = network.layers[index]
    after = shapes[index]
    from_to = f"{_size(before)}   ->  {_size(after)}"
    if isinstance(layer, Convolutional):
        per_value = 2.0 * layer.size * layer.size * before.channels / layer.groups
        billions = per_value * after.values / 1_000_000_000
        return (
            f"conv  {layer.filters:5d} {layer.size:2d} x{layer.size:2d} /{layer.stride_x:2d}  "
            f"{from_to}  {billions:5.3f} BFLOPs"
        )
    if isinstance(layer, MaxPool):
        return f"max          {layer.size} x {layer.size} / {layer.stride_x}  {from_to}"
    if isinstance(layer, Upsample):
        return f"upsample           {layer.stride:2d}x  {from_to}"
    if isinstance(layer, Shortcut):
        source = _size(shapes[layer.source])
        return f"res  {layer.source:3d}                {source}   ->  {_size(after)}"
    if isinstance(layer, Route):
        part = f" {layer.group_id}/{layer.groups}" if layer.groups > 1 else ""
        return "route " + "".join(f" {source}" for source in layer.sources) + part
    if isinstance(layer, Dropout):
        counts = f"{before.values:4d}  ->  {after.values:4d}"
        return f"dropout       p = {layer.probability:.2f}               {counts}"
    return "yolo"


def _size(shape: Shape) -> str:
    return f"{shape.width:4d} x{shape.height:4d} x{shape.channels:4d}"
