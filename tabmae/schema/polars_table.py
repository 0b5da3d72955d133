"""Tables that are polars DataFrames; polars itself is never imported, its classes are reached through the objects.

Contract: a column that is put back has the polars dtype of the column that was read.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tabmae.schema import arrow_table
from tabmae.schema.cells import Cells, Family, UnreadableError, contents, number_cells, objects

WIDE_INTEGERS = ("Int128", "UInt128")
CATEGORIES = ("Categorical", "Enum")


class PolarsTable:
    """A polars DataFrame."""

    named = True

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        self.n_rows = frame.height
        self.names: list[Hashable] = list(frame.columns)

    def read(self, position: int) -> Cells:
        """Read one column."""
        series = self.frame.to_series(position)
        if dtype_name(series) == "Object":
            raise UnreadableError("dtype", "Object")
        if dtype_name(series) in WIDE_INTEGERS:
            return number_cells(objects(series.to_list()), self.missing(position), integer=True)
        return arrow_table.read_arrow(chunks(series))

    def missing(self, position: int) -> NDArray[np.bool_]:
        """Which cells of one column are null or NaN."""
        series = self.frame.to_series(position)
        missing = series.is_null()
        if series.dtype.is_float():
            missing = missing | series.is_nan().fill_null(True)
        return np.array(missing.to_numpy(), dtype=bool)

    def put_numbers(self, position: int, where: NDArray[np.bool_], numbers: NDArray[Any], family: Family) -> Any:
        """The column with numbers, or times in seconds, at the cells `where`."""
        series = self.frame.to_series(position)
        if dtype_name(series) in WIDE_INTEGERS:
            return replaced(series, where, type(series)(series.name, [int(n) for n in numbers.tolist()], series.dtype))
        kind = chunks(series[:1]).type
        blank = pa.chunked_array([pa.nulls(len(numbers), kind)])
        everywhere = np.ones(len(numbers), dtype=bool)
        values = self.fresh(position, arrow_table.put_numbers(blank, everywhere, numbers, family))
        return replaced(series, where, values)

    def put_levels(
        self, position: int, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
    ) -> Any:
        """The column with levels at the cells `where`; an Enum that lacks some of them is extended."""
        series = self.frame.to_series(position)
        content = contents(levels)
        name = dtype_name(series)
        holds = {"Null": "", "Boolean": "bools"} | dict.fromkeys(("String", *CATEGORIES), "strings")
        if holds.get(name, content) != content:
            return self.fresh(position, objects(levels)[codes].tolist())
        if name == "Enum":
            known = series.dtype.categories.to_list()
            added = [levels[code] for code in np.unique(codes) if levels[code] not in set(known)]
            series = series.cast(type(series.dtype)([*known, *added])) if added else series
        values = type(series)(series.name, list(levels))[codes]
        # Two Categoricals may number their strings differently: they meet as strings.
        plain = series.cast(values.dtype) if name == "Categorical" else series
        return replaced(plain, where, values).cast(series.dtype)

    def fresh(self, position: int, values: NDArray[Any] | list[Any] | pa.ChunkedArray) -> Any:
        """A column of new values, in the dtype that suits them."""
        old = self.frame.to_series(position)
        return type(old)(old.name, values)

    def rebuilt(self, columns: Mapping[int, Any], only: Sequence[int] | None = None) -> Any:
        """The frame with some columns replaced, all columns or `only` these."""
        out = self.frame.with_columns(list(columns.values()))
        return out if only is None else out.select([self.names[position] for position in only])


def replaced(series: Any, where: NDArray[np.bool_], values: Any) -> Any:
    """A series with values, cast to its dtype, at the cells `where`."""
    sources = np.arange(len(series))
    sources[where] = len(series) + np.arange(len(values))
    return series.clone().append(values.cast(series.dtype)).gather(sources)


def chunks(series: Any) -> pa.ChunkedArray:
    """A series as an Arrow column."""
    array = series.to_arrow()
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def dtype_name(series: Any) -> str:
    """The name of a series' dtype, without its parameters."""
    return str(series.dtype.base_type().__name__)
