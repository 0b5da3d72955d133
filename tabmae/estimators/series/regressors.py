"""The linear effect of columns that are known ahead, taken off before a forecast and added again after it.

The columns are the user's `future_cols` and, after them, those of the calendar.

Contract: missing values of the columns have no effect.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from tabmae.estimators.series.sizes import n_judged

RIDGE = 1e-3
"""Ridge of the coefficients, in observed steps."""
NEEDED = 0.6
"""Squared error, in that of the forecast without the calendar, at which the calendar is believed: walks that drift with
the seasons by chance reach 0.7 often enough."""
LEAST_EXPLAINED = 0.01
"""Share of later variance that the calendar must explain for forecasters to be fitted without its effect."""

Matrix = NDArray[np.float64]


class Regressors:
    """Mean and deviation (K,) of the columns, and coefficients (K, C)."""

    def __init__(self, mean: Matrix, deviation: Matrix, coefficients: Matrix) -> None:
        self.mean, self.deviation, self.coefficients = mean, deviation, coefficients

    @classmethod
    def none(cls, n_channels: int) -> Self:
        """No columns."""
        return cls(np.zeros(0), np.ones(0), np.zeros((0, n_channels)))

    @classmethod
    def fit(cls, future: Matrix, values: Matrix) -> Self:
        """Regress observed cells (N, C), NaN where missing, on columns (N, K)."""
        known = np.isfinite(future)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, future, 0).sum(0) / count
        deviation = np.sqrt(np.where(known, (future - mean) ** 2, 0).sum(0) / count)
        found = cls(mean, np.where(deviation > 0, deviation, 1), np.zeros((future.shape[1], values.shape[1])))
        inputs = found._inputs(future)
        for c in range(values.shape[1]):
            seen = np.isfinite(values[:, c])
            x = inputs[seen]
            penalty = RIDGE * max(1, seen.sum()) * np.eye(x.shape[1])
            found.coefficients[:, c] = np.linalg.solve(x.T @ x + penalty, x.T @ values[seen, c])
        return found

    def effect(self, future: Matrix) -> Matrix:
        """What the first columns of (..., K or more) add to the channels (..., C)."""
        if not len(self.mean):
            return np.zeros((*future.shape[:-1], self.coefficients.shape[1]))
        effect: Matrix = self._inputs(future[..., : len(self.mean)]) @ self.coefficients
        return effect

    def _inputs(self, future: Matrix) -> Matrix:
        inputs: Matrix = np.nan_to_num((future - self.mean) / self.deviation)
        return inputs


def early_steps(lengths: tuple[int, ...], cycle: int, horizon: int) -> NDArray[np.bool_]:
    """Which steps of all series teach an effect that later ones, as of `n_judged`, judge, (sum of lengths,)."""
    return np.concatenate([np.arange(length) < length - n_judged(length, cycle, horizon) for length in lengths])


def share_explained(future: Matrix, values: Matrix, early: NDArray[np.bool_]) -> float:
    """Share of the variance of the later steps of each series that columns explain, as learnt from the early ones.

    Parameters
    ----------
    future : (sum of lengths, K). values : (sum of lengths, C), NaN where missing. early : as of `early_steps`.
    """
    if not future.shape[1] or early.all() or not np.isfinite(values[~early]).any():
        return 0.0
    effect = Regressors.fit(future[early], values[early]).effect(future[~early])
    missed, whole = (float(np.nanmean(part**2)) for part in (values[~early] - effect, values[~early]))
    return 1 - missed / max(whole, 1e-12)


def columns_worth_trying(future: Matrix, n_given: int, values: Matrix, early: NDArray[np.bool_]) -> list[int]:
    """How many of the first columns (sum of lengths, K) to fit forecasters without the effect of.

    The user's `n_given`, if there are some, and all with those of the calendar where these explain enough beside them.
    """
    found = [n_given] if n_given else []
    if future.shape[1] > n_given:
        without, with_it = (share_explained(future[:, :n], values, early) for n in (n_given, future.shape[1]))
        if with_it - without >= LEAST_EXPLAINED:
            found.append(future.shape[1])
    return found
