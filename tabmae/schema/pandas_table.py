"""Tables that are pandas DataFrames, with numpy, nullable, categorical, string and Arrow-backed columns.

Contract: a column that is put back has the dtype and index of the column that was read; the frame is never changed.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tabmae.errors import listed, warn
from tabmae.schema import arrays, arrow_table
from tabmae.schema.cells import (
    Cells,
    Family,
    UnreadableError,
    bool_cells,
    contents,
    level_cells,
    number_cells,
    objects,
)
from tabmae.schema.zones import zone_name


class PandasTable:
    """A pandas DataFrame."""

    named = True

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.n_rows = len(frame)
        self.names: list[Hashable] = list(frame.columns)
        self.columns = [series for _, series in frame.items()]

    def read(self, position: int) -> Cells:
        """Read one column."""
        series = self.columns[position]
        dtype: Any = series.dtype
        if isinstance(dtype, np.dtype):
            return arrays.read_array(series.to_numpy())
        if isinstance(dtype, pd.ArrowDtype):
            return arrow_table.read_arrow(chunks(series))
        if isinstance(dtype, pd.SparseDtype):
            raise UnreadableError("sparse")
        if isinstance(dtype, pd.DatetimeTZDtype):
            cells = arrays.read_array(series.to_numpy(dtype=f"datetime64[{dtype.unit}]"))
            return Cells("datetime with time zone", cells.missing, cells.exact, zone=zone_name(dtype.tz))
        if isinstance(dtype, pd.PeriodDtype):
            return arrays.read_array(series.dt.to_timestamp().to_numpy())
        if isinstance(dtype, pd.CategoricalDtype):
            return level_cells(series.cat.codes.to_numpy(), list(dtype.categories))
        if isinstance(dtype, pd.StringDtype | pd.IntervalDtype):
            codes, found = series.factorize()
            return level_cells(codes, list(found))
        missing = self.missing(position)
        if isinstance(dtype, pd.BooleanDtype):
            return bool_cells(series.to_numpy(dtype=bool, na_value=False), missing)
        if pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_float_dtype(dtype):
            exact = series.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
            return number_cells(exact, missing, integer=exact.dtype.kind in "iu")
        raise UnreadableError("dtype", str(dtype))

    def missing(self, position: int) -> NDArray[np.bool_]:
        """Which cells of one column are missing; NaN is missing in every dtype."""
        series = self.columns[position]
        missing = series.isna().to_numpy(dtype=bool)
        if isinstance(series.dtype, pd.ArrowDtype):
            return arrow_table.missing_in(chunks(series))
        if not isinstance(series.dtype, np.dtype) and pd.api.types.is_float_dtype(series.dtype):
            return missing | np.isnan(series.to_numpy(dtype=np.float64, na_value=np.nan))
        return missing

    def put_numbers(self, position: int, where: NDArray[np.bool_], numbers: NDArray[Any], family: Family) -> pd.Series:
        """The column with numbers, or times in seconds, at the cells `where`."""
        series = self.columns[position]
        dtype: Any = series.dtype
        if isinstance(dtype, np.dtype):
            return self.series(position, arrays.put_numbers(series.to_numpy(), where, numbers, family))
        if isinstance(dtype, pd.ArrowDtype):
            return self.from_chunks(position, arrow_table.put_numbers(chunks(series), where, numbers, family))
        if isinstance(dtype, pd.DatetimeTZDtype):
            stamps = pd.Series(times(numbers, dtype.unit)).dt.tz_localize("UTC").dt.tz_convert(dtype.tz)
            return self.assigned(position, where, stamps.array)
        if isinstance(dtype, pd.PeriodDtype):
            frequency: Any = dtype.freq
            periods = pd.DatetimeIndex(times(numbers, "us")).to_period(frequency)
            return self.assigned(position, where, periods.array)
        blank = np.zeros(len(numbers), dtype=getattr(dtype, "numpy_dtype", bool))
        filled = arrays.put_numbers(blank, np.ones(len(numbers), dtype=bool), numbers, family)
        return self.assigned(position, where, pd.array(filled, dtype=dtype))

    def put_levels(
        self, position: int, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
    ) -> pd.Series:
        """The column with levels at the cells `where`; categories that the dtype lacks are added to it, last."""
        series = self.columns[position]
        dtype: Any = series.dtype
        if isinstance(dtype, np.dtype):
            return self.series(position, arrays.put_levels(series.to_numpy(), where, codes, levels))
        if isinstance(dtype, pd.ArrowDtype):
            return self.from_chunks(position, arrow_table.put_levels(chunks(series), where, codes, levels))
        if isinstance(dtype, pd.CategoricalDtype):
            places = {category: place for place, category in enumerate(dtype.categories)}
            used = [levels[code] for code in np.unique(codes)]
            added = [level for level in used if level not in places]
            if added and dtype.ordered:
                warn(
                    f"Column {series.name!r} is ordered and lacks levels that are imputed, {listed(added)}; they come "
                    "last in its order. Give it the categories of fit: X[column].cat.set_categories(...)."
                )
            categorical = series.array.add_categories(added) if added else series.array
            places.update({level: len(places) + place for place, level in enumerate(added)})
            new = categorical.codes.astype(np.int64)
            new[where] = np.array([places.get(level, -1) for level in levels])[codes]
            return self.series(position, pd.Categorical.from_codes(new, dtype=categorical.dtype))
        if (isinstance(dtype, pd.StringDtype) and contents(levels) != "strings") or (
            isinstance(dtype, pd.BooleanDtype) and contents(levels) != "bools"
        ):
            return self.fresh(position, objects(levels)[codes].tolist())
        return self.assigned(position, where, pd.array(objects(levels)[codes].tolist(), dtype=dtype))

    def fresh(self, position: int, values: NDArray[Any] | list[Any]) -> pd.Series:
        """A column of new values, in the dtype that suits them; object columns stay so."""
        old = self.columns[position]
        keep = object if old.dtype == object else None
        return pd.Series(values, index=self.frame.index, name=old.name, dtype=keep)

    def rebuilt(self, columns: Mapping[int, pd.Series], only: Sequence[int] | None = None) -> pd.DataFrame:
        """The frame with some columns replaced, all columns or `only` these."""
        out: Any = self.frame.copy() if only is None else self.frame.iloc[:, list(only)].copy()
        for place, position in enumerate(range(len(self.names)) if only is None else only):
            if position in columns:
                out.isetitem(place, columns[position])
        return out

    def assigned(self, position: int, where: NDArray[np.bool_], values: Any) -> pd.Series:
        """The column with an array of its own dtype at the cells `where`."""
        array = self.columns[position].array.copy()
        array[where] = values
        return self.series(position, array)

    def series(self, position: int, array: Any) -> pd.Series:
        """An array as a column of this frame; objects are left as they are."""
        old = self.columns[position]
        return pd.Series(array, index=self.frame.index, name=old.name, dtype=array.dtype)

    def from_chunks(self, position: int, column: pa.ChunkedArray) -> pd.Series:
        """An Arrow column as a column of this frame."""
        return self.series(position, pd.arrays.ArrowExtensionArray(column))


def chunks(series: pd.Series) -> pa.ChunkedArray:
    """The Arrow column behind an Arrow-backed series."""
    array = series.array.__arrow_array__()
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def times(seconds: NDArray[Any], unit: str) -> NDArray[Any]:
    """Seconds since 1970 as datetime64 of a unit."""
    blank = np.zeros(len(seconds), dtype=f"datetime64[{unit}]")
    return arrays.put_numbers(blank, np.ones(len(seconds), dtype=bool), seconds, "datetime")
