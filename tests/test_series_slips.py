"""Rare cells far outside of their series: nothing is learnt or told from them, and none of them is lost."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.slips import without_slips
from tabmae.windows import Panel, SeriesSchema

pytestmark = pytest.mark.usefixtures("few_structures")

N_STEPS = 400
STAMPS = pd.date_range("2024-01-01", periods=N_STEPS + 24, freq="h")
SMALL: dict[str, Any] = {"horizon": 24, "max_epochs": 1, "random_state": 0}


def wave(seed: int = 0) -> np.ndarray:
    """A daily wave with noise, and the day after it."""
    steps = np.arange(N_STEPS + 24)
    return 10 + np.sin(2 * np.pi * steps / 24) + 0.1 * np.random.default_rng(seed).normal(size=len(steps))


def framed(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"v": values}, index=STAMPS[: len(values)])


def holed() -> np.ndarray:
    values = wave()[:N_STEPS].copy()
    values[np.random.default_rng(1).random(N_STEPS) < 0.2] = np.nan
    values[380:] = wave()[380:N_STEPS]
    return values


def slipped(value: float = -9999.0, place: int = 390) -> np.ndarray:
    values = holed()
    values[place] = value
    return values


@pytest.fixture(scope="module")
def clean() -> TimeSeriesMAE:
    return TimeSeriesMAE(**SMALL).fit(framed(holed()))


@pytest.fixture(scope="module")
def learnt_with_a_slip() -> TimeSeriesMAE:
    return TimeSeriesMAE(**SMALL).fit(framed(slipped()))


def missed(found: pd.DataFrame) -> float:
    return float(np.abs(found["TimeSeriesMAE"] - wave()[N_STEPS:]).mean())


def test_a_slip_in_fit_is_not_learnt(clean: TimeSeriesMAE, learnt_with_a_slip: TimeSeriesMAE) -> None:
    assert missed(clean.forecast()) < 0.3
    assert missed(learnt_with_a_slip.forecast()) < 1.1 * missed(clean.forecast())
    widths = [
        (found["TimeSeriesMAE-hi-80"] - found["TimeSeriesMAE-lo-80"]).mean()
        for found in (clean.forecast(), learnt_with_a_slip.forecast())
    ]
    assert widths[1] < 1.1 * widths[0]


def test_a_slip_in_a_history_is_not_gone_on_from(clean: TimeSeriesMAE) -> None:
    assert missed(clean.forecast(framed(slipped()))) < 1.1 * missed(clean.forecast())
    told = clean.sample(framed(slipped()), n_samples=1, horizon=24)[0]
    assert np.abs(told["TimeSeriesMAE"] - wave()[N_STEPS:]).mean() < 0.5


def test_gaps_beside_a_slip_are_filled_as_without_it_and_the_slip_stays(clean: TimeSeriesMAE) -> None:
    table = slipped(place=200)
    gaps = np.isnan(table)
    filled = clean.impute(framed(table))["v"].to_numpy()
    assert filled[200] == -9999.0
    np.testing.assert_array_equal(filled[~gaps], table[~gaps])
    assert np.abs(filled - wave()[:N_STEPS])[gaps].mean() < 0.2
    for bound in (*clean.predict_interval(framed(table)), *clean.sample(framed(table), n_samples=1)):
        np.testing.assert_array_equal(bound["v"].to_numpy()[~gaps], table[~gaps])


def test_cells_that_float32_cannot_hold_say_nothing_and_are_found(clean: TimeSeriesMAE) -> None:
    filled = holed()
    filled[[100, 150, 200]] = 9.97e36
    gaps, known = np.isnan(filled), np.isfinite(filled)
    completed = clean.impute(framed(filled))["v"].to_numpy()
    np.testing.assert_array_equal(completed[known], filled[known])
    assert np.abs(completed - wave()[:N_STEPS])[gaps].mean() < 0.2
    assert missed(clean.forecast(framed(filled))) < 1.1 * missed(clean.forecast())
    points = clean.detect(framed(filled)).points
    assert points["flag"].to_numpy()[[100, 150, 200]].all() and np.isfinite(points["score"][known]).all()


@pytest.mark.parametrize("size", [50.0, 1e3, 1e6])
def test_a_slip_is_the_one_odd_step(clean: TimeSeriesMAE, size: float) -> None:
    values = wave(seed=3)[:N_STEPS].copy()
    values[200] += size
    found = clean.detect(framed(values), alpha=0.001)
    assert np.flatnonzero(found.points["flag"]).tolist() == [200]
    assert found.points["expected"].iloc[200] == pytest.approx(wave(seed=3)[200], abs=0.5)


def test_a_slip_of_fit_is_found_in_fit(learnt_with_a_slip: TimeSeriesMAE) -> None:
    assert learnt_with_a_slip.detect(framed(slipped())).points["flag"].iloc[390]


def test_a_backtest_forecasts_without_slips_and_scores_with_them(clean: TimeSeriesMAE) -> None:
    values = np.concatenate([wave()[:N_STEPS], wave()[N_STEPS:]])
    values[N_STEPS - 5] = -9999.0
    found = clean.backtest(framed(values), n_windows=1)
    assert found.metrics["mae"].iloc[0] < 0.3
    values[N_STEPS + 5] = -9999.0
    assert clean.backtest(framed(values), n_windows=1).metrics["mae"].iloc[0] > 100


def panel_of(*series: list[float]) -> Panel:
    frame = pd.concat(
        [pd.DataFrame({"unique_id": str(i), "ds": range(len(each)), "y": each}) for i, each in enumerate(series)]
    )
    return SeriesSchema.fit(frame).read(frame)


NOISE = np.random.default_rng(0).normal(size=3000).tolist()


@pytest.mark.parametrize(
    "series",
    [
        pytest.param([*NOISE[:60], 8.0], id="far but not that far"),
        pytest.param([*NOISE[:60], 500.0, 500.0], id="two of sixty"),
        pytest.param([*NOISE, *[500.0] * 4], id="four of three thousand"),
        pytest.param([0.0] * 60 + [7.0], id="hardly ever anything"),
        pytest.param([*NOISE[:48], 500.0], id="too short to say"),
        pytest.param(np.exp(np.arange(60) / 4).tolist(), id="exponential growth"),
        pytest.param([*NOISE[:60], *np.add(NOISE[60:80], 500).tolist()], id="a level that has moved"),
    ],
)
def test_what_may_be_how_a_series_is_stays(series: list[float]) -> None:
    assert np.array_equal(without_slips(panel_of(series)).values[:, 0], series)


def test_each_series_has_quartiles_of_its_own() -> None:
    small, large = NOISE[:50], (100 * np.array(NOISE[50:100])).tolist()
    found = without_slips(panel_of([*small, 90.0], [*large, 90.0])).values[:, 0]
    assert np.isnan(found[50]) and np.isfinite(np.delete(found, 50)).all()


def test_three_of_three_thousand_are_slips() -> None:
    found = without_slips(panel_of([*NOISE, *[500.0] * 3])).values[:, 0]
    assert np.isnan(found[-3:]).all() and np.isfinite(found[:-3]).all()
