"""The door: every supported container becomes a pandas frame or an array, everything else one clear error.

Contract: nothing that is opened is changed; frames of other libraries travel as Arrow columns, and come back their own.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_float_dtype

from tabmae.errors import DataError, listed

VIEWS = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
"""Arrow types that cannot be taken by index, and those that can."""

LEVELS = (nw.Categorical, nw.Enum)

CHANNEL = "channel"
"""The column of a long frame that names the channels."""

KINDS = "a pandas or polars DataFrame, an Arrow table, a Series with a DatetimeIndex, or an array (n, T, C)"


def open_frame(X: Any) -> pd.DataFrame:
    """Open any table as a pandas frame, which is the table itself where it is one.

    Raises
    ------
    DataError : no table, one without rows, or with column names that are not unique.
    """
    frame = X if isinstance(X, pd.DataFrame) else X.to_frame() if isinstance(X, pd.Series) else from_arrow(X)
    if not len(frame):
        raise DataError(f"X must hold rows; got a table of shape {frame.shape}. Pass at least two time stamps.")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise DataError(
            f"Column names must be unique; {listed(twice)} occur more than once. Rename or drop the copies."
        )
    return frame


def from_arrow(X: Any) -> pd.DataFrame:
    """A frame of another library as a pandas frame of Arrow columns."""
    table = arrow_table(X)
    columns = zip(table.column_names, table.columns, strict=True)
    return pd.DataFrame(
        {name: pd.Series(pd.arrays.ArrowExtensionArray(plain_column(column))) for name, column in columns}
    )


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose values can be taken by index: no dictionary, and no views."""
    if pa.types.is_dictionary(column.type):
        kind = plain_type(column.type.value_type)
        return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], type=kind)
    return column.cast(plain_type(column.type))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that holds the same and can be taken by index."""
    return VIEWS.get(str(kind), kind)


def arrow_table(X: Any) -> pa.Table:
    """A frame of another library as an Arrow table."""
    if isinstance(X, pa.Table):
        return X
    try:
        return nw.from_native(X, eager_only=True).to_arrow()
    except TypeError:
        hint = "Pass X.collect()." if hasattr(X, "collect") else "Convert it first."
        raise DataError(f"X must be {KINDS}; got {type(X).__name__}. {hint}") from None
    except pa.ArrowInvalid as problem:
        raise DataError(f"Columns must have a type that Arrow has; {problem}. Cast or drop them.") from problem


def arrow_like(array: Any, kind: pa.DataType) -> pa.ChunkedArray:
    """The array of a pandas column as an Arrow column of some type."""
    column = pa.array(array)
    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    if not pa.types.is_dictionary(kind):
        return column.cast(kind)
    encoded = (chunk.dictionary_encode() for chunk in column.chunks)
    parts = ((chunk.indices.cast(kind.index_type), chunk.dictionary.cast(kind.value_type)) for chunk in encoded)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(*part, ordered=kind.ordered) for part in parts], type=kind)


def rebuilt(X: Any, columns: Mapping[Hashable, Any]) -> Any:
    """The table with the arrays of some columns replaced; rows, index and all other columns stay."""
    if isinstance(X, pd.Series):
        return pd.Series(next(iter(columns.values())), index=X.index, name=X.name, dtype=X.dtype)
    if isinstance(X, pd.DataFrame):
        out = X.copy()
        for name, array in columns.items():
            out.isetitem(X.columns.get_loc(name), array)
        return out
    if isinstance(X, pa.Table):
        for name, array in columns.items():
            place = X.schema.get_field_index(name)
            X = X.set_column(place, X.schema.field(place), arrow_like(array, X.schema.types[place]))
        return X
    frame = nw.from_native(X, eager_only=True)
    return frame.with_columns(like_frame(pd.DataFrame(dict(columns)), frame).iter_columns()).to_native()


def given_back(frame: pd.DataFrame, like: Any) -> Any:
    """A pandas frame in the container of another table, with its types."""
    if isinstance(like, pd.DataFrame):
        return frame
    if isinstance(like, pd.Series):
        return pd.Series(frame.iloc[:, 0].array, index=frame.index, name=like.name, dtype=like.dtype)
    if isinstance(like, pa.Table):
        columns = [arrow_like(frame[name].array, kind) for name, kind in zip(frame, like.schema.types, strict=True)]
        return pa.Table.from_arrays(columns, schema=like.schema)
    return like_frame(frame, nw.from_native(like, eager_only=True)).to_native()


def in_library_of(frame: pd.DataFrame, like: Any) -> Any:
    """A pandas frame of other columns in the library of a table; times and levels of one name have the type there."""
    if like is None or isinstance(like, pd.DataFrame | pd.Series | np.ndarray):
        return frame
    opened = nw.from_native(like, eager_only=True)
    table = pa.table({name: pa.array(frame[name].array) for name in frame.columns})
    if isinstance(like, pa.Table):
        for place, name in enumerate(frame.columns):
            if name not in like.column_names or name == CHANNEL or is_float_dtype(frame[name].dtype):
                continue
            kind = like.schema.field(name).type
            # Times stay times where the history has them as text.
            if pa.types.is_temporal(kind) == pa.types.is_temporal(table.schema.field(name).type):
                table = table.set_column(place, name, table.column(name).cast(kind))
        return table
    own = nw.from_arrow(table, backend=opened.implementation)
    there = {name: opened.schema[name] for name in frame.columns if name in opened.columns and name != CHANNEL}
    shared = [name for name, kind in there.items() if kind.is_temporal() or isinstance(kind, LEVELS)]
    return own.with_columns(nw.col(name).cast(opened.schema[name]) for name in shared).to_native()


def like_frame(frame: pd.DataFrame, like: Any) -> Any:
    """A pandas frame of Arrow columns as a narwhals frame of another's library and types."""
    table = pa.table({name: pa.array(frame[name].array) for name in frame.columns})
    own = nw.from_arrow(table, backend=like.implementation)
    return own.with_columns(nw.col(name).cast(like.schema[name]) for name in frame.columns)
