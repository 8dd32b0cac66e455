"""How much better "the same object" explains a box than "one that was not seen before".

Everything is a logarithm of a ratio of probabilities, so place, size, colours and class add up, and
0 is the border: above it a box is taken for the same object. `weigh` gives the pairs of known
objects and boxes above it. Of most pairs class and distance alone tell that they stay below
(`_reach`), of most others place and size; only what is left is asked for its colours.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from vault_ml.tracking import boxes as of_boxes
from vault_ml.tracking.boxes import Boxes, Colours
from vault_ml.tracking.motion import Floats
from vault_ml.tracking.objects import LOOKS, SEEN_AT, SPREADS, WEIGHED, Objects
from vault_ml.tracking.pairs import Whole

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

# So few pairs are weighed sooner than those too far apart are found.
_FEW = 100
# From such a part of all pairs on, one product of two matrices is cheaper than picking.
_MANY = 8
# Multiplications in one product: of more, OpenBLAS makes several threads, which then wait for each
# other longer than they work.
_PRODUCTS = 250_000


@dataclass(frozen=True, slots=True)
class Pairs:
    """Objects and boxes that may be one.

    Attributes:
        row: (p,) which object.
        column: (p,) which box.
        score: (p,) above 0.
    """

    row: Whole
    column: Whole
    score: Floats

    def where(self, score: Floats, least: float) -> Pairs:
        """Those with a `score`, (p,), above `least`; it is theirs from then on."""
        keep = np.flatnonzero(score > least)
        return Pairs(self.row.take(keep), self.column.take(keep), score.take(keep))


def may_be_one_class(one: str, other: str) -> bool:
    """Whether an object of one class may at other times be taken for the other."""
    return one == other or any({one, other} <= group for group in _CONFUSED)


@functools.cache
def class_scores(labels: tuple[str, ...]) -> Floats:
    """(c, c): what two classes of `labels` say about being one object."""
    scores = np.full((len(labels), len(labels)), _OTHER_CLASS)
    for group in _CONFUSED:
        members = [index for index, label in enumerate(labels) if label in group]
        scores[np.ix_(members, members)] = _CONFUSED_CLASS
    np.fill_diagonal(scores, _SAME_CLASS)
    scores.flags.writeable = False  # shared by all recordings
    return scores


def weigh(known: Objects, boxes: Boxes, now: float, classes: Floats, area: float) -> Pairs:
    """Which boxes each object explains better than a new one would.

    Args:
        known: the objects, gone on to the time of the boxes.
        boxes: the boxes.
        now: their time, seconds.
        classes: as `class_scores` says.
        area: of the frame, px².
    """
    shape = (len(known.id), len(boxes.class_id))
    if 0 in shape:
        nothing = np.zeros(0, np.int64)
        return Pairs(nothing, nothing, np.zeros(0))
    size_var = _SIZE_NOISE**2 + _SIZE_NOISE_PER_S**2 * (now - known.table[SEEN_AT])
    anywhere = math.log(area / _NEW_PER_FRAME * _SIZES**2 / (2 * math.pi))
    colours_most = 0.0
    if known.colours is not None and boxes.colours is not None:
        colours_most = _COLOURS_WORTH * (1 - _COLOURS_EVEN)
    squared = _squared(known.motion.place, boxes.table[of_boxes.CENTRE])
    said = classes.take(known.class_id, axis=0).take(boxes.class_id, axis=1)
    may_be = said > _OTHER_CLASS
    if said.size > _FEW:
        reach = _reach(known, boxes, size_var, anywhere + _SAME_CLASS + colours_most)
        may_be &= squared < np.square(reach)[:, None]
    near = np.flatnonzero(may_be)
    row, column = np.divmod(near, shape[1])
    score = said.take(near)
    score += (anywhere - np.log(size_var)).take(row)
    score += _place_and_size(known, boxes, row, column, squared.take(near), size_var)
    pairs = Pairs(row, column, score)
    if known.colours is not None and boxes.colours is not None:
        if len(near) > _FEW:
            pairs = pairs.where(score, -colours_most)
        alike = _products(known.colours, boxes.colours, pairs.row, pairs.column)
        alike -= _COLOURS_EVEN
        alike *= _COLOURS_WORTH
        score = alike + pairs.score
    return pairs.where(score, 0.0)


def _place_and_size(
    known: Objects, boxes: Boxes, row: Whole, column: Whole, from_place: Floats, size_var: Floats
) -> Floats:
    """What place and size say of each pair, (p,), but for what is the same in all pairs of a row.

    Args:
        known: the objects.
        boxes: the boxes.
        row: (p,) which object.
        column: (p,) which box.
        from_place: (p,) squared distance from where the object went on to, px².
        size_var: (t,) variance of the logarithms of width and height.
    """
    mine = known.table[WEIGHED].take(row, axis=1)
    box = boxes.table.take(column, axis=1)
    variance = mine[:2] + box[of_boxes.BOX_VAR]
    off = mine[2:6] - box[of_boxes.LOOKS]
    off *= off
    squared = off[0::2] + off[1::2]
    size_off = squared[1] / size_var.take(row)
    squared[1], squared[0] = squared[0], from_place
    squared /= variance
    squared *= 0.5
    # It moved, or it stands where it was.
    density = mine[6:8] - squared
    density -= np.log(variance)
    size_off *= 0.5
    found = np.logaddexp(density[0], density[1])
    found -= size_off
    return np.asarray(found)


def _products(a: Colours, b: Colours, row: Whole, column: Whole) -> Floats:
    """Of each pair the inner product; of few pairs one by one, of many all that there are."""
    if len(row) * _MANY < len(a) * len(b):
        alike = np.einsum("ij,ij->i", a.take(row, axis=0), b.take(column, axis=0))
    else:
        step = max(_PRODUCTS // b.size, 1)
        parts = [a[first : first + step] @ b.T for first in range(0, len(a), step)]
        alike = np.concatenate(parts).take(row * len(b) + column)
    return np.asarray(alike, np.float64)


def _squared(a: Floats, b: Floats) -> Floats:
    """(t, d) squared distances of (2, t) and (2, d)."""
    found = a[0][:, None] - b[0]
    found *= found
    other = a[1][:, None] - b[1]
    other *= other
    found += other
    return np.asarray(found)


def _reach(known: Objects, boxes: Boxes, size_var: Floats, best: float) -> Floats:
    """How far off its place now a box may be that an object explains, (t,), pixels.

    A place says -off²/(2v) - log(v), with v of all variances up to the object's and the widest
    box's that at which the distance is farthest where this is -`best` + log(`size_var`). Beyond
    v = exp(best - 1) / size_var a larger variance says less about every place.
    """
    limit = math.exp(best)
    v = known.table[SPREADS] + boxes.table[of_boxes.BOX_VAR].max()
    v *= size_var
    np.minimum(v, limit / math.e, out=v)
    squared = np.log(limit / v)
    squared *= v
    squared *= 2 / size_var
    moved, still = np.sqrt(squared)
    way = known.motion.place - known.table[LOOKS][:2]
    way *= way
    still += np.sqrt(way[0] + way[1])
    return np.asarray(np.maximum(moved, still))
