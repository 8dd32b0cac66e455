"""What comes out of each layer of a network: channels, height, width.

Source: darknet, the `make_*_layer` functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from vault_ml.yolo.cfg import (
    Convolutional,
    Layer,
    MaxPool,
    Network,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of one layer's output for one image."""

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """How many numbers that is."""
        return self.channels * self.height * self.width


def infer_shapes(network: Network) -> tuple[Shape, ...]:
    """Output shape of every layer.

    Args:
        network: a parsed cfg.

    Returns:
        One shape per layer. A `[yolo]` layer has the shape of its input.

    Raises:
        ModelError: layers do not fit together; names file, line and section.
    """
    shapes: list[Shape] = []
    for index in range(len(network.layers)):
        shapes.append(_output(network, index, shapes))
    return tuple(shapes)


def input_shape(network: Network, shapes: tuple[Shape, ...], index: int) -> Shape:
    """What goes into layer `index`: the output of the layer before it, or the image."""
    if index == 0:
        return Shape(network.channels, network.height, network.width)
    return shapes[index - 1]


def _output(network: Network, index: int, shapes: list[Shape]) -> Shape:
    layer = network.layers[index]
    before = input_shape(network, tuple(shapes), index)
    if isinstance(layer, Route):
        return _route(network, layer, shapes)
    if index and isinstance(network.layers[index - 1], Yolo):
        raise network.fault(layer, "the layer before it is a [yolo] layer, which ends a branch")
    if isinstance(layer, Convolutional):
        return _convolutional(network, layer, before)
    if isinstance(layer, MaxPool):
        return _slide(
            network,
            layer,
            Shape(
                before.channels,
                (before.height + layer.padding - layer.size) // layer.stride_y + 1,
                (before.width + layer.padding - layer.size) // layer.stride_x + 1,
            ),
        )
    if isinstance(layer, Upsample):
        return Shape(before.channels, before.height * layer.stride, before.width * layer.stride)
    if isinstance(layer, Shortcut):
        return _shortcut(network, layer, before, shapes[layer.source])
    if isinstance(layer, Yolo):
        expected = len(layer.mask) * (5 + layer.classes)
        if before.channels != expected:
            raise network.fault(
                layer,
                f"{len(layer.mask)} anchors and {layer.classes} classes need filters={expected} in "
                f"the layer before it, which has {before.channels}",
            )
    return before


def _convolutional(network: Network, layer: Convolutional, before: Shape) -> Shape:
    if before.channels % layer.groups or layer.filters % layer.groups:
        raise network.fault(
            layer,
            f"groups={layer.groups} divides neither evenly: {before.channels} channels in, "
            f"filters={layer.filters}",
        )
    return _slide(
        network,
        layer,
        Shape(
            layer.filters,
            (before.height + 2 * layer.padding - layer.size) // layer.stride_y + 1,
            (before.width + 2 * layer.padding - layer.size) // layer.stride_x + 1,
        ),
    )


def _slide(network: Network, layer: Layer, shape: Shape) -> Shape:
    if shape.height < 1 or shape.width < 1:
        raise network.fault(layer, "the picture is smaller than this layer's window")
    return shape


def _shortcut(network: Network, layer: Shortcut, before: Shape, source: Shape) -> Shape:
    if isinstance(network.layers[layer.source], Yolo):
        raise network.fault(layer, "from= names a [yolo] layer, which ends a branch")
    if (before.height, before.width) != (source.height, source.width):
        raise network.fault(
            layer,
            f"adding {source.width}x{source.height} to {before.width}x{before.height} is not "
            "supported; width= and height= should be multiples of 32",
        )
    return before


def _route(network: Network, layer: Route, shapes: list[Shape]) -> Shape:
    sources = [shapes[source] for source in layer.sources]
    if any(isinstance(network.layers[source], Yolo) for source in layer.sources):
        raise network.fault(layer, "layers= names a [yolo] layer, which ends a branch")
    if len({(source.height, source.width) for source in sources}) > 1:
        sizes = ", ".join(f"{source.width}x{source.height}" for source in sources)
        raise network.fault(
            layer,
            f"the layers differ in size ({sizes}); width= and height= should be multiples of 32",
        )
    if any(source.channels % layer.groups for source in sources):
        raise network.fault(layer, f"groups={layer.groups} does not divide the channels")
    return Shape(
        sum(source.channels // layer.groups for source in sources),
        sources[0].height,
        sources[0].width,
    )
