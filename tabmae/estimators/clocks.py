"""The cycles of times that other columns follow: days of the week, months, hours.

Contract: a cycle is told only where a column of the table follows it beyond what chance would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from torch import Tensor

from tabmae.schema import Column
from tabmae.schema.cells import DAY
from tabmae.schema.zones import shifts

HOUR, YEAR = 3_600.0, 365.2425 * DAY
MONDAY = 4 * DAY
"""Seconds from the start of 1970 to its first Monday."""
LEAST_CYCLES = 1.5
"""Cycles that the observed times have to lie over."""
SURE = 1e-3
"""Chance that a table without any such cycle is told one."""
MAX_ROWS = 2_000
"""Rows by which cycles are found."""
MIN_ROWS_OF_PHASE = 5
MAX_LEVELS = 10
"""Levels of a category, the most frequent ones, that may follow a cycle."""

Matrix = NDArray[np.float64]


class Cycle(NamedTuple):
    """Phases of `length` seconds, `n_phases` of them, the first of which begins at `origin`, in seconds since 1970."""

    origin: float
    length: float
    n_phases: int


CYCLES = Cycle(MONDAY, DAY, 7), Cycle(0.0, YEAR / 12, 12), Cycle(0.0, HOUR, 24)
"""Days of the week, months, hours of the day."""


def clocks_of(columns: Sequence[Column], values: Tensor, observed: Tensor) -> Tensor:
    """The clocks of `CellTokenizer` that a table's other columns follow, float64 (K, 4).

    Parameters
    ----------
    columns : F, as fitted. values : (n, F), in standard deviations or codes; observed : bool (n, F).

    Source: analysis of variance with time itself as a covariate; bounds by Bonferroni.
    """
    step = max(1, -(-len(values) // MAX_ROWS))
    cells, known = values[::step].double().numpy(), observed[::step].numpy()
    moments = [j for j, column in enumerate(columns) if column.family in ("datetime", "datetime with time zone")]
    candidates = [(j, cycle) for j in moments for cycle in CYCLES if _spans(columns[j], cycle)]
    responses = [_responses(column, cells[:, j]) for j, column in enumerate(columns)]
    n_asked = max(1, sum(len(told) for told in responses) * len(candidates))
    found = []
    for j, cycle in candidates:
        clock = _clock(columns[j], cycle)
        rows = known[:, j]
        phase = np.floor((cells[rows, j] - clock[0]) / clock[1]) % cycle.n_phases
        others = ((answer[rows], known[rows, k]) for k, told in enumerate(responses) if k != j for answer in told)
        if any(_chance(phase, cells[rows, j], answer, shown) < SURE / n_asked for answer, shown in others):
            found.append((float(j), *clock, float(cycle.n_phases)))
    return torch.tensor(found, dtype=torch.float64).reshape(-1, 4)


def check_clocks(clocks: Tensor, n_levels: Sequence[int]) -> None:
    """Refuse clocks (K, 4) that came from elsewhere and are none of a table with numbers where `n_levels` is 0.

    Raises
    ------
    ValueError : one is of no number, has no length, or another number of phases than any cycle.
    """
    numbers = [j for j, n in enumerate(n_levels) if n == 0]
    phases = [cycle.n_phases for cycle in CYCLES]
    fine = clocks.ndim == 2 and clocks.shape[1] == 4 and bool(clocks.isfinite().all())
    if not fine or any(j not in numbers or length <= 0 or n not in phases for j, _, length, n in clocks.tolist()):
        raise ValueError("Clocks must be cycles of a column of times; one of these is none. Save the model again.")


def _spans(column: Column, cycle: Cycle) -> bool:
    """Whether the observed times of a column lie over enough cycles, and on steps that tell the phases apart."""
    wide = column.high - column.low >= LEAST_CYCLES * cycle.length * cycle.n_phases
    return wide and (column.step == 0 or column.step <= cycle.length)


def _clock(column: Column, cycle: Cycle) -> tuple[float, float]:
    """Where a first phase begins on the clock of a column's zone, and how long one is, in standard deviations.

    The clock is that of the mean time: it is an hour off while summer time differs. Days begin at noon of the day
    before where times are days alone, so that neither that nor rounding matters.
    """
    origin = cycle.origin - float(shifts(np.array([column.mean]), column.zone)[0])
    if column.step == DAY and cycle.length == DAY:
        origin -= DAY / 2
    return (origin - column.mean) / column.scale, cycle.length / column.scale


def _responses(column: Column, cells: Matrix) -> list[Matrix]:
    """What of a column may follow a cycle: a number, or the indicators of frequent levels."""
    if column.kind == "number":
        return [] if column.constant or not column.learnable else [cells]
    n_levels = min(column.n_levels, MAX_LEVELS)
    return [(cells == level).astype(float) for level in range(1 if n_levels == 2 else n_levels)]


def _chance(phase: Matrix, time: Matrix, answer: Matrix, shown: NDArray[np.bool_]) -> float:
    """Probability by chance that phases (n,) explain as much of what time leaves of the shown answers (n,)."""
    phases, place = np.unique(phase[shown], return_inverse=True)
    indicators = np.eye(len(phases))[place][:, np.bincount(place) >= MIN_ROWS_OF_PHASE]
    n_free = len(place) - indicators.shape[1] - 1
    if indicators.shape[1] < 2 or n_free < 1:
        return 1.0
    line = np.column_stack([np.ones(len(place)), time[shown]])
    both = np.column_stack([line, indicators[:, 1:]])
    without, left = (_left(matrix, answer[shown]) for matrix in (line, both))
    n_told = indicators.shape[1] - 1
    if left <= 1e-12 * without:
        return 0.0 if without > 0 else 1.0
    return float(f_distribution.sf((without - left) / n_told / (left / n_free), n_told, n_free))


def _left(matrix: Matrix, answer: Matrix) -> float:
    """Squares that a least-squares fit leaves."""
    found, *_ = np.linalg.lstsq(matrix, answer, rcond=None)
    return float(np.square(answer - matrix @ found).sum())
