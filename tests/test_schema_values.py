"""What the encoded values mean, and what decoding gives for cells that were missing."""

import datetime
import time
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tabmae.schema import TableSchema, missing_cells


def filled(fitted: Any, like: Any, value: float = 0.0) -> Any:
    """Fit, and decode one value into every missing cell of another table."""
    schema = TableSchema.fit(fitted)
    return schema.decode(np.full(missing_cells(like).shape, value), like)


def test_numbers_are_standardised_by_the_observed_cells_and_categories_ranked_by_frequency() -> None:
    frame = pd.DataFrame({"x": [1.0, 3.0, np.nan, 5.0], "c": ["rare", "often", "often", "late"]})
    schema = TableSchema.fit(frame)
    number, category = schema.columns
    assert (number.mean, number.low, number.high, number.n_observed, number.whole) == (3.0, 1.0, 5.0, 3, True)
    assert number.scale == pytest.approx(np.std([1, 3, 5])) and not number.integer and number.n_levels == 0
    assert category.levels == ("often", "rare", "late") and schema.n_levels == (0, 3)
    values, observed = schema.encode(frame)
    np.testing.assert_allclose(values[:, 0], np.array([-2, 0, 0, 2]) / number.scale, rtol=1e-6)
    np.testing.assert_array_equal(values[:, 1], [1, 0, 0, 2])
    np.testing.assert_array_equal(observed[:, 0], [True, True, False, True])


def test_the_columns_of_arrays_go_by_their_positions() -> None:
    assert [column.name for column in TableSchema.fit(np.eye(2)).columns] == [0, 1]


@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "int64[pyarrow]", "object", "Float64", "float32"])
def test_integers_are_rounded_into_the_observed_range_and_floats_are_not(dtype: str) -> None:
    frame = pd.DataFrame({"x": [1, 9, 4, None]}, dtype=object).astype({"x": dtype})
    scale = TableSchema.fit(frame).columns[0].scale
    middle = filled(frame, frame, 0.4 / scale)["x"].iloc[3]
    far = filled(frame, frame, 100.0)["x"].iloc[3]
    if dtype in ("Float64", "float32"):
        assert middle == pytest.approx(14 / 3 + 0.4) and far > 100
    else:
        assert middle == 5 and far == 9 and filled(frame, frame, -100.0)["x"].iloc[3] == 1


def test_integers_of_fit_stay_whole_in_a_table_whose_holes_made_them_floats() -> None:
    complete = pd.DataFrame({"rooms": [1, 9, 4, 5]})
    holes = pd.DataFrame({"rooms": [1.0, np.nan, 2.5, 7.0]})
    schema = TableSchema.fit(complete)
    values, observed = schema.encode(holes)
    filled = schema.decode(np.where(observed, values, 0.1), holes)["rooms"]
    assert filled.dtype == float and filled.tolist() == [1.0, 5.0, 2.5, 7.0]


def test_whole_numbers_of_any_dtype_stay_whole_on_demand() -> None:
    frame = pd.DataFrame({"w": [1.0, 9.0, 4.0, None], "x": [1.5, 9.0, 4.0, None]})
    schema = TableSchema.fit(frame)
    assert [column.whole for column in schema.columns] == [True, False]
    decoded = schema.decode(np.full((4, 2), 0.1), frame, whole=True)
    assert decoded["w"].iloc[3] == 5.0 and decoded["x"].iloc[3] % 1 != 0


def test_constant_and_extreme_integers_are_filled_exactly() -> None:
    for value in (2**60 + 1, -(2**63), 2**63 - 1, 2**64 - 1):
        frame = pl.DataFrame({"x": pl.Series([value, None, value], dtype=pl.UInt64 if value >= 2**63 else pl.Int64)})
        assert filled(frame, frame, 3.0)["x"].to_list() == [value] * 3
    both = pd.DataFrame({"x": pd.array([-(2**63), 2**63 - 1, None], dtype="Int64")})
    assert filled(both, both, 9.0)["x"].iloc[2] == 2**63 - 1 and filled(both, both, -9.0)["x"].iloc[2] == -(2**63)


