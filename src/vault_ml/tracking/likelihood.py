"""How much better "the same object" explains a box than "one that was not seen before".

Everything is a logarithm of a ratio of probabilities, so place, size, colours and class add up, and
0 is the border: above it a box is taken for the same object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vault_ml.tracking.motion import Floats, Motion, noise_var

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


def of_place(
    predicted: Motion, last: Floats, is_still: Floats, centre: Floats, length: Floats, area: float
) -> Floats:
    """What places say.

    Args:
        predicted: the t tracks at the time of the boxes.
        last: (t, 2) centres of their last boxes.
        is_still: (t,) how probable it is that each stands still.
        centre: (d, 2) centres of the boxes.
        length: (d,) square roots of their areas.
        area: of the frame, px².

    Returns:
        (t, d).
    """
    noise = noise_var(length)[None, :]
    moved = _log_normal(predicted.place, centre, predicted.place_var[:, None] + noise)
    still = _log_normal(last, centre, noise_var(predicted.length)[:, None] + noise)
    either = np.logaddexp(np.log(is_still)[:, None] + still, np.log1p(-is_still)[:, None] + moved)
    return np.asarray(either + np.log(area / _NEW_PER_FRAME))


def of_size(last: Floats, now: Floats, seconds: Floats) -> Floats:
    """What sizes say: (t, 2) and (d, 2) logarithms of width and height, (t,) seconds -> (t, d)."""
    variance = (_SIZE_NOISE**2 + _SIZE_NOISE_PER_S**2 * seconds)[:, None]
    off = np.square(last[:, None, :] - now[None, :, :]).sum(axis=2)
    return np.asarray(np.log(_SIZES**2 / variance) - off / (2 * variance))


def of_colours(last: NDArray[np.float32], now: NDArray[np.float32]) -> Floats:
    """What colours say: (t, d) from descriptions (t, n) and (d, n)."""
    alike = last @ now.T
    return np.asarray(_COLOURS_WORTH * (alike.astype(np.float64) - _COLOURS_EVEN))


def _log_normal(a: Floats, b: Floats, variance: Floats) -> Floats:
    """Logarithm of the density of the differences, (t, d), in the plane."""
    off = np.square(a[:, None, :] - b[None, :, :]).sum(axis=2)
    return np.asarray(-off / (2 * variance) - np.log(2 * np.pi * variance))
