"""Numbers that a gap sets apart: slips and other units are found, heavy tails and rare kinds of rows are not."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from tabmae import TabMAE, TabMAEDetector, TabMAERegressor, load
from tabmae.schema import TableSchema, apart
from tabmae.schema.apart import outside, set_apart

N_ROWS = 400


def normal(seed: int = 0) -> np.ndarray:
    """A column of heights."""
    return np.random.default_rng(seed).normal(170.0, 8.0, N_ROWS)


def people(n_slips: int = 4, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give a table of which some weights came in grams, and the same without holes and slips."""
    rng = np.random.default_rng(seed)
    build = rng.normal(size=N_ROWS)
    whole = pd.DataFrame({
        "height": 170 + 8 * build + rng.normal(0, 3, N_ROWS),
        "weight": 70 + 9 * build + rng.normal(0, 4, N_ROWS),
        "girth": 90 + 6 * build + rng.normal(0, 3, N_ROWS),
    })  # fmt: skip
    holed = whole.mask(rng.random(whole.shape) < 0.2)
    slips = np.flatnonzero(holed["weight"].notna())[:n_slips]
    holed.loc[slips, "weight"] *= 1_000
    return holed, whole


@pytest.mark.parametrize("factor", [10.0, 1_000.0, -1_000.0])
def test_other_units_are_set_apart(factor: float) -> None:
    numbers = normal()
    numbers[:6] *= factor
    found = set_apart({3: numbers, 5: normal(1)}, {})
    assert list(found) == [3]
    assert np.flatnonzero(outside(numbers, found[3])).tolist() == list(range(6))


def test_a_heavy_tail_is_not_set_apart() -> None:
    rng = np.random.default_rng(0)
    for sigma in (1.0, 2.0, 3.0):
        for _ in range(100):
            assert not set_apart({0: np.exp(sigma * rng.normal(size=N_ROWS))}, {})
    for degrees in (2, 3, 30):
        assert sum(len(set_apart({0: rng.standard_t(degrees, N_ROWS)}, {})) for _ in range(100)) <= 2


def test_more_than_a_few_are_a_kind_of_their_own() -> None:
    numbers = normal()
    numbers[:16] *= 1_000
    assert not set_apart({0: numbers}, {})
    assert not set_apart({0: np.append(np.zeros(300), normal()[:8])}, {})


def test_what_another_column_tells_is_not_set_apart() -> None:
    numbers, other = normal(), normal(1)
    codes = np.zeros(N_ROWS, dtype=np.int64)
    numbers[:6] *= 1_000
    assert set_apart({0: numbers, 1: other}, {2: codes})
    codes[:6] = 1
    assert not set_apart({0: numbers, 1: other}, {2: codes})
    assert not set_apart({0: numbers, 1: np.where(np.arange(N_ROWS) < 6, other + 40, other)}, {})
    # Rows that are slips as a whole tell of each other nothing.
    assert list(set_apart({0: numbers, 1: np.where(np.arange(N_ROWS) < 6, other * 1_000, other)}, {})) == [0, 1]


def test_each_column_is_ranked_once_however_many_have_cells_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[int] = []

    def counted(numbers: np.ndarray) -> np.ndarray:
        ranked.append(len(numbers))
        return rankdata(numbers)

    monkeypatch.setattr(apart, "rankdata", counted)
    columns = {place: normal(place) for place in range(8)}
    for place, column in columns.items():
        column[10 * place : 10 * place + 5] *= 1_000
    assert list(set_apart(columns, {})) == list(columns) and len(ranked) == len(columns)


@pytest.fixture(scope="module")
def imputer() -> TabMAE:
    with pytest.warns(UserWarning, match=r"'weight' \(4 of them, such as \[?\d+"):
        return TabMAE(random_state=0, max_epochs=20).fit(people()[0])


