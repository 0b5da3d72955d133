"""Columns of numbers: what they hold as float64, and the same column with its gaps filled.

Contract: a filled column has the dtype of the column that was read, and its observed cells as they came.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype, is_object_dtype

from tabmae.errors import DataError, listed
from tabmae.schema.arrays import put_numbers
from tabmae.schema.cells import objects
from tabmae.schema.pandas_table import PandasTable

NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean", "decimal")
"""What pandas calls objects that are numbers."""


def is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers or bools: by its dtype, or by every object that it holds."""
    dtype = column.dtype
    if is_object_dtype(dtype):
        return pd.api.types.infer_dtype(column, skipna=True) in NUMBERS
    return is_bool_dtype(dtype) or (is_numeric_dtype(dtype) and getattr(dtype, "kind", "f") != "c")


def holds_numbers(column: pd.Series) -> bool:
    """Whether a column can be read as numbers: a numeric one, or objects that are all missing."""
    return is_numeric(column) or (is_object_dtype(column.dtype) and bool(column.isna().all()))


def read_numbers(columns: Mapping[Hashable, pd.Series], n_rows: int) -> NDArray[np.float64]:
    """Columns as float64 (n_rows, number of columns), NaN where missing.

    Raises
    ------
    DataError : columns that hold anything but finite numbers, are sparse, or beyond the range of float64.
    """
    wrong = {name: str(column.dtype) for name, column in columns.items() if not holds_numbers(column)}
    if wrong:
        raise DataError(
            f"Columns must hold numbers; {listed(wrong)} hold {listed(dict.fromkeys(wrong.values()))}. Convert them "
            "with pandas.to_numeric, or leave them out of `target_cols` and `future_cols`."
        )
    sparse = [name for name, column in columns.items() if isinstance(column.dtype, pd.SparseDtype)]
    if sparse:
        raise DataError(f"Columns must be dense; {listed(sparse)} are sparse. Pass X[column].sparse.to_dense().")
    out = np.empty((n_rows, len(columns)))
    for place, column in enumerate(columns.values()):
        out[:, place] = floats(column)
    check_finite(dict(zip(columns, out.T, strict=True)))
    return out


def check_finite(columns: Mapping[Hashable, NDArray[np.float64]]) -> None:
    """Refuse infinite values."""
    infinite = [name for name, numbers in columns.items() if np.isinf(numbers).any()]
    if infinite:
        raise DataError(
            f"Numbers must be finite; columns {listed(infinite)} hold infinite values. Replace them by NaN where they "
            "are unknown: X.replace([numpy.inf, -numpy.inf], numpy.nan)."
        )


def floats(column: pd.Series) -> NDArray[np.float64]:
    """A column of numbers as float64, NaN where missing."""
    if is_object_dtype(column.dtype):
        return object_floats(column.to_numpy())
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(dtype=np.float64)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def object_floats(array: NDArray[Any]) -> NDArray[np.float64]:
    """Objects that are numbers or missing as float64, an integer beyond float64 as infinity.

    Raises
    ------
    TypeError, ValueError : an object is no number.
    """
    out = np.full(array.shape, np.nan)
    present = ~np.asarray(pd.isna(array), dtype=bool)
    try:
        out[present] = array[present].astype(np.float64)
    except OverflowError:
        out[present] = np.inf
    return out


def filled(column: pd.Series, where: NDArray[np.bool_], numbers: NDArray[np.float64]) -> Any:
    """The array of a column with numbers at the cells `where`; where the number is NaN, the cell stays as it is."""
    where = where & ~np.isnan(numbers)
    return PandasTable(column.to_frame()).put_numbers(0, where, of_kind(column, numbers[where]), "number").values


def filled_array(array: NDArray[Any], where: NDArray[np.bool_], numbers: NDArray[np.float64]) -> NDArray[Any]:
    """A copy of an array of any shape with numbers at the cells `where`, unless they are NaN."""
    where = where & ~np.isnan(numbers)
    return put_numbers(array, where, of_kind(array.ravel(), numbers[where]), "number")


def of_kind(column: pd.Series | NDArray[Any], numbers: NDArray[np.float64]) -> NDArray[Any]:
    """Numbers for a column: whole ones for one of integers, objects like those of a column of integers or bools."""
    kind = pd.api.types.infer_dtype(column, skipna=True) if is_object_dtype(column.dtype) else ""
    if kind == "boolean":
        return numbers >= 0.5
    if kind == "integer":
        return objects([round(number) for number in numbers.tolist()])
    return np.rint(numbers) if is_integer_dtype(column.dtype) else numbers
