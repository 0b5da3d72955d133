"""Wide frames, arrays and frames of other libraries come back as they came, with their gaps filled."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from polars.testing import assert_frame_equal

from tabmae.errors import DataError
from tabmae.windows import SeriesSchema

DAYS = pd.date_range("2024-01-01", periods=6, freq="D")
KEPT = [0, 1, 2, 4, 5]


def completed(X: Any, fill: float = 5.5, **parameters: Any) -> Any:
    """X with every gap filled by one number."""
    schema = SeriesSchema.fit(X, **parameters)
    panel = schema.read(X)
    return schema.write(panel, np.full(panel.values.shape, fill), X)


def wide_frame() -> pd.DataFrame:
    index = pd.DatetimeIndex(DAYS, name="when")
    return pd.DataFrame({"a": [1.0, np.nan, 3, 4, 5, 6], "b": np.arange(6) + 2**60}, index=index)


def test_a_wide_frame_is_one_series_of_its_columns() -> None:
    frame = wide_frame()
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    assert (schema.layout, schema.channels, schema.id_col, schema.time_col) == ("wide", ("a", "b"), None, "when")
    assert (panel.ids, panel.starts, panel.lengths) == ((None,), (DAYS[0],), (6,))
    np.testing.assert_array_equal(panel.values, frame.to_numpy(float))


def test_a_wide_frame_without_absent_stamps_keeps_its_order() -> None:
    frame = wide_frame().iloc[[3, 1, 0, 2, 5, 4]]
    pd.testing.assert_frame_equal(completed(frame), frame.fillna(5.5))


def test_absent_stamps_of_a_wide_frame_are_inserted_into_its_index() -> None:
    frame = wide_frame()
    out = completed(frame.iloc[[5, 0, 2, 1, 4]])
    truth = frame.fillna(5.5)
    truth.iloc[3] = [5.5, 6]
    truth["b"] = [*(np.arange(3) + 2**60), 6, *(np.arange(4, 6) + 2**60)]
    pd.testing.assert_frame_equal(out, truth)
    assert out.index.freqstr == "D" and out.index.name == "when"


def test_a_wide_frame_keeps_its_periods() -> None:
    frame = wide_frame().set_index(DAYS.to_period("D").rename("day"))
    out = completed(frame.iloc[KEPT])
    assert out.index.equals(frame.index) and out.index.name == "day" and out.index.dtype == "period[D]"


@pytest.mark.parametrize("name", [None, "load", 3])
def test_a_series_stays_a_series(name: Any) -> None:
    series = pd.Series([1, np.nan, 3, 5, 6], index=DAYS[KEPT], name=name, dtype="float32")
    whole = completed(series)
    truth = pd.Series([1, 5.5, 3, 5.5, 5, 6], index=DAYS, name=name, dtype="float32")
    pd.testing.assert_series_equal(whole, truth)
    pd.testing.assert_series_equal(completed(series.iloc[:3]), truth.iloc[:3], check_freq=False)
    other = series.rename("other")
    assert SeriesSchema.fit(series).read(other).lengths == (6,)


def test_columns_may_be_tuples_and_some_of_them_no_channels() -> None:
    frame = wide_frame().assign(note="x")
    frame.columns = pd.MultiIndex.from_tuples([("a", 1), ("b", 1), ("note", "")])
    out = completed(frame.iloc[KEPT], target_cols=[("a", 1)])
    assert out.columns.equals(frame.columns)
    assert out[("a", 1)].tolist() == [1, 5.5, 3, 5.5, 5, 6]
    assert out[("b", 1)].dropna().tolist() == [2**60 + step for step in KEPT]


def test_stamps_in_an_index_that_is_no_index_of_times_are_read_as_a_column() -> None:
    values = pd.DataFrame({"y": np.arange(6.0)})
    for index in (DAYS.astype(str), pd.Index(DAYS.date), pd.RangeIndex(6)):
        frame = values.set_axis(index)
        with pytest.raises(DataError, match=r"X\.reset_index\(names='ds'\)"):
            SeriesSchema.fit(frame)
        assert SeriesSchema.fit(frame.reset_index(names="ds")).channels == ("y",)


def test_a_frame_without_ids_is_one_series() -> None:
    frame = wide_frame().reset_index(names="ds")
    schema = SeriesSchema.fit(frame)
    assert (schema.layout, schema.id_col) == ("long", None)
    assert completed(frame.iloc[KEPT])["ds"].tolist() == list(DAYS)


@pytest.mark.parametrize("text", [False, True])
def test_the_only_column_of_times_is_found(text: bool) -> None:
    frame = wide_frame().reset_index(names="stamp")
    frame = frame.assign(stamp=frame["stamp"].astype(str)) if text else frame
    assert SeriesSchema.fit(frame.assign(note="x", k=2020)).time_col == "stamp"


def test_a_column_of_times_that_was_named_must_be_there() -> None:
    frame = wide_frame().reset_index(names="stamp")
    with pytest.raises(
        DataError, match="X must hold the column `time_col`; it lacks 'stmp' and has .* such as 'stamp'"
    ):
        SeriesSchema.fit(frame, time_col="stmp")
    assert SeriesSchema.fit(wide_frame().rename_axis(None), time_col="day").time_col == "day"


STAMPS: dict[str, Callable[[], pd.Series]] = {
    "nanoseconds": lambda: pd.Series(DAYS.as_unit("ns")),
    "seconds": lambda: pd.Series(DAYS.as_unit("s")),
    "zone": lambda: pd.Series(DAYS.tz_localize("Asia/Tokyo")),
    "text": lambda: pd.Series(DAYS.strftime("%Y-%m-%d")),
    "basic text": lambda: pd.Series(DAYS.strftime("%Y%m%d")),
    "text with time": lambda: pd.Series(DAYS.strftime("%Y-%m-%dT%H:%M")),
    "text in UTC": lambda: pd.Series(DAYS.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "text with offset": lambda: pd.Series(DAYS.strftime("%Y-%m-%d %H:%M:%S+02:00")),
    "object text": lambda: pd.Series(DAYS.strftime("%Y-%m-%d"), dtype=object),
    "string": lambda: pd.Series(DAYS.strftime("%Y-%m-%d"), dtype="string"),
    "years": lambda: pd.Series([f"{year}" for year in range(2000, 2006)]),
    "dates": lambda: pd.Series(list(DAYS.date), dtype=object),
    "datetimes": lambda: pd.Series(list(DAYS.to_pydatetime()), dtype=object),
    "arrow": lambda: pd.Series(DAYS).astype("timestamp[ms, tz=UTC][pyarrow]"),
    "arrow dates": lambda: pd.Series(list(DAYS.date), dtype="date32[day][pyarrow]"),
    "arrow text": lambda: pd.Series(DAYS.strftime("%Y-%m-%d"), dtype=pd.ArrowDtype(pa.string())),
    "arrow integers": lambda: pd.Series(range(6), dtype="int16[pyarrow]"),
    "unsigned": lambda: pd.Series(range(6), dtype="uint8"),
    "object integers": lambda: pd.Series(range(6), dtype=object),
    "periods": lambda: pd.Series(DAYS.to_period("D")),
}


@pytest.mark.parametrize("kind", STAMPS)
def test_inserted_stamps_are_of_the_kind_of_the_others(kind: str) -> None:
    stamps = STAMPS[kind]()
    frame = pd.DataFrame({"ds": stamps, "y": range(6)})
    out = completed(frame.iloc[KEPT])
    assert out["ds"].tolist() == stamps.tolist()
    assert out["ds"].dtype == stamps.dtype
    assert set(map(type, out["ds"])) <= {*map(type, stamps), pd.Timestamp}


def test_text_that_is_shorter_at_midnight_loses_nothing() -> None:
    text = ["2024-01-01", "2024-01-01 12:00", "2024-01-02", "2024-01-03"]
    out = completed(pd.DataFrame({"ds": text, "y": 1.0}))
    assert out["ds"].tolist() == [*text[:3], "2024-01-02 12:00:00", "2024-01-03"]


@pytest.mark.parametrize("dtype", ["category", "Int64", "string", "int64[pyarrow]", "object"])
def test_ids_keep_their_dtype(dtype: str) -> None:
    ids = pd.Series([3, 3, 3, 1, 1, 1]).astype(dtype)
    frame = pd.DataFrame({"unique_id": ids, "ds": [0, 1, 3, 0, 2, 3], "y": 1.0})
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    out = schema.write(panel, np.zeros((8, 1)), frame)
    ahead = schema.frame(panel, schema.future_stamps(panel, 1), {"y": np.zeros(2)})
    assert out["unique_id"].dtype == ids.dtype == ahead["unique_id"].dtype or dtype == "category"
    assert out["unique_id"].astype(int).tolist() == [3] * 4 + [1] * 4
    assert ahead["unique_id"].astype(int).tolist() == [3, 1]


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "unique_id": ["b", "b", "b", "b", "b", "b", "a", "a", "a"],
            "ds": [*DAYS.to_pydatetime(), *DAYS[:3].to_pydatetime()],
            "y": [1.0, None, 3, 4, 5, 6, 7, float("nan"), 9],
            "k": [2**60 + step for step in range(9)],
            "u": [1, 2, 3, None, 5, 6, 7, 8, 9],
            "flag": [True, None, False] * 3,
            "cost": [Decimal("1.25"), None, Decimal("3.50")] * 3,
            "note": list("abcabcabc"),
            "span": [datetime.timedelta(hours=1)] * 9,
            "list": [[1], [2], [3]] * 3,
        },
        schema_overrides={"unique_id": pl.Categorical, "u": pl.UInt8, "note": pl.Enum(["a", "b", "c"])},
    )


@pytest.mark.parametrize("stamps", [pl.Date, pl.Datetime("ms", "Europe/Berlin"), pl.Datetime("ns"), pl.Int32])
def test_polars_frames_come_back_with_their_types(stamps: Any) -> None:
    frame = polars_frame()
    if stamps == pl.Int32:
        frame = frame.with_columns(ds=pl.Series([*range(6), *range(3)], dtype=pl.Int32))
    else:
        frame = frame.with_columns(pl.col("ds").dt.replace_time_zone(getattr(stamps, "time_zone", None)).cast(stamps))
    schema = SeriesSchema.fit(frame)
    assert schema.channels == ("y", "k", "u", "flag", "cost")
    whole = frame.with_columns(
        pl.col("y").fill_nan(5.5).fill_null(5.5), pl.col("u", "cost").fill_null(6), pl.col("flag").fill_null(True)
    ).with_columns(
        cost=pl.when(frame["cost"].is_null()).then(Decimal("5.50")).otherwise("cost").cast(frame.schema["cost"])
    )
    assert_frame_equal(completed(frame), whole)
    out = completed(frame.filter(pl.arange(0, 9) != 3))
    assert out.schema == frame.schema
    assert_frame_equal(out.filter(pl.arange(0, 9) != 3), whole.filter(pl.arange(0, 9) != 3))
    assert out.row(3)[1:] == (frame["ds"][3], 5.5, 6, 6, True, Decimal("5.50"), None, None, None)


def test_arrow_tables_come_back_with_their_types() -> None:
    table = polars_frame().drop("list").to_arrow(compat_level=pl.CompatLevel.newest())
    out = completed(table)
    assert out.schema == table.schema
    assert out["k"].to_pylist() == table["k"].to_pylist()
    assert out["y"].to_pylist() == [1.0, 5.5, 3, 4, 5, 6, 7, 5.5, 9]
    indexed = table.append_column("__index_level_0__", [np.arange(9)])
    assert SeriesSchema.fit(indexed).channels == SeriesSchema.fit(table).channels
    fewer = pa.concat_tables([table.slice(0, 3), table.slice(4)])
    assert completed(fewer).schema == table.schema
    assert completed(fewer)["ds"].to_pylist() == table["ds"].to_pylist()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "object"])
def test_arrays_keep_shape_and_dtype(dtype: str) -> None:
    array = np.random.default_rng(0).normal(size=(3, 7, 2)).astype(dtype)
    array[1, 2, 0] = np.nan
    out = completed(array)
    truth = array.copy()
    truth[1, 2, 0] = 5.5
    assert out.dtype == array.dtype and np.array_equal(out, truth) and np.isnan(float(array[1, 2, 0]))


def test_an_array_is_a_panel_of_series_that_start_at_0() -> None:
    array = np.arange(30.0).reshape(3, 5, 2)
    schema = SeriesSchema.fit(array, freq="h")
    panel = schema.read(array)
    assert (schema.layout, schema.channels, schema.freq) == ("array", (0, 1), "h")
    assert (panel.ids, panel.starts, panel.lengths) == ((0, 1, 2), (0, 0, 0), (5, 5, 5))
    assert np.array_equal(panel.values, array.reshape(15, 2))
    assert [stamps.tolist() for stamps in schema.future_stamps(panel, 2)] == [[5, 6]] * 3
    assert SeriesSchema.fit(array).freq == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_tensors_stay_tensors(dtype: torch.dtype) -> None:
    tensor = torch.arange(12.0).reshape(2, 3, 2)
    tensor[0, 1, 1] = torch.nan if dtype.is_floating_point else 7
    out = completed(tensor.to(dtype))
    assert out.dtype == dtype and not out.isnan().any() and out[0, 0].tolist() == [0, 1]


def test_nested_lists_stay_lists() -> None:
    assert completed([[[1, None], [2, 3.5]]]) == [[[1, 5.5], [2, 3.5]]]


def test_frames_of_answers_are_ordered_by_series_channel_and_stamp() -> None:
    frame = pd.DataFrame({"unique_id": ["b", "b", "a", "a"], "ds": [0, 1, 4, 5], "x": 1.0, "y": 2.0})
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    answer = schema.frame(panel, schema.future_stamps(panel, 2), {"mean": np.arange(8).reshape(4, 2)})
    assert list(answer.columns) == ["unique_id", "ds", "channel", "mean"]
    assert answer["unique_id"].tolist() == ["b"] * 4 + ["a"] * 4
    assert answer["ds"].tolist() == [2, 3, 2, 3, 6, 7, 6, 7]
    assert answer["channel"].tolist() == ["x", "x", "y", "y"] * 2
    assert answer["mean"].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_frames_of_answers_name_neither_a_single_channel_nor_a_single_series() -> None:
    frame = wide_frame()[["a"]]
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    answer = schema.frame(panel, schema.stamps(panel), {"score": np.zeros((6, 1))})
    assert list(answer.columns) == ["when", "score"]
    assert answer["when"].tolist() == list(DAYS)
