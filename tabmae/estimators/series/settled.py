"""What a column that is known ahead settles: a shop that is closed sells nothing.

Contract: a settled cell counts as missing wherever something is learnt or told from it, so that the other cells are
told of as if it had been like them; where it is missing itself, the settled number is given.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tabmae.windows import Panel

MAX_VALUES = 10
"""Values of a column of which one may settle a channel: a switch, a kind of day, no amount."""
LEAST_CELLS = 10
"""Observed cells that must agree."""
BY_CHANCE = 1e-6
"""How likely so many spells may be the same number if the column told nothing."""
LEAST_SPELLS = 3
"""Spells of a value that must agree: within one, a series may be constant whatever the column is."""
LEAST_LEFT = 0.2
"""Share of a channel's cells that may not be settled: they are what the series is about."""

Matrix = NDArray[np.float64]


class Rule(NamedTuple):
    """Where the column is the value, the channel is the number."""

    column: int
    value: float
    channel: int
    number: float


class Settled:
    """The rules of a panel.

    >>> from tabmae.windows import Panel
    >>> is_open = np.arange(70) % 7 > 0
    >>> sales = np.where(is_open, np.arange(70), 0.0)[:, None]
    >>> Settled.fit(Panel(("a",), (0,), (70,), sales, is_open[:, None].astype(float))).rules
    [Rule(column=0, value=0.0, channel=0, number=0.0)]
    """

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules

    @classmethod
    def fit(cls, panel: Panel) -> Self:
        """Find the values of columns at which all observed cells of a channel are one number, and others are not."""
        rules: list[Rule] = []
        is_first = np.isin(np.arange(len(panel.values)), panel.offsets)
        for c, cells in enumerate(panel.values.T):
            found, chosen = [], np.zeros(len(cells), dtype=bool)
            for k, column in enumerate(panel.future.T):
                known = np.isfinite(cells) & np.isfinite(column)
                values = np.unique(column[known])
                for value in values if 1 < len(values) <= MAX_VALUES else ():
                    at = known & (column == value)
                    there, elsewhere = cells[at], cells[known & ~at]
                    if len(there) < LEAST_CELLS or (there != there[0]).any():
                        continue
                    share = (np.sum(elsewhere == there[0]) + 1) / (len(elsewhere) + 1)
                    n_spells = len(np.unique(spells_of(column == value, is_first)[at]))
                    if n_spells >= LEAST_SPELLS and share**n_spells < BY_CHANCE:
                        found.append(Rule(k, float(value), c, float(there[0])))
                        chosen |= at
            if (np.isfinite(cells) & ~chosen).sum() >= LEAST_LEFT * np.isfinite(cells).sum():
                rules += found
        return cls(rules)

    def numbers(self, future: Matrix, n_channels: int) -> Matrix:
        """The settled numbers (..., C) at steps whose columns known ahead (..., K or more) are these; NaN elsewhere."""
        found = np.full((*future.shape[:-1], n_channels), np.nan)
        for column, value, channel, number in self.rules:
            found[..., channel][future[..., column] == value] = number
        return found

    def left_out(self, panel: Panel) -> Panel:
        """The panel, its settled cells missing; those that are another number than settled stay."""
        if not self.rules:
            return panel
        settled = panel.values == self.numbers(panel.future, panel.values.shape[1])
        return replace(panel, values=np.where(settled, np.nan, panel.values))

    def put_in(self, cells: Matrix, future: Matrix) -> Matrix:
        """Cells (..., C), the settled numbers in the place of what was told there without them."""
        if not self.rules:
            return cells
        numbers = self.numbers(future, cells.shape[-1])
        return np.where(np.isnan(numbers), cells, numbers)


def spells_of(chosen: NDArray[np.bool_], is_first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the spell of chosen steps (T,) that each of them is in; a series' first step begins one anew."""
    before = np.where(is_first, False, np.roll(chosen, 1))
    return np.cumsum(chosen & ~before)
