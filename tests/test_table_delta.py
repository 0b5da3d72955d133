"""`TabMAE.sample` with `delta`: imputed numbers are moved by so many standard deviations, and nothing else is."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from generated import correlated, with_holes
from sklearn.exceptions import NotFittedError

from tabmae.errors import ParameterError
from tabmae.estimators.table import TabMAE

NUMBERS = ["x", "weight", "n", "steps", "day"]
OTHERS = ["city", "flag", "size"]


def test_no_shift_gives_the_very_draws_of_the_plain_call(mixed: pd.DataFrame, model: TabMAE) -> None:
    plain = model.sample(mixed, n_samples=2, random_state=3)
    for delta in (0, -0.0, {}, {"x": 0.0, "n": 0}):
        for one, other in zip(plain, model.sample(mixed, 2, 3, delta), strict=True):
            pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("delta", [1.5, -0.5])
def test_imputed_numbers_move_by_deviations_of_the_observed_cells(
    mixed: pd.DataFrame, model: TabMAE, delta: float
) -> None:
    missing = mixed.isna()
    for plain, moved in zip(
        model.sample(mixed, 2, random_state=3), model.sample(mixed, 2, random_state=3, delta=delta), strict=True
    ):
        pd.testing.assert_frame_equal(moved.mask(missing), mixed, check_exact=True)
        pd.testing.assert_frame_equal(moved[OTHERS], plain[OTHERS], check_exact=True)
        for name in ("x", "weight"):
            shift = (moved[name] - plain[name])[missing[name]]
            np.testing.assert_allclose(shift, delta * mixed[name].astype(float).std(ddof=0), rtol=1e-4)


def test_whole_numbers_and_days_move_and_stay_whole(mixed: pd.DataFrame, model: TabMAE) -> None:
    (plain,), (moved,) = (model.sample(mixed, 1, random_state=3, delta=delta) for delta in (0.0, 0.8))
    assert moved.dtypes.equals(mixed.dtypes)
    for name, unit in (("n", 1), ("steps", 1), ("day", pd.Timedelta(days=1))):
        missing = mixed[name].isna()
        shift = ((moved[name] - plain[name])[missing] / unit).astype(float)
        deviation = float(
            (mixed[name].dropna().astype(float) if unit == 1 else mixed[name].dropna()).std(ddof=0) / unit
        )
        assert (shift % 1 == 0).all() and ((shift - 0.8 * deviation).abs() <= 1).all()


@pytest.mark.parametrize("delta", [0.1, 0.4, -0.3])
def test_whole_numbers_and_days_move_as_far_on_the_mean_as_asked(delta: float) -> None:
    rng = np.random.default_rng(0)
    drawn = np.round(3 + rng.normal(size=400))
    table = pd.DataFrame({"n": drawn, "k": pd.array(drawn.astype(int), dtype="Int8")})
    table["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(drawn, unit="D")
    table.loc[rng.random(400) < 0.6, :] = None
    table.loc[rng.random(400) < 0.2, "n"] = 3.0
    model = TabMAE(max_epochs=1, d_token=4, random_state=0).fit(table)
    (plain,), (moved,) = (model.sample(table, 1, random_state=1, delta=each) for each in (0.0, delta))
    for name, unit in (("n", 1), ("k", 1), ("day", pd.Timedelta(days=1))):
        missing = table[name].isna()
        steps = ((moved[name] - plain[name])[missing] / unit).astype(float)
        told = delta * float((table[name].dropna() - table[name].min()).std(ddof=0) / unit)
        assert steps.mean() == pytest.approx(told, abs=0.1) and set(steps) <= {np.floor(told), np.ceil(told)}


def test_moved_cells_leave_the_range_of_the_observed_ones(mixed: pd.DataFrame, model: TabMAE) -> None:
    (high,), (low,) = (model.sample(mixed, 1, delta=delta) for delta in (20.0, -20.0))
    for name in NUMBERS:
        missing = mixed[name].isna()
        assert (high[name][missing] > mixed[name].max()).all() and (low[name][missing] < mixed[name].min()).all()


def test_a_dict_moves_the_columns_that_it_names_and_no_other(mixed: pd.DataFrame, model: TabMAE) -> None:
    deltas: tuple[Any, ...] = (0, 2, {"weight": np.float16(2), "day": np.int8(2)})
    plain, everywhere, some = (model.sample(mixed, 1, random_state=3, delta=delta)[0] for delta in deltas)
    for name in mixed:
        expected = everywhere if name in ("weight", "day") else plain
        pd.testing.assert_series_equal(some[name], expected[name], check_exact=True)
    assert not some["day"].equals(plain["day"])


def test_columns_of_an_array_are_named_by_their_positions() -> None:
    rows = with_holes(correlated(60, n_columns=3))
    model = TabMAE(max_epochs=1, d_token=4, random_state=0).fit(rows)
    shift = model.sample(rows, 1, delta={1: 3.0})[0] - model.sample(rows, 1)[0]
    missing = np.isnan(rows)
    np.testing.assert_allclose(shift[missing[:, 1], 1], 3 * np.nanstd(rows[:, 1]))
    assert (shift[:, [0, 2]] == 0).all() and (shift[~missing] == 0).all()


def test_a_constant_stays_and_a_type_holds_what_it_can() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "same": np.where(rng.random(60) < 0.3, np.nan, 7.0),
            "small": pd.array(rng.integers(100, 256, 60), dtype="UInt8"),
            "vast": np.floor(rng.normal(size=60) * 1e307),
        }
    )
    table.loc[::4, ["small", "vast"]] = None
    model = TabMAE(max_epochs=1, d_token=4, random_state=0).fit(table)
    for delta, edge in ((1000.0, 255), (-1000.0, 0), (1e308, 255)):
        (moved,) = model.sample(table, 1, delta=delta)
        assert (moved["same"] == 7).all() and (moved["small"][::4] == edge).all()
        assert np.isfinite(moved["vast"]).all()


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (np.nan, "`delta` must be a finite number; got nan. Pass standard deviations"),
        (np.inf, "`delta` must be a finite number; got inf"),
        ("1", "`delta` must be a finite number; got '1'"),
        (None, "`delta` must be a finite number; got None"),
        ([1.0], "`delta` must be a finite number; got"),
        (
            {"age": 1.0, "x": 1.0, "city": 1.0},
            "`delta` must name columns of numbers or times in fit; got 'age', 'city'. Such columns are 'x', 'weight'",
        ),
        ({"flag": 1.0}, "`delta` must name columns of numbers or times in fit; got 'flag'"),
        ({"x": np.nan}, r"`delta\['x'\]` must be a finite number; got nan. Pass standard deviations of the column"),
        ({"x": True}, r"`delta\['x'\]` must be a finite number; got True"),
    ],
)
def test_a_wrong_shift_is_refused_before_the_table_is_looked_at(model: TabMAE, delta: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{message}"):
        model.sample(None, delta=delta)


def test_a_column_that_fit_saw_nothing_of_cannot_be_named() -> None:
    table = pd.DataFrame({"city": ["Oslo", "Rome", None] * 10, "nothing": np.nan})
    with pytest.warns(UserWarning, match="^Columns 'nothing'"):
        model = TabMAE(max_epochs=1, d_token=4, random_state=0).fit(table)
    with pytest.raises(ParameterError, match="^`delta` must name.* got 'nothing'. Such columns are absent"):
        model.sample(table, delta={"nothing": 1.0})
    assert model.sample(table, 1, delta=1.0)[0]["city"].notna().all()


def test_a_model_that_is_not_fitted_says_so(mixed: pd.DataFrame) -> None:
    with pytest.raises(NotFittedError):
        TabMAE().sample(mixed, delta={"x": 1.0})
