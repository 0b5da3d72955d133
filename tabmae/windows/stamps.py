"""Columns of time stamps: times, periods, whole numbers and text, read as an index and given back as they came.

Contract: reading loses nothing; a stamp that is given back has the dtype, unit and zone of its column, and text its
format.
"""

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_object_dtype
from pandas.tseries.api import guess_datetime_format

from tabmae.errors import DataError, listed

ISO_DATE = re.compile(r"\d{4}-?\d{2}")
"""How text begins that is taken for a time when no column is named."""

ZONE = re.compile(r"(?<=\d)(?:Z|[+-]\d{2}(?::?\d{2})?)$")


def is_time(column: pd.Series) -> bool:
    """Whether a column holds times by its dtype, its objects, or text of which all is an ISO date."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_date(dtype.pyarrow_dtype):
        return True
    if pd.api.types.is_datetime64_any_dtype(dtype) or isinstance(dtype, pd.PeriodDtype):
        return True
    if is_text(column):
        present = column.dropna()
        if not len(present) or not ISO_DATE.match(str(present.iloc[0])):
            return False
        return not len(not_iso(pd.Index(present.unique().tolist(), dtype=object)))
    return is_object_dtype(dtype) and pd.api.types.infer_dtype(column, skipna=True) in ("date", "datetime", "period")


def is_text(column: pd.Series) -> bool:
    """Whether a column holds text and missing cells only."""
    if is_object_dtype(column.dtype):
        return bool(pd.api.types.infer_dtype(column, skipna=True) == "string")
    return pd.api.types.is_string_dtype(column.dtype) and not isinstance(column.dtype, pd.CategoricalDtype)


def plain(column: pd.Series) -> pd.Series:
    """A column as it is, a category as the values that it stands for."""
    dtype = column.dtype
    return column.astype(dtype.categories.dtype) if isinstance(dtype, pd.CategoricalDtype) else column


def read_stamps(column: pd.Series, name: object) -> pd.Index:
    """Read a column as a DatetimeIndex, a PeriodIndex, or an index of int64.

    Raises
    ------
    DataError : a stamp is missing, or the column holds no times, whole numbers or ISO text.
    """
    column = plain(column)
    missing = column.isna().to_numpy(dtype=bool)
    if missing.any():
        raise DataError(
            f"Every row must have a time stamp; column {name!r} has none in {missing.sum()} rows, the first of them "
            f"row {int(missing.argmax())}. Drop these rows: X.dropna(subset=[{name!r}])."
        )
    held = str(column.dtype)
    column = without_arrow(column)
    if is_text(column):
        return read_text(column, name)
    if is_object_dtype(column.dtype):
        held = str(pd.api.types.infer_dtype(column, skipna=False))
        if held in ("date", "datetime", "datetime64"):
            return read_objects(column, name)
    if held == "integer" or pd.api.types.is_integer_dtype(column.dtype):
        return pd.Index(column.to_numpy(dtype=np.int64))
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return pd.DatetimeIndex(column)
    if held == "period" or isinstance(column.dtype, pd.PeriodDtype):
        return pd.PeriodIndex(column)
    remedy = f"pandas.to_datetime(X[{name!r}])"
    if held.startswith("float"):
        remedy = f"X[{name!r}].astype('int64')"
    elif held.startswith("timedelta"):
        remedy = f"pandas.Timestamp('2000-01-01') + X[{name!r}]"
    raise DataError(
        f"Time stamps must be times, periods, integers or ISO text; column {name!r} holds {held}. Convert it, for "
        f"example by {remedy}."
    )


def without_arrow(column: pd.Series) -> pd.Series:
    """A column of Arrow's as one of numpy's, of the same unit and zone; dates as times."""
    dtype: Any = column.dtype
    if not isinstance(dtype, pd.ArrowDtype) or pa.types.is_integer(dtype.pyarrow_dtype):
        return column
    array = pa.array(column.array)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s" if pa.types.is_date32(array.type) else "ms"))
    return array.to_pandas()


def read_objects(column: pd.Series, name: object) -> pd.DatetimeIndex:
    """Read dates and datetimes."""
    try:
        return pd.DatetimeIndex(pd.to_datetime(column))
    except (ValueError, TypeError) as problem:
        raise DataError(
            f"Time stamps must all have one time zone or none; column {name!r} mixes them. "
            f"Pass pandas.to_datetime(X[{name!r}], utc=True)."
        ) from problem


def read_text(column: pd.Series, name: object) -> pd.DatetimeIndex:
    """Read ISO text: the year first, then month and day."""
    codes, texts = pd.factorize(column.astype(object))
    wrong = not_iso(pd.Index(texts, dtype=object))
    if len(wrong):
        raise DataError(
            f"Time stamps that are text must be ISO dates such as '2024-01-31 15:00'; column {name!r} holds "
            f"{listed(wrong)}. Parse it first: pandas.to_datetime(X[{name!r}], format=...)."
        )
    zones = {found.group() if (found := ZONE.search(text[10:])) else "" for text in texts.tolist()}
    if len(zones) > 1:
        raise DataError(
            f"Time stamps must all have one time zone or none; column {name!r} has offsets {listed(sorted(zones))}. "
            f"Pass pandas.to_datetime(X[{name!r}], utc=True)."
        )
    return pd.DatetimeIndex(pd.to_datetime(pd.Index(texts, dtype=object), format="ISO8601")).take(codes)


def not_iso(texts: pd.Index) -> pd.Index:
    """The texts that are no ISO dates."""
    try:
        parsed = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    except ValueError:
        return texts
    return texts[parsed.isna() | ~texts.str.match(r"\d{4}")]


def stamps_like(column: pd.Series, stamps: pd.Index) -> pd.Series:
    """New stamps as a column of the kind that they are inserted into."""
    column = plain(column)
    dtype: Any = column.dtype
    if is_text(column):
        text = as_text(column, stamps)
        if isinstance(dtype, pd.ArrowDtype):
            return arrow_column(pa.array(text, type=dtype.pyarrow_dtype))
        return pd.Series(text, dtype=dtype)
    if isinstance(dtype, pd.ArrowDtype):
        return arrow_column(pa.array(pd.Series(stamps)).cast(dtype.pyarrow_dtype))
    if is_object_dtype(dtype) and pd.api.types.infer_dtype(column) == "date":
        return pd.Series(stamps.date, dtype=object)
    return pd.Series(stamps).astype(dtype)


def as_text(column: pd.Series, stamps: pd.DatetimeIndex) -> list[str]:
    """Stamps in the format of the first text of the column, in ISO's own where that would not tell them apart."""
    first = str(column.iloc[0])
    if not ZONE.search(first[10:]):
        pattern = guess_datetime_format(first)
        if pattern is not None and read_text(column.iloc[:1], "")[0].strftime(pattern) == first:
            text = stamps.strftime(pattern)
            if (pd.to_datetime(text, format=pattern) == stamps).all():
                return list(text)
    separator = "T" if "T" in first else " "
    text = [stamp.isoformat(sep=separator) for stamp in stamps]
    return [stamp.replace("+00:00", "Z") for stamp in text] if first.endswith("Z") else text


def arrow_column(array: pa.Array) -> pd.Series:
    """An Arrow array as a column."""
    return pd.Series(pd.arrays.ArrowExtensionArray(array))
