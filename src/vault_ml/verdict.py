"""What was seen -> whether the recording is worth forwarding, and why each object counts or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from vault_ml.detection import Detections
from vault_ml.tracking.boxes import same_objects
from vault_ml.tracking.distance import Distance, travel
from vault_ml.tracking.track import Track

# For each detection of a frame: why it is of no interest, or None.
Reasons = Sequence[str | None]


class Exclusion(StrEnum):
    """Why an object does not count."""

    FEW_DETECTIONS = "few_detections"
    """It was seen less often than MIN_DETECTIONS."""
    NO_INTEREST = "no_interest"
    """Its class, confidence, size or place was never of interest."""
    KNOWN = "known"
    """It stood there in earlier recordings."""
    ELSEWHERE = "elsewhere"
    """It has nothing to do with the motion that the event is about."""
    STILL = "still"
    """It did not get as far as MOVE_DISTANCE or MIN_STATIC_DISTANCE ask for."""


@dataclass(frozen=True, slots=True)
class JudgedTrack:
    """An object, how far it got, and whether it counts.

    Attributes:
        track: the object.
        travelled_px: the length of its way, pixels, without the trembling of its box.
        displacement_px: from first to last, pixels.
        is_static: it stood still: it did not get as far as is asked for. One that was seen once is
            not known to stand, unless a distance is asked for.
        exclusion: why it does not count; None where it does.
        reason: the same in words.
    """

    track: Track
    travelled_px: float
    displacement_px: float
    is_static: bool
    exclusion: Exclusion | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a recording interesting.

    Attributes:
        threshold: FORWARDING_OBJECT_THRESHOLD, compared with `>=`.
        move_distance: how far an object must travel to count; None counts those that stand too.
        static_distance: how far from its first place its last must be.
        min_detections: in how many looked-at frames it must be.
    """

    threshold: int
    move_distance: Distance | None = None
    static_distance: Distance | None = None
    min_detections: int = 1

    @property
    def asks_for_movement(self) -> bool:
        """Whether only what moved counts."""
        return self.move_distance is not None or self.static_distance is not None

    def __str__(self) -> str:
        """Such as `objects in one frame >= 1`."""
        if not self.asks_for_movement:
            return f"objects in one frame >= {self.threshold}"
        asked = [
            f"{words} {distance}"
            for words, distance in (
                ("travelled", self.move_distance),
                ("ended", self.static_distance),
            )
            if distance is not None
        ]
        away = " away" if self.static_distance is not None else ""
        return f"objects that {' and '.join(asked)}{away} >= {self.threshold}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one recording.

    Attributes:
        count: with a distance asked for, the number of objects that got as far; without, the
            largest number of objects of interest in any one looked-at frame.
        rule: how `count` was compared, such as `objects in one frame >= 1`.
        is_interesting: whether the rule was fulfilled.
        tracks: every object, those that do not count with the reason.
    """

    count: int
    rule: str
    is_interesting: bool
    tracks: tuple[JudgedTrack, ...] = ()


def judge(
    frames: Sequence[Detections],
    tracks: Sequence[Track],
    reasons: Sequence[Reasons],
    rules: Rules,
    *,
    frame_wh: tuple[int, int],
    known: Mapping[int, str] | None = None,
    elsewhere: Mapping[int, str] | None = None,
) -> Verdict:
    """Count the objects of interest and compare with the threshold.

    The frames of a recording may be seconds apart, so most objects are in several of them: the
    largest number in one frame is a count of objects, the sum over frames is not.

    Args:
        frames: what was seen in each looked-at frame; a frame without objects is there too.
        tracks: which of it is the same object.
        reasons: for each frame, for each detection, why it is of no interest.
        rules: what makes a recording interesting.
        frame_wh: size of the frames, pixels.
        known: by id, objects that do not count because they were there before, and why.
        elsewhere: by id, objects that do not count because they have nothing to do with the motion.

    Raises:
        ValueError: no frame was looked at, about which nothing can be said.
    """
    if not frames:
        raise ValueError("no frame was looked at")
    judged = tuple(
        _judged(track, reasons, rules, frame_wh, known or {}, elsewhere or {}) for track in tracks
    )
    if rules.asks_for_movement:
        count = sum(each.exclusion is None for each in judged)
    else:
        count = _most_in_one_frame(frames, judged, reasons)
    return Verdict(count, str(rules), count >= rules.threshold, judged)


def unknown_labels(allowed: Iterable[str], labels: Collection[str]) -> list[str]:
    """The allowed labels that the model cannot give, sorted: a typing error in ALLOWED_LABELS."""
    return sorted(set(allowed) - set(labels))


def _judged(
    track: Track,
    reasons: Sequence[Reasons],
    rules: Rules,
    frame_wh: tuple[int, int],
    known: Mapping[int, str],
    elsewhere: Mapping[int, str],
) -> JudgedTrack:
    way = travel(track)
    missing = []
    for words, got, asked in (
        ("travelled", way.travelled_px, rules.move_distance),
        ("ended up", way.displacement_px, rules.static_distance),
    ):
        if asked is not None and got < asked.in_pixels(frame_wh):
            missing.append(f"{words} {got:g} px of {asked.in_pixels(frame_wh):g}")
    if rules.asks_for_movement:
        is_static = bool(missing)
    else:
        is_static = len(track.observations) > 1 and way.travelled_px == 0.0
    exclusion: Exclusion | None = None
    reason: str | None = None
    dull = _dull(track, reasons)
    seen = len(track.observations)
    if seen < rules.min_detections:
        exclusion = Exclusion.FEW_DETECTIONS
        reason = f"seen in {seen} of the looked-at frames, MIN_DETECTIONS is {rules.min_detections}"
    elif dull is not None:
        exclusion, reason = Exclusion.NO_INTEREST, dull
    elif missing:
        exclusion, reason = Exclusion.STILL, " and ".join(missing)
    # The more telling of two: which object it is, not only that it stood.
    if track.id in known and exclusion in {None, Exclusion.STILL}:
        exclusion, reason = Exclusion.KNOWN, known[track.id]
    if track.id in elsewhere and exclusion is None:
        exclusion, reason = Exclusion.ELSEWHERE, elsewhere[track.id]
    return JudgedTrack(track, way.travelled_px, way.displacement_px, is_static, exclusion, reason)


def _dull(track: Track, reasons: Sequence[Reasons]) -> str | None:
    """Why the object was never of interest: what was said most often; None where it once was."""
    said = [
        reasons[each.frame][member] for each in track.observations for member in each.detections
    ]
    spoken = [reason for reason in said if reason is not None]
    if len(spoken) < len(said):
        return None
    return Counter(spoken).most_common(1)[0][0]


def _most_in_one_frame(
    frames: Sequence[Detections], judged: Sequence[JudgedTrack], reasons: Sequence[Reasons]
) -> int:
    keep = [[reason is None for reason in each] for each in reasons]
    for each in judged:
        if each.exclusion is not None:
            for observation in each.track.observations:
                for member in observation.detections:
                    keep[observation.frame][member] = False
    of_interest = [
        seen if all(kept) else seen.where(np.array(kept))
        for seen, kept in zip(frames, keep, strict=True)
    ]
    return max(map(len, same_objects(of_interest)))
