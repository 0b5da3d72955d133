"""Frames of series, long or wide: columns become panels, and panels fill their gaps.

Contract: observed cells, dtypes and order of a frame stay; where stamps are absent, rows are inserted.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.errors import DataError, listed
from tabmae.schema.pandas_table import PandasTable
from tabmae.windows.containers import given_back, open_frame, rebuilt
from tabmae.windows.layouts import TIMES
from tabmae.windows.numbers import filled, read_numbers
from tabmae.windows.panel import Panel
from tabmae.windows.rows import Owners, Rows
from tabmae.windows.stamps import plain, read_stamps, stamps_like

EXACT = 2**53
"""The integers up to here are exact as float64."""


def read_owners(frame: pd.DataFrame, id_col: Hashable, time_col: Hashable, *, wide: bool) -> Owners:
    """Read which series the rows of a frame belong to, and when."""
    if wide:
        if not isinstance(frame.index, TIMES):
            raise DataError(
                "X must have the layout of fit, a wide frame with its stamps in the index; got "
                f"{type(frame.index).__name__}. Pass X.set_index({time_col!r})."
            )
        missing = frame.index.isna()
        if missing.any():
            raise DataError(
                f"Every row must have a time stamp; the index has none in {missing.sum()} rows, the first of them row "
                f"{int(missing.argmax())}. Drop these rows: X[X.index.notna()]."
            )
        return Owners.read(None, read_stamps(frame.index.to_series(), frame.index.name or "index"))
    check_columns(frame, [time_col] if id_col is None else [id_col, time_col])
    ids = None if id_col is None else frame[id_col]
    if ids is not None and ids.isna().any():
        missing = ids.isna().to_numpy(dtype=bool)
        raise DataError(
            f"Every row must have a series id; column {id_col!r} has none in {missing.sum()} rows, the first of them "
            f"row {int(missing.argmax())}. Drop these rows: X.dropna(subset=[{id_col!r}])."
        )
    return Owners.read(ids, read_stamps(frame[time_col], time_col))


def check_columns(frame: pd.DataFrame, names: Sequence[Hashable], called: str = "X") -> None:
    """Refuse a frame that lacks columns; messages speak of it as it is `called`."""
    lacking = [name for name in names if name not in frame.columns]
    if lacking:
        raise DataError(
            f"{called} must hold the columns of fit; it lacks {listed(lacking)} and has {listed(frame.columns)}. "
            "Rename or add them."
        )


def read_panel(
    frame: pd.DataFrame,
    rows: Rows,
    channels: Sequence[Hashable],
    future: Sequence[Hashable],
) -> Panel:
    """Read the columns of a frame onto the grid of its rows."""
    check_columns(frame, [*channels, *future])
    numbers = numbers_of(frame, [*channels, *future])
    rows.check_no_conflict(numbers)
    on_grid = rows.spread(numbers)
    return Panel(
        rows.ids,
        tuple(rows.starts),
        tuple(rows.lengths.tolist()),
        np.ascontiguousarray(on_grid[:, : len(channels)]),
        np.ascontiguousarray(on_grid[:, len(channels) :]),
    )


def numbers_of(frame: pd.DataFrame, names: Sequence[Hashable]) -> NDArray[np.float64]:
    """Columns as float64 (n, number of columns)."""
    return read_numbers({name: frame[name] for name in names}, len(frame))


def write_panel(
    X: Any,
    rows: Rows,
    values: NDArray[np.float64],
    channels: Sequence[Hashable],
    keys: tuple[Hashable, Hashable],
    static: Sequence[Hashable],
) -> Any:
    """Fill the gaps of a table with values (T, C); `keys` are its columns of ids and stamps, None where it has none."""
    frame = open_frame(X)
    sources = rows.sources()
    if (sources >= 0).all():
        fills = values[rows.cells]
        columns = {name: filled(frame[name], gaps(frame[name]), fills[:, c]) for c, name in enumerate(channels)}
        return rebuilt(X, columns)
    id_col, time_col = keys
    fill = dict(zip(channels, values.T, strict=True))
    wide = time_col is None
    out = {}
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place].reset_index(drop=True)
        if name in fill:
            out[place] = completed_numbers(column, sources, fill[name])
        elif not wide and name == time_col:
            absent = sources < 0
            out[place] = interleaved(plain(column), stamps_like(column, rows.grid(absent)), sources)
        elif not wide and (name == id_col or name in static):
            out[place] = column.take(repeated(column, rows, sources)).array
        else:
            out[place] = with_gaps(column, sources)
    index = complete_index(frame.index, rows) if wide else pd.RangeIndex(rows.total)
    # A Series of a dtype that is named: objects are not taken for times or text.
    done = pd.DataFrame({place: pd.Series(array, index=index, dtype=array.dtype) for place, array in out.items()})
    done.columns = frame.columns
    return given_back(done, X)


def gaps(column: pd.Series) -> NDArray[np.bool_]:
    """The missing cells of a column; NaN is missing in every dtype."""
    return PandasTable(column.to_frame()).missing(0)


def completed_numbers(column: pd.Series, sources: NDArray[np.int64], fills: NDArray[np.float64]) -> Any:
    """A column of numbers on the grid, with its missing and absent cells filled."""
    absent = sources < 0
    # Any row stands where the stamp is absent: it keeps the dtype, and is written over.
    whole = column.take(np.maximum(sources, 0)).reset_index(drop=True)
    missing = gaps(whole) | absent
    unknown = missing & np.isnan(fills)
    if (unknown & absent).any():
        whole = whole.astype("float64") if isinstance(whole.dtype, np.dtype) and whole.dtype.kind in "iub" else whole
        whole = whole.mask(absent)
    return filled(whole, missing, fills)


def interleaved(column: pd.Series, inserted: pd.Series, sources: NDArray[np.int64]) -> Any:
    """A column on the grid, with the cells `inserted` in order where the stamp is absent."""
    absent = sources < 0
    places = sources.copy()
    places[absent] = len(column) + np.arange(len(inserted))
    return pd.concat([column, inserted], ignore_index=True).take(places).array


def repeated(column: pd.Series, rows: Rows, sources: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows that give each step of the grid its cell of a column that is the same within a series."""
    present = column.notna().to_numpy(dtype=bool)
    known = np.where(sources >= 0, present[sources], False)
    owner = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    first = sources[np.searchsorted(owner, np.arange(len(rows.lengths)))]
    seen = np.flatnonzero(known)
    series, place = np.unique(owner[seen], return_index=True)
    first[series] = sources[seen[place]]
    return np.where(sources >= 0, sources, first[owner])


def with_gaps(column: pd.Series, sources: NDArray[np.int64]) -> Any:
    """A column on the grid, missing where the stamp is absent; numbers that floats cannot hold become nullable."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "b":
        column = column.astype("boolean")
    elif isinstance(dtype, np.dtype) and dtype.kind in "iu" and max(int(column.max()), -int(column.min())) > EXACT:
        column = column.astype("Int64" if dtype.kind == "i" else "UInt64")
    return column.reindex(np.where(sources >= 0, sources, -1)).array


def complete_index(index: pd.Index, rows: Rows) -> pd.Index:
    """The whole grid as an index of the kind and name of another, with its frequency where it has one."""
    grid = rows.grid()
    if isinstance(grid, pd.DatetimeIndex):
        grid = grid.as_unit(index.unit)
        try:
            return pd.DatetimeIndex(grid, freq=rows.freq, name=index.name)
        except ValueError:
            return grid.rename(index.name)
    return grid.rename(index.name)
