"""Columns known ahead are read at the stamps after the end of each series, and nowhere else."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tabmae.errors import DataError
from tabmae.windows import Panel, SeriesSchema


def history() -> pd.DataFrame:
    """Two series that end on different days."""
    parts = [
        pd.DataFrame({"unique_id": name, "ds": pd.date_range(start, periods=n_steps, freq="D", tz="Europe/Berlin")})
        for name, start, n_steps in (("b", "2024-03-20", 9), ("a", "2024-03-01", 7))
    ]
    return pd.concat(parts, ignore_index=True).assign(y=1.0, price=np.arange(16.0), day=2)


def ahead(schema: SeriesSchema, panel: Panel, horizon: int) -> pd.DataFrame:
    """The rows of the horizon, shuffled, with numbers that tell them apart."""
    stamps = schema.future_stamps(panel, horizon)
    rows = schema.frame(panel, stamps, {"price": np.arange(2.0 * horizon) + 100})
    return rows.assign(day=np.arange(2 * horizon)).sample(frac=1, random_state=0)


def test_rows_are_found_by_series_and_stamp() -> None:
    frame = history()
    schema = SeriesSchema.fit(frame, future_cols=["price", "day"])
    panel = schema.read(frame)
    known = ahead(schema, panel, 5)
    expected = np.stack([np.arange(10.0) + 100, np.arange(10.0)], axis=1).reshape(2, 5, 2)
    np.testing.assert_array_equal(schema.read_future(known, panel, 5), expected)
    np.testing.assert_array_equal(schema.read_future(known, panel, 2), expected[:, :2])
    more = pd.concat([frame, known, known.assign(unique_id="other")])
    np.testing.assert_array_equal(schema.read_future(more, panel, 5), expected)
    np.testing.assert_array_equal(schema.read_future(pl.from_pandas(known), panel, 5), expected)
    utc = known.assign(ds=known["ds"].dt.tz_convert("UTC"))
    np.testing.assert_array_equal(schema.read_future(utc, panel, 5), expected)
    gap = known.assign(day=known["day"].where(known["day"] != 3).astype("Int64"))
    assert np.argwhere(np.isnan(schema.read_future(gap, panel, 5))).tolist() == [[0, 3, 1]]


def test_a_wide_frame_has_columns_known_ahead_too() -> None:
    frame = pd.DataFrame({"y": 1.0, "k": range(6)}, index=pd.date_range("2024", periods=6, freq="MS"))
    schema = SeriesSchema.fit(frame, future_cols=["k"])
    panel = schema.read(frame.iloc[:4])
    assert schema.read_future(frame[["k"]], panel, 2).tolist() == [[[4.0], [5.0]]]


def test_without_such_columns_nothing_is_asked_for() -> None:
    frame = history()
    schema = SeriesSchema.fit(frame)
    assert schema.read_future(None, schema.read(frame), 3).shape == (2, 3, 0)


def test_what_is_lacking_is_named() -> None:
    frame = history()
    schema = SeriesSchema.fit(frame, future_cols=["price", "day"])
    panel = schema.read(frame)
    known = ahead(schema, panel, 3)
    with pytest.raises(DataError, match="^`X_future` must hold the columns known ahead, 'price', 'day'; got None"):
        schema.read_future(None, panel, 3)
    with pytest.raises(DataError, match="^`X_future` must hold the columns of fit; it lacks 'day'"):
        schema.read_future(known.drop(columns="day"), panel, 3)
    with pytest.raises(DataError, match="^`X_future` must hold the 3 stamps after the end.*none of them for 'b'"):
        schema.read_future(known[known["unique_id"] != "b"], panel, 3)
    with pytest.raises(DataError, match="""it lacks "'b' at 2024-03-30 00:00:00[+]01:00"."""):
        schema.read_future(known[known["ds"] != pd.Timestamp("2024-03-30", tz="Europe/Berlin")], panel, 3)
    with pytest.raises(DataError, match="^`X_future` must hold the 4 stamps.*'a' at 2024-03-11"):
        schema.read_future(known, panel, 4)
    with pytest.raises(DataError, match="^`X_future` must have one row per series and time stamp; found different"):
        schema.read_future(pd.concat([known, known.assign(price=0.0)]), panel, 3)
    with pytest.raises(DataError, match="^`X_future` must have time stamps like those of the series; got datetime64"):
        schema.read_future(known.assign(ds=known["ds"].dt.tz_localize(None)), panel, 3)
    with pytest.raises(DataError, match="^Numbers must be finite; columns 'price'"):
        schema.read_future(known.assign(price=np.inf), panel, 3)
