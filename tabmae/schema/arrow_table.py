"""Columns that are Arrow arrays, and Arrow tables.

Contract: a column that is put back has the Arrow type of the column that was read; fields and metadata stay.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tabmae.schema import arrays
from tabmae.schema.cells import (
    DAY,
    Cells,
    Family,
    UnreadableError,
    bool_cells,
    contents,
    empty_cells,
    level_cells,
    number_cells,
    objects,
    seconds_from,
    ticks_from,
)
from tabmae.schema.zones import zone_name

PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def read_arrow(column: pa.ChunkedArray) -> Cells:
    """Read a column of any Arrow type."""
    kind = column.type
    missing = missing_in(column)
    if pa.types.is_null(kind):
        return empty_cells(missing)
    if pa.types.is_boolean(kind):
        return bool_cells(pc.fill_null(column, False).to_numpy(), missing)
    if pa.types.is_integer(kind):
        return number_cells(pc.fill_null(column, 0).to_numpy(), missing, integer=True)
    if pa.types.is_floating(kind):
        return number_cells(column.to_numpy(), missing, integer=False)
    if pa.types.is_decimal(kind):
        return number_cells(column.to_numpy(), missing, integer=kind.scale <= 0)
    family = time_family(kind)
    if family is not None:
        ticks = pc.fill_null(column.cast(tick_type(kind)), 0).to_numpy()
        zone = zone_name(kind.tz) if family == "datetime with time zone" else ""
        return seconds_from(ticks, missing, ticks_per_second(kind), family, zone)
    if pa.types.is_nested(kind):
        raise UnreadableError("nested", str(kind))
    if pa.types.is_dictionary(kind):
        codes, dictionary = dictionary_parts(column)
        if pa.types.is_nested(dictionary.type):
            raise UnreadableError("nested", str(kind))
        return level_cells(codes, dictionary.to_pylist())
    if is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        codes, dictionary = dictionary_parts(column.cast(pa.large_string()) if is_text(kind) else column)
        return level_cells(codes, dictionary.to_pylist())
    raise UnreadableError("dtype", str(kind))


def missing_in(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which cells of a column are null or NaN."""
    if pa.types.is_floating(column.type):
        return np.isnan(column.to_numpy())
    if pa.types.is_dictionary(column.type):
        codes, dictionary = dictionary_parts(column)
        blank = dictionary.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        return np.append(blank, True)[codes]
    return np.asarray(column.is_null().to_numpy(), dtype=bool)


def put_numbers(
    column: pa.ChunkedArray, where: NDArray[np.bool_], numbers: NDArray[Any], family: Family
) -> pa.ChunkedArray:
    """A column with numbers, or times in seconds, at the cells `where`."""
    kind = column.type
    if family != "number":
        ticks = ticks_from(numbers, ticks_per_second(kind))
        if pa.types.is_date64(kind):
            ticks = np.rint(numbers / DAY).astype(np.int64) * 86_400_000
        if pa.types.is_time(kind):
            ticks = np.clip(ticks, 0, int(DAY * ticks_per_second(kind)) - 1)
        return replaced(column, where, pa.array(ticks).cast(tick_type(kind)).cast(kind))
    if pa.types.is_decimal(kind):
        limit = 10.0 ** (kind.precision - kind.scale) * (1 - 1e-15) - 10.0**-kind.scale
        return replaced(column, where, pa.array(np.clip(numbers.astype(np.float64), -limit, limit)).cast(kind))
    blank = np.zeros(len(numbers), dtype=bool if pa.types.is_boolean(kind) else kind.to_pandas_dtype())
    filled = arrays.put_numbers(blank, np.ones(len(numbers), dtype=bool), numbers, family)
    return replaced(column, where, pa.array(filled, type=kind))


def put_levels(
    column: pa.ChunkedArray, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
) -> pa.ChunkedArray:
    """A column with levels at the cells `where`; a dictionary that lacks some of them is extended."""
    kind = column.type
    content = contents(levels)
    if pa.types.is_dictionary(kind):
        return put_in_dictionary(column, where, codes, levels)
    if (is_text(kind) and content != "strings") or (pa.types.is_boolean(kind) and content != "bools"):
        return fresh(objects(levels)[codes].tolist())
    if pa.types.is_null(kind):
        return fresh(objects(levels)[codes].tolist())
    # Views of strings cannot be taken by index.
    solid = pa.large_string() if str(kind) == "string_view" else kind
    values = pa.array(levels, type=solid).take(pa.array(codes))
    return replaced(column.cast(solid), where, values).cast(kind)


