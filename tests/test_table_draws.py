"""Draws of `TabMAE`: values that many cells share are drawn as often as they are there."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tabmae import TabMAE

N_ROWS, N_DRAWS = 1_000, 10


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, pd.DataFrame, list[pd.DataFrame]]:
    """Give a table of counts, switches and amounts that are zero half of the time, its holes, and draws of these."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, N_ROWS))
    is_zero = rng.random(N_ROWS) < 1 / (1 + np.exp(-x))
    whole = pd.DataFrame(
        {
            "x": x,
            "y": y,
            "kids": rng.choice([0.0, 1.0, 2.0, 3.0], N_ROWS, p=[0.6, 0.2, 0.15, 0.05]),
            "smoker": (rng.random(N_ROWS) < 0.2).astype(float),
            "claim": np.where(is_zero, 0, np.exp(0.5 * y + 0.3 * rng.normal(size=N_ROWS))),
        }
    )
    holed = whole.mask((rng.random(whole.shape) < 0.3) & ~whole.columns.isin(["x", "y"]))
    draws = TabMAE(random_state=0).fit(holed).sample(holed, N_DRAWS, random_state=0)
    return whole, holed, draws


def shares(table: pd.DataFrame | pd.Series, value: float) -> float:
    return float((table == value).mean())


@pytest.mark.parametrize("column", ["kids", "smoker"])
def test_few_values_that_nothing_tells_are_drawn_as_often_as_they_are(
    drawn: tuple[pd.DataFrame, pd.DataFrame, list[pd.DataFrame]], column: str
) -> None:
    whole, holed, draws = drawn
    hidden = holed[column].isna()
    for value in whole[column].unique():
        found = np.mean([shares(draw.loc[hidden, column], value) for draw in draws])
        assert found == pytest.approx(shares(holed.loc[~hidden, column], value), abs=0.03)


def test_zeros_that_another_column_tells_are_drawn_as_often_as_they_are(
    drawn: tuple[pd.DataFrame, pd.DataFrame, list[pd.DataFrame]],
) -> None:
    whole, holed, draws = drawn
    hidden = holed["claim"].isna()
    likely, unlikely = (
        np.mean([shares(draw.loc[rows, "claim"], 0) for draw in draws])
        for rows in (hidden & (whole["x"] > 0.7), hidden & (whole["x"] < -0.7))
    )
    assert np.mean([shares(draw.loc[hidden, "claim"], 0) for draw in draws]) == pytest.approx(
        float((1 / (1 + np.exp(-whole.loc[hidden, "x"]))).mean()), abs=0.05
    )
    assert likely > 0.55 and unlikely < 0.42, "truly .76 and .23"


def test_zeros_of_amounts_that_are_far_from_normal_are_drawn_as_often_as_they_are() -> None:
    rng, n = np.random.default_rng(1), 600
    a, b = rng.normal(size=(2, n))
    price = np.where(a + 0.5 * rng.normal(size=n) > 0.3, np.exp(3 + b + 0.3 * rng.normal(size=n)), 0)
    hidden = rng.random(n) < 0.3
    holed = pd.DataFrame({"a": a, "b": b, "price": np.where(hidden, np.nan, price)})
    imputer = TabMAE(random_state=0).fit(holed)
    drawn = np.stack([draw["price"] for draw in imputer.sample(holed, N_DRAWS)])[:, hidden]
    for rows, off in ((a > -9, 0.05), (a > 0, 0.1), (a < 0, 0.1)):
        truth = norm.cdf((0.3 - a[hidden & rows]) / 0.5).mean()
        assert (drawn[:, rows[hidden]] == 0).mean() == pytest.approx(truth, abs=off)


def test_cells_that_only_some_rows_have_are_drawn_last_and_tell_the_others_nothing() -> None:
    rng = np.random.default_rng(0)
    age, smokes = rng.uniform(18, 80, 800), rng.random(800) < 0.3
    cigarettes = np.where(smokes, 1.0 + rng.poisson(12, 800), 0.0)
    years = np.where(smokes, (age - 16) * rng.uniform(0.3, 1, 800), np.nan)
    whole = pd.DataFrame(
        {"age": age, "smokes": np.where(smokes, "yes", "no"), "cigarettes": cigarettes, "years": years}
    ).astype({"smokes": "category"})
    which = rng.random(800)
    holed = whole.assign(
        smokes=whole["smokes"].where(which > 0.2),
        cigarettes=whole["cigarettes"].where((which < 0.2) | (which > 0.5)),
    )
    draws = TabMAE(max_epochs=60, random_state=0).fit(holed).sample(holed, 4, random_state=0)
    asked = holed["cigarettes"].isna() & (holed["smokes"] == "no")
    unknown = holed["smokes"].isna()
    assert np.mean([(draw["cigarettes"] > 0)[asked].mean() for draw in draws]) < 0.04
    found = np.mean([(draw["smokes"] == "yes")[unknown].mean() for draw in draws])
    assert found == pytest.approx(smokes[unknown].mean(), abs=0.03)