def test_no_bound_is_passed_by_a_rounded_digit() -> None:
    rng = np.random.default_rng(0)
    for low in rng.uniform(0, 1, 200):
        column = TableSchema.fit(low + rng.exponential(100.0, (20, 1))).columns[0]
        ends = np.array([column.low, column.high, 0.0])
        assert (column.numbers((ends - column.mean) / column.scale) == ends).all()


def test_common_numbers_come_back_to_the_last_digit_from_single_precision() -> None:
    numbers = np.array([0.0, 0.1, 17.3, *(np.linspace(-900, 4000, 50) + 1 / 3)]).repeat(3)
    table = pd.DataFrame({"a": numbers})
    schema = TableSchema.from_dict(TableSchema.fit(table).to_dict())
    values, observed = schema.encode(table)
    decoded = schema.decode(values, table.mask(observed))["a"]
    exact = decoded.to_numpy() == numbers
    assert exact.sum() >= 3 * 16 and not exact.all()
    assert exact[np.isin(numbers, schema.columns[0].common)].all()
    np.testing.assert_allclose(decoded, numbers, atol=1e-3)


@pytest.mark.parametrize("decimals", [0, 1, 3])
def test_numbers_of_few_decimals_come_back_to_the_last_digit_from_single_precision(decimals: int) -> None:
    numbers = np.round(np.random.default_rng(0).normal(170, 10, size=500), decimals)
    schema = TableSchema.from_dict(TableSchema.fit(pd.DataFrame({"a": numbers})).to_dict())
    table = pd.DataFrame({"a": numbers})
    values, observed = schema.encode(table)
    assert (schema.decode(values, table.mask(observed))["a"] == numbers).all()
    between = values + 0.3 * 10.0**-decimals / 10
    off = schema.decode(between, table.mask(observed))["a"] - numbers
    np.testing.assert_allclose(off, 0.3 * 10.0**-decimals, rtol=0.15)


def test_integer_column_fitted_as_floats_between_two_integers_is_filled_with_a_neighbour() -> None:
    like = pd.DataFrame({"x": pd.array([7, None], dtype="Int64")})
    assert filled(pd.DataFrame({"x": [0.4, 0.6]}), like)["x"].tolist() in ([7, 0], [7, 1])
    tiny = pd.DataFrame({"x": pd.array([7, None], dtype="Int8")})
    assert filled(pd.DataFrame({"x": [1000, 1000]}), tiny)["x"].tolist() == [7, 127]


def test_float_column_too_small_for_the_number_gets_the_largest_that_it_holds() -> None:
    like = pd.DataFrame({"x": np.array([1, np.nan], dtype="float32")})
    assert filled(pd.DataFrame({"x": [1e300, 1e300]}), like)["x"].iloc[1] == np.finfo("float32").max


def test_complete_integers_come_back_as_they_were_after_a_fit_on_floats() -> None:
    like = pd.DataFrame({"x": np.array([2**60 + 1, 3], dtype="int64")})
    pd.testing.assert_frame_equal(filled(pd.DataFrame({"x": [1.0, np.nan]}), like), like)


