"""Numbers that a wide gap sets apart from all others of their column, as slips of the pen or other units do.

Contract: numbers that another column tells, as amounts of a rare kind of row, are not set apart; nothing is changed.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm, rankdata

GAP = 3.0
"""Times as far from the median as all others are."""
GAP_IN_LOGS = 2.0
"""The same in logarithms: a heavy tail has gaps, too."""
FAR = 6.0
"""Interquartile ranges from the median at least."""
MAX_SHARE, MAX_SHARE_OF_FEW, FEW = 0.03, 0.05, 5
"""Share of the cells that may be apart, and a larger one as long as these are few."""
LEAST_CELLS = 20
LEAST_TOLD = 3
"""Cells apart from which on it can be seen whether another column tells them."""
CHANCE = 0.01
"""Chance, over all columns and levels, that one seems to tell them."""
ABSURD = 20.0
"""Widths of a column's range outside of it from which on a cell of another table is a slip, and says nothing."""

Numbers = NDArray[np.float64]


def set_apart(numbers: Mapping[int, Numbers], codes: Mapping[int, NDArray[np.int64]]) -> dict[int, tuple[float, float]]:
    """The least and the greatest number to be believed, of the columns that hold others.

    Parameters
    ----------
    numbers : (n,) of each column of numbers, by its position; NaN where missing.
    codes : (n,) of each column of levels, -1 where missing.

    >>> set_apart({0: np.array([*range(100), 5000.0])}, {})
    {0: (-100.0, 200.0)}
    """
    ranges = {place: found for place, column in numbers.items() if (found := _range_of(column)) is not None}
    apart = {place: outside(numbers[place], found) for place, found in ranges.items()}
    near = {
        place: np.where(apart[place], np.nan, column) if place in apart else column for place, column in numbers.items()
    }
    told = _told({place: np.flatnonzero(cells) for place, cells in apart.items()}, near, codes)
    return {place: found for place, found in ranges.items() if place not in told}


def _range_of(numbers: Numbers) -> tuple[float, float] | None:
    """The range about the median outside of which a gap sets a few numbers apart; None without any such."""
    known = numbers[~np.isnan(numbers)]
    if len(known) < LEAST_CELLS:
        return None
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75])
    with np.errstate(over="ignore"):
        distance = np.abs(known - median)
    most = max(int(MAX_SHARE * len(known)), min(FEW, int(MAX_SHARE_OF_FEW * len(known))))
    # The farthest that are not apart: one after which the next lies beyond the gap.
    before = np.sort(np.partition(distance, -most - 1)[-most - 1 :]).clip(high - low)
    wide = np.flatnonzero(before[1:] > np.maximum(GAP * before[:-1], FAR * (high - low)))
    if not len(wide) or low == high:
        return None
    reach = GAP * before[wide[0]]
    apart = distance > reach
    # A positive column reaches as far down as zero: those apart are above, so many times as large as usual.
    times = known / np.median(known[known > 0]) if known.min() >= 0 else distance / (high - low)
    if np.log(times[apart].min()) <= GAP_IN_LOGS * np.log(max(times[~apart].max(), 1.0)):
        return None
    return _finite(median - reach, median + reach)


def not_absurd(numbers: Numbers) -> tuple[float, ...]:
    """The range to be believed of a column (n,), NaN where missing, that no gap divides; () of a constant one, for all.

    >>> not_absurd(np.array([0.0, 1.0, np.nan]))
    (-20.0, 21.0)
    """
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    with np.errstate(over="ignore"):
        far = ABSURD * (high - low)
        return _finite(low - far, high + far) if low < high else ()


def _finite(low: float, high: float) -> tuple[float, float]:
    largest = float(np.finfo(np.float64).max)
    return max(float(low), -largest), min(float(high), largest)


def outside(numbers: Numbers, believed: tuple[float, ...]) -> NDArray[np.bool_]:
    """Which numbers (n,) lie outside of the believed ones; those missing do not."""
    least, most = believed
    return (numbers < least) | (numbers > most)


def _told(
    apart: Mapping[int, NDArray[np.intp]], numbers: Mapping[int, Numbers], codes: Mapping[int, NDArray[np.int64]]
) -> set[int]:
    """The columns, by position, for which another differs in the rows `apart`: by its ranks, or by a level."""
    asked = {place: rows for place, rows in apart.items() if len(rows) >= LEAST_TOLD}
    if not asked:
        return set()
    chances: dict[int, list[float]] = {place: [] for place in asked}
    for other, column in numbers.items():
        for place, chance in zip(asked, _chances_of_ranks(column, list(asked.values())), strict=True):
            if place != other:
                chances[place].append(chance)
    for levels in codes.values():
        for place, found in zip(asked, _chances_of_levels(levels, list(asked.values())), strict=True):
            chances[place].extend(found)
    return {place for place, found in chances.items() if found and min(found) < CHANCE / len(found)}


def _chances_of_ranks(numbers: Numbers, several: Sequence[NDArray[np.intp]]) -> list[float]:
    """How likely the ranks of numbers (n,) lie as far from the middle in rows, for each of several choices of these.

    Source: Mann and Whitney 1947, with ties in half.
    """
    known, ranks = ~np.isnan(numbers), np.zeros(len(numbers))
    ranks[known] = rankdata(numbers[known])
    n_there = np.array([known[rows].sum() for rows in several])
    n_others = known.sum() - n_there
    n_pairs = np.maximum(n_there * n_others, 1)
    below = (np.array([ranks[rows].sum() for rows in several]) - n_there * (n_there + 1) / 2) / n_pairs
    spread = np.sqrt((n_there + n_others + 1) / (12 * n_pairs))
    chances = 2 * norm.sf(np.abs(below - 0.5) / spread)
    return [float(chance) for chance in np.where(n_there * n_others > 0, chances, 1.0)]


def _chances_of_levels(codes: NDArray[np.int64], several: Sequence[NDArray[np.intp]]) -> Iterator[list[float]]:
    """How likely each level of codes (n,), -1 where missing, is there as often in rows, for each choice of these."""
    total = np.bincount(codes[codes >= 0])
    for rows in several:
        found = codes[rows]
        there = np.bincount(found[found >= 0], minlength=len(total))
        some = there > 0
        yield hypergeom.sf(there[some] - 1, total.sum(), total[some], there.sum()).tolist()
