"""The result message: the event, what was seen, and how it was looked at.

The `vault` profile is the message of the first vault-ml: the event with `data` and `operation`. The
`hub` profile is what Kerberos Hub's pipeline reads (`hub.classify`). What is ours stands under
`data.run`; without extras the message has not a key more than the original's, or Hub's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vault_ml import json_text
from vault_ml.detection import Detections
from vault_ml.errors import MessageTooLarge
from vault_ml.event import RecordingEvent
from vault_ml.hub import classify as hub
from vault_ml.hub.detection_block import BlockSource, detection_block
from vault_ml.hub.vocabulary import HUB_WORDS
from vault_ml.verdict import JudgedTrack

OPERATION = "classification"
RUN_ID_HEADER = "vault-ml-run-id"
VERSION_HEADER = "vault-ml-version"
# Trace context of whoever sent the event goes on with the result (W3C Trace Context).
_PASSED_ON_HEADERS = ("traceparent", "tracestate")
# Microseconds: finer than any container's time base, coarser than the noise of a division.
_TIMESTAMP_DIGITS = 6
# For the JSON Schema (`schemas`): the texts under the fields below are their descriptions.
_DOCUMENTED = MappingProxyType({"use_attribute_docstrings": True})


@dataclass(frozen=True, slots=True)
class LookedAtFrame:
    """One frame that was looked at.

    Attributes:
        index: 0-based position among the looked-at frames of the recording.
        timestamp_s: presentation time, seconds since the first frame of the recording.
        detections: what was seen, frame pixels.
        number: which picture of the recording it is, from 0.
        track_ids: for each detection, the object it belongs to; empty where objects were not
            followed.
        why: what spoke for it, where frames are chosen by what happens.
    """

    index: int
    timestamp_s: float
    detections: Detections
    number: int = 0
    track_ids: tuple[int, ...] = ()
    why: str | None = None


class Profile(StrEnum):
    """Whose message a result is."""

    VAULT = "vault"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class RunModel:
    """The model that looked."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    name: str
    """Its name, such as `yolov3`."""
    sha256: str
    """Digest of what determines its output."""


@dataclass(frozen=True, slots=True)
class RunRecording:
    """The recording that was looked at."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    bytes_fetched: int
    """What came over the wire for it, bytes."""
    size_bytes: int
    """Its size as it is stored, bytes."""
    sha256: str
    """Digest of the stored bytes in `ranges`, one after another. Of the file where that is all."""
    ranges: list[tuple[int, int]]
    """First and last byte of each stretch that was fetched, from 0; one pair where all was."""
    width: int
    """Of the picture as a person sees it, pixels."""
    height: int
    """Of the picture as a person sees it, pixels."""
    partial: bool
    """Whether it was cut off, or is damaged from some place on: what is there was looked at."""
    seconds_covered: float | None
    """From its first to the end of its last picture that is there, seconds."""


@dataclass(frozen=True, slots=True)
class RunTrack:
    """One object, followed over the looked-at frames."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    id: int
    """Counts from 1 in each recording."""
    label: str
    """The class that most confidence was given to."""
    confidence: float
    """The highest, 0 to 1."""
    frames: list[int]
    """In which of the looked-at frames it was seen, from 0."""
    travelled_px: float
    """The length of its way, pixels, without the trembling of its box."""
    displacement_px: float
    """From where it was first to where it was last, pixels."""
    is_static: bool
    """Whether it stood still."""
    reason: str | None
    """Why it does not count, such as `same car as 09:12:04, IoU 0.97`; null where it does."""


@dataclass(frozen=True, slots=True)
class RunLeftOut:
    """A frame that was decoded and showed nothing new."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    timestamp_s: float
    """Its time in the recording, seconds."""
    same_as_s: float
    """The time of the looked-at frame that shows the same, seconds."""


@dataclass(frozen=True, slots=True)
class RunChoice:
    """Which frames `adaptive` chose, and why."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    timestamps_s: list[float]
    """The time of each looked-at frame, those without objects included, seconds."""
    reasons: list[str]
    """What spoke for it: `motion` (the frames around it are larger than quiet ones), `change` (a
    keyframe that shows what no other did) or `spread` (nothing: so that no part goes unseen)."""
    left_out: list[RunLeftOut]
    """Frames that were not looked at because another shows the same."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a recording was looked at: `data.run` but for the frames, which `build_result` adds."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    id: str
    """The same for every delivery of the event; keep results by it."""
    version: str
    """Version of vault-ml."""
    count: int
    """Largest number of objects of interest in any one looked-at frame."""
    rule: str
    """How the count was compared with FORWARDING_OBJECT_THRESHOLD."""
    is_interesting: bool
    """Whether the rule was fulfilled."""
    model: RunModel
    """The model that looked."""
    confidence_threshold: float
    """Objects below were not reported."""
    nms_threshold: float
    """Overlap above which two boxes of a class are one object."""
    runtime: str
    """Library and version that ran the network."""
    device: str
    """What it ran on."""
    precision: str
    """Number format of the network."""
    sampling: str
    """How frames were chosen: `keyframe`, `exact`, `fps` or `adaptive`."""
    recording: RunRecording
    """The recording that was looked at."""
    choice: RunChoice | None
    """With `adaptive`: which frames were chosen, and why."""


@dataclass(frozen=True, slots=True)
class RunDocument(Run):
    """How the recording was looked at; `data.run` of a result."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    looked_at: int
    """How many frames were looked at, those without objects included."""
    frames: list[int]
    """For each entry of `probabilities`, which of the looked-at frames it is, from 0."""
    timestamps_s: list[float]
    """For each entry of `probabilities`, its time in the recording, seconds."""
    track_ids: list[list[int]]
    """For each entry of `probabilities`, for each object in it, its `id` among `tracks`."""
    tracks: list[RunTrack]
    """The objects, those that do not count with the reason."""


