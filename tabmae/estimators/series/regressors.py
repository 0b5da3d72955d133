"""The effect of columns that are known ahead, taken off before a forecast and put on again after it.

The columns are the user's `future_cols` and, after them, those of the calendar. An effect is added to the series, or
multiplies them: a promotion sells a half more where much is sold, and is as much less sure there.

Contract: missing values of the columns have no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.estimators.series.forecasting import Forecaster
from tabmae.estimators.series.sizes import n_judged
from tabmae.estimators.series.standard import each_series

RIDGE = 1e-3
"""Ridge of the coefficients, in observed steps."""
NEEDED = 0.6
"""Squared error, in that of the forecast without the calendar, at which the calendar is believed: walks that drift with
the seasons by chance reach 0.7 often enough."""
LEAST_EXPLAINED = 0.01
"""Share of later variance that the calendar must explain for forecasters to be fitted without its effect."""

MOST_LOG = 5.0
"""Log of how many times an effect multiplies at most: a value of a column far outside of fit's may lead anywhere."""

Matrix = NDArray[np.float64]
Quality = dict[str, Tensor]


class Units(NamedTuple):
    """Level and scale of each step, (..., C) or what broadcasts to it."""

    level: Matrix
    scale: Matrix

    def some(self, chosen: NDArray[np.bool_]) -> Units:
        """Of some of the steps (N, C)."""
        return Units(self.level[chosen], self.scale[chosen])


class Regressors:
    """Mean and deviation (K,) of the columns, and coefficients (K, C), of the log where an effect multiplies."""

    def __init__(self, mean: Matrix, deviation: Matrix, coefficients: Matrix, *, multiplies: bool = False) -> None:
        self.mean, self.deviation, self.coefficients, self.multiplies = mean, deviation, coefficients, multiplies

    @classmethod
    def none(cls, n_channels: int) -> Self:
        """No columns."""
        return cls(np.zeros(0), np.ones(0), np.zeros((0, n_channels)))

    @classmethod
    def fit(cls, future: Matrix, values: Matrix, *, multiplies: bool = False) -> Self:
        """Regress observed cells (N, C), NaN where missing, on columns (N, K).

        values : in standard deviations; in logs about the level of each series where an effect `multiplies`.
        """
        known = np.isfinite(future)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, future, 0).sum(0) / count
        deviation = np.sqrt(np.where(known, (future - mean) ** 2, 0).sum(0) / count)
        nothing = np.zeros((future.shape[1], values.shape[1]))
        found = cls(mean, np.where(deviation > 0, deviation, 1), nothing, multiplies=multiplies)
        inputs = found._inputs(future)
        for c in range(values.shape[1]):
            seen = np.isfinite(values[:, c])
            x = inputs[seen]
            penalty = RIDGE * max(1, seen.sum()) * np.eye(x.shape[1])
            found.coefficients[:, c] = np.linalg.solve(x.T @ x + penalty, x.T @ values[seen, c])
        return found

    def effect(self, future: Matrix) -> Matrix:
        """What the first columns of (..., K or more) add to the channels (..., C), or to their logs."""
        if not len(self.mean):
            return np.zeros((*future.shape[:-1], self.coefficients.shape[1]))
        effect: Matrix = self._inputs(future[..., : len(self.mean)]) @ self.coefficients
        return effect

    def taken_off(self, values: Matrix, future: Matrix, units: Units) -> Matrix:
        """Values (..., C) in standard deviations without the effect of the columns (..., K or more)."""
        if not self.multiplies:
            return values - self.effect(future)
        level, scale = units
        return ((values * scale + level) / self._times(future) - level) / scale

    def put_on(self, values: Matrix, future: Matrix, units: Units) -> Matrix:
        """Undo `taken_off`, in the series' units."""
        level, scale = units
        if not self.multiplies:
            return (values + self.effect(future)) * scale + level
        return (values * scale + level) * self._times(future)

    def widened(self, future: Matrix) -> Matrix:
        """About how many times as wide errors (C,) are with the effect put on: its root mean square over steps."""
        found: Matrix = np.sqrt(np.mean(self._times(future) ** 2, 0)) if self.multiplies else np.ones(1)
        return found

    def _times(self, future: Matrix) -> Matrix:
        times: Matrix = np.exp(np.clip(self.effect(future), -MOST_LOG, MOST_LOG))
        return times

    def _inputs(self, future: Matrix) -> Matrix:
        inputs: Matrix = np.nan_to_num((future - self.mean) / self.deviation)
        return inputs


def logs_about_level(values: Matrix, lengths: tuple[int, ...]) -> Matrix:
    """Logs of positive cells (N, C) of series about the mean of each, NaN where missing."""
    parts = []
    for logs in np.split(np.log(values), np.cumsum(lengths)[:-1]):
        known = np.isfinite(logs)
        parts.append(logs - np.where(known, logs, 0).sum(0) / np.maximum(known.sum(0), 1))
    return np.concatenate(parts)


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


class Chosen(NamedTuple):
    """A forecaster of series without the effect of `regressors`, and its rows of `quality_`."""

    forecaster: Forecaster
    quality: Quality
    regressors: Regressors


def with_regressors(
    plain: Chosen,
    fit: Callable[[list[Matrix]], tuple[Forecaster, Quality]],
    cells: Matrix,
    seen: Matrix,
    amounts: Matrix,
    known_ahead: Matrix,
    n_given: int,
    lengths: tuple[int, ...],
    early: NDArray[np.bool_],
    units: Units,
) -> Chosen:
    """What misses judging steps less: the `plain` forecaster, or one that `fit` makes of series without an effect.

    Parameters
    ----------
    cells : (sum of lengths, C) in standard deviations, gaps filled. seen : the same, NaN where not observed.
    amounts : those in the series' units, to the last digit: an effect multiplies all channels, or adds to all.
    known_ahead : (sum of lengths, K), of which the user gave the first `n_given`. early : as of `early_steps`.
    """
    best, positive = plain, bool((amounts[np.isfinite(amounts)] > 0).all())
    for n_columns in columns_worth_trying(known_ahead, n_given, seen, early):
        is_calendar = n_columns > n_given
        for multiplies in (best.regressors.multiplies,) if is_calendar or not positive else (False, True):
            known, values = known_ahead[:, :n_columns], seen
            if multiplies:
                values = logs_about_level(amounts, lengths)
            # an effect that has seen the steps which judge would be judged too well
            learnt = Regressors.fit(known[early], values[early], multiplies=multiplies)
            forecaster, quality = fit(each_series(learnt.taken_off(cells, known, units), lengths))
            widened = torch.from_numpy(learnt.widened(known[~early]))
            quality |= {name: quality[name] * widened for name in ("error", "baseline_error")}
            needed = NEEDED if is_calendar else 1.0
            if float(quality["error"].square().mean()) < needed * float(best.quality["error"].square().mean()):
                best = Chosen(forecaster, quality, Regressors.fit(known, values, multiplies=multiplies))
    return best
