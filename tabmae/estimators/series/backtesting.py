"""Forecasts from origins within series, side by side with what came.

Contract: a forecast sees nothing after its cutoff.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tabmae.errors import DataError, check_number
from tabmae.estimators.series.checks import checked_levels
from tabmae.estimators.series.standard import Matrix, last_steps
from tabmae.windows import Panel, refuse_taken


class Backtest(NamedTuple):
    """forecasts : long frame with `cutoff`, the last known stamp, and `y`; metrics : error per channel and cutoff."""

    forecasts: pd.DataFrame
    metrics: pd.DataFrame


class Ahead(NamedTuple):
    """Forecasts of a panel in its units: mean (n, H, C), and for each level lower and upper."""

    mean: Matrix
    bounds: dict[float, tuple[Matrix, Matrix]]


def backtest(estimator: Any, X: Any, n_windows: int, step: int | None, horizon: int | None, level: Any) -> Backtest:
    """Do what `TimeSeriesMAE.backtest` says, with a fitted estimator."""
    check_number("n_windows", n_windows, low=1, integer=True, hint="Pass the number of origins, for example 5.")
    n_steps = estimator._steps(horizon)
    step = n_steps if step is None else step
    check_number("step", step, low=1, integer=True, hint="Pass the steps between two origins, for example 24.")
    levels = checked_levels(() if level is None else level)
    refuse_taken((estimator.schema_.id_col, estimator.schema_.time_col), ("cutoff", "y"))
    panel = estimator.schema_.read(X)
    needed = n_steps + (n_windows - 1) * step + 2
    short = [i for i, length in enumerate(panel.lengths) if length < needed]
    if short:
        raise DataError(
            f"Series {panel.ids[short[0]]!r} must have {needed} steps for {n_windows} windows; it has "
            f"{panel.lengths[short[0]]}. Lower `n_windows`, `step` or `horizon`."
        )
    stamps, parts = estimator.schema_.stamps(panel), []
    known_ahead = estimator._with_calendar(panel, panel.future)
    for number in range(n_windows):
        back = n_steps + (n_windows - 1 - number) * step
        known = without_last(panel, back)
        future = np.stack([known_ahead[e - back : e - back + n_steps] for e in np.cumsum(panel.lengths)])
        truth = np.stack([panel.values[e - back : e - back + n_steps] for e in np.cumsum(panel.lengths)])
        history = estimator._believed(last_steps(known, estimator.schema_, estimator._reach))
        found = estimator._ahead(history, n_steps, levels, future)
        ahead = [index[len(index) - back : len(index) - back + n_steps] for index in stamps]
        frame = estimator.schema_.frame(history, ahead, {"y": flat(truth), **forecast_columns(found)})
        cutoffs = [index[len(index) - back - 1] for index in stamps]
        per_series = n_steps * truth.shape[2]
        frame.insert(frame.columns.get_loc("y"), "cutoff", np.repeat(pd.Index(cutoffs), per_series))
        parts.append(frame)
    table = pd.concat(parts, ignore_index=True)
    return Backtest(table, backtest_metrics(table, levels))


def flat(values: Matrix) -> Matrix:
    """(n, H, C) as (n * H, C)."""
    return values.reshape(-1, values.shape[2])


def forecast_columns(found: Ahead) -> dict[str, Matrix]:
    """Columns of a forecast's frame, each (n * H, C)."""
    columns = {"TimeSeriesMAE": flat(found.mean)}
    for level, (lower, upper) in found.bounds.items():
        columns[f"TimeSeriesMAE-lo-{level:g}"] = flat(lower)
        columns[f"TimeSeriesMAE-hi-{level:g}"] = flat(upper)
    return columns


def without_last(panel: Panel, n_steps: int) -> Panel:
    """Every series without its last steps."""
    ends = np.cumsum(panel.lengths)
    steps = np.concatenate([np.arange(end - n, end - n_steps) for end, n in zip(ends, panel.lengths, strict=True)])
    lengths = tuple(length - n_steps for length in panel.lengths)
    return replace(panel, lengths=lengths, values=panel.values[steps], future=panel.future[steps])


def backtest_metrics(table: pd.DataFrame, levels: list[float]) -> pd.DataFrame:
    """Mean absolute and root mean squared error, and the share that each interval held, per channel and cutoff."""
    keys = [name for name in ("channel", "cutoff") if name in table.columns]
    known = table[table["y"].notna()]
    error = known["TimeSeriesMAE"] - known["y"]
    measures = {"mae": error.abs(), "mse": error**2}
    for level in levels:
        lower, upper = known[f"TimeSeriesMAE-lo-{level:g}"], known[f"TimeSeriesMAE-hi-{level:g}"]
        measures[f"coverage-{level:g}"] = ((known["y"] >= lower) & (known["y"] <= upper)).astype(float)
    grouped = pd.DataFrame({**{key: known[key] for key in keys}, **measures}).groupby(keys, sort=False).mean()
    grouped.insert(1, "rmse", grouped.pop("mse") ** 0.5)
    return grouped.reset_index()
