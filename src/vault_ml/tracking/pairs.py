"""Which pairs of two crowds are near each other, without a look at every pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]


def within(
    low: NDArray[np.floating], high: NDArray[np.floating], values: NDArray[np.floating]
) -> tuple[Whole, Whole]:
    """All pairs of a stretch and a value in it.

    Args:
        low: (n,) where each stretch begins.
        high: (n,) where it ends; both belong to it.
        values: (m,) in any order.

    Returns:
        (p,) index of the stretch, rising; (p,) index of the value.
    """
    order = values.argsort(kind="stable")
    rising = values.take(order)
    first = rising.searchsorted(low, "left")
    counts = np.maximum(rising.searchsorted(high, "right") - first, 0)
    ends = counts.cumsum()
    rows = np.arange(len(counts)).repeat(counts)
    places = np.arange(len(rows)) + (first - ends + counts).take(rows)
    return rows, order.take(places)
