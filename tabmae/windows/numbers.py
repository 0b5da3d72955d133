"""Columns of numbers: what they hold as float64, and the same column with its gaps filled.

Contract: a filled column has the dtype of the column that was read, and its observed cells as they came.
"""

import math
from collections.abc import Hashable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype, is_object_dtype

from tabmae.errors import DataError, listed

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
    numbers = numbers[where]
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype):
        return filled_array(column.to_numpy(), where, numbers)
    out = column.array.copy()
    if where.any():
        out[where] = pd.array(cast_numbers(numbers, dtype), dtype=dtype)
    return out


def filled_array(array: NDArray[Any], where: NDArray[np.bool_], numbers: NDArray[np.float64]) -> NDArray[Any]:
    """A copy of an array with numbers at the cells `where`."""
    out = array.copy()
    if is_object_dtype(array.dtype):
        types = set(map(type, array[~np.asarray(pd.isna(array), dtype=bool)].tolist()))
        kind = types.pop() if len(types) == 1 else float
        out[where] = [like_object(number, kind) for number in numbers.tolist()]
    else:
        out[where] = rounded(numbers, array.dtype)
    return out


def like_object(number: float, kind: type) -> Any:
    """A number as an object like those around it: a bool, an integer, a decimal, or a float."""
    if issubclass(kind, bool | np.bool_):
        return number >= 0.5
    if issubclass(kind, int | np.integer):
        return round(number)
    return Decimal(repr(number)) if issubclass(kind, Decimal) else number


def cast_numbers(numbers: NDArray[np.float64], dtype: Any) -> Any:
    """Numbers as an array of an extension dtype may be made of."""
    if isinstance(dtype, pd.ArrowDtype):
        kind = dtype.pyarrow_dtype
        if pa.types.is_decimal(kind):
            limit = 10.0 ** (kind.precision - kind.scale) * (1 - 1e-15) - 10.0**-kind.scale
            return pd.arrays.ArrowExtensionArray(pa.array(np.clip(numbers, -limit, limit)).cast(kind))
        return pd.arrays.ArrowExtensionArray(pa.array(rounded(numbers, np.dtype(dtype.numpy_dtype)), type=kind))
    return rounded(numbers, np.dtype(bool) if isinstance(dtype, pd.BooleanDtype) else dtype.numpy_dtype)


def rounded(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Finite numbers as the nearest that a numpy dtype holds."""
    if dtype.kind == "b":
        return numbers >= 0.5
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        return np.clip(numbers, float(limits.min), float(limits.max)).astype(dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    whole = np.rint(numbers)
    # A float next to the largest integer may lie above it: the ends are set as integers.
    inside = (whole > low) & (whole < math.nextafter(float(high), 0.0))
    out = np.where(whole <= low, np.array(low, dtype=dtype), np.array(high, dtype=dtype))
    out[inside] = whole[inside].astype(dtype)
    return out
