"""Every container and dtype comes back as it went in, observed cells bit for bit, and no missing cell is left."""

import datetime
import json
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tabmae.errors import SavedModelError
from tabmae.schema import Column, TableSchema, missing_cells

N = 12
ODD_FLOATS = [-0.0, 0.0, 5e-324, 1e300, -1e300, 0.1, 1 / 3, 1e-310, 2.5, 1.0, 7.0, 3.0]
BIG_INTS = [2**60 + 1, 2**60 + 3, -(2**61) - 1, 5, 6, 7, 8, 9, 10, 11, 2**62 + 7, -3]
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=day) for day in range(N)]
STAMPS = [datetime.datetime(2024, 1, 1, 5, 7, 9, 123457) + datetime.timedelta(hours=13 * hour) for hour in range(N)]
SPANS = [datetime.timedelta(minutes=7 * minute, microseconds=minute) for minute in range(N)]
WORDS = ["b", "a", "", "b", "ø", "a a", "b", "c", "d", "b", "a", "1"]
HOLES = [1, 4, 11]


def holed(values: list[Any], blank: Any = None) -> list[Any]:
    """The values with three cells missing."""
    return [blank if place in HOLES else value for place, value in enumerate(values)]


def pandas_columns() -> dict[str, pd.Series]:
    """A column for each pandas dtype."""
    floats, words, bools = holed(ODD_FLOATS), holed(WORDS), holed([True, False, True] * 4)
    small = holed([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
    intervals = pd.cut(pd.Series(holed([float(n) for n in range(N)], np.nan)), 3)
    return {
        "float64": pd.Series(floats, dtype="float64"),
        "float32": pd.Series(holed([0.1, -0.0, 1e-45] * 4), dtype="float32"),
        "float16": pd.Series(holed([0.1, -0.0, 65504.0] * 4), dtype="float16"),
        "int64": pd.Series(BIG_INTS, dtype="int64"),
        "uint8": pd.Series(range(N), dtype="uint8"),
        "bool": pd.Series([True, False] * 6),
        "Int64": pd.Series(holed(BIG_INTS), dtype="Int64"),
        "UInt64": pd.Series(holed([2**64 - 1, *range(N - 1)]), dtype="UInt64"),
        "Int8": pd.Series(small, dtype="Int8"),
        "Float64": pd.Series(floats, dtype="Float64"),
        "Float32": pd.Series(holed([0.1, 2.0, 1e-45] * 4), dtype="Float32"),
        "boolean": pd.Series(bools, dtype="boolean"),
        "string": pd.Series(words, dtype="string"),
        "str": pd.Series(words),
        "object strings": pd.Series(words, dtype=object),
        "object bools": pd.Series(holed([True, False, True] * 4, np.nan), dtype=object),
        "object integers": pd.Series(holed(BIG_INTS), dtype=object),
        "object floats": pd.Series(holed(ODD_FLOATS, pd.NA), dtype=object),
        "object numbers": pd.Series(holed([1, 2.5, np.float32(0.1)] * 4), dtype=object),
        "object decimals": pd.Series(holed([Decimal("1.10"), Decimal("2"), Decimal("3")] * 4), dtype=object),
        "object dates": pd.Series(holed(DAYS), dtype=object),
        "object datetimes": pd.Series(holed(STAMPS), dtype=object),
        "object aware": pd.Series(holed([stamp.replace(tzinfo=datetime.UTC) for stamp in STAMPS]), dtype=object),
        "object times": pd.Series(holed([stamp.time() for stamp in STAMPS]), dtype=object),
        "object spans": pd.Series(holed(SPANS), dtype=object),
        "category": pd.Series(pd.Categorical(words, categories=["z", *sorted(set(WORDS))])),
        "ordered": pd.Series(pd.Categorical(holed([3, 1, 2] * 4), categories=[1, 2, 3, 9], ordered=True)),
        "interval category": intervals,
        "date category": pd.Series(pd.Categorical(holed(DAYS))),
        "stamp category": pd.Series(pd.Categorical(pd.to_datetime(holed(STAMPS)))),
        "zone category": pd.Series(pd.Categorical(pd.to_datetime(holed(STAMPS)).tz_localize("Europe/Oslo"))),
        "interval": pd.Series(pd.arrays.IntervalArray.from_breaks(range(N + 1))).where(intervals.notna()),
        "datetime ns": pd.Series(pd.to_datetime(holed(STAMPS)).as_unit("ns")),
        "datetime s": pd.Series(pd.to_datetime(holed(DAYS)).as_unit("s")),
        "datetime tz": pd.Series(pd.to_datetime(holed(STAMPS)).tz_localize("Europe/Oslo").as_unit("ms")),
        "timedelta": pd.Series(pd.to_timedelta(holed(SPANS)).as_unit("us")),
        "period": pd.Series(pd.PeriodIndex(holed([f"2024-{month:02}" for month in range(1, 13)]), freq="M")),
        "arrow int64": pd.Series(holed(BIG_INTS), dtype=pd.ArrowDtype(pa.int64())),
        "arrow double": pd.Series(floats, dtype=pd.ArrowDtype(pa.float64())),
        "arrow string": pd.Series(words, dtype=pd.ArrowDtype(pa.string())),
        "arrow bool": pd.Series(bools, dtype=pd.ArrowDtype(pa.bool_())),
        "arrow timestamp": pd.Series(holed(STAMPS), dtype=pd.ArrowDtype(pa.timestamp("us", "Europe/Oslo"))),
        "arrow date": pd.Series(holed(DAYS), dtype=pd.ArrowDtype(pa.date32())),
    }


def arrow_columns() -> dict[str, pa.Array]:
    """A column for each Arrow type."""
    words = holed(WORDS)
    decimals = [Decimal(f"{n / 4:.2f}") for n in range(N)]
    integers = {str(kind): pa.array(holed(list(range(N))), kind) for kind in (pa.int8(), pa.uint16(), pa.int32())}
    return integers | {
        "int64": pa.array(holed(BIG_INTS)),
        "uint64": pa.array(holed([2**64 - 1, *range(N - 1)]), pa.uint64()),
        "double": pa.array(holed(ODD_FLOATS)),
        "double with NaN": pa.array(holed(ODD_FLOATS, float("nan"))),
        "float": pa.array(holed([0.1, -0.0, 1e-45] * 4), pa.float32()),
        "half": pa.array(np.array([0.1, -0.0, 2] * 4, dtype=np.float16), mask=np.isin(np.arange(N), HOLES)),
        "bool": pa.array(holed([True, False, True] * 4)),
        "string": pa.array(words),
        "string_view": pa.array(words, pa.string_view()),
        "large_string": pa.array(words, pa.large_string()),
        "binary": pa.array(holed([word.encode() for word in WORDS])),
        "dictionary": pa.array(words).dictionary_encode(),
        "ordered dictionary": pa.array(words).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string(), True)),
        "decimal": pa.array(holed(decimals), pa.decimal128(10, 2)),
        "whole decimal": pa.array(holed([Decimal(n) for n in range(N)]), pa.decimal128(10, 0)),
        "timestamp ns": pa.array(holed(STAMPS), pa.timestamp("ns")),
        "timestamp tz": pa.array(holed(STAMPS), pa.timestamp("ms", "Europe/Oslo"), safe=False),
        "date32": pa.array(holed(DAYS), pa.date32()),
        "date64": pa.array(holed(DAYS), pa.date64()),
        "time64": pa.array(holed([stamp.time() for stamp in STAMPS]), pa.time64("us")),
        "time32": pa.array(holed([datetime.time(n) for n in range(N)]), pa.time32("s")),
        "duration": pa.array(holed(SPANS), pa.duration("us")),
    }