def test_dates_stay_on_their_step_and_moments_do_not() -> None:
    days = pd.DataFrame({"d": [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-04"), pd.NaT]})
    assert TableSchema.fit(days).columns[0].step == 86_400
    assert filled(days, days, 0.1)["d"].iloc[2] == pd.Timestamp("2024-01-03")
    moments = pd.DataFrame({"d": [pd.Timestamp("2024-01-01 00:00:00.25"), pd.Timestamp("2024-01-04"), pd.NaT]})
    assert filled(moments, moments)["d"].iloc[2] == pd.Timestamp("2024-01-02 12:00:00.125")
    objects = pd.DataFrame({"d": [datetime.date(2024, 1, 1), datetime.date(2024, 1, 4), None]}, dtype=object)
    assert filled(objects, objects, 0.1)["d"].iloc[2] == datetime.date(2024, 1, 3)


def test_times_of_another_unit_than_in_fit_mean_the_same() -> None:
    stamps = pd.to_datetime(["2024-01-01", "2024-01-04", "2024-03-04"])
    schema = TableSchema.fit(pd.DataFrame({"d": stamps.as_unit("ns")}))
    expected = schema.encode(pd.DataFrame({"d": stamps.as_unit("ns")}))[0]
    for other in (
        pd.DataFrame({"d": stamps.as_unit("s")}),
        pa.table({"d": pa.array(stamps.date)}),
        pl.DataFrame({"d": list(stamps.date)}),
        pd.DataFrame({"d": stamps.to_period("D")}),
    ):
        np.testing.assert_array_equal(schema.encode(other)[0], expected)


def test_far_times_stay_in_the_range_of_their_unit() -> None:
    frame = pd.DataFrame({"d": pd.DatetimeIndex(["2024-01-01", "2250-01-04", "NaT"]).as_unit("ns")})
    assert filled(frame, frame, 9.0)["d"].iloc[2].year >= 2250
    dates = pl.DataFrame({"d": [datetime.date(2024, 1, 1), datetime.date(9999, 1, 1), None]})
    assert filled(dates, dates, -9.0)["d"].null_count() == 0


def test_far_decimals_and_times_of_day_stay_in_their_type() -> None:
    decimals = pa.table({"x": pa.array([Decimal("9.99"), Decimal("1.00"), None], pa.decimal128(3, 2))})
    assert filled(decimals, decimals, 9.0)["x"][2].as_py() == Decimal("9.99")
    assert filled(decimals, decimals, -9.0)["x"][2].as_py() == Decimal("-9.99")
    times = [datetime.time(23, 59, 59, 5), datetime.time(12), None]
    for frame in (pa.table({"x": times}), pl.DataFrame({"x": times}), pd.DataFrame({"x": times}, dtype=object)):
        for far, hour in ((9.0, 23), (-9.0, 0)):
            assert str(list(filled(frame, frame, far)["x"])[2]).startswith(f"{hour:02}:")


def test_categories_keep_their_dtype_and_gain_only_a_level_that_is_put_in() -> None:
    fitted = pd.DataFrame({"c": ["a", "a", "b"]})
    like = pd.DataFrame({"c": pd.Categorical(["b", None], categories=["b", "z"])})
    assert list(filled(fitted, like, 1.0)["c"].cat.categories) == ["b", "z"]
    assert filled(fitted, like, 0.0)["c"].tolist() == ["b", "a"]
    enum = pl.DataFrame({"c": pl.Series(["b", None], dtype=pl.Enum(["b", "z"]))})
    assert filled(fitted, enum, 1.0).schema == enum.schema
    assert filled(fitted, enum, 0.0)["c"].to_list() == ["b", "a"]
    table = pa.table({"c": pa.array(["b", None]).dictionary_encode()})
    assert filled(fitted, table, 0.0)["c"].to_pylist() == ["b", "a"]


@pytest.mark.filterwarnings("error")
def test_an_ordered_column_that_gains_a_level_says_where_it_comes() -> None:
    fitted = pd.DataFrame({"size": ["low", "low", "high"]})
    like = pd.DataFrame({"size": pd.Categorical(["high", None], categories=["high"], ordered=True)})
    with pytest.warns(UserWarning, match="Column 'size' is ordered and lacks levels that are imputed, 'low'; they"):
        assert filled(fitted, like, 0.0)["size"].tolist() == ["high", "low"]
    whole = like["size"].cat.set_categories(["low", "high"])
    assert filled(fitted, whole.to_frame(), 0.0)["size"].max() == "high"
    filled(fitted, like["size"].cat.as_unordered().to_frame(), 0.0)


def test_codes_beyond_the_levels_are_clipped() -> None:
    frame = pd.DataFrame({"c": ["a", "a", "b", None]})
    assert filled(frame, frame, 7.0)["c"].iloc[3] == "b" and filled(frame, frame, -7.0)["c"].iloc[3] == "a"


def test_levels_match_by_value_across_dtypes_and_containers() -> None:
    words = ["a", "b", "b", None]
    schema = TableSchema.fit(pd.DataFrame({"c": words}))
    expected = schema.encode(pd.DataFrame({"c": words}))
    for other in (
        pd.DataFrame({"c": pd.Categorical(words, categories=["z", "b", "a"])}),
        pd.DataFrame({"c": pd.Series(words, dtype=object)}),
        pl.DataFrame({"c": words}),
        pl.DataFrame({"c": pl.Series(words, dtype=pl.Categorical)}),
        pa.concat_tables([pa.table({"c": pa.array(half).dictionary_encode()}) for half in (words[:2], words[2:])]),
        np.array(words, dtype=object)[:, None],
        [[word] for word in words],
    ):
        for was, now in zip(expected, schema.encode(other), strict=True):
            np.testing.assert_array_equal(now, was)


def test_numbers_match_across_dtypes_and_bools_may_stand_for_them() -> None:
    schema = TableSchema.fit(pd.DataFrame({"x": [0, 1, 1, 0]}))
    expected = schema.encode(pd.DataFrame({"x": [0.0, 1.0]}))[0]
    for dtype in ("int8", "Float32", "bool", "boolean", "object", "double[pyarrow]"):
        np.testing.assert_array_equal(schema.encode(pd.DataFrame({"x": pd.Series([0, 1]).astype(dtype)}))[0], expected)
    like = pd.DataFrame({"x": pd.array([True, None], dtype="boolean")})
    assert schema.decode(np.array([[0.0], [9.0]]), like)["x"].tolist() == [True, True]
    bools = TableSchema.fit(pd.DataFrame({"x": [True, False, True]}))
    np.testing.assert_array_equal(bools.encode(pd.DataFrame({"x": [1.0, np.nan, 0.0]}))[0], [[0], [0], [1]])
    assert bools.decode(np.zeros((2, 1)), pd.DataFrame({"x": [0.0, np.nan]}))["x"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("named", [["n"], [1], [-1], [False, True], np.array([False, True]), pd.Index(["n"]), ("n",)])
def test_numbers_that_the_user_calls_categories_become_levels_by_exact_value(named: Any) -> None:
    keys = pd.array([2**60 + 1, 2**60 + 2, 2**60 + 2, None], dtype="Int64")
    frame = pd.DataFrame({"x": [1.5, 2.5, 3.5, 4.5], "n": keys})
    schema = TableSchema.fit(frame, categorical_features=named)
    assert schema.columns[0].kind == "number" and schema.columns[1].levels == (2**60 + 2, 2**60 + 1)
    decoded = schema.decode(schema.encode(frame)[0], frame)
    assert decoded["n"].tolist() == [2**60 + 1, 2**60 + 2, 2**60 + 2, 2**60 + 2] and decoded["n"].dtype == "Int64"
    assert TableSchema.fit(pd.DataFrame(np.eye(3)), [0]).n_levels == (2, 0, 0)


def test_columns_are_found_by_name_and_others_left_alone() -> None:
    fitted = pd.DataFrame({"x": [1.0, 3.0], "c": ["a", "b"]})
    like = pd.DataFrame({"c": ["a", None], "new": [[1], None], "x": [np.nan, 5.0]})
    schema = TableSchema.fit(fitted)
    values, observed = schema.encode(like)
    np.testing.assert_array_equal(observed, [[False, True], [True, False]])
    decoded = schema.decode(values, like)
    assert decoded.columns.tolist() == ["c", "new", "x"] and decoded["new"].tolist() == [[1], None]
    assert decoded["x"].tolist() == [2.0, 5.0] and decoded["c"].tolist() == ["a", "a"]
    array = schema.decode(values, like[["x", "c"]].to_numpy())
    assert array.tolist() == [[2.0, "a"], [5.0, "a"]]


def test_unseen_levels_are_kept_and_told_once() -> None:
    schema = TableSchema.fit(pd.DataFrame({"city": ["Bonn", "Rome"], "x": [1.0, 2.0]}))
    like = pd.DataFrame({"city": ["Oslo", "Oslo", "Bonn", "Oslo", None], "x": 1.0})
    with pytest.warns(UserWarning, match="Column 'city'") as caught:
        values, observed = schema.encode(like)
    assert [str(warning.message) for warning in caught] == [
        "Column 'city' has values unseen in fit: ['Oslo'] in 3 rows. They are kept, and treated as missing when other "
        "cells are predicted."
    ]
    np.testing.assert_array_equal(observed[:, 0], [False, False, True, False, False])
    assert schema.decode(values, like)["city"].tolist() == ["Oslo", "Oslo", "Bonn", "Oslo", "Bonn"]
    with pytest.warns(UserWarning, match="in 3 rows. They are judged as new levels, and treated as missing when other"):
        values, observed = schema.encode(like, unseen_observed=True)
    assert values[:, 0].tolist() == [2, 2, 0, 2, 0] and observed[:, 0].tolist() == [True] * 4 + [False]


def test_column_without_observed_cell_is_named_and_comes_back_as_it_was() -> None:
    frame = pd.DataFrame({"x": [1.0, 1.0], "blank": [np.nan, np.nan], "none": pd.Series([None, None], dtype=object)})
    with pytest.warns(UserWarning, match="Columns 'blank', 'none' have no observed cell in fit"):
        schema = TableSchema.fit(frame)
    assert [column.learnable for column in schema.columns] == [True, False, False]
    like = pd.DataFrame({"x": [None, 4.0], "blank": [7.5, np.nan], "none": ["word", None]})
    values, observed = schema.encode(like)
    assert not observed[:, 1:].any()
    decoded = schema.decode(values, like)
    pd.testing.assert_frame_equal(decoded[["blank", "none"]], like[["blank", "none"]])
    assert decoded["x"].tolist() == [1.0, 4.0]


@pytest.mark.parametrize("like", [
    pd.DataFrame({"x": [None], "c": [None], "d": [None]}),
    pd.DataFrame({"x": [np.nan], "c": [np.nan], "d": [np.nan]}),
    pd.DataFrame({"x": pd.Series([None], dtype="string"), "c": pd.Series([None], dtype="boolean"), "d": [pd.NaT]}),
    pl.DataFrame({"x": [None], "c": [None], "d": [None]}),
    pl.DataFrame({"x": pl.Series([None], dtype=pl.String), "c": pl.Series([None], dtype=pl.Boolean), "d": [None]}),
    pa.table({"x": pa.nulls(1), "c": pa.nulls(1), "d": pa.nulls(1)}),
    pa.table({"x": pa.nulls(1, pa.string()), "c": pa.nulls(1, pa.bool_()), "d": pa.nulls(1, pa.float64())}),
    np.full((1, 3), np.nan),
    [[None, None, None]],
])  # fmt: skip
def test_all_missing_columns_of_any_type_are_filled_with_what_fit_saw(like: Any) -> None:
    fitted = pd.DataFrame({"x": [1.5, 1.5], "c": ["a", "a"], "d": pd.to_datetime(["2024-01-02"] * 2)})
    decoded = filled(fitted, like)
    assert not missing_cells(decoded).any()
    if isinstance(decoded, pa.Table | pl.DataFrame):
        cells = list((decoded.to_pylist() if isinstance(decoded, pa.Table) else decoded.to_dicts())[0].values())
    else:
        cells = list(decoded.iloc[0]) if isinstance(decoded, pd.DataFrame) else list(decoded[0])
    assert cells == [1.5, "a", datetime.datetime(2024, 1, 2)]


def test_object_columns_stay_object_columns_when_all_is_missing() -> None:
    like = pd.DataFrame({"x": [None], "c": [None]}, dtype=object)
    assert filled(pd.DataFrame({"x": [1.5], "c": ["a"]}), like).dtypes.astype(str).tolist() == ["object", "object"]


def test_a_null_among_the_entries_of_a_dictionary_is_missing() -> None:
    for entries in (pa.array(["a", None]), pa.array([1.5, float("nan")])):
        table = pa.table({"c": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, None]), entries)})
        np.testing.assert_array_equal(missing_cells(table), [[False], [True], [False], [True]])
        level = entries[0].as_py()
        assert TableSchema.fit(table).columns[0].levels == (level,)
        assert filled(table, table)["c"].to_pylist() == [level] * 4


def test_extreme_numbers_encode_to_finite_values() -> None:
    for column in ([1e300, -1e300, 5e-324], [5e-324, 1e-323, 0.0], [1e-200, 3e-200, 5e-200], [1.7e308, -1.7e308, 0.0]):
        schema = TableSchema.fit(np.array(column)[:, None])
        values, _ = schema.encode(np.array(column)[:, None])
        assert np.isfinite(values).all() and np.isfinite(schema.columns[0].scale) and schema.columns[0].scale > 0
    values, _ = TableSchema.fit(np.array([[0.0], [1.0]])).encode(np.array([[1e308]]))
    assert values == 1e6
    schema = TableSchema.fit(np.array([[1e-200], [3e-200]]))
    np.testing.assert_allclose(schema.encode(np.array([[1e-200], [3e-200]]))[0], [[-1], [1]], rtol=1e-6)


def test_many_levels_are_ranked_and_come_back() -> None:
    words = [f"level {n}" for n in range(10_000)] + ["level 77"]
    frame = pd.DataFrame({"c": words})
    schema = TableSchema.fit(frame)
    assert schema.n_levels == (10_000,) and schema.columns[0].levels[:2] == ("level 77", "level 0")
    hole = pd.DataFrame({"c": [None] * 10_001})
    assert schema.decode(schema.encode(frame)[0], hole)["c"].tolist() == words


def test_full_replaces_every_cell_unrounded_and_keeps_float_dtypes() -> None:
    frame = pd.DataFrame({"i": [1, 3], "f": np.array([1, 3], dtype="float32"), "c": ["a", "b"], "b": [True, False]})
    schema = TableSchema.fit(frame)
    full = schema.full(np.array([[0.25, 0.25, 1, 1]] * 2), frame)
    assert full["i"].tolist() == full["f"].tolist() == [2.25, 2.25]
    assert full["c"].tolist() == ["b", "b"] and full["b"].tolist() == [False, False]
    assert full.dtypes.astype(str).tolist()[:2] == ["float64", "float32"] and full["b"].dtype == bool
    array = TableSchema.fit(np.array([[1], [3]])).full(np.array([[0.25], [0.25]]), np.array([[1], [3]]))
    assert array.dtype == np.float64 and array.tolist() == [[2.25], [2.25]]


def test_decode_numbers_keeps_observed_cells_or_replaces_them() -> None:
    frame = pd.DataFrame({"c": ["a", "b"], "i": pd.array([1, None], dtype="Int64"), "x": [1.0, 3.0]})
    schema = TableSchema.fit(frame)
    values = np.array([[0, 0.5, 1.0]] * 2)
    assert schema.decode_numbers(values, frame).to_dict("list") == {"i": [1.0, 1.5], "x": [1.0, 3.0]}
    replaced = schema.decode_numbers(values, frame, fill_observed=False)
    assert replaced.to_dict("list") == {"i": [1.5, 1.5], "x": [3.0, 3.0]}
    array = TableSchema.fit(frame.astype(object).to_numpy()).decode_numbers(values, frame.astype(object).to_numpy())
    assert isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == (2, 2)


def test_large_numeric_frame_goes_round_in_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(100_000, 20))
    numbers[rng.random(numbers.shape) < 0.3] = np.nan
    frame = pd.DataFrame(numbers)
    schema = TableSchema.fit(frame.iloc[:1000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.process_time()
        values, _ = schema.encode(frame)
        schema.decode(values, frame)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("dtype", ["str", "category", "string", "boolean", "bool[pyarrow]"])
def test_a_column_of_numbers_that_comes_without_any_is_filled_with_numbers(dtype: str) -> None:
    fitted, like = pd.DataFrame({"x": [0.5, 2.0, 3.5]}), pd.DataFrame({"x": pd.Series([None] * 2, dtype=dtype)})
    assert not TableSchema.fit(fitted).encode(like)[1].any()
    given = filled(fitted, like)
    assert given["x"].tolist() == [2.0, 2.0]
    assert pd.api.types.is_float_dtype(given["x"])


def test_a_column_of_flags_that_comes_without_any_stays_one() -> None:
    like = pd.DataFrame({"x": pd.Series([None, None], dtype="boolean")})
    assert filled(pd.DataFrame({"x": [0, 1, 1]}), like)["x"].dtype == "boolean"


def test_a_few_far_cells_decide_neither_centre_nor_scale_where_that_is_asked() -> None:
    numbers = np.append(np.arange(200.0), 1e9)[:, None]
    plain, resistant = (TableSchema.fit(numbers, resistant=far).columns[0] for far in (False, True))
    assert plain.mean > 1e6 and plain.scale > 1e6
    assert 99 < resistant.mean < 115 and 57 < resistant.scale < 160
    assert resistant.high == 1e9
    heavy = np.append(np.arange(200.0), [1e9] * 5)[:, None]
    assert TableSchema.fit(heavy, resistant=True).columns[0].scale > 1e6
    spike = np.append(np.zeros(200), 5.0)[:, None]
    assert TableSchema.fit(spike, resistant=True) == TableSchema.fit(spike)
