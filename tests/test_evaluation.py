"""`evaluate` hides the same cells from every method and scores what the methods give back."""

from typing import Any, Self

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tabmae.errors import DataError, ParameterError
from tabmae.estimators.series import TimeSeriesMAE
from tabmae.estimators.table import TabMAE
from tabmae.evaluation import RESULT, Baseline, evaluate
from tabmae.schema import missing_cells

N_ROWS = 120


class Oracle(BaseEstimator):
    """Imputes from the whole table, found by its row numbers; keeps what it was given."""

    def __init__(self, truth: Any = None, error: float = 0.0) -> None:
        self.truth = truth
        self.error = error

    def fit(self, X: pd.DataFrame) -> Self:
        SEEN.append(("fit", X))
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        SEEN.append(("transform", X))
        completed = self.truth.loc[X.index].copy()
        completed["x"] += self.error
        return completed


SEEN: list[tuple[str, pd.DataFrame]] = []


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(10, 3, N_ROWS)
    city = np.where(x > 11, "Oslo", np.where(x > 9, "Rome", "Bonn"))
    return pd.DataFrame({"x": x, "y": 2 * x + rng.normal(0, 1, N_ROWS), "city": city, "n": np.round(x).astype(int)})


def test_result_has_a_row_for_each_method_sample_and_column(table: pd.DataFrame) -> None:
    scores = evaluate(TabMAE(max_epochs=2, d_token=4, random_state=0), table, random_state=0)
    assert list(scores.columns) == RESULT
    keys = scores[["method", "sample", "column"]].apply(tuple, axis=1)
    methods = ["TabMAE", "mean", "knn", "iterative"]
    assert keys.tolist() == [(m, s, c) for m in methods for s in ("in", "out") for c in table]
    assert scores["kind"].tolist() == ["number", "number", "category", "number"] * 8
    number = scores["kind"] == "number"
    assert scores["nrmse"].notna().equals(number) and scores["accuracy"].notna().equals(~number)
    assert (scores.loc[scores["method"] == "mean", "skill"] == 0).all()
    counts = scores.pivot_table(index=["sample", "column"], columns="method", values="n")
    assert counts.nunique(axis=1).eq(1).all()
    assert counts.groupby("column").sum()["mean"].tolist() == [round(0.3 * N_ROWS)] * 4
    skill = scores[scores["method"].isin(["knn", "iterative"])].groupby(["method", "sample"])["skill"].mean()
    assert (skill > 0.4).all()


def test_all_methods_see_the_same_holes_and_the_others_rows_are_only_transformed(table: pd.DataFrame) -> None:
    SEEN.clear()
    evaluate(Oracle(table), table, baselines={"again": Oracle(table)}, test_size=0.25, random_state=3)
    assert [step for step, _ in SEEN] == ["fit", "transform", "transform"] * 2
    fitted, within, outside = (frame for _, frame in SEEN[:3])
    assert fitted.index.equals(within.index) and len(fitted) == 90
    assert sorted([*fitted.index, *outside.index]) == list(range(N_ROWS))
    for (_, one), (_, other) in zip(SEEN[:3], SEEN[3:], strict=True):
        pd.testing.assert_frame_equal(one, other)
    shares = [missing_cells(frame).mean(axis=0) for frame in (within, outside)]
    np.testing.assert_allclose(shares, 0.3, atol=0.13)


def test_errors_are_in_standard_deviations_of_the_known_cells(table: pd.DataFrame) -> None:
    right = evaluate(Oracle(table), table, baselines=(), random_state=0)
    assert right["accuracy"].dropna().eq(1).all() and right["skill"].eq(1).all()
    assert right["nrmse"].dropna().eq(0).all()
    wrong = evaluate(Oracle(table, error=2.0), table, baselines=(), random_state=0).set_index("column")
    np.testing.assert_allclose(wrong.loc["x", "nrmse"], 2 / table["x"].std(ddof=0), rtol=1e-5)
    assert wrong.loc["y", "nrmse"].eq(0).all()


def test_natively_missing_cells_are_never_scored(table: pd.DataFrame) -> None:
    holes = table.assign(x=table["x"].where(np.arange(N_ROWS) % 2 == 0))
    scores = evaluate(SimpleImputer(strategy="most_frequent"), holes, baselines=(), random_state=0)
    assert scores.groupby("column")["n"].sum()["x"] == round(0.3 * N_ROWS / 2)


def test_same_seed_same_scores_and_the_estimator_stays_unfitted(table: pd.DataFrame) -> None:
    model = TabMAE(max_epochs=2, d_token=4, random_state=0)
    one, other = (evaluate(model, table, baselines=["iterative"], random_state=5) for _ in range(2))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    assert not hasattr(model, "schema_")


@pytest.mark.parametrize("container", [pl.from_pandas, pa.Table.from_pandas, lambda frame: frame])
def test_the_container_does_not_matter(table: pd.DataFrame, container: Any) -> None:
    # Integers are left out: pandas' become float64 beside a hole, the others' stay whole.
    table = table.drop(columns="n")
    scores = evaluate(Baseline("knn"), container(table), baselines=["mean"], random_state=0)
    expected = evaluate(Baseline("knn"), table, baselines=["mean"], random_state=0)
    pd.testing.assert_frame_equal(scores.drop(columns="seconds"), expected.drop(columns="seconds"))


