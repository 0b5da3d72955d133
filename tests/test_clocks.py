"""Cycles of times: days of the week, months and hours are told where a column follows them, and not elsewhere."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tabmae import TabMAE, load
from tabmae.estimators.clocks import check_clocks, clocks_of
from tabmae.schema import TableSchema

N_ROWS = 1_000


def days(seed: int = 0, n_rows: int = N_ROWS, zone: str | None = None) -> pd.Series:
    """Days of two years in no order."""
    drawn = np.random.default_rng(seed).integers(0, 730, n_rows)
    return pd.Series(pd.Timestamp("2022-01-01", tz=zone) + pd.to_timedelta(drawn, unit="D")).dt.normalize()


def told(frame: pd.DataFrame) -> Tensor:
    schema = TableSchema.fit(frame)
    values, observed = map(torch.from_numpy, schema.encode(frame))
    return clocks_of(schema.columns, values, observed)


def noise(seed: int = 1, n_rows: int = N_ROWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n_rows)


def test_a_column_of_weekdays_months_or_hours_tells_that_cycle() -> None:
    date = days()
    stamps = pd.Timestamp("2024-03-01") + pd.to_timedelta(
        np.random.default_rng(0).integers(0, 30 * 24 * 60, N_ROWS), "min"
    )
    tables = {
        7: pd.DataFrame({"date": date, "y": noise() - 2.0 * (date.dt.day_of_week >= 5), "z": noise(2)}),
        12: pd.DataFrame({"date": date, "y": noise() + 2 * np.cos(2 * np.pi * date.dt.day_of_year / 365)}),
        24: pd.DataFrame({"at": stamps, "open": np.where((stamps.hour >= 9) ^ (noise() > 1.5), "yes", "no")}),
    }
    for n_phases, table in tables.items():
        clocks = told(table)
        assert clocks[:, 3].tolist() == [n_phases] and clocks[:, 0].tolist() == [0]
        assert told(table.mask(np.random.default_rng(3).random(table.shape) < 0.3))[:, 3].tolist() == [n_phases]


def test_no_cycle_is_told_where_no_column_follows_one() -> None:
    for seed in range(20):
        date = days(seed)
        trend = (date - date.min()).dt.days / 100 + noise(seed)
        assert not len(told(pd.DataFrame({"date": date, "trend": trend, "level": np.where(noise(seed) > 0, "a", "b")})))
    date = days(0)
    weekly = noise() - 3.0 * (date.dt.day_of_week >= 5)
    assert not len(told(pd.DataFrame({"date": date, "y": weekly})[:12]))
    assert not len(told(pd.DataFrame({"lasts": date - date.min(), "y": weekly}))), "a duration has no weekday"
    assert not len(told(pd.DataFrame({"date": date.where(date < "2022-01-10"), "y": weekly}))), (
        "hardly more than a week"
    )


@pytest.mark.parametrize("zone", [None, "America/New_York", "Asia/Tokyo"])
def test_what_follows_the_day_of_the_week_is_imputed_by_it(zone: str | None, tmp_path: Path) -> None:
    date = days(zone=zone)
    weekday = date.dt.day_name()
    complete = pd.DataFrame({"date": date, "visitors": np.where(date.dt.day_of_week >= 5, 20, 100) + 5 * noise()})
    complete["weekday"] = weekday
    hidden = np.random.default_rng(1).random((N_ROWS, 3)) < 0.2
    hidden[:, 0] = False
    hidden[hidden[:, 1], 2] = True
    holed = complete.mask(hidden)
    fitted = TabMAE(max_epochs=5, experts=("gaussian", "trees"), random_state=0).fit(holed)
    imputed = fitted.transform(holed)
    error = (imputed["visitors"] - complete["visitors"])[hidden[:, 1]]
    assert np.sqrt((error**2).mean()) < 8
    assert (imputed["weekday"] == weekday)[hidden[:, 2]].mean() > 0.98
    assert imputed["date"].equals(complete["date"])
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.transform(holed), imputed)
    (drawn,) = again.sample(holed.mask(np.random.default_rng(2).random(holed.shape) < 0.1), 1, random_state=0)
    assert not drawn.isna().any().any()


def test_clocks_that_are_none_are_refused() -> None:
    good = torch.tensor([[0.0, -3.0, 0.01, 7.0]], dtype=torch.float64)
    check_clocks(good, (0, 2))
    for place, wrong in ((0, 1.0), (0, 9.0), (2, 0.0), (3, 1e9), (1, float("nan"))):
        clocks = good.clone()
        clocks[0, place] = wrong
        with pytest.raises(ValueError, match="^Clocks must be cycles of a column of times"):
            check_clocks(clocks, (0, 2))
    with pytest.raises(ValueError, match="^Clocks must be cycles"):
        check_clocks(torch.zeros(1, 3), (0, 2))
    check_clocks(torch.zeros(0, 4), (0, 2))


def test_a_saved_model_without_clocks_or_of_wrong_ones_is_refused() -> None:
    frame = pd.DataFrame({"x": noise(), "y": noise(2)}).mask(np.random.default_rng(0).random((N_ROWS, 2)) < 0.2)
    fitted = TabMAE(max_epochs=1, experts=("gaussian",), random_state=0).fit(frame)
    state, tensors = fitted._get_state()
    assert not len(tensors["model.tokenizer.clocks"])
    other = TabMAE(**fitted.get_params())
    other._set_state(state, tensors)
    pd.testing.assert_frame_equal(other.transform(frame), fitted.transform(frame))
    with pytest.raises(KeyError, match="tokenizer.clocks"):
        other._set_state(state, {name: tensors[name] for name in tensors if name != "model.tokenizer.clocks"})
    with pytest.raises(ValueError, match="^Clocks must be cycles"):
        other._set_state(state, {**tensors, "model.tokenizer.clocks": torch.ones(1, 4)})
