"""Forecasts of series too short to learn from: a trend that stands out is carried on, a drift by chance is not."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tabmae import TimeSeriesMAE

pytestmark = pytest.mark.usefixtures("no_bridges")

SEASON = 12

Matrix = NDArray[np.float64]


def forecast(values: Matrix, horizon: int, freq: str = "MS") -> Matrix:
    frame = pd.DataFrame({"y": values}, index=pd.date_range("1990-01-01", periods=len(values), freq=freq))
    fitted = TimeSeriesMAE(horizon=horizon, max_epochs=0, random_state=0).fit(frame)
    return fitted.forecast(level=None)["TimeSeriesMAE"].to_numpy()


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


def ratio(families: list[Matrix], horizon: int, freq: str, period: int = 1) -> float:
    """Absolute error of forecasts of series in times of that of their last `period` steps."""
    ours, naive = [], []
    for values in families:
        past, came = values[:-horizon], values[-horizon:]
        ours.append(np.abs(forecast(past, horizon, freq) - came).mean())
        naive.append(np.abs(np.resize(past[-period:], horizon) - came).mean())
    return float(np.mean(ours) / np.mean(naive))


def test_short_walks_are_forecast_about_as_by_their_last_step() -> None:
    rng = np.random.default_rng(0)
    assert ratio([rng.normal(size=30).cumsum() for _ in range(20)], 6, "MS") < 1.15
    assert ratio([rng.normal(size=74).cumsum() for _ in range(10)], 14, "D") < 1.1
    assert ratio([(0.6 + rng.normal(size=36)).cumsum() for _ in range(10)], 6, "YS") < 1


def test_short_noise_and_seasons_about_a_moving_level_are_averaged() -> None:
    rng = np.random.default_rng(0)
    quarters = [4 * np.resize(rng.normal(size=4), 48) + (0.5 + rng.normal(size=48)).cumsum() for _ in range(10)]
    assert ratio(quarters, 8, "QS", 4) < 0.65
    assert ratio([rng.normal(size=48) for _ in range(20)], 8, "QS") < 0.8


def test_days_of_a_season_are_averaged_over_two_weeks() -> None:
    rng = np.random.default_rng(0)
    days = [np.resize(rng.normal(size=24).cumsum(), 360) + rng.normal(size=360) for _ in range(3)]
    assert ratio(days, 24, "h", 24) < 0.78


def held(families: list[Matrix], horizon: int, freq: str) -> Matrix:
    """Shares of what came that the intervals at 80 and 95 % hold."""
    found = []
    for values in families:
        stamps = pd.date_range("1990-01-01", periods=len(values) - horizon, freq=freq)
        frame = pd.DataFrame({"y": values[:-horizon]}, index=stamps)
        ahead = TimeSeriesMAE(horizon=horizon, max_epochs=0, random_state=0).fit(frame).forecast(level=[80, 95])
        bounds = [[ahead[f"TimeSeriesMAE-{side}-{level}"] for side in ("lo", "hi")] for level in (80, 95)]
        found.append([((values[-horizon:] >= low) & (values[-horizon:] <= high)).mean() for low, high in bounds])
    return np.asarray(np.mean(found, 0))


def test_intervals_of_short_series_are_as_wide_as_what_they_are_made_of_says() -> None:
    rng = np.random.default_rng(0)
    walks = [rng.normal(size=60).cumsum() for _ in range(20)]
    quarters = [4 * np.resize(rng.normal(size=4), 48) + rng.normal(size=48).cumsum() for _ in range(14)]
    months = [
        0.2 * rng.normal() * np.arange(48) + 4 * np.resize(rng.normal(size=12), 48) + rng.normal(size=48)
        for _ in range(14)
    ]
    shares = np.stack([held(walks, 12, "MS"), held(quarters, 8, "QS"), held(months, 12, "MS")])
    assert (shares[:, 0] > 0.68).all() and (shares[:, 0] < 0.92).all() and (shares[:, 1] > 0.89).all()
    assert 0.75 < shares[:, 0].mean() < 0.87 and shares[:, 1].mean() > 0.92


@pytest.mark.parametrize("n_steps", [18, 40, 120])
def test_draws_of_short_series_spread_as_their_intervals_do(n_steps: int) -> None:
    values = np.random.default_rng(1).normal(size=n_steps).cumsum()
    frame = pd.DataFrame({"y": values}, index=pd.date_range("1990-01-01", periods=n_steps, freq="MS"))
    fitted = TimeSeriesMAE(horizon=12, max_epochs=0, random_state=0).fit(frame)
    ahead = fitted.forecast(level=[80])
    drawn = np.stack([path["TimeSeriesMAE"] for path in fitted.sample(horizon=12, n_samples=600)])
    low, high = np.quantile(drawn, [0.1, 0.9], axis=0)
    wide = (ahead["TimeSeriesMAE-hi-80"] - ahead["TimeSeriesMAE-lo-80"]).to_numpy()
    assert (high - low).mean() == pytest.approx(wide.mean(), rel=0.15)
    assert wide[-1] > 1.5 * wide[0] and (high - low)[-1] > 1.5 * (high - low)[0]


def test_where_origins_tell_enough_nothing_is_expected_beside_them() -> None:
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=60, freq="D")
    frames = [pd.DataFrame({"unique_id": f"s{i}", "ds": stamps, "y": rng.normal(size=60)}) for i in range(80)]
    few, many = (
        TimeSeriesMAE(horizon=7, max_epochs=0, random_state=0).fit(pd.concat(part)).forecaster_
        for part in (frames[:1], frames)
    )
    assert many.expected == 0 < 10 < few.expected
    assert len(many.paths) <= 80 * 50


def test_new_series_beside_long_ones_are_forecast_no_worse_than_by_their_last_season() -> None:
    rng, horizon, frames = np.random.default_rng(0), 12, []
    for name, n_steps in enumerate([200] * 4 + [36 + horizon, 48 + horizon, 60 + horizon]):
        step = np.arange(n_steps) - n_steps + 3 * name
        values = 10 + 3 * np.sin(2 * np.pi * step / 24) + rng.normal(0, 0.2, n_steps)
        stamps = pd.date_range(end="2024-06-30", periods=n_steps, freq="h")
        frames.append(pd.DataFrame({"unique_id": f"s{name}", "ds": stamps, "y": values}))
    known = pd.concat([frame[:-horizon] for frame in frames])
    found = TimeSeriesMAE(horizon=horizon, max_epochs=0, random_state=0).fit(known).forecast()
    for frame in frames[4:]:
        ahead = frame["y"].to_numpy()[-horizon:]
        ours = found.loc[found["unique_id"] == frame["unique_id"].iloc[0], "TimeSeriesMAE"].to_numpy()
        naive = frame["y"].to_numpy()[-24 - horizon : -24]
        assert np.abs(ours - ahead).mean() < 1.2 * np.abs(naive - ahead).mean()