def test_slips_come_back_and_move_no_other_cell(imputer: TabMAE) -> None:
    holed, whole = people()
    completed = imputer.transform(holed)
    known = holed.notna()
    pd.testing.assert_frame_equal(completed.where(known), holed)
    error = ((completed - whole) / whole.std()).where(~known)
    assert error.abs().max().max() < 3
    assert np.sqrt((error**2).mean()).max() < 0.8
    slip = holed["weight"] > 1_000
    without = holed.mask(pd.DataFrame(slip.to_numpy()[:, None] & (holed.columns == "weight"), columns=holed.columns))
    beside = imputer.transform(without)
    columns = ["height", "girth"]
    pd.testing.assert_frame_equal(completed[columns], beside[columns])
    lower, upper = imputer.predict_interval(without)
    assert (upper["weight"] - lower["weight"]).max() < 60


def test_an_absurd_cell_of_a_new_row_says_as_much_as_a_missing_one() -> None:
    _, whole = people()
    imputer = TabMAE(random_state=0, max_epochs=10).fit(whole)
    asked = whole.iloc[:50].assign(weight=np.nan)
    expected = imputer.transform(asked.assign(height=np.nan))["weight"]
    for height in (1_800.0, 1.8e6):  # twenty times as far outside as the range is wide is 1,100
        with pytest.warns(UserWarning, match=r"far outside of all that fit saw: 'height' \(50 of them, such as 1"):
            given = imputer.transform(asked.assign(height=height))
        assert (given["height"] == height).all()
        np.testing.assert_allclose(given["weight"], expected, rtol=1e-5)
    beyond = imputer.transform(asked.assign(height=whole["height"].max() + 5))["weight"]
    assert beyond.mean() > expected.mean() + 15


def test_numbers_that_are_not_believed_are_told_of_once(imputer: TabMAE) -> None:
    holed, whole = people()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imputer.transform(holed)  # fit has warned of its slips
        imputer.transform(whole.assign(weight=whole["weight"] + 40))
    with pytest.warns(UserWarning, match=r"fit saw: 'height' \(399 of them, .*, 'weight' \(400 of them, .*") as told:
        imputer.transform(whole.assign(height=10 * whole["height"], weight=1_000 * whole["weight"]))
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"where a column has moved that far, fit again"):
        deepcopy(imputer).partial_fit(whole.assign(height=whole["height"] + 5_000))


def test_what_is_believed_is_saved(imputer: TabMAE, tmp_path: Path) -> None:
    imputer.save(tmp_path / "people.tabmae")
    holed, _ = people()
    pd.testing.assert_frame_equal(load(tmp_path / "people.tabmae").transform(holed), imputer.transform(holed))


def test_a_detector_finds_slips_all_the_same(imputer: TabMAE) -> None:
    _, whole = people(n_slips=0)
    odd = whole.iloc[:5].assign(weight=70_000.0)
    for pretrained in (None, imputer):
        detector = TabMAEDetector(pretrained=pretrained, max_epochs=10, random_state=0).fit(whole.iloc[5:])
        assert (detector.p_value(odd) < 0.05).all()


def test_a_regressor_does_not_follow_a_feature_out_of_sight() -> None:
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.normal(size=(200, 3))).add_prefix("x")
    target = 3 * features["x0"] - features["x1"] + rng.normal(0, 0.3, 200)
    model = TabMAERegressor(random_state=0, max_epochs=10).fit(features, target)
    width = np.ptp(target)
    odd = features.iloc[:20].assign(x0=60.0)
    assert np.ptp(np.append(model.predict(odd), target)) < 4 * width


def test_a_date_apart_is_named_as_one_however_far() -> None:
    days = np.datetime64("2024-01-01", "s") + np.arange(100) * np.timedelta64(86_400, "s")
    for year in ("2903", "99999"):
        dates = days.copy()
        dates[3] = np.datetime64(f"{year}-05-01", "s")
        with pytest.warns(UserWarning, match=rf"'day' \(1 of them, such as '{year}-05-01T00:00:00'\)"):
            schema = TableSchema.fit(pd.DataFrame({"day": dates}), doubting=True)
        assert schema.encode(pd.DataFrame({"day": dates}))[1].sum() == 99
