"""How much better "the same object" explains a box than "one that was not seen before".

Everything is a logarithm of a ratio of probabilities, so place, size, colours and class add up, and
0 is the border: above it a box is taken for the same object. `scores` weighs all pairs of known
objects and boxes in one go: the distance alone tells of most that they stay below 0 (`_reach`), and
only the others are reckoned out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.tracking.motion import Floats, Motion, noise_var
from vault_ml.tracking.pairs import Whole, within

# New objects per frame, as a density over the frame. Higher: tracks break sooner.
_NEW_PER_FRAME = 1.0
# How a box's width and height vary between two frames (logarithm), and per root of a second.
_SIZE_NOISE, _SIZE_NOISE_PER_S = 0.12, 0.10
# How sizes of different objects vary in one scene (logarithm).
_SIZES = 0.7
# Colours: the coefficient at which they say nothing, and what a unit is worth. So other colours say
# as much as another place.
_COLOURS_EVEN, _COLOURS_WORTH = 0.75, 12.0
# Classes: agreement says a little, a pair that networks confuse not much, others all there is.
_SAME_CLASS, _CONFUSED_CLASS, _OTHER_CLASS = 1.0, -1.0, -100.0
_CONFUSED = (
    frozenset({"car", "truck", "bus", "van", "train"}),
    frozenset({"bicycle", "motorbike", "motorcycle"}),
    frozenset({"cat", "dog", "horse", "sheep", "cow", "bear"}),
)

# From such a part of all pairs on, one product of two matrices is cheaper than picking.
_MANY = 8

Colours = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Looks:
    """What is known of objects beside their motion, or of boxes.

    Attributes:
        table: (4, n): x and y of the box's centre, frame pixels; logarithms of width and height.
        class_id: (n,).
        colours: (n, d) of unit length (`appearance.describe`); None where no picture is at hand.
    """

    table: Floats
    class_id: NDArray[np.int64]
    colours: Colours | None

    @property
    def centre(self) -> Floats:
        """(2, n), frame pixels."""
        return self.table[:2]

    @property
    def log_size(self) -> Floats:
        """(2, n)."""
        return self.table[2:]


def may_be_one_class(one: str, other: str) -> bool:
    """Whether an object of one class may at other times be taken for the other."""
    return one == other or any({one, other} <= group for group in _CONFUSED)


def class_scores(labels: tuple[str, ...]) -> Floats:
    """(c, c): what two classes of `labels` say about being one object."""
    scores = np.full((len(labels), len(labels)), _OTHER_CLASS)
    for group in _CONFUSED:
        members = [index for index, label in enumerate(labels) if label in group]
        scores[np.ix_(members, members)] = _CONFUSED_CLASS
    np.fill_diagonal(scores, _SAME_CLASS)
    return scores


def scores(
    predicted: Motion,
    known: Looks,
    is_still: Floats,
    seconds: Floats,
    boxes: Looks,
    length: Floats,
    *,
    classes: Floats,
    area: float,
) -> Floats:
    """How well each of t objects explains each of d boxes.

    Args:
        predicted: the objects at the time of the boxes.
        known: the objects, as they were when they were last seen.
        is_still: (t,) how probable it is that each stands still.
        seconds: (t,) since they were last seen.
        boxes: the boxes.
        length: (d,) square roots of their areas.
        classes: as `class_scores` says.
        area: of the frame, px².

    Returns:
        (t, d); 0 where the object does not explain the box.
    """
    found = np.zeros((len(seconds), len(length)))
    if not found.size:
        return found
    size_var = _SIZE_NOISE**2 + _SIZE_NOISE_PER_S**2 * seconds
    certain = np.log(_SIZES**2 / size_var)
    anywhere = float(np.log(area / _NEW_PER_FRAME))
    has_colours = known.colours is not None and boxes.colours is not None
    best = certain + (_SAME_CLASS + anywhere + _COLOURS_WORTH * (1 - _COLOURS_EVEN) * has_colours)
    noise, still_var = noise_var(length), noise_var(predicted.length)
    widest = noise.max()
    # As far from where it was seen last as it may be if it stands there, or if it went on.
    drift = np.hypot(*(predicted.place - known.centre))
    reach = np.maximum(
        _reach(still_var + widest, best), drift + _reach(predicted.place_var + widest, best)
    )
    row, column = within(known.centre[0] - reach, known.centre[0] + reach, boxes.centre[0])
    from_last = _squared(known.centre, boxes.centre, row, column)
    near = (from_last < np.square(reach)[row]).nonzero()[0]
    row, column, from_last = row[near], column[near], from_last[near]

    from_place = _squared(predicted.place, boxes.centre, row, column)
    noise = noise[column]
    still = np.log(is_still)[row] + _log_normal(from_last, still_var[row] + noise)
    moved = np.log1p(-is_still)[row] + _log_normal(from_place, predicted.place_var[row] + noise)
    score = np.logaddexp(still, moved)
    score += anywhere
    size_off = _squared(known.log_size, boxes.log_size, row, column)
    score += certain[row] - size_off / (2 * size_var[row])
    score += classes[known.class_id[row], boxes.class_id[column]]
    if known.colours is not None and boxes.colours is not None:
        alike = _products(known.colours, boxes.colours, row, column)
        score += _COLOURS_WORTH * (alike - _COLOURS_EVEN)
    found.ravel()[row * len(length) + column] = np.maximum(score, 0.0)
    return found


def _products(a: Colours, b: Colours, row: Whole, column: Whole) -> Floats:
    """Of each pair the inner product; of few pairs one by one, of many all that there are."""
    if len(row) * _MANY < len(a) * len(b):
        alike = np.einsum("ij,ij->i", a.take(row, axis=0), b.take(column, axis=0))
    else:
        alike = (a @ b.T).take(row * len(b) + column)
    return np.asarray(alike, np.float64)


def _squared(a: Floats, b: Floats, row: Whole, column: Whole) -> Floats:
    """Squared distances of pairs of (2, t) and (2, d)."""
    off = a.take(row, axis=1)
    off -= b.take(column, axis=1)
    off *= off
    off[0] += off[1]
    return np.asarray(off[0])


def _reach(variance: Floats, best: Floats) -> Floats:
    """Distance from which on a place speaks against an object more than `best` for it, (t,).

    Of all variances up to (t,) `variance`, that at which -off²/(2v) - log(2πv) = -best is
    farthest.
    Beyond v = exp(best - 1) / 2π a larger variance says less about every place.
    """
    v = np.minimum(variance, np.exp(best - 1) / (2 * np.pi))
    return np.asarray(np.sqrt(2 * v * (best - np.log(2 * np.pi * v))))


def _log_normal(squared: Floats, variance: Floats) -> Floats:
    """Logarithm of the density at squared distances from the middle, in the plane."""
    return np.asarray(-squared / (2 * variance) - np.log(2 * np.pi * variance))