@dataclass(frozen=True, slots=True)
class RunRemains:
    """What is left of `data.run` when the message would have been too large."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    id: str
    """The same for every delivery of the event; keep results by it."""
    left_out: str
    """What is missing."""


@dataclass(frozen=True, slots=True)
class Data:
    """What was seen, in parallel lists.

    One entry per frame that shows an object, and in it one per object, by falling probability.
    """

    __pydantic_config__: ClassVar[Mapping[str, bool]] = _DOCUMENTED

    probabilities: list[list[float]]
    """Objectness times class probability, 0 to 1."""
    labels: list[list[str]]
    """The model's class names, such as `traffic light`."""
    boxes: list[list[tuple[int, int, int, int]]]
    """x1, y1, x2, y2 in pixels of the original frame, origin top left."""


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """What a result message holds.

    Attributes:
        extras: with `data.run`, and in the `hub` profile with the typed block of detections.
        max_bytes: largest message; above it `data.run` is cut down.
        profile: whose message it is.
        words: of the `hub` profile: the model's words for classes -> Hub's.
    """

    extras: bool = True
    max_bytes: int = 980_000
    profile: Profile = Profile.VAULT
    words: Mapping[str, str] = field(default_factory=lambda: HUB_WORDS)


@dataclass(frozen=True, slots=True)
class Result:
    """A result message.

    Attributes:
        body: UTF-8 JSON.
        left_out: what was left out to keep the size limit, a sentence for the log; None when
            everything is there.
    """

    body: bytes
    left_out: str | None


def build_result(
    event: RecordingEvent,
    looked_at: Sequence[LookedAtFrame],
    run: Run,
    options: ResultOptions,
    *,
    tracks: Sequence[JudgedTrack] = (),
    block: Mapping[str, Any] | None = None,
) -> Result:
    """Write the result message of one recording.

    The event's members come first, in their order and as they were written, without credentials.
    `data` and `operation` replace what the event has under these names, or follow at the end; of an
    event's `data` object, what other services put there stays.

    A workflow run is answered in Kerberos Hub's own way, whatever the profile: the same envelope
    with the block of detections as its `payload`, or where there is none with `results[operation]`.

    Args:
        event: what was asked.
        looked_at: every looked-at frame in order of time. Those with no object are counted in
            `data.run.looked_at` and otherwise left out, as the original did.
        run: how it was looked at.
        options: what the message holds.
        tracks: the objects, each judged.
        block: the typed block of detections, which the `hub` profile carries along.

    Raises:
        ValueError: no frame was looked at.
        MessageTooLarge: too large even without extras.
    """
    if not looked_at:
        raise ValueError("no frame was looked at")
    if event.is_workflow_run:
        bodies = _run_answers(event, looked_at, run, options, tracks, block)
    else:
        bodies = (
            (left_out, _message(event, data, carried, options.profile))
            for left_out, data, carried in _versions(looked_at, run, options, tracks, block)
        )
    wanted_bytes: int | None = None
    body = b""
    for left_out, body in bodies:
        if len(body) <= options.max_bytes:
            return Result(
                body,
                None
                if left_out is None
                else f"{left_out} was left out: the message would have had {wanted_bytes} bytes, "
                f"more than RESULT_MAX_BYTES ({options.max_bytes})",
            )
        wanted_bytes = wanted_bytes or len(body)
    raise MessageTooLarge(
        f"the result has {len(body)} bytes without extras, more than RESULT_MAX_BYTES "
        f"({options.max_bytes}); raise it together with the broker's limit"
    )


