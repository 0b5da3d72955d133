"""Bad tables give one clear error, before any work; the first words of each message stand here."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from tabmae.errors import DataError, ParameterError
from tabmae.schema import TableSchema, missing_cells

INF = float("inf")
FINITE = "Numbers must be finite"
ONE_TYPE = "Each column must hold values of one type"
KINDS = "Columns must hold numbers, bools, strings, categories or times"
CHANGED = "Columns must hold what they held in fit"
BAD_TABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "infinite": (lambda: pd.DataFrame({"a": [1, INF], "b": [1, 2], "c": [-INF, 0]}), f"{FINITE}; columns 'a', 'c'"),
    "infinite, polars": (lambda: pl.DataFrame({"a": [1.0, INF]}), f"{FINITE}; columns 'a' hold"),
    "infinite, Arrow": (lambda: pa.table({"a": [1.0, INF]}), f"{FINITE}; columns 'a' hold"),
    "infinite, nullable": (lambda: pd.DataFrame({"a": pd.array([INF, None], dtype="Float64")}), FINITE),
    "infinite, array": (lambda: np.array([[1.0, 2.0], [INF, 3.0]]), f"{FINITE}; columns 0 hold"),
    "infinite, objects": (lambda: [[INF, 1], [None, 2]], f"{FINITE}; columns 0 hold"),
    "infinite, six columns": (lambda: np.full((2, 6), INF), f"{FINITE}; columns 0, 1, 2, 3, 4 and 1 more hold"),
    "integer beyond floats": (lambda: [[10**400], [None]], KINDS),
    "complex": (lambda: np.array([[1 + 1j]]), "Complex data not supported"),
    "complex, frame": (lambda: pd.DataFrame({"a": [1j, 2]}), "Complex data not supported; columns 'a'"),
    "complex, objects": (lambda: [[1j], [2]], "Complex data not supported"),
    "mixed": (lambda: pd.DataFrame({"a": [1, "x"], "b": [True, 2]}), f"{ONE_TYPE}; columns 'a', 'b' mix"),
    "mixed decimals": (lambda: pd.DataFrame({"a": ["x", Decimal(1)]}), ONE_TYPE),
    "mixed zones": (lambda: [[pd.Timestamp("2024")], [pd.Timestamp("2024", tz="UTC")]], ONE_TYPE),
    "nested lists": (lambda: pd.DataFrame({"a": [[1], [2, 3]], "b": [{"k": 1}, None]}), "Cells must be single values"),
    "nested, Arrow": (lambda: pa.table({"a": [[1], [2]]}), "Cells must be single values"),
    "nested, polars": (lambda: pl.DataFrame({"a": [{"k": 1}]}), "Cells must be single values"),
    "polars objects": (lambda: pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}), KINDS),
    "no rows": (lambda: np.empty((0, 3)), r"X must hold rows; found 0 sample\(s\) \(shape=\(0, 3\)\)"),
    "no columns": (lambda: np.empty((3, 0)), r"X must hold columns; found 0 feature\(s\) \(shape=\(3, 0\)\) while a "),
    "no rows, frame": (lambda: pd.DataFrame({"a": []}), r"X must hold rows; found 0 sample\(s\)"),
    "no columns, frame": (lambda: pd.DataFrame(index=[1, 2]), r"X must hold columns; found 0 feature\(s\)"),
    "names twice": (lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), "Column names must be unique; 'a'"),
    "names twice, Arrow": (lambda: pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), "Column names must"),
    "sparse": (lambda: sparse.csr_matrix(np.eye(2)), "X must be dense; got a sparse matrix"),
    "sparse array": (lambda: sparse.coo_array(np.eye(2)), "X must be dense; got a sparse matrix"),
    "sparse column": (lambda: pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "Columns must be dense"),
    "one axis": (lambda: np.arange(3.0), "X must have two axes.*Reshape your data"),
    "three axes": (lambda: np.zeros((2, 2, 2)), "X must have two axes.*Reshape your data"),
    "list of numbers": (lambda: [1.0, 2.0], "X must have two axes.*Reshape your data"),
    "list of dicts": (lambda: [{"a": 1}], "X must be a list of rows; got a list of dicts"),
    "ragged": (lambda: [[1, 2], [3]], "Rows of X must be of one length"),
    "pandas series": (lambda: pd.Series([1.0]), r"X must be a table; got a Series.*X.to_frame.*df.iloc\[\[i\]\]"),
    "polars series": (lambda: pl.Series([1.0]), "X must be a table; got a Series"),
    "lazy": (lambda: pl.LazyFrame({"a": [1]}), r"X must be in memory; got a polars LazyFrame. Pass X.collect\(\)"),
    "record batch": (lambda: pa.RecordBatch.from_pydict({"a": [1]}), "X must be a table; got an Arrow Re"),
    "masked array": (lambda: np.ma.masked_array([[1.0]], mask=[[True]]), "X must be a plain array; got a m"),
    "matrix": (lambda: np.eye(2).view(np.matrix), "X must be a plain array; got numpy.matrix"),
    "records": (lambda: np.zeros((2, 2), dtype=[("a", int)]), KINDS),
    "dict": (lambda: {"a": [1]}, "X must be a pandas or polars DataFrame.*got dict"),
    "name of a file": (lambda: "table.csv", "X must be a table in memory; got 'table.csv'. Read it.*pandas.read_csv"),
    "path": (lambda: Path("table.csv"), "X must be a table in memory; got PosixPath"),
    "none": (lambda: None, "X must be a pandas or polars DataFrame.*got NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_table_is_refused_at_fit(name: str) -> None:
    make, message = BAD_TABLES[name]
    with pytest.raises(DataError, match=f"^{message}"):
        TableSchema.fit(make())


@pytest.mark.parametrize("name", ["infinite", "mixed", "nested lists"])
def test_bad_cells_are_refused_at_encode_too(name: str) -> None:
    make, message = BAD_TABLES[name]
    frame = make()
    schema = TableSchema.fit(
        pd.DataFrame(np.eye(len(frame)), columns=None).iloc[:, :1].rename(columns={0: frame.columns[0]})
    )
    with pytest.raises(DataError, match=message.split(";")[0]):
        schema.encode(frame)


def test_nested_cells_are_a_type_error_too() -> None:
    with pytest.raises(TypeError, match="argument must be .* string.* number"):
        TableSchema.fit(np.array([[{"foo": "bar"}], [1.0]], dtype=object))


@pytest.mark.parametrize(("fitted", "given", "message"), [
    ({"x": [1.0]}, {"x": ["a"]}, f"{CHANGED}; 'x' held numbers and now holds strings"),
    ({"x": ["a"]}, {"x": [1.0]}, f"{CHANGED}; 'x' held strings and now holds numbers"),
    ({"x": ["a"]}, {"x": [True]}, f"{CHANGED}; 'x' held strings and now holds bools"),
    ({"x": [1.0]}, {"x": pd.to_datetime(["2024"])}, f"{CHANGED}; 'x' held numbers and now holds datetimes"),
    ({"x": pd.to_datetime(["2024"])}, {"x": ["2024"]}, f"{CHANGED}; 'x' held datetimes"),
    ({"x": pd.to_datetime(["2024"])}, {"x": pd.to_datetime(["2024"], utc=True)}, CHANGED),
    ({"x": [1.0]}, {"x": pd.Categorical([1.0])}, CHANGED),
    ({"x": ["a"]}, {"x": pd.to_datetime(["2024"])}, CHANGED),
    ({"age": [1.0], "city": [1.0], "x": [1.0]}, {"x": [1.0]},
     r"X lacks columns seen in fit: \['age', 'city'\]. Add them, as NaN where"),
])  # fmt: skip
def test_table_unlike_the_one_of_fit_is_refused(fitted: dict[str, Any], given: dict[str, Any], message: str) -> None:
    schema = TableSchema.fit(pd.DataFrame(fitted))
    with pytest.raises(DataError, match=f"^{message}"):
        schema.encode(pd.DataFrame(given))


def test_array_of_another_width_is_refused() -> None:
    schema = TableSchema.fit(np.eye(3))
    with pytest.raises(DataError, match="^X has 2 features, but 3 features were seen in fit"):
        schema.encode(np.eye(2))


@pytest.mark.parametrize(("chosen", "message"), [
    ("x", '`categorical_features` must be "auto", or a list'),
    (3, '`categorical_features` must be "auto", or a list'),
    (["z", "y"], "`categorical_features` must name columns of X; X lacks 'z'"),
    ([5], "`categorical_features` must name columns of X; X lacks 5"),
    ([1.5], "`categorical_features` must name columns of X; X lacks 1.5"),
    ([True], "`categorical_features` as a bool mask must have an entry per column, 2; got 1"),
    (["y"], "`categorical_features` must name columns of numbers or levels; 'y' hold times"),
])  # fmt: skip
def test_bad_categorical_features_are_refused(chosen: Any, message: str) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": pd.to_datetime(["2024", "2025"])})
    with pytest.raises(ParameterError, match=f"^{message}"):
        TableSchema.fit(frame, categorical_features=chosen)


def test_missing_cells_sees_every_kind_of_missing() -> None:
    frame = pd.DataFrame({
        "f": [np.nan, 1], "o": [None, "a"], "d": [pd.NaT, pd.Timestamp(0)], "n": pd.array([pd.NA, 1], dtype="Int64"),
        "m": pd.arrays.FloatingArray(np.array([np.nan, 1.0]), np.array([False, False])),
        "a": pd.array([None, float("nan")], dtype="double[pyarrow]"),
    })  # fmt: skip
    np.testing.assert_array_equal(missing_cells(frame), [[True] * 6, [False] * 5 + [True]])
    np.testing.assert_array_equal(
        missing_cells(pl.DataFrame({"x": [None, float("nan"), 1.0]})), [[True], [True], [False]]
    )
    np.testing.assert_array_equal(missing_cells(pa.table({"x": [None, float("nan"), 1.0]})), [[True], [True], [False]])
    np.testing.assert_array_equal(missing_cells(np.array([[None, [1]]], dtype=object)), [[True, False]])
