"""Which numbers of a table are better told by their logarithms: positive ones over several decades, as amounts are.

Contract: columns that add up to each other stay as they are, since their logarithms do not.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

HEAVY = 30.0
"""Medians beyond which the largest hundredth of a column lies that has logarithms: as of a normal's exponential whose
logarithm has a standard deviation of 1.5. In standard deviations most of its cells are one value."""
MAX_ZEROS = 0.05
"""Share of zeros among the cells of such a column; more are a kind of their own."""
LEAST_CELLS = 30
LEAST_DISTINCT = 20
EXACT = 1e-3
"""Median error, in shares of the number, below which others determine a column."""
MAX_ADDENDS, MAX_ROWS = 4, 2_000
"""Columns that may add up to one, and rows by which that is seen."""

Matrix = NDArray[np.float64]


def logarithmic(numbers: Mapping[int, Matrix]) -> set[int]:
    """Positions of the columns whose logarithms are to be learnt.

    Parameters
    ----------
    numbers : (n,) of each column of numbers, by its position; NaN where missing.

    >>> rng = np.random.default_rng(0)
    >>> logarithmic({0: rng.normal(size=200), 1: np.exp(3 * rng.normal(size=200))})
    {1}
    """
    heavy = [place for place, column in numbers.items() if _is_heavy(column[~np.isnan(column)])]
    if not heavy:
        return set()
    step = -(-len(numbers[heavy[0]]) // MAX_ROWS)
    matrix = np.stack([column[::step] for column in numbers.values()], 1)
    places = list(numbers)
    summed = {places[part] for found in _sums(matrix, [places.index(place) for place in heavy]) for part in found}
    return set(heavy) - summed


def _is_heavy(known: Matrix) -> bool:
    """Whether cells (n,) are positive, save for some zeros, and the largest of them far beyond the usual ones."""
    if len(known) < LEAST_CELLS or known.min() < 0 or (known == 0).mean() > MAX_ZEROS:
        return False
    positive = known[known > 0]
    usual, large = np.quantile(positive, [0.5, 0.99])
    return bool(large > HEAVY * usual) and len(np.unique(positive)) > LEAST_DISTINCT


def _sums(matrix: Matrix, several: Sequence[int]) -> list[list[int]]:
    """For several columns of a matrix (n, k) with NaN, each with the few that it is a sum of, or a difference: none
    where it is no such thing, or their logarithms give its logarithm, too.

    Source: orthogonal matching pursuit, Pati et al. 1993, on the rows that have what was chosen so far.
    """
    known = ~np.isnan(matrix)
    filled = np.where(known, matrix, 0.0)
    filled = np.ldexp(filled, -np.frexp(np.abs(filled).max(0))[1])  # units of two's powers round nothing off
    rows = filled[:, several] > 0
    left = np.where(rows, filled[:, several], 0.0)
    squares, counted = np.square(filled), known.astype(np.float64)
    chosen: list[list[int]] = [[] for _ in several]
    sums, asked = [], list(range(len(several)))
    for _ in range(min(MAX_ADDENDS, matrix.shape[1] - 1)):
        size = np.sqrt((rows[:, asked].T.astype(np.float64) @ squares) * (np.square(left[:, asked]).T @ counted))
        along = np.abs(left[:, asked].T @ filled) / np.where(size > 0, size, 1.0)
        going_on = []
        for column, near in zip(asked, along, strict=True):
            place, parts = several[column], chosen[column]
            near[[place, *parts]] = -1.0
            parts.append(int(near.argmax()))
            rows[:, column] &= known[:, parts[-1]]
            own = np.flatnonzero(rows[:, column])
            if len(own) < max(LEAST_CELLS, 3 * len(parts)):
                continue
            target, addends = filled[own, place], filled[own[:, None], parts]
            left[:, column] = 0.0
            left[own, column] = rest = _left(addends, target)
            if np.median(np.abs(rest) / target) >= EXACT:
                going_on.append(column)
            elif not _product(addends, target):
                sums.append([place, *parts])
        asked = going_on
        if not asked:
            break
    return sums


def _product(columns: Matrix, target: Matrix) -> bool:
    """Whether the logarithms of columns (n, k) give that of a target (n,), too."""
    positive = (columns > 0).all(1)
    if positive.sum() < LEAST_CELLS:
        return False
    in_logs = _left(np.log(columns[positive]), np.log(target[positive]))
    return bool(np.median(np.abs(in_logs)) < EXACT)


def _left(columns: Matrix, target: Matrix) -> Matrix:
    """What a line through columns (n, k) leaves of a target (n,)."""
    scaled = np.column_stack([columns / np.abs(columns).max(0).clip(1e-300), np.ones(len(columns))])
    found, *_ = np.linalg.lstsq(scaled, target, rcond=None)
    return np.asarray(target - scaled @ found)
