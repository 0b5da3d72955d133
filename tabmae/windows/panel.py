"""The record that every kind of series becomes: one regular grid of steps, series after series.

Contract: absent stamps are steps like any other, their cells missing; nothing here knows what a step's stamp is.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Panel:
    """Series on one regular grid of steps, S of them with T_i steps each, T their sum.

    ids : a name per series; (None,) for a single series without one.
    starts : the first stamp of each series: pd.Timestamp, pd.Period or int; 0 for arrays.
    lengths : steps of each series on the complete grid, absent stamps included.
    values : float64 (T, C), NaN where missing or absent; series after series.
    future : float64 (T, K), the columns known ahead, NaN where missing or absent; K may be 0.
    """

    ids: tuple[Hashable, ...]
    starts: tuple[Any, ...]
    lengths: tuple[int, ...]
    values: NDArray[np.float64]
    future: NDArray[np.float64]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each series begins in the steps, and where the last one ends: int64 (S + 1,)."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def series(self, i: int) -> NDArray[np.float64]:
        """A view of the values of one series, (T_i, C)."""
        return self.values[self.offsets[i] : self.offsets[i] + self.lengths[i]]