def test_an_array_is_evaluated_by_positions(table: pd.DataFrame) -> None:
    scores = evaluate(SimpleImputer(), table[["x", "y"]].to_numpy(), baselines=["mean"], random_state=0)
    assert scores["column"].tolist() == [0, 1] * 4
    np.testing.assert_allclose(scores.loc[scores["method"] == "SimpleImputer", "skill"], 0, atol=1e-6)


def test_rows_and_tensors_are_evaluated_as_their_array_is() -> None:
    array = np.random.default_rng(0).normal(size=(60, 3)).cumsum(axis=1).astype(np.float32)
    model = TabMAE(max_epochs=1, d_token=4, random_state=0)
    kept = [column for column in RESULT if column != "seconds"]
    wanted = evaluate(model, array, baselines=["mean"], random_state=0)[kept]
    rows: Any = array.tolist()
    for X in (rows, torch.from_numpy(array)):
        pd.testing.assert_frame_equal(evaluate(model, X, baselines=["mean"], random_state=0)[kept], wanted, rtol=1e-5)


def test_without_test_rows_there_is_only_the_sample_of_fit(table: pd.DataFrame) -> None:
    scores = evaluate(Baseline(), table, baselines=(), test_size=0, random_state=0)
    assert scores["sample"].unique().tolist() == ["in"]


def test_numbers_called_categories_by_the_estimator_are_scored_as_such(table: pd.DataFrame) -> None:
    model = TabMAE(max_epochs=1, d_token=4, categorical_features=["n"], random_state=0)
    scores = evaluate(model, table, baselines=["knn"], random_state=0).set_index("column")
    assert (scores.loc["n", "kind"] == "category").all() and (scores.loc["n", "accuracy"] > 0).any()


def test_columns_of_which_fit_sees_nothing_are_not_scored(table: pd.DataFrame) -> None:
    empty = table.assign(nothing=np.nan, one=[1.0] + [np.nan] * (N_ROWS - 1), same=3.0)
    with pytest.warns(UserWarning, match="^Columns 'nothing'"):
        scores = evaluate(TabMAE(max_epochs=1, d_token=4), empty, baselines=["knn"], random_state=0)
    scores = scores.set_index("column")
    assert scores.loc[["nothing", "one"], "n"].eq(0).all()
    assert scores.loc["same", "n"].gt(0).all() and scores.loc["same", ["nrmse", "skill"]].isna().all(axis=None)


def test_neighbours_vote_on_a_category() -> None:
    place = np.repeat([0.0, 10.0, 20.0], 30)
    frame = pd.DataFrame({"place": place + np.tile(np.arange(30) / 30, 3), "level": np.repeat(["a", "b", "c"], 30)})
    holes = frame.mask(np.arange(90)[:, None] % 7 == np.array([7, 0]))
    pd.testing.assert_frame_equal(Baseline("knn").fit(holes).transform(holes), frame)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_size": 1.0}, r"`test_size` must lie in \[0, 1\)"),
        ({"fraction": 0}, r"`fraction` must lie in \(0, 1\)"),
        ({"mechanism": "mcr"}, "`mechanism` must be one of.* Did you mean 'mcar'"),
        ({"baselines": "knn"}, "`baselines` must be a list of names; got 'knn'"),
        ({"baselines": ["kn"]}, "`baselines` must be one of.* Did you mean 'knn'"),
        ({"baselines": {"forest": object()}}, "'forest' must be an imputer"),
        ({"baselines": {"Oracle": "mean"}}, "`baselines` must have other names than the estimator"),
    ],
)
def test_bad_arguments_are_refused_before_any_fit(table: pd.DataFrame, arguments: dict[str, Any], message: str) -> None:
    SEEN.clear()
    with pytest.raises(ParameterError, match=f"^{message}"):
        evaluate(Oracle(table), table, **arguments)
    assert SEEN == []


def test_an_estimator_that_does_not_impute_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="^`estimator` must be an imputer, with `fit` and `transform`; got str"):
        evaluate("mean", table)
    with pytest.raises(ParameterError, match=r"^`estimator` must be an imputer.*got the class Baseline\."):
        evaluate(Baseline, table)
    with pytest.raises(ParameterError, match="^`estimator` must be an imputer of tables; got TimeSeriesMAE, of series"):
        evaluate(TimeSeriesMAE(), table)
    nothing_done = FunctionTransformer(lambda X: X)
    with pytest.raises(
        DataError, match=r"^FunctionTransformer must impute every missing cell; it left \d+ in .* from `baselines`"
    ):
        evaluate(nothing_done, table, baselines=())
    column_lost = make_pipeline(Baseline(), FunctionTransformer(lambda X: X.iloc[:, 1:]))
    with pytest.raises(
        DataError, match=r"^Pipeline must give the rows and columns that it is given; gave shape \(84, 3"
    ):
        evaluate(column_lost, table, baselines=())
