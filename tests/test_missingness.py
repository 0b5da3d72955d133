"""Claims about `ampute`: which cells it hides, how many, and what it leaves alone."""

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from tabmae.errors import DataError, ParameterError
from tabmae.missingness import MECHANISMS, PATTERNS, ampute


@pytest.fixture
def table() -> pd.DataFrame:
    """300 rows of every kind of column, a tenth of the cells missing."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=300)
    frame = pd.DataFrame(
        {
            "x": factor,
            "y": 100 * factor + rng.normal(size=300),
            "n": np.round(5 * factor),
            "city": np.where(factor > 0.5, "Oslo", np.where(factor > -0.5, "Rome", "Bonn")),
            "flag": pd.array(factor > 0, dtype="boolean"),
            "day": pd.Timestamp("2024-03-01") + pd.to_timedelta(np.round(20 * factor), unit="D"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.1)


def longest_gap(row: NDArray[np.bool_]) -> int:
    """Count the visible cells between the first and the last hidden one."""
    places = np.flatnonzero(row)
    return int(np.diff(places).max() - 1) if len(places) > 1 else 0


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_hidden_is_true_exactly_where_a_known_cell_was_hidden_now(
    table: pd.DataFrame, mechanism: str, pattern: str
) -> None:
    X_missing, hidden = ampute(table, 0.4, mechanism, pattern=pattern, random_state=1)
    before, after = table.isna().to_numpy(), X_missing.isna().to_numpy()
    assert hidden.dtype == bool and hidden.any()
    np.testing.assert_array_equal(hidden, after & ~before)
    np.testing.assert_array_equal(after | before, after)
    assert X_missing.astype(object).where(~after).equals(table.astype(object).where(~after))


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.77])
def test_mcar_hides_exactly_the_share_of_each_columns_known_cells(table: pd.DataFrame, fraction: float) -> None:
    _, hidden = ampute(table, fraction, random_state=0)
    assert hidden.sum(axis=0).tolist() == [round(fraction * known) for known in table.notna().sum()]


def test_a_seed_hides_the_same_cells_for_ever() -> None:
    _, hidden = ampute(np.arange(12.0).reshape(6, 2), 0.5, random_state=0)
    assert [np.flatnonzero(column).tolist() for column in hidden.T] == [[0, 1, 5], [0, 4, 5]]
    assert not np.array_equal(hidden, ampute(np.arange(12.0).reshape(6, 2), 0.5, random_state=1)[1])


def test_a_split_by_the_same_seed_has_its_share_of_the_hidden_cells() -> None:
    X = np.zeros((1000, 3))
    _, hidden = ampute(X, 0.3, random_state=0)
    for rows in train_test_split(np.arange(1000), test_size=0.3, random_state=0):
        np.testing.assert_allclose(hidden[rows].mean(axis=0), 0.3, atol=0.06)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_container_of_the_same_values_loses_the_same_cells(
    table: pd.DataFrame, mechanism: str, pattern: str
) -> None:
    polars, rows = pl.from_pandas(table), table.astype(object).where(table.notna(), None).to_numpy()
    containers: list[Any] = [
        polars,
        polars.to_arrow(),
        table.astype({"city": "category", "n": "Int64"}),
        rows,
        rows.tolist(),
    ]
    _, wanted = ampute(table, 0.3, mechanism, pattern=pattern, random_state=3)
    for container in containers:
        X_missing, hidden = ampute(container, 0.3, mechanism, pattern=pattern, random_state=3)
        assert type(X_missing) is type(container)
        np.testing.assert_array_equal(hidden, wanted)


def test_polars_and_arrow_keep_their_schema_and_their_visible_cells(table: pd.DataFrame) -> None:
    frame = pl.from_pandas(table).with_columns(pl.col("city").cast(pl.Categorical), pl.col("n").cast(pl.Int32))
    for container in (frame, frame.to_arrow()):
        X_missing, hidden = ampute(container, random_state=0)
        assert X_missing.schema == container.schema
        for position, name in enumerate(table.columns):
            before = nw.from_native(container, eager_only=True)[name].to_list()
            after = nw.from_native(X_missing, eager_only=True)[name].to_list()
            wanted = [None if gone else value for value, gone in zip(before, hidden[:, position], strict=True)]
            assert after == wanted


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("fraction", [0.2, 0.6])
def test_the_expected_share_of_each_touched_column_is_hidden(mechanism: str, pattern: str, fraction: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 1)) + rng.exponential(size=(20_000, 8))
    _, hidden = ampute(X, fraction, mechanism, pattern=pattern, random_state=0)
    touched = hidden.any(axis=0)
    assert touched.sum() == (4 if mechanism == "mar" else 8)
    np.testing.assert_allclose(hidden[:, touched].mean(axis=0), fraction, atol=0.025)


def test_the_logistic_share_is_taken_over_the_known_cells() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 3))
    X[X[:, 0] < 0.5, 1] = np.nan
    _, hidden = ampute(X, 0.3, "mnar", random_state=0)
    assert hidden[~np.isnan(X[:, 1]), 1].mean() == pytest.approx(0.3, abs=0.02)


def test_mar_depends_on_the_complete_columns_alone() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6))
    _, hidden = ampute(X, 0.3, "mar", observed_fraction=0.34, random_state=0)
    drivers, touched = np.flatnonzero(~hidden.any(axis=0)), np.flatnonzero(hidden.any(axis=0))
    assert len(drivers) == 2
    other_values, other_drivers = X.copy(), X.copy()
    other_values[:, touched] = rng.normal(size=(500, 4))
    other_drivers[:, drivers[0]] = rng.normal(size=500)
    np.testing.assert_array_equal(ampute(other_values, 0.3, "mar", observed_fraction=0.34, random_state=0)[1], hidden)
    assert (ampute(other_drivers, 0.3, "mar", observed_fraction=0.34, random_state=0)[1] != hidden).any()


def test_mnar_depends_on_the_hidden_column_itself() -> None:
    X = np.random.default_rng(0).normal(size=(2000, 1))
    _, hidden = ampute(X, 0.3, "mnar", random_state=0)
    assert abs(X[hidden].mean() - X[~hidden].mean()) > 0.5
    _, hidden = ampute(X, 0.3, "mcar", random_state=0)
    assert abs(X[hidden].mean() - X[~hidden].mean()) < 0.2


def test_the_mechanism_does_not_depend_on_a_columns_unit() -> None:
    X = np.random.default_rng(0).normal(size=(300, 4))
    _, hidden = ampute(X, 0.3, "mnar", random_state=0)
    np.testing.assert_array_equal(ampute(X * [1, 1024, 1 / 1024, 8], 0.3, "mnar", random_state=0)[1], hidden)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_run_is_one_stretch_of_neighbouring_columns(mechanism: str) -> None:
    X = np.random.default_rng(0).normal(size=(200, 10))
    columns = [1, 2, 3, 5, 6, 8, 9]
    _, hidden = ampute(X, 0.3, mechanism, columns=columns, pattern="run", random_state=0)
    assert not hidden[:, [0, 4, 7]].any()
    assert max(longest_gap(row) for row in hidden[:, columns]) == 0
    assert hidden.sum(axis=1).max() == 4


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_block_is_a_rectangle_of_neighbouring_rows_and_columns(mechanism: str) -> None:
    X = np.random.default_rng(0).normal(size=(205, 9))
    _, hidden = ampute(X, 0.3, mechanism, pattern="block", random_state=0)
    touched = hidden[:, hidden.any(axis=0)]
    for first in range(0, 205, 10):
        band = touched[first : first + 10]
        assert (band == band[0]).all()
        assert longest_gap(band[0]) == 0
    assert len(np.unique(touched, axis=0)) > 3


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_column_loses_its_last_known_cell(mechanism: str, pattern: str) -> None:
    X = np.full((6, 3), np.nan)
    X[0, 0] = X[1, 1] = X[4, 1] = 1.0
    for seed in range(20):
        X_missing, hidden = ampute(X, 0.95, mechanism, pattern=pattern, random_state=seed)
        assert np.isfinite(X_missing[:, :2]).any(axis=0).all()
        assert not hidden[:, 2].any()


def test_only_the_columns_asked_for_lose_cells_and_the_others_drive(table: pd.DataFrame) -> None:
    for mechanism in MECHANISMS:
        _, hidden = ampute(table, 0.3, mechanism, columns=["y", "city"], random_state=0)
        assert np.flatnonzero(hidden.any(axis=0)).tolist() == [1, 3]


def test_pandas_keeps_index_names_and_dtypes_where_they_can_hold_a_missing_value() -> None:
    frame = pd.DataFrame(
        {
            "float32": np.arange(6, dtype=np.float32),
            "int": np.arange(6),
            "large": np.arange(6) + 2**60,
            "unsigned": np.arange(6, dtype=np.uint64) + np.uint64(2**63),
            "bool": [True, False] * 3,
            "Int8": pd.array(range(6), dtype="Int8"),
            "category": pd.Categorical(list("abcabc"), categories=list("cbad"), ordered=True),
            "text": pd.array(list("abcabc"), dtype="str"),
            "day": pd.date_range("2024-01-01", periods=6, tz="UTC"),
            "object": np.array(list("abcabc"), dtype=object),
        },
        index=list("uvwxyz"),
    )
    untouched = frame.copy(deep=True)
    X_missing, hidden = ampute(frame, 0.5, random_state=0)
    assert hidden.sum(axis=0).tolist() == [3] * 10
    changed = {"int": "float64", "large": "Int64", "unsigned": "UInt64", "bool": "boolean"}
    assert X_missing.dtypes.astype(str).to_dict() == {**frame.dtypes.astype(str).to_dict(), **changed}
    assert X_missing["large"].dropna().tolist() == frame["large"][X_missing["large"].notna()].tolist()
    assert X_missing.index.equals(frame.index)
    pd.testing.assert_frame_equal(frame, untouched)


def test_columns_of_one_name_are_told_apart() -> None:
    frame = pd.DataFrame(np.arange(40).reshape(20, 2), columns=["a", "a"])
    X_missing, hidden = ampute(frame, 0.3, random_state=0)
    assert X_missing.columns.tolist() == ["a", "a"]
    np.testing.assert_array_equal(X_missing.isna().to_numpy(), hidden)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [("float32", "float32"), ("int64", "float64"), ("bool", "float64"), ("U2", "O"), ("O", "O"), ("M8[D]", "M8[D]")],
)
def test_arrays_take_the_nearest_dtype_that_holds_a_missing_value(dtype: str, wanted: str) -> None:
    X = np.arange(12).reshape(6, 2).astype(dtype)
    X_missing, hidden = ampute(X, 0.5, random_state=0)
    assert X_missing.dtype == np.dtype(wanted)
    np.testing.assert_array_equal(pd.isna(X_missing), hidden)
    np.testing.assert_array_equal(X_missing[~hidden], X[~hidden].astype(wanted))


def test_rows_come_back_as_rows_and_tensors_as_arrays() -> None:
    rows = [[1, "a"], [2, "b"], [3, "c"]]
    X_missing, hidden = ampute(rows, 0.3, random_state=0)
    assert rows == [[1, "a"], [2, "b"], [3, "c"]] and hidden.sum() == 2
    assert all((cell == rows[i][j]) != hidden[i, j] for i, row in enumerate(X_missing) for j, cell in enumerate(row))
    tensor = torch.arange(12.0).reshape(6, 2)
    wanted = ampute(tensor.numpy(), 0.3, random_state=0)
    found = ampute(tensor.bfloat16().requires_grad_(), 0.3, random_state=0)
    assert all(np.array_equal(*pair, equal_nan=True) for pair in zip(found, wanted, strict=True))
    for found, expected in zip(ampute(tensor, 0.3, random_state=0), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


TABLE = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("X", "parameters", "error", "message"),
    [
        (TABLE, {"fraction": 1.0}, ParameterError, r"`fraction` must lie in \(0, 1\); got 1.0. Pass the share"),
        (TABLE, {"mechanism": "marr"}, ParameterError, "`mechanism` must be one of 'mcar', 'mar', 'mnar'"),
        (TABLE, {"pattern": "row"}, ParameterError, "`pattern` must be one of"),
        (TABLE, {"observed_fraction": 0}, ParameterError, "`observed_fraction` must lie in"),
        (TABLE, {"columns": [0, 7]}, ParameterError, "`columns` must be columns of X; X lacks 7. It has 0, 1"),
        (TABLE, {"columns": []}, ParameterError, "`columns` must name a column at least"),
        (TABLE, {"columns": "a"}, ParameterError, "`columns` must be a list of columns; got 'a'"),
        (TABLE[0], {}, DataError, "X must have two dimensions, rows and columns; got 1"),
        (TABLE[:0], {}, DataError, r"X must have a row and a column at least; got shape \(0, 2\)"),
        (12.0, {}, DataError, "X must be a pandas .*, an Arrow table, a 2-D array or a list of rows; got float"),
        ([[1.0], [1.0, 2.0]], {}, DataError, "Rows of X must be of one length"),
        (pl.DataFrame({"a": [1]}).lazy(), {}, DataError, "X must be a pandas or polars DataFrame.*LazyFrame"),
        (TABLE * 1j, {}, DataError, "X must hold numbers, strings or dates; got an array of complex128"),
        (pd.DataFrame(TABLE * 1j), {}, DataError, "X must hold no complex numbers"),
        (np.array([[2**60], [1]]), {}, DataError, r"Integers of an array must lie within 2\*\*53"),
        (TABLE[:, :1], {"mechanism": "mar"}, DataError, "mechanism='mar' needs two columns at least; got 1"),
        (np.where(TABLE > 10, np.inf, TABLE), {"mechanism": "mnar"}, DataError, "X must hold finite numbers; column"),
        (pd.DataFrame({"a": [[1], [2]]}), {"mechanism": "mnar"}, DataError, "Column 'a' must hold plain values"),
    ],
)
def test_bad_input_is_refused_with_its_remedy(X: Any, parameters: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ampute(X, **parameters)
