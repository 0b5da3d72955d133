"""Which series share a level and a scale: those that are alike."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.standard import scales_at

SMALL: dict[str, Any] = {"horizon": 7, "max_epochs": 0, "random_state": 0}


def weeks(levels: np.ndarray, n_steps: int, scale: float = 1.0, name: str = "s", seed: int = 0) -> pd.DataFrame:
    """Daily series of a week's season about levels, a long frame."""
    rng, step = np.random.default_rng(seed), np.arange(n_steps)
    stamps = pd.date_range("2020-01-01", periods=n_steps, freq="D")
    frames = []
    for i, level in enumerate(levels):
        y = level + scale * (np.sin(2 * np.pi * step / 7) + 0.2 * rng.normal(size=n_steps))
        frames.append(pd.DataFrame({"unique_id": f"{name}{i}", "ds": stamps, "y": y}))
    return pd.concat(frames, ignore_index=True)


def every_tenth_missing(frame: pd.DataFrame) -> pd.DataFrame:
    place = frame.groupby("unique_id").cumcount()
    return frame.assign(y=frame["y"].where(place % 10 != 4))


@pytest.mark.parametrize("n_steps", [20, 60, 100])
def test_short_series_of_levels_far_apart_are_filled_about_their_own(n_steps: int) -> None:
    full = weeks(10.0 ** (np.arange(10) % 5), n_steps)
    holes = every_tenth_missing(full)
    model = TimeSeriesMAE(**SMALL).fit(holes)
    missing = holes["y"].isna()
    assert (model.impute(holes)["y"] - full["y"])[missing].abs().mean() < 0.45
    lower, upper = model.predict_interval(holes, 0.8)
    assert (upper["y"] - lower["y"])[missing].mean() < 2


def test_short_series_that_are_alike_share_their_level() -> None:
    model = TimeSeriesMAE(**SMALL).fit(weeks(np.linspace(-1, 1, 10), 30))
    assert model.scales_.own is None


def test_a_new_series_unlike_the_only_one_of_fit_has_its_own_scale() -> None:
    model = TimeSeriesMAE(**SMALL).fit(every_tenth_missing(weeks(np.array([50.0]), 150)))
    new = weeks(np.array([0.0]), 150, scale=0.002, name="new", seed=1)
    lower, upper = model.predict_interval(every_tenth_missing(new), 0.8)
    missing = every_tenth_missing(new)["y"].isna()
    assert (upper["y"] - lower["y"])[missing].mean() < 0.004


def test_a_new_series_like_the_only_one_of_fit_shares_its_scale() -> None:
    model = TimeSeriesMAE(**SMALL).fit(weeks(np.array([50.0]), 150))
    alike = model.schema_.read(weeks(np.array([50.5]), 20, name="new", seed=1))
    np.testing.assert_allclose(model.scales_.of(alike)[0], model.scales_.mean[None])


def test_the_end_of_the_series_of_fit_keeps_its_scale() -> None:
    ramp = weeks(np.array([0.0]), 150).assign(y=np.arange(150.0))
    model = TimeSeriesMAE(**SMALL).fit(ramp)
    np.testing.assert_allclose(model.scales_.of(model.schema_.read(ramp.iloc[-5:]))[0], model.scales_.mean[None])


def test_scales_at_origins_are_those_of_the_cells_before_them() -> None:
    rng = np.random.default_rng(0)
    values, observed = 3 + 2 * rng.normal(size=(80, 2)), rng.random((80, 2)) < 0.8
    values[:, 1] = 1.5
    found = scales_at(np.where(observed, values, 1e6), observed, np.array([1, 40, 79]))
    for origin, (level, scale) in zip((40, 79), found[1:], strict=True):
        known = values[:origin, 0][observed[:origin, 0]]
        np.testing.assert_allclose([level[0], scale[0]], [known.mean(), known.std()])
    np.testing.assert_allclose(found[1:, :, 1], [[1.5, 1], [1.5, 1]])
    np.testing.assert_array_equal(found[0, 1], [1, 1])


def monthly(decades: float, n_series: int = 24, n_steps: int = 60) -> pd.DataFrame:
    """Growing monthly series of a year's season, of which every decade more only changes the units."""
    rng, step = np.random.default_rng(1), np.arange(n_steps)
    stamps = pd.date_range("2020-01-01", periods=n_steps, freq="MS")
    frames = []
    for i in range(n_series):
        level = 10.0 ** (2 + decades * rng.uniform())
        season = rng.uniform(0.1, 0.4) * np.sin(2 * np.pi * step / 12 + rng.uniform(0, 2 * np.pi))
        y = level * np.exp(season + rng.normal(0.003, 0.003) * step + 0.03 * rng.normal(size=n_steps))
        frames.append(pd.DataFrame({"unique_id": f"s{i:02d}", "ds": stamps, "y": y}))
    return pd.concat(frames, ignore_index=True)


def test_short_series_of_levels_far_apart_are_forecast_as_those_of_one_level() -> None:
    """The level of a whole series tells an origin what is to come, and must not be told to it."""
    errors = []
    for decades in (0.0, 2.0):
        whole = monthly(decades)
        past = whole.groupby("unique_id").cumcount() < 48
        model = TimeSeriesMAE(horizon=12, random_state=0).fit(whole[past])
        found = whole[~past].merge(model.forecast(level=[80]), on=["unique_id", "ds"])
        spread = found["unique_id"].map(whole[past].groupby("unique_id")["y"].std())
        errors.append(((found["TimeSeriesMAE"] - found["y"]).abs() / spread).mean())
        held = (found["TimeSeriesMAE-lo-80"] <= found["y"]) & (found["y"] <= found["TimeSeriesMAE-hi-80"])
        assert held.mean() > 0.7
    assert errors[1] < 1.1 * errors[0]
