"""Numbers beyond the range of the observed cells: where the Gaussian is followed, and which ends are bounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tabmae
from tabmae.estimators.table import TabMAE, imputer
from tabmae.estimators.table.beyond import reach
from tabmae.schema import TableSchema

SETTINGS: dict[str, Any] = {"max_epochs": 3, "d_token": 4, "experts": ("gaussian",), "random_state": 0}


def line(noise: float = 0.05, shift: float = 10.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw columns on a line, all positive; the second is missing where the first is high. Also give the truth."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    truth = pd.DataFrame({"x": shift + x, "y": shift + x + noise * rng.normal(size=400), "z": rng.normal(size=400)})
    return truth.assign(y=truth["y"].mask(x > 0.8)), truth


def fitted(table: pd.DataFrame) -> TabMAE:
    return TabMAE(**SETTINGS).fit(table)


@pytest.fixture(scope="module")
def straight() -> TabMAE:
    return fitted(line()[0])


def test_cells_that_are_missing_because_they_are_high_are_imputed_beyond_the_range(straight: TabMAE) -> None:
    table, truth = line()
    missing = table["y"].isna()
    above = missing & (truth["y"] > table["y"].max() + 0.3)
    imputed = straight.transform(table)["y"]
    assert above.sum() > 20
    error, clamped = ((truth["y"] - guess)[above].pow(2).mean() ** 0.5 for guess in (imputed, table["y"].max()))
    assert error < 0.2 * clamped


def test_a_guess_that_is_not_sure_stays_within_the_range() -> None:
    table, _ = line(noise=2.0)
    table.loc[:, "y"] = table["y"].clip(upper=table["y"].quantile(0.6) + 1e-3 * np.arange(400) / 400)
    imputed = fitted(table).transform(table)["y"]
    scale = table["y"].std()
    assert (imputed <= table["y"].max() + 0.1 * scale).all()


def test_draws_and_intervals_go_beyond_the_range_with_the_imputed_cell(straight: TabMAE) -> None:
    table, truth = line()
    far = table["y"].isna() & (truth["y"] > table["y"].max() + 0.5)
    drawn = np.mean([draw["y"][far] for draw in straight.sample(table, n_samples=5)], axis=0)
    assert np.abs(drawn - truth["y"][far]).mean() < 0.3
    _, upper = straight.predict_interval(table)
    assert (upper["y"][far] > straight.transform(table)["y"][far]).all()
    inside = table["y"].notna()
    hidden = table.assign(y=table["y"].mask(inside & (table["x"] < 10)))
    rows = hidden["y"].isna() & inside
    for draw in straight.sample(hidden, n_samples=3):
        assert draw["y"][rows].between(table["y"].min(), table["y"].max()).mean() > 0.98


def test_an_imputed_number_lies_no_further_outside_than_the_range_is_wide(straight: TabMAE) -> None:
    low, high = line()[0]["y"].agg(["min", "max"])
    rows = pd.DataFrame({"x": [100.0, -100.0], "y": [np.nan, np.nan], "z": [0.0, 0.0]})
    above, below = straight.transform(rows)["y"]
    farthest, lowest = 2 * high - low, max(2 * low - high, 0)
    assert 0.98 * farthest < above <= farthest and lowest <= below < low - 0.95 * (low - lowest)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_column_of_one_sign_keeps_it(sign: int) -> None:
    table = sign * line(shift=4.5)[0]
    assert (sign * table["y"]).min() > 0
    imputed = fitted(table).transform(pd.DataFrame({"x": [sign * -50.0], "y": [np.nan], "z": [0.0]}))["y"]
    assert 0 <= sign * imputed[0] < 0.25 * (sign * table["y"]).min()


def reached(y: pd.Series) -> tuple[float, float]:
    """How far below and above the range of a column imputed numbers may lie, in standard deviations."""
    schema = TableSchema.fit(y.to_frame())
    found = reach(schema.columns, *map(torch.from_numpy, schema.encode(y.to_frame())))
    return float(found.low[0] - found.least[0]), float(found.most[0] - found.high[0])


def test_ends_that_several_cells_share_whole_numbers_times_and_scales_are_bounds() -> None:
    free = line()[0]["z"]
    width = (free.max() - free.min()) / free.std(ddof=0)
    assert reached(free) == pytest.approx((width, width), rel=1e-4)
    capped = reached(free.clip(upper=free.nlargest(2).iloc[1]))
    assert capped[0] > 1 and capped[1] == 0
    assert reached(free.abs())[0] < 0.01 < 1 < reached(free.abs())[1]
    whole = (10 * free).round()
    scale = (free.rank() // 30).div(4)
    assert scale.nunique() < 16 and (scale == scale.max()).sum() > 1
    scale.iloc[0], scale.iloc[1] = 9.25, -9.25
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(free * 1e6, unit="s")
    for bounded in (whole, scale, times, pd.Series(1.5, index=free.index)):
        assert reached(bounded) == (0, 0)
    levels = reach(TableSchema.fit(pd.DataFrame({"y": list("ab")})).columns, torch.zeros(2, 1), torch.ones(2, 1).bool())
    assert all(torch.isinf(end).all() for end in levels)


def test_a_loaded_model_goes_as_far(straight: TabMAE, tmp_path: Path) -> None:
    straight.save(tmp_path / "model")
    table = line()[0]
    pd.testing.assert_frame_equal(
        tabmae.load(tmp_path / "model").transform(table), straight.transform(table), check_exact=True
    )
    assert straight.transform(table)["y"].max() > table["y"].max() + 0.5


def test_a_reach_that_ends_within_the_range_is_refused(straight: TabMAE) -> None:
    state, tensors = straight._get_state()
    with pytest.raises(ValueError, match="^Numbers must reach as far"):
        TabMAE(**SETTINGS)._set_state(state, {**tensors, "reach.most": tensors["reach.least"]})


def curve(n_rows: int = 500) -> pd.DataFrame:
    x = np.random.default_rng(0).uniform(0, 10, n_rows)
    return pd.DataFrame({"x": x, "y": 3 * x**2 + np.random.default_rng(1).normal(size=n_rows), "z": -x})


def asked(x: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"x": x, "y": np.nan, "z": np.nan})


def test_bounds_and_draws_widen_beside_cells_outside_their_range() -> None:
    model = TabMAE(max_epochs=30, random_state=0).fit(curve())
    x = [5.0, 9.9, 12.0, 15.0, 20.0]
    lower, upper = model.predict_interval(asked(x))
    width, truth = (upper - lower)["y"].to_numpy(), 3 * np.array(x) ** 2
    assert width[1] < 4 * width[0] and (np.diff(width[1:]) > 3 * width[1]).all()
    assert ((lower["y"] < truth) & (upper["y"] > truth)).all()
    draws = np.std([draw["y"] for draw in model.sample(asked([9.9, 15.0]), 60, random_state=0)], axis=0)
    assert draws[1] > 3 * draws[0]
    assert (lower["z"] < upper["z"]).all()


def test_bounds_beside_cells_within_their_range_are_as_if_nothing_were_outside() -> None:
    model = fitted(curve())
    inside = asked([0.5, 5.0, 9.5])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imputer, "doubted", lambda model, distribution, batch, reach: distribution)
        plain = model.predict_interval(inside)
    beside = model.predict_interval(pd.concat([inside, asked([40.0])], ignore_index=True))
    for side, other in zip(plain, beside, strict=True):
        pd.testing.assert_frame_equal(side, other.head(3), check_exact=True)


def test_bounds_that_a_column_has_hold_beside_cells_outside_their_range() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, 500)
    table = pd.DataFrame(
        {"x": x, "share": (10 * x + rng.normal(size=500)).clip(0, 80), "amount": x + 0.1 * rng.random(500)}
    )
    lower, upper = fitted(table).predict_interval(pd.DataFrame({"x": [-9.0, 30.0], "share": np.nan, "amount": np.nan}))
    assert (lower["share"] >= 0).all() and (upper["share"] <= 80).all()
    assert (lower["amount"] >= 0).all() and upper["amount"][1] > 20
