"""Which numbers of a table are better told by their logarithms: positive ones over several decades, as amounts are.

Contract: columns that add up to each other stay as they are, since their logarithms do not.
"""

from collections.abc import Mapping

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
    summed = {places[part] for place in heavy for part in _sum_of(matrix, places.index(place))}
    return set(heavy) - summed


def _is_heavy(known: Matrix) -> bool:
    """Whether cells (n,) are positive, save for some zeros, and the largest of them far beyond the usual ones."""
    if len(known) < LEAST_CELLS or known.min() < 0 or (known == 0).mean() > MAX_ZEROS:
        return False
    positive = known[known > 0]
    usual, large = np.quantile(positive, [0.5, 0.99])
    return bool(large > HEAVY * usual) and len(np.unique(positive)) > LEAST_DISTINCT


def _sum_of(matrix: Matrix, place: int) -> list[int]:
    """A column of a matrix (n, k) with NaN and the few that it is a sum of, or a difference; none where it is no such
    thing, or their logarithms give its logarithm, too.

    Source: orthogonal matching pursuit, Pati et al. 1993, on the rows that have what was chosen so far.
    """
    chosen: list[int] = []
    rows, left = matrix[matrix[:, place] > 0], matrix[matrix[:, place] > 0, place]
    for _ in range(min(MAX_ADDENDS, matrix.shape[1] - 1)):
        others = np.where(np.isnan(rows), 0.0, rows)
        size = np.sqrt(np.square(others).sum(0) * (np.square(left) @ ~np.isnan(rows)))
        along = np.abs(left @ others) / np.where(size > 0, size, 1.0)
        along[[place, *chosen]] = -1.0
        chosen.append(int(along.argmax()))
        rows = rows[~np.isnan(rows[:, chosen[-1]])]
        if len(rows) < max(LEAST_CELLS, 3 * len(chosen)):
            return []
        target, addends = rows[:, place], rows[:, chosen]
        left = _left(addends, target)
        if np.median(np.abs(left) / target) < EXACT:
            positive = (addends > 0).all(1)
            if positive.sum() >= LEAST_CELLS:
                in_logs = _left(np.log(addends[positive]), np.log(target[positive]))
                if np.median(np.abs(in_logs)) < EXACT:
                    return []
            return [place, *chosen]
    return []


def _left(columns: Matrix, target: Matrix) -> Matrix:
    """What a line through columns (n, k) leaves of a target (n,)."""
    scaled = np.column_stack([columns / np.abs(columns).max(0).clip(1e-300), np.ones(len(columns))])
    found, *_ = np.linalg.lstsq(scaled, target, rcond=None)
    return np.asarray(target - scaled @ found)
