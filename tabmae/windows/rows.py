"""Where the rows of a frame lie on the complete grid of its series.

Contract: series come in the order in which their ids appear; rows that share a cell of the grid must be identical.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.errors import DataError, listed, warn
from tabmae.windows.frequency import by_wall_alone, check_on_grid, stamps_after, steps_since, ticks
from tabmae.windows.inference import LEAST_STEPS, inferred_freq

MOST_STEPS = 10_000_000
"""Steps of a grid that are never too many."""

MOST_STEPS_PER_ROW = 100
"""Beyond so many steps for each row, and `MOST_STEPS` in all, a stamp is taken for a mistake."""


@dataclass(frozen=True)
class Owners:
    """Which series each row belongs to, and when.

    codes : int64 (n,), places in `ids`. order : int64 (n,), the rows sorted by series and time.
    """

    ids: tuple[Hashable, ...]
    codes: NDArray[np.int64]
    stamps: pd.Index
    order: NDArray[np.int64]

    @classmethod
    def read(cls, ids: pd.Series | None, stamps: pd.Index) -> "Owners":
        """Number the series in the order in which their ids appear; without ids there is one."""
        names: tuple[Hashable, ...] = (None,)
        codes = np.zeros(len(stamps), dtype=np.int64)
        if ids is not None:
            codes, found = pd.factorize(ids)
            codes, names = codes.astype(np.int64), tuple(pd.Index(found).tolist())
        return cls(names, codes, stamps, in_order(codes, ticks(stamps)))

    def freq(self) -> str | int:
        """The frequency of the stamps."""
        return inferred_freq(self.ids, self.codes[self.order], self.stamps[self.order])

    def begins(self) -> NDArray[np.int64]:
        """Places in `order` where the series begin, (S,)."""
        return np.flatnonzero(np.diff(self.codes[self.order], prepend=-1))

    def by_wall(self, freq: str | int) -> bool:
        """Whether the stamps are steps of `freq` on the clock of their zone alone."""
        return by_wall_alone(self.stamps[self.order[self.begins()]], self.codes, self.stamps, freq)


@dataclass(frozen=True)
class Rows:
    """Rows on the grid.

    ids, starts, lengths : name, first stamp and steps of each series. codes : int64 (n,), the series of each row.
    stamps : (n,). cells : int64 (n,), the place of each row on the grids of all series, one after the other.
    """

    ids: tuple[Hashable, ...]
    starts: pd.Index
    lengths: NDArray[np.int64]
    codes: NDArray[np.int64]
    stamps: pd.Index
    cells: NDArray[np.int64]
    freq: str | int
    by_wall: bool = False

    @classmethod
    def locate(cls, owners: Owners, freq: str | int, *, by_wall: bool = False) -> "Rows":
        """Put rows on the grid of a frequency.

        Raises
        ------
        DataError : stamps off the grid, or so far apart that the grid is nearly empty.
        """
        codes, stamps, order = owners.codes, owners.stamps, owners.order
        begins = owners.begins()
        starts = stamps[order[begins]]
        steps, on_grid = steps_since(starts, codes, stamps, freq, by_wall=by_wall)
        check_on_grid(stamps, on_grid, freq)
        last = order[np.append(begins[1:], len(order)) - 1]
        lengths = steps[last] + 1
        total = int(lengths.sum())
        if total > max(MOST_STEPS, MOST_STEPS_PER_ROW * len(codes)):
            longest = int(lengths.argmax())
            raise DataError(
                f"Time stamps must fill a good part of their grid; {len(codes)} rows span {total} steps of "
                f"freq={freq!r}, the longest series {starts[longest]} to {stamps[last[longest]]}. Correct stray "
                "stamps, or pass a longer `freq`."
            )
        cells = (np.cumsum(lengths) - lengths)[codes] + steps
        return cls(owners.ids, starts, lengths, codes, stamps, cells, freq, by_wall)

    def warn_of_coarse_steps(self) -> None:
        """Warn where all rows of a series lie two steps or more apart: they were hardly taken at this frequency."""
        order = np.argsort(self.cells, kind="stable")
        apart, same = np.diff(self.cells[order]), np.diff(self.codes[order]) == 0
        apart = apart[same & (apart > 0)]
        if len(apart) >= LEAST_STEPS and apart.min() > 1:
            warn(
                f"X should have the frequency of fit, {self.freq!r}; its rows lie {apart.min()} steps or more apart, "
                "and those between them count as missing. Fit a model on series like X."
            )

    @property
    def total(self) -> int:
        """Steps of all series."""
        return int(self.lengths.sum())

    def sources(self) -> NDArray[np.int64]:
        """The row of each step of the grid, the first of several; -1 where the stamp is absent."""
        rows = np.full(self.total, -1, dtype=np.int64)
        rows[self.cells[::-1]] = np.arange(len(self.cells))[::-1]
        return rows

    def spread(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Columns of rows (n, K) on the grid, NaN where the stamp is absent."""
        out = np.full((self.total, numbers.shape[1]), np.nan)
        out[self.cells] = numbers
        return out

    def check_no_conflict(self, numbers: NDArray[np.float64]) -> None:
        """Refuse rows that share a series and a stamp but differ in the columns (n, K)."""
        counts = np.bincount(self.cells, minlength=self.total)
        if counts.max() < 2:
            return
        first = numbers[self.sources()[self.cells]]
        differ = ((first != numbers) & ~(np.isnan(first) & np.isnan(numbers))).any(axis=1)
        if not differ.any():
            return
        rows = np.flatnonzero(differ)
        pairs = dict.fromkeys(
            str(self.stamps[row]) if self.ids == (None,) else f"{self.ids[self.codes[row]]!r} at {self.stamps[row]}"
            for row in rows[:1000].tolist()
        )
        rule, remedy = "A series must have one row per time stamp", "Keep one of them, or average them"
        if self.ids == (None,):  # the rule alone is what the command line says
            rule = "Without a column of ids, X must have one row per time stamp"
            remedy += "; name the column of ids by `id_col` if X holds several series"
        if isinstance(self.stamps, pd.DatetimeIndex) and self.stamps.tz is None:
            remedy += "; use a time zone if the clock was set back"
        raise DataError(f"{rule}; found different values for {listed(pairs)}. {remedy}.")

    def grid(self, where: NDArray[np.bool_] | None = None) -> pd.Index:
        """The stamps of all steps, or of the steps `where`."""
        codes = np.repeat(np.arange(len(self.lengths)), self.lengths)
        steps = np.arange(self.total) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        if where is not None:
            codes, steps = codes[where], steps[where]
        return stamps_after(self.starts, codes, steps, self.freq, by_wall=self.by_wall)


def in_order(codes: NDArray[np.int64], time: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows sorted by series and time."""
    after = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (time[1:] >= time[:-1]))
    return np.arange(len(codes)) if after.all() else np.lexsort((time, codes))
