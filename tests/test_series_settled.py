"""`tabmae.estimators.series.settled`, and `TimeSeriesMAE` of shops that are closed at times."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tabmae import TimeSeriesMAE, load
from tabmae.estimators.series.settled import Rule, Settled
from tabmae.windows import Panel

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 14, "max_epochs": 1, "d_token": 8, "random_state": 0}
PAST = 380


def shops(n_steps: int = PAST + 14, seed: int = 0) -> pd.DataFrame:
    """Daily sales of two shops that are closed now and then, and sell a half more in a promotion; both known ahead."""
    rng = np.random.default_rng(seed)
    frames = []
    for i, level in enumerate((200.0, 900.0)):
        is_open, promotion = rng.random(n_steps) > 0.1, rng.random(n_steps) < 0.3
        week = 1 + 0.3 * np.sin(2 * np.pi * np.arange(n_steps) / 7)
        sales = is_open * level * week * (1 + 0.5 * promotion) * np.exp(0.05 * rng.normal(size=n_steps))
        stamps = pd.date_range("2024-01-01", periods=n_steps, freq="D")
        columns = {"y": sales, "open": is_open.astype(float), "promotion": promotion.astype(float)}
        frames.append(pd.DataFrame({"unique_id": f"shop {i}", "ds": stamps, **columns}))
    return pd.concat(frames, ignore_index=True)


WHOLE = shops()
IS_PAST = WHOLE.groupby("unique_id").cumcount() < PAST
AHEAD = WHOLE[~IS_PAST].reset_index(drop=True)


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of the past of `WHOLE`; nothing may change it."""
    return TimeSeriesMAE(**SMALL, target_cols=["y"], future_cols=["open", "promotion"]).fit(WHOLE[IS_PAST])


def panel_of(values: np.ndarray, *columns: np.ndarray) -> Panel:
    return Panel((None,), (0,), (len(values),), values[:, None], np.stack(columns, 1).astype(float))


def test_a_column_settles_what_it_says_too_often_for_chance() -> None:
    rng = np.random.default_rng(0)
    closed = np.arange(100) % 9 == 0
    sales, night = np.where(closed, 0, rng.normal(50, 5, size=100)), np.arange(100) % 24 > 8
    for values, column, expected in (
        (sales, closed, [Rule(0, 1.0, 0, 0.0)]),
        (np.where(np.arange(100) < 9, 0, sales), closed, [Rule(0, 1.0, 0, 0.0)]),
        (np.where(np.arange(100) == 9, 7, sales), closed, []),
        (np.where(np.arange(100) == 9, np.nan, sales), closed, [Rule(0, 1.0, 0, 0.0)]),
        (sales[:80], closed[:80], []),  # nine cells
        (np.where(rng.random(100) < 0.9, 0, sales), closed, []),  # nearly all are nothing
        (sales, ~closed * np.arange(100), []),  # an amount, not a kind of day
        (np.where(closed, 3.0, 5.0), closed, []),  # nothing would be left to learn from
        (np.where(np.arange(100) < 14, 0, sales), np.arange(100) < 14, []),  # one spell
        (np.where(night, 0, 50 + np.arange(100)), night, [Rule(0, 1.0, 0, 0.0)]),  # most are settled
        (sales, np.ones(100), []),
    ):
        assert Settled.fit(panel_of(values, column)).rules == expected


def test_settled_cells_are_left_out_and_those_that_break_a_rule_stay() -> None:
    closed = np.arange(100) % 9 == 0
    fitted = Settled.fit(panel_of(np.where(closed, 0, np.arange(100.0)), closed))
    later = panel_of(np.where(closed, 0, 5.0), closed)
    later.values[9] = 60.0
    left = fitted.left_out(later).values[:, 0]
    assert np.isnan(left[closed & (np.arange(100) != 9)]).all() and left[9] == 60 and (left[~closed] == 5).all()
    filled = fitted.put_in(np.full((100, 1), 8.0), later.future)
    np.testing.assert_array_equal(filled[:, 0], np.where(closed, 0, 8))
    unknown = np.full((2, 1), np.nan)
    np.testing.assert_array_equal(fitted.put_in(np.ones((2, 1)), unknown), np.ones((2, 1)))


