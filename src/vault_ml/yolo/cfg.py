"""Darknet's `.cfg` text -> typed, frozen layers.

Defaults live in darknet's code, beside the key that reads them; here they live beside the key too.
Keys that only matter for training are ignored. A layer or a key that would change what the network
computes and that we do not compute is an error, never a silent difference.

Source: darknet `src/parser.c`, the `parse_*` functions; the keys of yolov4 and later from the
AlexeyAB fork.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from vault_ml.errors import ModelError
from vault_ml.yolo.cfg_text import Section, read_sections


class Activation(StrEnum):
    """What is applied to every value of a layer's output. Source: darknet `src/activations.h`."""

    LINEAR = "linear"
    LEAKY = "leaky"  # slope 0.1 below zero
    RELU = "relu"
    RELU6 = "relu6"
    LOGISTIC = "logistic"
    TANH = "tanh"
    MISH = "mish"
    SWISH = "swish"


@dataclass(frozen=True, slots=True)
class Convolutional:
    """`[convolutional]`. Padding is what is added on each side, pixels."""

    line: int
    filters: int
    size: int
    stride_x: int
    stride_y: int
    padding: int
    groups: int
    batch_normalize: bool
    activation: Activation
    section: str = "convolutional"


@dataclass(frozen=True, slots=True)
class MaxPool:
    """`[maxpool]`. `padding` is the sum of both sides; half, rounded down, lies left and above."""

    line: int
    size: int
    stride_x: int
    stride_y: int
    padding: int
    section: str = "maxpool"


@dataclass(frozen=True, slots=True)
class Upsample:
    """`[upsample]`: each value becomes a square of `stride` x `stride`."""

    line: int
    stride: int
    section: str = "upsample"


@dataclass(frozen=True, slots=True)
class Shortcut:
    """`[shortcut]`: the layer before plus layer `source` (absolute index), then the activation."""

    line: int
    source: int
    activation: Activation
    section: str = "shortcut"


@dataclass(frozen=True, slots=True)
class Route:
    """`[route]`: the channels of `sources` (absolute indices) one after the other.

    With `groups` > 1 only the part `group_id` of each source's channels is taken.
    """

    line: int
    sources: tuple[int, ...]
    groups: int
    group_id: int
    section: str = "route"


@dataclass(frozen=True, slots=True)
class Dropout:
    """`[dropout]`: passes its input through when the network is used, not trained."""

    line: int
    probability: float
    section: str = "dropout"


@dataclass(frozen=True, slots=True)
class Yolo:
    """`[yolo]`: one head. `anchors` are those of the mask, (width, height), net pixels.

    Attributes:
        line: where the section starts.
        mask: which of all anchors this head uses.
        all_anchors: every anchor the section lists.
        classes: number of classes.
        scale_x_y: how far beyond its cell a box centre may lie; 1 = not.
        new_coords: the maps hold values in [0, 1], not logits (Scaled-YOLOv4).
    """

    line: int
    mask: tuple[int, ...]
    all_anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_x_y: float
    new_coords: bool
    section: str = "yolo"

    @property
    def anchors(self) -> tuple[tuple[float, float], ...]:
        """(width, height) of this head's anchors, net pixels."""
        return tuple(self.all_anchors[index] for index in self.mask)


Layer = Convolutional | MaxPool | Upsample | Shortcut | Route | Dropout | Yolo