def polars_columns() -> dict[str, pl.Series]:
    """A column for each polars dtype."""
    words = holed(WORDS)
    return {
        "Float64": pl.Series(holed(ODD_FLOATS)),
        "Float64 with NaN": pl.Series(holed(ODD_FLOATS, float("nan"))),
        "Float32": pl.Series(holed([0.1, -0.0, 1e-45] * 4), dtype=pl.Float32),
        "Int64": pl.Series(holed(BIG_INTS)),
        "UInt8": pl.Series(holed(list(range(N))), dtype=pl.UInt8),
        "Int128": pl.Series(holed([2**100 + 1, *range(N - 1)]), dtype=pl.Int128),
        "Boolean": pl.Series(holed([True, False, True] * 4)),
        "String": pl.Series(words),
        "Categorical": pl.Series(words, dtype=pl.Categorical),
        "Enum": pl.Series(words, dtype=pl.Enum(["z", *sorted(set(WORDS))])),
        "Binary": pl.Series(holed([word.encode() for word in WORDS])),
        "Decimal": pl.Series(holed([Decimal(f"{n / 4:.2f}") for n in range(N)]), dtype=pl.Decimal(10, 2)),
        "Date": pl.Series(holed(DAYS)),
        "Datetime": pl.Series(holed(STAMPS), dtype=pl.Datetime("ns")),
        "Datetime tz": pl.Series(holed(STAMPS)).dt.replace_time_zone("Europe/Oslo"),
        "Duration": pl.Series(holed(SPANS), dtype=pl.Duration("ms")),
        "Time": pl.Series(holed([stamp.time() for stamp in STAMPS])),
    }


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """A 2-D array for each numpy dtype."""
    stamps = np.array(holed(STAMPS, "NaT"), dtype="datetime64[us]").reshape(6, 2)
    return {
        "float64": np.array(holed(ODD_FLOATS, np.nan)).reshape(6, 2),
        "float32": np.array(holed([0.1, -0.0, 1e-45] * 4, np.nan), dtype=np.float32).reshape(6, 2),
        "fortran": np.asfortranarray(np.array(holed(ODD_FLOATS, np.nan)).reshape(6, 2)),
        "int64": np.array(BIG_INTS).reshape(6, 2),
        "bool": np.array([True, False, True] * 4).reshape(6, 2),
        "str": np.array(WORDS).reshape(6, 2),
        "big-endian": np.array(holed(ODD_FLOATS, np.nan), dtype=">f8").reshape(6, 2),
        "strings": np.array(WORDS, dtype=np.dtypes.StringDType()).reshape(6, 2),
        "datetime64[us]": stamps,
        "datetime64[D]": stamps.astype("datetime64[D]"),
        "timedelta64[s]": stamps - stamps[0, 0],
        "object": np.array([[1, "a"], [None, "b"], [2**60 + 1, None], [4, "b"]], dtype=object),
    }


