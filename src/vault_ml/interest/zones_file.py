"""ZONES: a YAML file of what is of interest at each camera; errors name line and field.

defaults:
  thresholds: {person: 0.6}
cameras:
  front-door:
    labels: [person, car]
    sizes: {person: {min: 0.002, max: 0.5}}
    zones:
      - name: driveway
        points: [[0.1, 0.6], [0.9, 0.6], [0.9, 1], [0.1, 1]]
    masks:
      - {name: road, points: [[0, 0], [1, 0], [1, 0.2]], labels: [car]}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from vault_ml.errors import ConfigError
from vault_ml.interest.areas import Area, CameraInterest, Point, Sizes

T = TypeVar("T")
_MOST_BYTES = 1_000_000
_CORNERS = 3
# A polygon of less is a line: nothing would ever stand in it.
_LEAST_AREA = 1e-5


@dataclass(frozen=True, slots=True)
class ZonesFile:
    """What the file says: for every camera, and for some."""

    defaults: CameraInterest
    cameras: Mapping[str, CameraInterest]


def read(
    text: str,
    name: str,
    *,
    labels: Collection[str] | None = None,
    least_confidence: float = 0.0,
) -> ZonesFile:
    """Read the file.

    Args:
        text: its content.
        name: what messages call it.
        labels: what the model can see; a label that is not among them is an error. None: not known.
        least_confidence: CONFIDENCE_THRESHOLD; a lower threshold would do nothing.

    Raises:
        ConfigError: it is wrong; a line for each error, with line and field.
    """
    reader = _Reader(name, labels, least_confidence)
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"ZONES: {name} is larger than {_MOST_BYTES} bytes.")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"ZONES: {name}, line {line}: is not YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"ZONES: {name} is not YAML ({error})") from None
    found = reader.file(root)
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    return found


class _Reader:
    """Goes down the nodes, and keeps all problems instead of stopping at the first."""

    def __init__(self, name: str, labels: Collection[str] | None, least_confidence: float) -> None:
        self.problems: list[str] = []
        self._name = name
        self._labels = labels
        self._least_confidence = least_confidence

    def file(self, root: Node | None) -> ZonesFile:
        if root is None:
            return ZonesFile(CameraInterest(), {})
        parts = self._object(root, "", {"defaults", "cameras"})
        defaults = CameraInterest()
        if "defaults" in parts:
            defaults = self._camera(parts["defaults"], "defaults")
        cameras = {
            camera: self._camera(node, f"cameras.{camera}")
            for camera, node in self._members(parts.get("cameras"), "cameras")
        }
        return ZonesFile(defaults, cameras)

    def _camera(self, node: Node, field: str) -> CameraInterest:
        parts = self._object(node, field, {"labels", "thresholds", "sizes", "zones", "masks"})
        return CameraInterest(
            self._label_set(parts.get("labels"), f"{field}.labels"),
            self._by_label(parts.get("thresholds"), f"{field}.thresholds", self._threshold),
            self._by_label(parts.get("sizes"), f"{field}.sizes", self._sizes),
            self._areas(parts.get("zones"), f"{field}.zones"),
            self._areas(parts.get("masks"), f"{field}.masks"),
        )

    def _areas(self, node: Node | None, field: str) -> tuple[Area, ...]:
        areas: list[Area] = []
        for place, item in enumerate(self._items(node, field)):
            here = f"{field}[{place}]"
            parts = self._object(item, here, {"name", "points", "labels"})
            name = self._text(parts["name"], f"{here}.name") if "name" in parts else here
            if name in {area.name for area in areas}:
                self._wrong(parts["name"], f"{here}.name", f"{name} is there twice")
            if "points" not in parts:
                self._wrong(item, here, "has no points")
                continue
            points = self._points(parts["points"], f"{here}.points")
            areas.append(Area(name, points, self._label_set(parts.get("labels"), f"{here}.labels")))
        return tuple(areas)

    def _points(self, node: Node, field: str) -> tuple[Point, ...]:
        before = len(self.problems)
        points = [
            self._point(item, f"{field}[{place}]")
            for place, item in enumerate(self._items(node, field))
        ]
        if len(self.problems) > before:
            return ()
        if len(points) < _CORNERS:
            self._wrong(node, field, f"a polygon has at least 3 points, this has {len(points)}")
        elif _area(points) < _LEAST_AREA:
            self._wrong(node, field, "these points enclose no area")
        return tuple(points)

    def _point(self, node: Node, field: str) -> Point:
        pair = node.value if isinstance(node, SequenceNode) else []
        if len(pair) != 2:
            self._wrong(node, field, "must be [x, y]")
            return 0.0, 0.0
        x, y = (
            self._number(each, field, 0, 1, "parts of the picture, from 0 to 1") for each in pair
        )
        return x, y

    def _threshold(self, node: Node, field: str) -> float:
        value = self._number(node, field, 0, 1, "a confidence from 0 to 1")
        if value < self._least_confidence:
            self._wrong(
                node,
                field,
                f"is below CONFIDENCE_THRESHOLD ({self._least_confidence:g}), under which nothing "
                "is reported; lower that as well",
            )
        return value

    def _sizes(self, node: Node, field: str) -> Sizes:
        parts = self._object(node, field, {"min", "max"})
        bounds = [
            self._number(parts[name], f"{field}.{name}", 0, 1, "a part of the picture, from 0 to 1")
            if name in parts
            else default
            for name, default in (("min", 0.0), ("max", 1.0))
        ]
        if bounds[0] > bounds[1]:
            self._wrong(node, field, "min is above max")
        return Sizes(*bounds)

    def _by_label(
        self, node: Node | None, field: str, read_one: Callable[[Node, str], T]
    ) -> dict[str, T]:
        found = {}
        for label, item in self._members(node, field):
            self._check_label(item, f"{field}.{label}", label)
            found[label] = read_one(item, f"{field}.{label}")
        return found

    def _label_set(self, node: Node | None, field: str) -> frozenset[str] | None:
        if node is None:
            return None
        labels = []
        for place, item in enumerate(self._items(node, field)):
            label = self._text(item, f"{field}[{place}]")
            self._check_label(item, f"{field}[{place}]", label)
            labels.append(label)
        if not labels:
            self._wrong(node, field, "names no label; leave it out to mean all")
        return frozenset(labels)

    def _check_label(self, node: Node, field: str, label: str) -> None:
        if self._labels is not None and label and label not in self._labels:
            self._wrong(node, field, f"{label} is not a label of the model")

    # --- nodes ------------------------------------------------------------------------------------

    def _object(self, node: Node, field: str, known: set[str]) -> dict[str, Node]:
        found = {}
        for name, item in self._members(node, field):
            if name in known:
                found[name] = item
            else:
                place = f"{field}.{name}" if field else name
                self._wrong(item, place, f"is unknown; known are {', '.join(sorted(known))}")
        return found

    def _members(self, node: Node | None, field: str) -> Iterator[tuple[str, Node]]:
        if node is None or _is_nothing(node):
            return
        if not isinstance(node, MappingNode):
            self._wrong(node, field, "must be names with values")
            return
        names: set[str] = set()
        for name, item in node.value:
            text = self._text(name, field)
            if text in names:
                self._wrong(name, f"{field}.{text}" if field else text, "is there twice")
            names.add(text)
            yield text, item

    def _items(self, node: Node | None, field: str) -> list[Node]:
        if node is None or _is_nothing(node):
            return []
        if not isinstance(node, SequenceNode):
            self._wrong(node, field, "must be a list")
            return []
        return list(node.value)

    def _text(self, node: Node, field: str) -> str:
        if not isinstance(node, ScalarNode) or not node.value:
            self._wrong(node, field, "must be a text")
            return ""
        return str(node.value)

    def _number(self, node: Node, field: str, low: float, high: float, what: str) -> float:
        text = node.value if isinstance(node, ScalarNode) else ""
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            said = f" (it is {text})" if text else ""
            self._wrong(node, field, f"must be {what}{said}")
            return low
        return value

    def _wrong(self, node: Node, field: str, sentence: str) -> None:
        line = node.start_mark.line + 1
        place = f", {field}" if field else ""
        self.problems.append(f"ZONES: {self._name}, line {line}{place}: {sentence}")


def _is_nothing(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _area(points: list[Point]) -> float:
    """Of a polygon, by the shoelace formula."""
    following = [*points[1:], points[0]]
    return (
        abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(points, following, strict=True)))
        / 2
    )