@dataclass(frozen=True, slots=True)
class Network:
    """A parsed `.cfg`.

    Attributes:
        name: the file's name, for messages.
        width: of the input, pixels.
        height: of the input, pixels.
        channels: of the input; 3, RGB.
        layers: in file order; an index into it is darknet's layer number.
    """

    name: str
    width: int
    height: int
    channels: int
    layers: tuple[Layer, ...]

    def resized(self, net_wh: tuple[int, int]) -> Network:
        """The same layers over an input of another size, pixels."""
        return replace(self, width=net_wh[0], height=net_wh[1])

    @property
    def net_wh(self) -> tuple[int, int]:
        """Size of the input, pixels."""
        return self.width, self.height

    @property
    def heads(self) -> tuple[Yolo, ...]:
        """The `[yolo]` layers in file order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Yolo))

    def fault(self, layer: Layer, problem: str) -> ModelError:
        """A `ModelError` that says where: file, line, section."""
        return ModelError(f"{self.name}, line {layer.line}, [{layer.section}]: {problem}")


def parse_cfg(text: str, name: str) -> Network:
    """Read a darknet `.cfg`.

    Args:
        text: the file's text.
        name: the file's name, for messages.

    Returns:
        The network; indices of `[route]` and `[shortcut]` are absolute and point backwards.

    Raises:
        ModelError: not a cfg, or it asks for something that is not supported; names file, line and
            section.
    """
    sections = read_sections(text, name)
    if not sections or sections[0].name not in ("net", "network"):
        raise ModelError(f"{name}: a darknet .cfg begins with a [net] section; this is not one")
    net = sections[0]
    channels = net.integer("channels", 3)
    if channels != 3:
        raise net.fault(f"channels={channels} is not supported: frames are RGB", "channels")
    layers: list[Layer] = []
    for section in sections[1:]:
        reader = _READERS.get(section.name)
        if reader is None:
            raise section.fault("this layer is not supported")
        section.refuse({"dontload": 0, "dontloadscales": 0, "numload": 0})
        layers.append(reader(section, len(layers)))
    network = Network(
        name,
        net.integer("width", 0, at_least=1),
        net.integer("height", 0, at_least=1),
        channels,
        tuple(layers),
    )
    if network.width == 0 or network.height == 0:
        raise net.fault("width= and height= are needed")
    if not network.heads:
        raise ModelError(f"{name}: there is no [yolo] section; only YOLO detectors are supported")
    if len({head.classes for head in network.heads}) > 1:
        raise ModelError(f"{name}: the [yolo] sections disagree about classes=")
    return network


def _convolutional(section: Section, _index: int) -> Convolutional:
    section.refuse(
        {
            "xnor": 0,
            "binary": 0,
            "bin_output": 0,
            "flipped": 0,
            "antialiasing": 0,
            "assisted_excitation": 0,
            "share_index": -1_000_000_000,
            "sway": 0,
            "rotate": 0,
            "stretch": 0,
            "stretch_sway": 0,
            "coordconv": 0,
            "reverse": 0,
        }
    )
    size = section.integer("size", 1, at_least=1)
    if size > 1:  # darknet forgets dilation where it has no effect
        section.refuse({"dilation": 1})
    stride = section.integer("stride", 1, at_least=1)
    padding = section.integer("padding", 0, at_least=0)
    return Convolutional(
        section.line,
        filters=section.integer("filters", 1, at_least=1),
        size=size,
        stride_x=section.integer("stride_x", stride, at_least=1),
        stride_y=section.integer("stride_y", stride, at_least=1),
        padding=size // 2 if section.integer("pad", 0) else padding,
        groups=section.integer("groups", 1, at_least=1),
        batch_normalize=section.integer("batch_normalize", 0) != 0,
        activation=_activation(section, Activation.LOGISTIC),
    )


def _maxpool(section: Section, _index: int) -> MaxPool:
    section.refuse({"maxpool_depth": 0, "antialiasing": 0})
    stride = section.integer("stride", 1, at_least=1)
    size = section.integer("size", stride, at_least=1)
    padding = section.integer("padding", size - 1, at_least=0)
    if padding // 2 >= size:
        raise section.fault(f"padding={padding} is too large for size={size}", "padding")
    return MaxPool(
        section.line,
        size=size,
        stride_x=section.integer("stride_x", stride, at_least=1),
        stride_y=section.integer("stride_y", stride, at_least=1),
        padding=padding,
    )


def _upsample(section: Section, _index: int) -> Upsample:
    section.refuse({"scale": 1})
    return Upsample(section.line, section.integer("stride", 2, at_least=1))


def _shortcut(section: Section, index: int) -> Shortcut:
    if section.text("weights_type", "none") != "none":
        raise section.fault("weights_type is not supported", "weights_type")
    sources = section.integers("from")
    if len(sources) != 1:
        raise section.fault(f"from= must name one layer, got {len(sources)}", "from")
    return Shortcut(
        section.line,
        source=_absolute(section, "from", sources[0], index),
        activation=_activation(section, Activation.LINEAR),
    )


def _route(section: Section, index: int) -> Route:
    sources = section.integers("layers")
    if not sources:
        raise section.fault("layers= is needed")
    groups = section.integer("groups", 1, at_least=1)
    group_id = section.integer("group_id", 0, at_least=0)
    if group_id >= groups:
        raise section.fault(f"group_id={group_id} is not below groups={groups}", "group_id")
    return Route(
        section.line,
        tuple(_absolute(section, "layers", source, index) for source in sources),
        groups,
        group_id,
    )


def _dropout(section: Section, _index: int) -> Dropout:
    return Dropout(section.line, section.number("probability", 0.2))


def _yolo(section: Section, _index: int) -> Yolo:
    flat = section.numbers("anchors")
    total = section.integer("num", 1, at_least=1)
    if len(flat) < 2 * total:
        raise section.fault(f"num={total} needs {2 * total} numbers in anchors=, got {len(flat)}")
    anchors = tuple((flat[2 * i], flat[2 * i + 1]) for i in range(total))
    mask = section.integers("mask") or tuple(range(total))
    if not all(0 <= index < total for index in mask):
        raise section.fault(f"mask= must name anchors 0..{total - 1}, got {mask}", "mask")
    return Yolo(
        section.line,
        mask=mask,
        all_anchors=anchors,
        classes=section.integer("classes", 20, at_least=1),
        scale_x_y=section.number("scale_x_y", 1.0),
        new_coords=section.integer("new_coords", 0) != 0,
    )


_READERS: Mapping[str, Callable[[Section, int], Layer]] = {
    "convolutional": _convolutional,
    "conv": _convolutional,
    "maxpool": _maxpool,
    "max": _maxpool,
    "upsample": _upsample,
    "shortcut": _shortcut,
    "route": _route,
    "dropout": _dropout,
    "yolo": _yolo,
}


def _activation(section: Section, default: Activation) -> Activation:
    value = section.text("activation", default.value)
    try:
        return Activation(value)
    except ValueError as error:
        known = ", ".join(Activation)
        raise section.fault(
            f"activation={value} is not supported (supported: {known})", "activation"
        ) from error


def _absolute(section: Section, key: str, source: int, index: int) -> int:
    """Layer number that `source` means in layer `index`: negative counts back from it."""
    absolute = source if source >= 0 else index + source
    if not 0 <= absolute < index:
        raise section.fault(f"{key}={source} does not name an earlier layer", key)
    return absolute