def message_key(event: RecordingEvent, incoming: bytes | None) -> bytes | None:
    """The key of the result message: the event's own, else the camera, so that order is kept.

    Args:
        event: the event.
        incoming: the key it came with, where the broker has keys.
    """
    if incoming:
        return incoming
    return event.camera.encode() if event.camera else None


def message_headers(run_id: str, version: str, incoming: Mapping[str, str]) -> dict[str, str]:
    """The headers of the result message; the run id is there whether or not it is in the body.

    Args:
        run_id: the run's id.
        version: of vault-ml.
        incoming: headers of the event.
    """
    passed_on = {name: incoming[name] for name in _PASSED_ON_HEADERS if name in incoming}
    return passed_on | {
        "content-type": "application/json",
        RUN_ID_HEADER: run_id,
        VERSION_HEADER: version,
    }


# What is left out, `data`, and the block that is carried along.
_Version = tuple[str | None, Mapping[str, Any], Mapping[str, Any] | None]
# Points of a way that a message keeps which is too large; an outline is still one.
_OUTLINES = (50, 10, 2)


def _versions(
    looked_at: Sequence[LookedAtFrame],
    run: Run,
    options: ResultOptions,
    tracks: Sequence[JudgedTrack],
    block: Mapping[str, Any] | None,
) -> Iterator[_Version]:
    """The message's variable parts, each version smaller than the one before."""
    with_objects = [frame for frame in looked_at if len(frame.detections)]
    is_hub = options.profile is Profile.HUB
    data = _hub_data(looked_at, run, options, tracks) if is_hub else _vault_data(with_objects)
    if options.extras:
        full = {"run": _run_document(run, looked_at, with_objects, tracks)}
        remains = RunRemains(run.id, "everything else, to keep the size limit")
        if is_hub and block is not None:
            yield None, data | full, block
            yield "the block of detections", data | full, None
        else:
            yield None, data | full, None
        yield "data.run but for its id", data | {"run": remains}, None
        yield "data.run", data, None
    else:
        yield None, data, None
    if is_hub:
        for points in _OUTLINES:
            thin = _hub_data(looked_at, run, options, tracks, most_points=points)
            yield f"all but {points} points of each object's way", thin, None


def _vault_data(with_objects: Sequence[LookedAtFrame]) -> dict[str, Any]:
    return json_text.fields_of(
        Data(
            probabilities=[_probabilities(frame.detections) for frame in with_objects],
            labels=[_labels(frame.detections) for frame in with_objects],
            boxes=[_boxes(frame.detections) for frame in with_objects],
        )
    )


def _hub_data(
    looked_at: Sequence[LookedAtFrame],
    run: Run,
    options: ResultOptions,
    tracks: Sequence[JudgedTrack],
    most_points: int | None = None,
) -> dict[str, Any]:
    return json_text.fields_of(
        hub.classify(
            tracks,
            [frame.number for frame in looked_at],
            (run.recording.width, run.recording.height),
            words=options.words,
            most_points=most_points,
        )
    )


def block_of(
    looked_at: Sequence[LookedAtFrame],
    run: Run,
    tracks: Sequence[JudgedTrack],
    net_wh: tuple[int, int],
) -> dict[str, Any] | None:
    """The typed block of detections of a run; None where nothing was seen.

    Args:
        looked_at: every looked-at frame.
        run: how it was looked at.
        tracks: the objects, each judged.
        net_wh: size of the network's input, pixels.
    """
    return detection_block(
        tracks,
        [frame.number for frame in looked_at],
        (run.recording.width, run.recording.height),
        BlockSource(run.id, run.version, net_wh, run.confidence_threshold, run.nms_threshold),
    )


def _message(
    event: RecordingEvent,
    data: Mapping[str, Any],
    carried: Mapping[str, Any] | None,
    profile: Profile,
) -> bytes:
    parts = json_text.members(event.without_credentials())
    if profile is Profile.HUB:
        carrying = _carrying(_last_value(parts, "payload"), carried)
        parts = _placed(parts, json_text.Member("payload", '"payload"', carrying))
    merged = _merged(_last_value(parts, "data"), data)
    parts = _placed(parts, json_text.Member("data", '"data"', merged))
    operation = hub.OPERATION if profile is Profile.HUB else OPERATION
    parts = _placed(parts, json_text.member("operation", operation))
    return json_text.join(parts).encode()


