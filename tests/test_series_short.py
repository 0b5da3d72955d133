"""Forecasts of series too short to learn from: a trend that stands out is carried on, a drift by chance is not."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.short import believed, fit_short, members_of, reach_of

SEASON = 12

Matrix = NDArray[np.float64]


def forecast(values: Matrix, horizon: int, freq: str = "MS") -> Matrix:
    frame = pd.DataFrame({"y": values}, index=pd.date_range("1990-01-01", periods=len(values), freq=freq))
    fitted = TimeSeriesMAE(horizon=horizon, max_epochs=0, random_state=0).fit(frame)
    return fitted.forecast()["TimeSeriesMAE"].to_numpy()


def season(n_steps: int) -> Matrix:
    return np.asarray(4 * np.sin(2 * np.pi * np.arange(n_steps) / SEASON))


@pytest.mark.parametrize("n_steps", [36, 48])
def test_a_short_season_with_a_trend_goes_on_with_it(n_steps: int) -> None:
    noise = 0.5 * np.random.default_rng(0).normal(size=n_steps + SEASON)
    values = 50 + season(n_steps + SEASON) + 0.3 * np.arange(n_steps + SEASON) + noise
    past, ahead = values[:n_steps], values[n_steps:]
    missed = np.abs(forecast(past, SEASON) - ahead).mean()
    assert missed < 0.4 * np.abs(past[-SEASON:] - ahead).mean()


def test_yearly_values_on_a_line_go_on_with_it() -> None:
    noise = np.random.default_rng(0).normal(size=32)
    values = 20 + 2 * np.arange(32) + noise
    assert np.abs(forecast(values[:26], 6, "YS") - values[26:]).mean() < 2


def test_what_has_no_trend_is_not_forecast_worse_than_by_its_last_season() -> None:
    ours, naive = [], []
    for seed in range(6):
        values = season(60) + np.random.default_rng(seed).normal(size=60)
        ours.append(np.abs(forecast(values[:48], SEASON) - values[48:]).mean())
        naive.append(np.abs(values[36:48] - values[48:]).mean())
    assert np.mean(ours) < np.mean(naive)


@pytest.mark.parametrize("season", [0, 4])
def test_members_continue_a_line_with_their_drift_whole(season: int) -> None:
    context, horizon = 20, 6
    line = 3 + 0.5 * np.arange(context + horizon)
    for member in members_of(context, 12, horizon, season):
        found = line[:context] @ (member.base + member.drift)
        np.testing.assert_allclose(found, line[context:], rtol=1e-9)
        np.testing.assert_allclose(np.full(context, 7.0) @ (member.base + member.drift), 7)


def test_a_drift_is_believed_as_far_as_it_stands_out() -> None:
    rng = np.random.default_rng(0)
    drifts = np.ones((200, 1, 4, 1))
    for truth, least, most in ((1.0, 0.9, 1.0), (0.0, 0.0, 0.1), (-1.0, 0.0, 0.0)):
        future = truth + 0.3 * rng.normal(size=(200, 1, 4))
        assert least <= believed(future, np.zeros_like(drifts), drifts, 10.0)[0] <= most
    loud = 1 + 5 * rng.normal(size=(200, 1, 4))
    assert believed(loud, np.zeros_like(drifts), drifts, 2.0)[0] == 0


def test_the_reach_leaves_an_origin_to_judge_by() -> None:
    assert reach_of((48,), 12, 12) == 24 and reach_of((24,), 12, 12) == 0
    assert reach_of((26,), 6, 0) == 14 and reach_of((200,), 6, 0) == 16


def test_every_short_series_believes_its_own_drift() -> None:
    rng = np.random.default_rng(0)
    flat, steep = (slope * np.arange(60.0)[:, None] + 0.1 * rng.normal(size=(60, 1)) for slope in (0.0, 1.0))
    final, early = fit_short([flat, steep, flat[:10]], 16, 16, 6, 0)
    assert len(final.weights) == 4 and len(early.weights) == 7
    drift = final.weights[:, 1::2].sum(1).mean(1)
    assert drift[1] > 0.8 and drift[0] < 0.5
