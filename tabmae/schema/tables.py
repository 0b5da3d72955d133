"""The door: every supported table becomes one `Table`, everything else one clear error.

Contract: a table that is opened has rows, columns, and unique names; reading its columns collects all troubles of a
kind.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import narwhals.dependencies as known
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from tabmae.errors import DataError, listed
from tabmae.schema.arrays import ArrayTable, ListTable
from tabmae.schema.arrow_table import ArrowTable
from tabmae.schema.cells import Cells, Family, Problem, UnreadableError
from tabmae.schema.pandas_table import PandasTable
from tabmae.schema.polars_table import PolarsTable


class Table(Protocol):
    """What the schema asks of a table; columns go by position, and a new column is of the table's own kind."""

    named: bool
    names: list[Hashable]
    n_rows: int

    def read(self, position: int) -> Cells: ...

    def missing(self, position: int) -> NDArray[np.bool_]: ...

    def put_numbers(self, position: int, where: NDArray[np.bool_], numbers: NDArray[Any], family: Family) -> Any: ...

    def put_levels(
        self, position: int, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
    ) -> Any: ...

    def fresh(self, position: int, values: NDArray[Any] | list[Any]) -> Any: ...

    def rebuilt(self, columns: Mapping[int, Any], only: Sequence[int] | None = None) -> Any: ...


class NestedDataError(DataError, TypeError):
    """Cells that are not single values; scikit-learn's users catch TypeError for them."""


def open_table(X: Any) -> Table:
    """Open any supported container."""
    table = table_of(X)
    shape = (table.n_rows, len(table.names))
    if shape[1] == 0:
        raise DataError(f"X must hold columns; found 0 feature(s) (shape={shape}) while a minimum of 1 is required.")
    if shape[0] == 0:
        raise DataError(f"X must hold rows; found 0 sample(s) (shape={shape}) while a minimum of 1 is required.")
    if len(set(table.names)) < shape[1]:
        twice = [name for name in dict.fromkeys(table.names) if table.names.count(name) > 1]
        raise DataError(
            f"Column names must be unique; {listed(twice)} occur more than once. Rename or drop the copies."
        )
    return table


def table_of(X: Any) -> Table:
    """The table that wraps a container of this type."""
    if isinstance(X, pd.DataFrame):
        return PandasTable(X)
    if isinstance(X, pa.Table):
        return ArrowTable(X)
    if known.is_polars_dataframe(X):
        return PolarsTable(X)
    if known.is_polars_lazyframe(X):
        raise DataError("X must be in memory; got a polars LazyFrame. Pass X.collect().")
    if isinstance(X, pd.Series) or known.is_polars_series(X):
        raise DataError(
            "X must be a table; got a Series. Pass X.to_frame() if it is a column; a row is taken out as a table by "
            "df.iloc[[i]], or df[i : i + 1]."
        )
    if isinstance(X, pa.RecordBatch):
        raise DataError("X must be a table; got an Arrow RecordBatch. Pass pyarrow.Table.from_batches([X]).")
    if sparse.issparse(X):
        raise DataError("X must be dense; got a sparse matrix. Sparse data are not supported: pass X.toarray().")
    if isinstance(X, np.ma.MaskedArray):
        raise DataError("X must be a plain array; got a masked array. Pass X.astype(float).filled(numpy.nan).")
    if isinstance(X, np.matrix):
        raise DataError("X must be a plain array; got numpy.matrix. Pass numpy.asarray(X).")
    if isinstance(X, list | tuple):
        return ListTable(two_axes(array_of_rows(X)))
    if hasattr(X, "__array__") and not hasattr(X, "__dataframe__"):
        return ArrayTable(two_axes(array_of_tensor(X) if isinstance(X, Tensor) else np.asarray(X)))
    if isinstance(X, str | os.PathLike):
        raise DataError(f"X must be a table in memory; got {listed([X])}. Read it, for example by pandas.read_csv(X).")
    raise DataError(
        "X must be a pandas or polars DataFrame, an Arrow table, a 2-D array or a list of rows; "
        f"got {type(X).__name__}. Convert it, for example by pandas.DataFrame(X)."
    )


def array_of_tensor(X: Tensor) -> NDArray[Any]:
    """A tensor's numbers; bfloat16, which NumPy does not know, as float32."""
    plain = X.detach().cpu()
    return np.asarray(plain.float() if plain.dtype == torch.bfloat16 else plain)


def array_of_rows(rows: Sequence[Any]) -> NDArray[Any]:
    """Rows as an array of objects."""
    if any(isinstance(row, Mapping) for row in rows):
        raise DataError("X must be a list of rows; got a list of dicts. Pass pandas.DataFrame(X).")
    try:
        array = np.array(rows, dtype=object)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim == 1 and any(isinstance(row, list | tuple | np.ndarray) for row in rows):
        raise DataError("Rows of X must be of one length; got rows of different lengths. Fill them up with None.")
    return array


def two_axes(array: NDArray[Any]) -> NDArray[Any]:
    """Refuse an array that has no rows and columns."""
    if array.ndim != 2:
        raise DataError(
            f"X must have two axes, rows and columns; got an array of shape {array.shape}. Reshape your data, for "
            "example by X.reshape(-1, 1) when it is one column or X.reshape(len(X), -1) when each row is an array."
        )
    return array


def read_columns(table: Table, positions: Sequence[int]) -> list[Cells]:
    """Read columns; all that cannot be read for one reason are named in one error."""
    read: list[Cells] = []
    troubles: dict[Problem, dict[Hashable, str]] = {}
    for position in positions:
        try:
            read.append(table.read(position))
        except UnreadableError as problem:
            troubles.setdefault(problem.kind, {})[table.names[position]] = problem.detail
    if troubles:
        kind, columns = next(iter(troubles.items()))
        raise error_for(kind, columns)
    return read


def error_for(kind: Problem, columns: Mapping[Hashable, str]) -> DataError:
    """The error for all columns of one trouble."""
    names = listed(list(columns))
    found = ", ".join(dict.fromkeys(detail for detail in columns.values() if detail))
    match kind:
        case "nested":
            return NestedDataError(
                f"Cells must be single values: each argument must be a string or a number; columns {names} hold nested "
                f"objects ({found}). Expand them into columns of their own, or drop them."
            )
        case "complex":
            return DataError(
                f"Complex data not supported; columns {names} hold complex numbers. "
                "Pass real and imaginary parts as two columns."
            )
        case "mixed":
            return DataError(
                f"Each column must hold values of one type; columns {names} mix types ({found}). "
                "Convert them to strings, or to numbers with pandas.to_numeric."
            )
        case "sparse":
            return DataError(f"Columns must be dense; columns {names} are sparse. Pass X.sparse.to_dense().")
        case "dtype":
            return DataError(
                f"Columns must hold numbers, bools, strings, categories or times; columns {names} hold {found}. "
                "Convert or drop them."
            )
    return DataError(
        f"Numbers must be finite; columns {names} hold infinite values. Replace them by NaN where they are unknown: "
        "X.replace([numpy.inf, -numpy.inf], numpy.nan)."
    )
