"""Which box each object gets, so that all of them together are explained best."""

from __future__ import annotations

import numpy as np

from vault_ml.tracking.motion import Floats
from vault_ml.tracking.pairs import Whole


def best_pairs(
    row: Whole, column: Whole, score: Floats, shape: tuple[int, int]
) -> tuple[Whole, Whole]:
    """Of all pairs that may be those that are: each row and column once, most in sum.

    A pair whose row and column have no other is one of them. Only the rest, mostly a few objects
    that are close to each other, is searched for the best assignment.

    Args:
        row: (p,) of each pair.
        column: (p,) of each.
        score: (p,) of each, above 0.
        shape: how many rows and columns there are.

    Returns:
        (k,) rows and (k,) columns.
    """
    if len(set(row.tolist())) == len(row) == len(set(column.tolist())):
        return row, column
    others = np.bincount(row, minlength=shape[0]).take(row)
    others += np.bincount(column, minlength=shape[1]).take(column)
    is_alone = others == 2
    rest = np.flatnonzero(others > 2)
    found = rest.take(_searched(row.take(rest), column.take(rest), score.take(rest)))
    is_alone[found] = True
    return row[is_alone], column[is_alone]


def _searched(row: Whole, column: Whole, score: Floats) -> Whole:
    """(k,) which of (p,) pairs are those with the most in sum."""
    # Here, because it takes half a second of a start, and many cameras never need it.
    from scipy.optimize import linear_sum_assignment

    # Of a handful, a dict numbers them sooner than numpy sorts them.
    rows, columns = row.tolist(), column.tolist()
    at_row = {each: place for place, each in enumerate(dict.fromkeys(rows))}
    at_column = {each: place for place, each in enumerate(dict.fromkeys(columns))}
    wide = len(at_column)
    of_pair = [
        at_row[one] * wide + at_column[other] for one, other in zip(rows, columns, strict=True)
    ]
    table = np.zeros(len(at_row) * wide)
    table[of_pair] = score
    found_row, found_column = linear_sum_assignment(table.reshape(-1, wide), maximize=True)
    number = {each: place for place, each in enumerate(of_pair)}
    found = (number.get(each) for each in (found_row * wide + found_column).tolist())
    return np.array([each for each in found if each is not None], np.int64)
