"""Claims about forecasts of histories that hold a week of days but two or three times."""

import numpy as np
import pandas as pd
import pytest
from generated_series import rooted

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.regressors import early_steps
from tabmae.estimators.series.sizes import cycle_of

pytestmark = pytest.mark.usefixtures("no_bridges")

STEPS_A_DAY = 12


def days(n_days: int, drop: float, seed: int = 0) -> pd.DataFrame:
    """Draw steps of two hours, lower by `drop` at weekends; noise of .5."""
    rng = np.random.default_rng(seed)
    step = np.arange(STEPS_A_DAY * n_days)
    stamps = pd.date_range("2024-01-01", periods=len(step), freq="2h", name="ds")
    wave = 4 * np.sin(2 * np.pi * step / STEPS_A_DAY) - drop * (stamps.day_of_week >= 5)
    return pd.DataFrame({"y": 20 + wave + rng.normal(0, 0.5, len(step))}, index=stamps)


def ahead(whole: pd.DataFrame, n_days: int = 2) -> tuple[TimeSeriesMAE, pd.DataFrame, np.ndarray]:
    """Forecast the last days from those before: the model, the forecast and what came."""
    horizon = STEPS_A_DAY * n_days
    model = TimeSeriesMAE(horizon=horizon, max_epochs=0, random_state=0).fit(whole[:-horizon])
    return model, model.forecast(level=[80, 95]), whole["y"][-horizon:].to_numpy()


@pytest.mark.parametrize(("n_days", "drop"), [(16, 2.0), (21, 6.0)])
def test_a_weekend_is_foretold_by_the_one_or_two_before(n_days: int, drop: float) -> None:
    errors, held = [], []
    for seed in range(2):
        whole = days(21, drop, seed)[-STEPS_A_DAY * n_days :]
        found, truth = ahead(whole)[1:]
        errors.append(rooted(found["TimeSeriesMAE"].to_numpy() - truth))
        bounds = [found[f"TimeSeriesMAE-{side}-{level}"].to_numpy() for level in (80, 95) for side in ("lo", "hi")]
        held.append([(bounds[0] <= truth) & (truth <= bounds[1]), (bounds[2] <= truth) & (truth <= bounds[3])])
    assert np.mean(errors) < 0.7  # a week before misses .7 on average, the days before all of the drop
    assert np.mean(held, (0, 2))[0] > 0.65
    assert np.mean(held, (0, 2))[1] > 0.85


def test_a_week_that_lies_ahead_is_judged_whole_where_days_are_the_season() -> None:
    for length, n_late in ((168, 84 + 0), (200, 84 + 12), (167, 33), (2000, 400)):
        assert (~early_steps((length,), cycle_of(12, (12, 84), length), horizon=12)).sum() == n_late


def test_walks_are_not_believed_to_have_a_week() -> None:
    believed = 0
    for seed in range(3):
        whole = days(16, 0.0, seed)
        whole["y"] += 0.5 * np.random.default_rng(seed + 10).standard_normal(len(whole)).cumsum()
        believed += len(ahead(whole)[0].regressors_.mean) > 0
    assert believed <= 1