def put_in_dictionary(
    column: pa.ChunkedArray, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
) -> pa.ChunkedArray:
    """A dictionary column with levels at the cells `where`, its old entries in their order."""
    kind = column.type
    indices, dictionary = dictionary_parts(column)
    places = {value: place for place, value in enumerate(dictionary.to_pylist())}
    used = np.unique(codes).tolist()
    added = [levels[code] for code in used if levels[code] not in places]
    places.update({level: len(dictionary) + place for place, level in enumerate(added)})
    if added:
        value_type = kind.value_type if len(dictionary) else pa.array(added).type
        dictionary = pa.concat_arrays([dictionary.cast(value_type), pa.array(added, type=value_type)])
    indices[where] = np.array([places.get(level, -1) for level in levels])[codes]
    index_type = kind.index_type if len(dictionary) <= np.iinfo(kind.index_type.to_pandas_dtype()).max else pa.int32()
    entries = pa.array(indices, mask=indices < 0).cast(index_type)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(entries, dictionary, ordered=kind.ordered)])


def replaced(column: pa.ChunkedArray, where: NDArray[np.bool_], values: pa.Array) -> pa.ChunkedArray:
    """A column with values of its own type at the cells `where`."""
    sources = np.arange(len(column))
    sources[where] = len(column) + np.arange(len(values))
    return pa.chunked_array([*column.chunks, values], type=column.type).take(pa.array(sources))


def fresh(values: NDArray[Any] | list[Any]) -> pa.ChunkedArray:
    """A column of new values, in the type that suits them."""
    return pa.chunked_array([pa.array(values)])


def dictionary_parts(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Codes, -1 where null, and the values that they stand for."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    joined = encoded.unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = joined.chunk(0) if joined.num_chunks else pa.array([], type=encoded.type)
    return pc.fill_null(joined.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).copy(), joined.dictionary


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of the types of strings."""
    return str(kind) in ("string", "large_string", "string_view")


def time_family(kind: pa.DataType) -> Family | None:
    """The family of time of a type, None when it is none."""
    if pa.types.is_timestamp(kind):
        return "datetime" if kind.tz is None else "datetime with time zone"
    if pa.types.is_date(kind):
        return "datetime"
    if pa.types.is_duration(kind):
        return "duration"
    return "time of day" if pa.types.is_time(kind) else None


def tick_type(kind: pa.DataType) -> pa.DataType:
    """The integer behind a type of time."""
    return pa.int32() if pa.types.is_date32(kind) or pa.types.is_time32(kind) else pa.int64()


def ticks_per_second(kind: pa.DataType) -> float:
    """How many of its units a type of time counts in a second."""
    if pa.types.is_date32(kind):
        return 1 / DAY
    return 1e3 if pa.types.is_date64(kind) else PER_SECOND[kind.unit]


class ArrowTable:
    """An Arrow table."""

    named = True

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.n_rows = table.num_rows
        self.names: list[Hashable] = list(table.column_names)

    def read(self, position: int) -> Cells:
        """Read one column."""
        return read_arrow(self.table.column(position))

    def missing(self, position: int) -> NDArray[np.bool_]:
        """Which cells of one column are missing."""
        return missing_in(self.table.column(position))

    def put_numbers(
        self, position: int, where: NDArray[np.bool_], numbers: NDArray[Any], family: Family
    ) -> pa.ChunkedArray:
        """The column with numbers, or times in seconds, at the cells `where`."""
        return put_numbers(self.table.column(position), where, numbers, family)

    def put_levels(
        self, position: int, where: NDArray[np.bool_], codes: NDArray[np.int64], levels: Sequence[Hashable]
    ) -> pa.ChunkedArray:
        """The column with levels at the cells `where`."""
        return put_levels(self.table.column(position), where, codes, levels)

    def fresh(self, position: int, values: NDArray[Any] | list[Any]) -> pa.ChunkedArray:
        """A column of new values, in the type that suits them."""
        return fresh(values)

    def rebuilt(self, columns: Mapping[int, pa.ChunkedArray], only: Sequence[int] | None = None) -> pa.Table:
        """The table with some columns replaced, all columns or `only` these."""
        out = self.table
        for position, column in columns.items():
            field = out.schema.field(position).with_type(column.type)
            out = out.set_column(position, field, column)
        return out if only is None else out.select(list(only))