def single_columns() -> dict[str, Any]:
    """Every dtype of every container, as a table of that column and a complete one."""
    tables: dict[str, Any] = {}
    for name, series in pandas_columns().items():
        frame = pd.DataFrame({"x": series, "y": np.arange(N)})
        tables[f"pandas {name}"] = frame.set_index(pd.Index([0, 1, 1] * 4, name="key"))
    for name, array in arrow_columns().items():
        half = pa.table({"y": pa.array(range(N)), "x": array})
        tables[f"arrow {name}"] = pa.concat_tables([half.slice(0, 5), half.slice(5)])
    for name, column in polars_columns().items():
        tables[f"polars {name}"] = pl.DataFrame({"y": range(N), "x": column})
    tables |= {f"array {name}": array for name, array in arrays().items()}
    tables["list"] = [[1.5, "a", True], [None, "b", False], [float("nan"), None, None], [-0.0, "a", True]]
    return tables


TABLES = single_columns()


def rows(table: Any) -> list[list[Any]]:
    """The cells of any table as Python objects."""
    if isinstance(table, pd.DataFrame):
        columns = [table.iloc[:, place].tolist() for place in range(table.shape[1])]
        return [list(row) for row in zip(*columns, strict=True)]
    if isinstance(table, pa.Table):
        return [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    if isinstance(table, pl.DataFrame):
        return [list(row) for row in table.rows()]
    return [list(row) for row in (table if isinstance(table, list) else table.tolist())]


def bits(table: Any) -> list[list[tuple[type, str]]]:
    """Type and exact value of each cell; repr tells -0.0 from 0.0 and keeps every digit."""
    return [[(type(cell), repr(cell)) for cell in row] for row in rows(table)]


def layout(table: Any) -> list[str]:
    """What a container promises of its columns."""
    if isinstance(table, pd.DataFrame):
        return [str(table.index), *(f"{name!r} {dtype!r}" for name, dtype in table.dtypes.items())]
    if isinstance(table, pa.Table):
        return [str(table.schema)]
    if isinstance(table, pl.DataFrame):
        return [str(table.schema)]
    return [str(getattr(table, "dtype", "list"))]


@pytest.mark.parametrize("name", TABLES)
def test_observed_cells_come_back_bit_for_bit_and_no_missing_cell_is_left(name: str) -> None:
    table = TABLES[name]
    before = bits(table)
    schema = TableSchema.fit(table)
    values, observed = schema.encode(table)
    assert values.dtype == np.float32 and np.isfinite(values).all() and (values[~observed] == 0).all()
    np.testing.assert_array_equal(observed, ~missing_cells(table))
    decoded = schema.decode(values + 0.3, table)
    assert type(decoded) is type(table)
    assert layout(decoded) == layout(table)
    after = bits(decoded)
    assert bits(table) == before, "decode changed its input"
    assert all(after[r][c] == before[r][c] for r, c in np.argwhere(observed))
    assert not missing_cells(decoded).any()
    kinds = {(c, type(cell)) for r, row in enumerate(rows(table)) for c, cell in enumerate(row) if observed[r, c]}
    filled = {(c, after[r][c][0]) for r, c in np.argwhere(~observed)}
    assert filled <= kinds | ({(0, float)} if "numbers" in name else set()), "filled cells are of the column's own type"


@pytest.mark.parametrize("name", TABLES)
def test_full_and_decode_numbers_keep_the_container_and_miss_nothing(name: str) -> None:
    table = TABLES[name]
    schema = TableSchema.fit(table)
    values, _ = schema.encode(table)
    full = schema.full(values, table)
    assert type(full) is type(table) and not missing_cells(full).any()
    n_numbers = sum(column.kind == "number" for column in schema.columns)
    if n_numbers:
        for fill_observed in (True, False):
            numbers = schema.decode_numbers(values, table, fill_observed=fill_observed)
            assert type(numbers) is type(table) and missing_cells(numbers).shape == (values.shape[0], n_numbers)
            assert not missing_cells(numbers).any()


@pytest.mark.parametrize("name", TABLES)
def test_complete_table_decodes_to_an_equal_copy(name: str) -> None:
    table = TABLES[name]
    schema = TableSchema.fit(table)
    values, _ = schema.encode(table)
    complete = schema.decode(values, table)
    again = schema.decode(values, complete)
    assert again is not complete or isinstance(table, pa.Table)
    assert bits(again) == bits(complete) and layout(again) == layout(complete)


@pytest.mark.parametrize("name", TABLES)
def test_schema_survives_json_exactly(name: str) -> None:
    schema = TableSchema.fit(TABLES[name])
    loaded = TableSchema.from_dict(json.loads(json.dumps(schema.to_dict(), allow_nan=False)))
    assert loaded == schema
    assert [list(map(type, column.levels)) for column in loaded.columns] == [
        list(map(type, column.levels)) for column in schema.columns
    ]
    np.testing.assert_array_equal(loaded.encode(TABLES[name])[0], schema.encode(TABLES[name])[0])


@pytest.mark.parametrize(
    "index",
    [
        pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", None]),
        pd.date_range("2024", periods=4, freq="D", tz="UTC"),
        pd.Index([1, 1, 0, 0], name="twice"),
        pd.CategoricalIndex(["u", "v", "u", "v"]),
    ],
    ids=["multi", "dates", "twice", "category"],
)
def test_index_columns_order_and_attributes_are_kept(index: pd.Index) -> None:
    columns: list[Any] = [3, "b", ("x", 1)]
    frame = pd.DataFrame({3: [1.0, None, 3.0, 4.0], "b": ["u", None, "u", "v"], ("x", 1): [1, 2, 3, 4]})
    frame.columns = pd.Index(columns, tupleize_cols=False)
    frame.index = index
    frame.attrs["source"] = "here"
    schema = TableSchema.fit(frame)
    decoded = schema.decode(schema.encode(frame)[0], frame)
    pd.testing.assert_index_equal(decoded.index, frame.index, exact=True)
    pd.testing.assert_index_equal(decoded.columns, frame.columns, exact=True)
    assert decoded.attrs == frame.attrs and decoded.iloc[1, 1] == "u"


def test_arrow_metadata_is_kept() -> None:
    field = pa.field("x", pa.float64(), metadata={"unit": "m"})
    table = pa.table([pa.array([1.0, None])], schema=pa.schema([field], metadata={"source": "here"}))
    decoded = TableSchema.fit(table).decode(np.zeros((2, 1)), table)
    assert decoded.schema.equals(table.schema, check_metadata=True) and decoded["x"].to_pylist() == [1.0, 1.0]


def test_table_of_one_row_or_one_column_goes_round() -> None:
    frame = pd.DataFrame({"x": [2.5], "c": ["a"]})
    schema = TableSchema.fit(frame)
    assert all(column.constant and column.learnable for column in schema.columns)
    values, _ = schema.encode(frame)
    pd.testing.assert_frame_equal(schema.decode(values, frame), frame)
    hole = pd.DataFrame({"x": [np.nan], "c": [None]})
    pd.testing.assert_frame_equal(schema.decode(values, hole), frame, check_dtype=False)


def test_wide_and_mixed_frames_decode_without_a_warning() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(4, 300))
    numbers[1] = np.nan
    frame = pd.DataFrame(numbers, columns=[f"x{place}" for place in range(300)])
    frame["x7"] = frame["x7"].astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = TableSchema.fit(frame)
        decoded = schema.decode(schema.encode(frame)[0], frame)
    assert (decoded.dtypes == frame.dtypes).all() and not decoded.isna().any().any()


@pytest.mark.parametrize("broken", [{}, {"named": True, "columns": [{}]}, {"named": True, "columns": 3}, [], None])
def test_damaged_saved_schema_gives_one_clear_error(broken: Any) -> None:
    with pytest.raises(SavedModelError, match="The saved schema must be"):
        TableSchema.from_dict(broken)


def test_infinite_float_levels_and_unknown_types_of_level_are_told_apart_in_json() -> None:
    column: Callable[..., Column] = Column
    level = float("inf")
    schema = TableSchema((column("x", "category", "level", (level, "a"), n_observed=2),), True)
    assert TableSchema.from_dict(json.loads(json.dumps(schema.to_dict(), allow_nan=False))) == schema
    with pytest.raises(SavedModelError, match="Names and levels must be"):
        TableSchema((column("x", "category", "level", (object(),), n_observed=2),), True).to_dict()