def test_a_closed_shop_sells_nothing_and_an_open_one_is_forecast_as_if_it_never_closed(model: TimeSeriesMAE) -> None:
    found = model.forecast(X_future=AHEAD.drop(columns="y"), level=[80])
    closed = AHEAD["open"] == 0
    names = ["TimeSeriesMAE", "TimeSeriesMAE-lo-80", "TimeSeriesMAE-hi-80"]
    assert closed.any() and (found.loc[closed, names] == 0).all(axis=None)
    off = (found["TimeSeriesMAE"] / AHEAD["y"] - 1)[~closed].abs()
    assert off.mean() < 0.08 and off.max() < 0.3
    path = model.sample(n_samples=1, horizon=14, X_future=AHEAD.drop(columns="y"))[0]
    assert ((path["TimeSeriesMAE"] == 0) == closed).all()


def test_what_multiplies_widens_the_intervals_where_more_is_sold(model: TimeSeriesMAE) -> None:
    days = AHEAD.drop(columns="y").assign(open=1.0)
    plain, more = (model.forecast(X_future=days.assign(promotion=on), level=[80]) for on in (0.0, 1.0))
    times = more.drop(columns=["unique_id", "ds"]) / plain.drop(columns=["unique_id", "ds"])
    np.testing.assert_allclose(times, 1.5, atol=0.05)


def test_missing_days_are_filled_by_the_rule_and_given_ones_kept(model: TimeSeriesMAE) -> None:
    past = WHOLE[IS_PAST].reset_index(drop=True)
    missing = np.random.default_rng(1).random(len(past)) < 0.2
    filled = model.impute(past.assign(y=past["y"].where(~missing)))
    closed = past["open"] == 0
    np.testing.assert_array_equal(filled["y"][~missing], past["y"][~missing])
    assert (filled["y"][missing & closed] == 0).all() and (filled["y"][missing & ~closed] > 50).all()
    lower, upper = model.predict_interval(past.assign(y=past["y"].where(~missing)))
    wide = upper["y"] - lower["y"]
    assert (wide[missing & closed] == 0).all() and (wide[missing & ~closed] > 0).all()


def test_closed_days_are_nothing_odd_and_sales_on_one_are_judged(model: TimeSeriesMAE) -> None:
    past = WHOLE[IS_PAST].reset_index(drop=True)
    closed = np.flatnonzero(past["open"] == 0)
    past.loc[closed[[5, 9]], "y"] = 9000.0, 200.0
    points, others = model.detect(past).points, np.delete(closed, [5, 9])
    assert points["score"].isna()[others].all() and not points["flag"][others].any()
    assert (points[["expected", "lower", "upper"]].iloc[others] == 0).all(axis=None)
    assert points["flag"][closed[5]] and not points["flag"][closed[9]]
    assert points["lower"][closed[9]] < 200 < points["upper"][closed[9]], "it is judged as if the shop had been open"


def test_rules_are_saved(model: TimeSeriesMAE, tmp_path: Path) -> None:
    model.save(tmp_path / "shops")
    future = AHEAD.drop(columns="y")
    pd.testing.assert_frame_equal(
        load(tmp_path / "shops").forecast(X_future=future), model.forecast(X_future=future), check_exact=True
    )


def test_a_shop_that_was_never_open_is_not_forecast_below_zero(model: TimeSeriesMAE) -> None:
    stamps = pd.date_range("2025-01-01", periods=60, freq="D")
    closed = pd.DataFrame({"unique_id": "new", "ds": stamps, "y": 0.0, "open": 0.0, "promotion": 0.0})
    ahead = closed.assign(ds=stamps + pd.Timedelta(days=60), open=1.0).drop(columns="y")[:14]
    found = model.forecast(closed, X_future=ahead)
    assert (found.drop(columns=["unique_id", "ds"]) >= 0).all(axis=None)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_zero_at_times_is_not_multiplied(seed: int) -> None:
    rng = np.random.default_rng(seed)
    promotion = (rng.random(300) < 0.3).astype(float)
    sales = rng.poisson(1.2 + promotion) * 1.0
    stamps = pd.date_range("2024-01-01", periods=300, freq="D")
    table = pd.DataFrame({"ds": stamps, "y": sales, "promotion": promotion})
    fitted = TimeSeriesMAE(**SMALL, target_cols=["y"], future_cols=["promotion"]).fit(table)
    assert (sales == 0).any() and not fitted.regressors_.multiplies
