"""What is learnt of one column: its kind, scaling or levels, and range; and the way between its cells and values.

Contract: numbers, or their logarithms, are encoded in standard deviations from the mean, levels as codes, 0 the most
frequent; decoding gives what the column may hold: whole numbers in the observed range, times, levels.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabmae.schema.apart import outside
from tabmae.schema.cells import DAY, Cells, Family, contents, objects
from tabmae.schema.zones import round_moments

# Standard deviations: beyond any training cell of a table of 1e12 rows, and its square is still a float32.
FARTHEST = 1e6
# Interquartile ranges beyond the quartiles, and the share of the cells there (one at least), that look like slips.
FENCE = 20.0
RARE = 0.001
# Share of a number's parts that the way to standard deviations and back may round off.
ROUNDING = 8 * float(np.finfo(np.float64).eps)
# Standard deviations, or share of them, that may be rounded off of what a model learnt of a number.
LEARNT_ROUNDING = 2 * float(np.finfo(np.float32).eps)
MAX_COMMON = 16
MAX_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it was in fit.

    name : the column's name, its position for arrays.
    kind : "number" or "category".
    family : what its cells are: numbers, levels, or one of the families of time, which are numbers in seconds.
    levels : the levels of a category, the most frequent first, ties by order of appearance.
    mean, scale : centre and standard deviation of the observed cells, or of what `fenced` leaves of them; 0 and 1 for
        categories, scale 1 when constant.
    low, high : range of the observed cells (Python integers, exact, for integers), 0 without any.
    integer : the type is an integer.
    whole : every observed cell is a whole number, whatever the type.
    step : seconds of which every observed time, on the clock of its zone, is a multiple (a day, an hour, a minute or a
        second), else 0.
    zone : name of the time zone, "" for none.
    common : numbers that several cells hold, the most frequent ones.
    decimals : with which every observed number is written, at most `MAX_DECIMALS`; -1 for more.
    n_observed : count of observed cells.
    log : the least positive cell of numbers told by their logarithms, whose `mean` and `scale` these are, zeros as one
        of these below it; 0 for other columns.
    believed : the least and the greatest number that counts as observed; () for all.
    n_apart : count of cells of fit that do not, and are none of its observed ones.
    """

    name: Hashable
    kind: Literal["number", "category"]
    family: Family
    levels: tuple[Hashable, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0
    integer: bool = False
    whole: bool = False
    step: float = 0.0
    zone: str = ""
    common: tuple[float, ...] = ()
    decimals: int = -1
    n_observed: int = 0
    log: float = 0.0
    believed: tuple[float, ...] = ()
    n_apart: int = 0

    @property
    def learnable(self) -> bool:
        """Whether fit saw at least one observed cell."""
        return self.n_observed > 0

    @property
    def constant(self) -> bool:
        """Whether all observed cells are equal."""
        return self.learnable and (self.low == self.high if self.kind == "number" else len(self.levels) == 1)

    @property
    def zero(self) -> float:
        """Where the number 0 lies, in standard deviations from the mean."""
        return -math.inf if self.log else -self.mean / self.scale

    @property
    def n_levels(self) -> int:
        """Count of levels, 0 for numbers."""
        return len(self.levels)

    @property
    def content(self) -> str:
        """What the cells were in fit, in the words of messages."""
        return contents(self.levels) if self.family == "level" or self.levels else self.family + "s"

    @classmethod
    def fit(
        cls,
        name: Hashable,
        cells: Cells,
        *,
        categorical: bool,
        resistant: bool = False,
        log: bool = False,
        believed: tuple[float, ...] = (),
        n_apart: int = 0,
    ) -> "Column":
        """Learn a column from its cells; one without any observed cell is a number of mean 0 and scale 1.

        `resistant` lets no few cells far from all others decide the mean and the scale; `log` takes those of the
        logarithms; `believed` is the range of the numbers that count as observed, which `cells` lie in, once `n_apart`
        others are left out.
        """
        n_observed = int((~cells.missing).sum())
        if n_observed == 0:
            return cls(name, "number", "empty", integer=cells.integer)
        if categorical or cells.family == "level":
            return cls(name, "category", cells.family, ranked_levels(cells), n_observed=n_observed)
        numbers = cells.as_numbers()[~cells.missing]
        low, high = float(numbers.min()), float(numbers.max())
        positive = numbers[numbers > 0] if log else numbers[:0]
        told = np.log(positive) if log else numbers
        mean, scale = moments(fenced(told) if resistant else told)
        is_number = cells.family == "number"
        if cells.integer:
            exact = cells.exact[~cells.missing]
            low, high = int(exact.min()), int(exact.max())
        return cls(
            name,
            "number",
            cells.family,
            mean=mean,
            scale=scale,
            low=low,
            high=high,
            integer=cells.integer,
            whole=is_number and bool((numbers == np.floor(numbers)).all()),
            step=0.0 if is_number else common_step(numbers, cells.zone),
            zone=cells.zone,
            common=common_numbers(numbers) if is_number else (),
            decimals=written_decimals(numbers) if is_number else -1,
            n_observed=n_observed,
            log=float(positive.min()) if log else 0.0,
            believed=believed,
            n_apart=n_apart,
        )

    def standard(self, numbers: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Numbers in the column's units (seconds for times) in standard deviations from the mean, those of logarithms
        where these are told; what has no logarithm lies one below the least that has."""
        told = np.asarray(numbers, dtype=np.float64)
        if self.log:
            told = np.log(np.where(told <= 0, self.log * np.exp(-self.scale), told))
        with np.errstate(over="ignore"):
            return (told - self.mean) / self.scale

    def encode(
        self, cells: Cells, *, unseen_observed: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], dict[Hashable, int]]:
        """Encode cells as values, 0 where not observed; also give the unseen levels and the count of their rows.

        Unseen levels and numbers that are not believed are not observed; with `unseen_observed` they are, levels with
        the code `n_levels`.
        """
        if self.kind == "number":
            numbers, observed = cells.as_numbers(), ~cells.missing
            if self.believed and not unseen_observed:
                observed &= ~outside(numbers, self.believed)
            values = np.where(observed, self.standard(numbers), 0.0)
            return np.clip(values, -FARTHEST, FARTHEST).astype(np.float32), observed, {}
        codes, levels = cells.as_levels()
        known = {level: code for code, level in enumerate(self.levels)}
        ranks = np.array([*(known.get(level, -1) for level in levels), -1], dtype=np.int64)
        counts = np.bincount(codes[codes >= 0], minlength=len(levels))
        unseen = {level: int(n) for level, n in zip(levels, counts, strict=True) if n and level not in known}
        if unseen_observed:
            ranks[:-1][ranks[:-1] < 0] = self.n_levels
        codes = ranks[codes]
        return np.maximum(codes, 0).astype(np.float32), codes >= 0, unseen

    def numbers(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Encoded values in the column's units (seconds for times), finite.

        What rounding alone parts from zero, from an end of the range, from a common number or from one of as many
        decimals as those of fit is there: no bound is passed by a last digit, and a draw of zeros is zero.
        """
        limit = np.finfo(np.float64).max
        values = values.astype(np.float64)
        with np.errstate(over="ignore"):
            told = self.mean + values * self.scale
            numbers = np.clip(np.exp(told) if self.log else told, -limit, limit)
            unit = numbers if self.log else 1.0
            near = (ROUNDING * abs(self.mean) + ROUNDING * self.scale * np.abs(values)) * unit
            for end in (0.0, float(self.low), float(self.high)):
                numbers[np.abs(numbers - end) <= near] = end
            near = LEARNT_ROUNDING * self.scale * np.maximum(np.abs(values), 1.0) * unit
            for common in self.common:
                numbers[np.abs(numbers - common) <= near] = common
            if self.decimals >= 0:
                written = np.round(numbers, self.decimals)
                numbers = np.where(np.abs(numbers - written) <= near, written, numbers)
        if self.log and self.low <= 0:
            numbers[numbers < self.log * np.exp(-self.scale / 2)] = 0.0
        return numbers

    def rounded(self, numbers: NDArray[np.float64], *, integer: bool) -> NDArray[Any]:
        """Numbers that the column may hold: integers in the observed range, times on the common step."""
        if self.step:
            return round_moments(numbers, self.step, self.zone)
        if not integer:
            return numbers
        low, high = math.floor(self.low), math.ceil(self.high)
        whole = np.clip(np.rint(numbers), float(low), float(high))
        inside = (whole > float(low)) & (whole < float(high))
        if low >= -(2**63) and high < 2**63:
            edges = np.where(whole <= float(low), low, high)
            return np.where(inside, np.where(inside, whole, 0.0).astype(np.int64), edges)
        return objects([
            int(number) if within else low if number <= low else high
            for number, within in zip(whole.tolist(), inside.tolist(), strict=True)
        ])  # fmt: skip

    def codes(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Encoded values as codes of levels."""
        return np.clip(np.rint(values), 0, len(self.levels) - 1).astype(np.int64)


def ranked_levels(cells: Cells) -> tuple[Hashable, ...]:
    """The levels that occur, the most frequent first, ties by order of appearance."""
    codes, levels = cells.as_levels()
    used, first, counts = np.unique(codes[codes >= 0], return_index=True, return_counts=True)
    return tuple(levels[code] for code in used[np.lexsort((first, -counts))])


def common_numbers(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    """The numbers that occur several times, at most `MAX_COMMON`, the most frequent first, ties by size.

    >>> common_numbers(np.array([0.0, 2.5, 0.0, 1.0, 2.5, 0.0]))
    (0.0, 2.5)
    """
    found, counts = np.unique(numbers, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MAX_COMMON]
    return tuple(found[most[counts[most] > 1]].tolist())


def fenced(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers, a rare few that lie far outside the quartiles put `FENCE` interquartile ranges outside of them.

    Many far numbers are a heavy tail, and stay; so do all where half of the numbers are equal.

    >>> fenced(np.array([*range(9), 1e6])).tolist()[-2:]
    [8.0, 96.75]
    """
    low, high = np.quantile(numbers, [0.25, 0.75])
    with np.errstate(over="ignore"):
        width = FENCE * (high - low)
        least, most = low - width, high + width
    n_far = int(((numbers < least) | (numbers > most)).sum())
    return np.clip(numbers, least, most) if width > 0 and n_far <= max(1, RARE * len(numbers)) else numbers


def moments(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, 1 for a constant; scaled by the largest number when its square leaves float64."""
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return low, 1.0
    peak = max(abs(low), abs(high))
    unit = 1.0 if 1e-100 < peak < 1e100 else peak
    scaled = numbers / unit
    mean = float(np.clip(scaled.mean(), low / unit, high / unit)) * unit
    return mean, float(scaled.std()) * unit or 1.0


def written_decimals(numbers: NDArray[np.float64]) -> int:
    """Decimals with which all numbers (n,) are written; -1 for more than `MAX_DECIMALS`.

    >>> written_decimals(np.array([170.3, 168.0])), written_decimals(np.array([1 / 3])), written_decimals(np.ones(2))
    (1, -1, 0)
    """
    with np.errstate(over="ignore"):
        for decimals in range(MAX_DECIMALS + 1):
            if (np.round(numbers, decimals) == numbers).all():
                return decimals
    return -1


def common_step(seconds: NDArray[np.float64], zone: str) -> float:
    """The longest of day, hour, minute and second on which all times lie by the clock of the zone, else 0."""
    for step in (DAY, 3600.0, 60.0, 1.0):
        if (round_moments(seconds, step, zone) == seconds).all():
            return step
    return 0.0
