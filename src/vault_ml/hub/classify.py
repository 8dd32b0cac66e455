"""`data` of a `classify` result, with exactly the types that Hub's services decode.

Hub is written in Go: a member of another type makes its decoder refuse the whole message, one that
it does not know is passed over. The dataclasses below are the table of those types; `confidence`,
`confidences` and `reason` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from vault_ml.hub.vocabulary import HUB_WORDS
from vault_ml.tracking.track import Observation
from vault_ml.verdict import Exclusion, JudgedTrack

OPERATION = "classify"
# For the JSON Schema (`schemas`): the texts under the fields below are their descriptions.
_DOCUMENTED = MappingProxyType({"use_attribute_docstrings": True})

# Objects that MIN_DETECTIONS or the classes of interest leave out are not in the details at all.
_LEFT_OUT = frozenset({Exclusion.FEW_DETECTIONS, Exclusion.NO_INTEREST})


@dataclass(frozen=True, slots=True)
class ClassifyDetails:
    """One object. Pixels are those of the original frame, origin top left."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    # Hub's spelling.
    id: str
    """Counts from 1 in each recording."""
    classified: str
    """What it is, in Hub's words."""
    x: float
    """Of its first box: left side, pixels."""
    y: float
    """Of its first box: upper side, pixels."""
    w: float
    """Of its first box: width, pixels."""
    h: float
    """Of its first box: height, pixels."""
    frameWidth: float  # noqa: N815
    """Of the picture, pixels."""
    frameHeight: float  # noqa: N815
    """Of the picture, pixels."""
    meanColor: float  # noqa: N815
    """Not told: 0."""
    frame: float
    """The picture of the recording that it was first seen in, from 0."""
    occurence: float
    """In how many looked-at frames it was seen."""
    distance: float
    """The length of its way, pixels, without the trembling of its box."""
    staticDistance: float  # noqa: N815
    """From where it was first to where it was last, pixels."""
    isStatic: bool  # noqa: N815
    """Whether it stood still, or was there in earlier recordings."""
    valid: bool
    """Always true."""
    colorStr: list[str]  # noqa: N815
    """Not told: empty."""
    frames: list[int]
    """The pictures of the recording that it was seen in, from 0."""
    traject: list[list[float]]
    """For each of `frames`: x1, y1, x2, y2, pixels."""
    trajectCentroids: list[list[float]]  # noqa: N815
    """For each of `frames`: x, y of the middle of its box, pixels."""
    confidence: float
    """Ours: the highest, 0 to 1."""
    confidences: list[float]
    """Ours: for each of `frames`, 0 to 1."""
    reason: str | None
    """Ours: why it does not count; null where it does."""


@dataclass(frozen=True, slots=True)
class Classify:
    """`data` of the message, beside what other services put there."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    objectCount: int  # noqa: N815
    """How many objects moved and count."""
    properties: list[str]
    """What each of them is, in Hub's words."""
    details: list[ClassifyDetails]
    """The objects, those that stood still too."""


def classify(
    tracks: Sequence[JudgedTrack],
    frame_numbers: Sequence[int],
    frame_wh: tuple[int, int],
    *,
    words: Mapping[str, str] = HUB_WORDS,
    most_points: int | None = None,
) -> Classify:
    """Tell Hub of the objects of a recording.

    Those that stand still, or were there before, are in the details and not among the properties:
    so Hub's own classifier does, and its alerts go by the properties.

    Args:
        tracks: the objects.
        frame_numbers: for each looked-at frame, which frame of the recording it is, from 0.
        frame_wh: size of the frames, pixels.
        words: the model's words -> Hub's; others stay.
        most_points: of each way at most so many points are told; None tells all.
    """
    told = [each for each in tracks if each.exclusion not in _LEFT_OUT]
    moving = [each for each in told if not each.is_static and each.exclusion is None]
    return Classify(
        objectCount=len(moving),
        properties=[words.get(each.track.label, each.track.label) for each in moving],
        details=[_details(each, frame_numbers, frame_wh, words, most_points) for each in told],
    )


def _details(
    judged: JudgedTrack,
    frame_numbers: Sequence[int],
    frame_wh: tuple[int, int],
    words: Mapping[str, str],
    most_points: int | None,
) -> ClassifyDetails:
    track = judged.track
    way = thinned(track.observations, most_points)
    x1, y1, x2, y2 = way[0].xyxy
    numbers = [frame_numbers[each.frame] for each in way]
    return ClassifyDetails(
        id=str(track.id),
        classified=words.get(track.label, track.label),
        x=_pixel(x1),
        y=_pixel(y1),
        w=_pixel(x2 - x1),
        h=_pixel(y2 - y1),
        frameWidth=float(frame_wh[0]),
        frameHeight=float(frame_wh[1]),
        meanColor=0.0,
        frame=float(numbers[0]),
        occurence=float(len(track.observations)),
        distance=judged.travelled_px,
        staticDistance=judged.displacement_px,
        isStatic=judged.is_static or judged.exclusion is Exclusion.KNOWN,
        valid=True,
        colorStr=[],
        frames=numbers,
        traject=[[_pixel(side) for side in each.xyxy] for each in way],
        trajectCentroids=[list(_centre(each)) for each in way],
        confidence=_part(track.confidence),
        confidences=[_part(each.confidence) for each in way],
        reason=judged.reason,
    )


def thinned(way: Sequence[Observation], most: int | None) -> list[Observation]:
    """At most so many of the observations, at least 1: the first, from 2 on also the last."""
    if most is None or len(way) <= most:
        return list(way)
    if most == 1:
        return [way[0]]
    last = len(way) - 1
    return [way[round(place * last / (most - 1))] for place in range(most)]


def _centre(observation: Observation) -> tuple[float, float]:
    x1, y1, x2, y2 = observation.xyxy
    return _pixel((x1 + x2) / 2), _pixel((y1 + y2) / 2)


def _pixel(value: float) -> float:
    """To a tenth: finer than any detector, shorter in the message."""
    return round(float(value), 1)


def _part(value: float) -> float:
    return round(float(value), 4)