def _run_answers(
    event: RecordingEvent,
    looked_at: Sequence[LookedAtFrame],
    run: Run,
    options: ResultOptions,
    tracks: Sequence[JudgedTrack],
    block: Mapping[str, Any] | None,
) -> Iterator[tuple[str | None, bytes]]:
    """A workflow run's answer: of the two ways to answer it always takes exactly one."""
    parts = json_text.members(event.without_credentials())
    if block is not None:
        payload = json_text.member("payload", _blocks(block))
        yield None, json_text.join(_placed(parts, payload)).encode()
    operation = event.document.get("operation")
    name = operation if isinstance(operation, str) and operation else hub.OPERATION
    left_out = None if block is None else "the block of detections"
    for points in (None, *_OUTLINES):
        data = _hub_data(looked_at, run, options, tracks, most_points=points)
        if points is not None:
            left_out = f"all but {points} points of each object's way"
        given = _last_value(parts, "results")
        others = json_text.members(given) if given and given.startswith("{") else []
        results = json_text.join(_placed(others, json_text.member(name, data)))
        placed = _placed(parts, json_text.Member("results", '"results"', results))
        yield left_out, json_text.join(placed).encode()


def _blocks(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"blocks": [{"type": "detection", "data": block}]}


def _carrying(payload: str | None, block: Mapping[str, Any] | None) -> str:
    """The event's payload with our block as its `result`, Hub's channel for typed results.

    A result that the event brought is another stage's, or an older one of ours; ours replaces it
    where there is one, and is never passed on as if it were new.
    """
    parts = json_text.members(payload or "{}")
    if block is None:
        return json_text.join(part for part in parts if part.name != "result")
    return json_text.join(_placed(parts, json_text.member("result", _blocks(block))))


def _run_document(
    run: Run,
    looked_at: Sequence[LookedAtFrame],
    with_objects: Sequence[LookedAtFrame],
    tracks: Sequence[JudgedTrack],
) -> RunDocument:
    return RunDocument(
        **json_text.fields_of(run),
        looked_at=len(looked_at),
        frames=[frame.index for frame in with_objects],
        timestamps_s=[round(frame.timestamp_s, _TIMESTAMP_DIGITS) for frame in with_objects],
        track_ids=[list(frame.track_ids) for frame in with_objects],
        tracks=[_run_track(each) for each in tracks],
    )


def choice_of(
    looked_at: Sequence[LookedAtFrame], left_out: Sequence[tuple[float, float]]
) -> RunChoice | None:
    """What is said of the choice of frames; None where they were evenly spread.

    Args:
        looked_at: every looked-at frame.
        left_out: times of frames that show what another does, and of the other, seconds.
    """
    if all(frame.why is None for frame in looked_at):
        return None
    return RunChoice(
        timestamps_s=[round(frame.timestamp_s, _TIMESTAMP_DIGITS) for frame in looked_at],
        reasons=[frame.why or "" for frame in looked_at],
        left_out=[
            RunLeftOut(round(time, _TIMESTAMP_DIGITS), round(same, _TIMESTAMP_DIGITS))
            for time, same in left_out
        ],
    )


def _run_track(judged: JudgedTrack) -> RunTrack:
    track = judged.track
    return RunTrack(
        id=track.id,
        label=track.label,
        confidence=track.confidence,
        frames=[each.frame for each in track.observations],
        travelled_px=judged.travelled_px,
        displacement_px=judged.displacement_px,
        is_static=judged.is_static,
        reason=judged.reason,
    )


def _probabilities(seen: Detections) -> list[float]:
    """float32 widened to double, as the original printed them."""
    found: list[float] = seen.confidence.tolist()
    return found


def _labels(seen: Detections) -> list[str]:
    return [seen.label(index) for index in range(len(seen))]


def _boxes(seen: Detections) -> list[tuple[int, int, int, int]]:
    """Rounded to the nearest pixel: at most half a pixel off, and never outside the frame."""
    rounded = np.rint(seen.xyxy).tolist()
    return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in rounded]


def _last_value(parts: Sequence[json_text.Member], name: str) -> str | None:
    values = [part.value_text for part in parts if part.name == name]
    return values[-1] if values else None


def _merged(existing: str | None, ours: Mapping[str, object]) -> str:
    """An event's `data` with ours in it; one that is no object gives way."""
    parts = json_text.members(existing) if existing and existing.startswith("{") else []
    parts = [part for part in parts if part.name not in _OURS]
    return json_text.join([*parts, *(json_text.member(name, ours[name]) for name in ours)])


# Of both profiles, also without extras: a result that comes round again must not keep an old run.
_OURS = frozenset(
    {"probabilities", "labels", "boxes", "run", "objectCount", "properties", "details"}
)


def _placed(parts: Sequence[json_text.Member], new: json_text.Member) -> list[json_text.Member]:
    """`new` where its name first stands, else at the end; of equal names none is left."""
    at = next((at for at, part in enumerate(parts) if part.name == new.name), len(parts))
    others = [part for part in parts if part.name != new.name]
    return [*others[:at], new, *others[at:]]
