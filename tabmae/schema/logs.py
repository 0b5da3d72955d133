"""Which numbers of a table are better told by their logarithms: positive ones over several decades, as amounts are.

Contract: columns that add up to each other stay as they are, since their logarithms do not.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

HEAVY = 30.0
"""Medians beyond which the largest hundredth of a column lies that has logarithms: as of a normal's exponential whose
logarithm has a standard deviation of 1.5. In standard deviations most of its cells are one value."""
LEAST_CELLS = 30
LEAST_DISTINCT = 20
EXACT = 1e-3
"""Median error, in shares of the number, below which others determine a column."""
MAX_ADDENDS, MAX_ROWS = 30, 2_000
"""Columns, and rows of them, of which it is seen whether they add up."""


def logarithmic(numbers: Mapping[int, NDArray[np.float64]]) -> set[int]:
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
    matrix = np.stack([numbers[place] for place in heavy], 1)
    rows = matrix[~np.isnan(matrix).any(1)]
    if len(heavy) > MAX_ADDENDS or len(rows) < max(LEAST_CELLS, 2 * len(heavy)):
        return set(heavy)
    rows = rows[:: -(-len(rows) // MAX_ROWS)]
    return {
        place for j, place in enumerate(heavy) if not _is_told(rows, j) or _is_told(np.log(rows), j, in_shares=False)
    }


def _is_heavy(known: NDArray[np.float64]) -> bool:
    """Whether cells (n,) are positive and the largest of them far beyond the usual ones."""
    if len(known) < LEAST_CELLS or known.min() <= 0:
        return False
    usual, large = np.quantile(known, [0.5, 0.99])
    return bool(large > HEAVY * usual) and len(np.unique(known)) > LEAST_DISTINCT


def _is_told(rows: NDArray[np.float64], place: int, in_shares: bool = True) -> bool:
    """Whether a line through the other columns of rows (n, k) gives the column at `place`, in shares of it or not."""
    target, others = rows[:, place], np.delete(rows, place, 1)
    scaled = np.column_stack([others / np.abs(others).max(0), np.ones(len(rows))])
    found, *_ = np.linalg.lstsq(scaled, target, rcond=None)
    error = np.abs(scaled @ found - target)
    return bool(np.median(error / target if in_shares else error) < EXACT)
