"""Columns that are numpy arrays, and the tables made of them: 2-D arrays and lists of rows.

Contract: `read_*` gives Cells; `put_*` gives a new array of the same dtype in which only the cells `where` are changed.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.schema.cells import (
    Cells,
    Family,
    UnreadableError,
    bool_cells,
    number_cells,
    object_cells,
    objects,
    python_values,
    seconds_from,
)

# The largest distance from 1970 that 64 bits hold, in seconds; microseconds are the step between.
REACH = {"ns": 9.2e9, "ps": 9.2e6, "fs": 9.2e3, "as": 9.2}


def read_array(array: NDArray[Any]) -> Cells:
    """Read a 1-D array of any dtype."""
    kind = array.dtype.kind
    missing = missing_in(array)
    if kind == "b":
        return bool_cells(array, missing)
    if kind in "iuf":
        return number_cells(array, missing, integer=kind != "f")
    if kind in "mM":
        ticks = np.where(missing, 0, array.astype(f"{kind}8[{reading_unit(array.dtype)}]").view(np.int64))
        per_second = 1e9 if reading_unit(array.dtype) == "ns" else 1e6
        return seconds_from(ticks, missing, per_second, "datetime" if kind == "M" else "duration")
    if kind == "c":
        raise UnreadableError("complex")
    if kind == "V":
        raise UnreadableError("dtype", str(array.dtype))
    return object_cells(array.astype(object, copy=False))


def missing_in(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which cells of an array, of any shape and dtype, are missing."""
    if array.dtype.kind in "fc":
        return np.isnan(array)
    if array.dtype.kind in "mM":
        return np.isnat(array)
    if array.dtype.kind in "biuUSV":
        return np.zeros(array.shape, dtype=bool)
    return np.asarray(pd.isna(array.astype(object, copy=False)), dtype=bool)


def reading_unit(dtype: np.dtype[Any]) -> str:
    """Nanoseconds stay, all other units go through microseconds."""
    return "ns" if np.datetime_data(dtype) == ("ns", 1) else "us"


def put_numbers(array: NDArray[Any], where: NDArray[np.bool_], numbers: NDArray[Any], family: Family) -> NDArray[Any]:
    """A copy with numbers (seconds for the families of time) at the cells `where`."""
    out = array.copy()
    kind = array.dtype.kind
    if kind == "O":
        present = array[~np.asarray(pd.isna(array), dtype=bool)].tolist()
        out[where] = objects(python_values(numbers, family, present))
    elif kind in "mM":
        reach = REACH.get(np.datetime_data(array.dtype)[0], 9.2e12)
        micros = np.rint(np.clip(numbers, -reach, reach) * 1e6).astype(np.int64)
        out[where] = micros.view(f"{kind}8[us]").astype(array.dtype)
    elif kind == "f":
        limits = np.finfo(array.dtype)
        out[where] = np.clip(numbers, limits.min, limits.max)
    elif kind == "b":
        out[where] = numbers >= 0.5
    else:
        out[where] = clip_integers(numbers, array.dtype)
    return out


def clip_integers(numbers: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers as the nearest that an integer dtype holds."""
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if numbers.dtype.kind == "i":
        return np.clip(numbers, max(low, -(2**63)), min(high, 2**63 - 1)).astype(dtype)
    return np.array([min(max(int(number), low), high) for number in numbers.tolist()], dtype=dtype)


def put_levels(
    array: NDArray[Any], where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
) -> NDArray[Any]:
    """A copy with the levels of these codes at the cells `where`."""
    fixed = array.dtype.kind in "US"
    out = array.astype(object) if fixed else array.copy()
    out[where] = objects(levels)[codes]
    return out.astype(array.dtype.kind) if fixed else out


class ArrayTable:
    """A 2-D array; its columns have positions for names."""

    named = False

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.n_rows = array.shape[0]
        self.names: list[Hashable] = list(range(array.shape[1]))

    def read(self, position: int) -> Cells:
        """Read one column."""
        return read_array(self.array[:, position])

    def missing(self, position: int) -> NDArray[np.bool_]:
        """Which cells of one column are missing."""
        return missing_in(self.array[:, position])

    def put_numbers(
        self, position: int, where: NDArray[np.bool_], numbers: NDArray[Any], family: Family
    ) -> NDArray[Any]:
        """The column with numbers, or times in seconds, at the cells `where`."""
        return put_numbers(self.array[:, position], where, numbers, family)

    def put_levels(
        self, position: int, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
    ) -> NDArray[Any]:
        """The column with levels at the cells `where`."""
        return put_levels(self.array[:, position], where, codes, levels)

    def fresh(self, position: int, values: NDArray[Any] | list[Any]) -> NDArray[Any]:
        """A column of new values, in the type that suits them."""
        return objects(values) if isinstance(values, list) else values

    def rebuilt(self, columns: Mapping[int, NDArray[Any]], only: Sequence[int] | None = None) -> Any:
        """The table with some columns replaced, all columns or `only` these; of a dtype that holds them all."""
        kept = list(range(len(self.names))) if only is None else list(only)
        whole = only is None or any(position not in columns for position in kept)
        dtypes = [column.dtype for column in columns.values()] + [self.array.dtype] * whole
        kinds = {"number" if dtype.kind in "biuf" else dtype.kind for dtype in dtypes}
        dtype = np.result_type(*dtypes) if len(kinds) == 1 else np.dtype(object)
        dtype = dtypes[0] if len(set(dtypes)) == 1 else dtype
        out = np.empty((self.n_rows, len(kept)), dtype=dtype, order="F" if self.array.flags.f_contiguous else "C")
        for place, position in enumerate(kept):
            out[:, place] = columns.get(position, self.array[:, position])
        return out


class ListTable(ArrayTable):
    """A list of rows."""

    def rebuilt(self, columns: Mapping[int, NDArray[Any]], only: Sequence[int] | None = None) -> list[list[Any]]:
        """The rows as lists, with some columns replaced, all columns or `only` these."""
        return list(super().rebuilt(columns, only).tolist())
