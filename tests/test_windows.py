"""Long frames become panels on a complete grid, and come back with their gaps filled and nothing else changed."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tabmae.windows import Panel, SeriesSchema

FREQS = ("h", "15min", "s", "3h", "D", "2D", "B", "W-TUE", "MS", "ME", "QS-FEB", "QE-DEC", "YE-MAR", "BME", "SMS-15")
CHANNELS = ("float64", "float32", "int64", "uint8", "Int64", "bool", "boolean", "object", "int64[pyarrow]")


def columns(n_rows: int, rng: np.random.Generator) -> dict[str, Any]:
    """A column for each kind of numbers; integers lie beyond what floats hold."""
    blank = rng.random(n_rows) < 0.2
    big = rng.integers(2**60, 2**61, n_rows)
    holed, bools = (pd.Series(part, dtype=object).mask(blank, None) for part in (big, rng.random(n_rows) < 0.5))
    return {
        "float64": np.where(blank, np.nan, rng.normal(size=n_rows)),
        "float32": np.where(blank, np.nan, rng.normal(size=n_rows)).astype(np.float32),
        "int64": big,
        "uint8": rng.integers(0, 256, n_rows).astype(np.uint8),
        "Int64": pd.array(holed, dtype="Int64"),
        "bool": rng.random(n_rows) < 0.5,
        "boolean": pd.array(bools, dtype="boolean"),
        "object": holed,
        "int64[pyarrow]": pd.array(holed, dtype="int64[pyarrow]"),
    }


def long_frame(freq: str, zone: str | None = None, seed: int = 0, absent: float = 0.2) -> pd.DataFrame:
    """Three series of unequal length, interleaved, with absent stamps and missing cells."""
    rng = np.random.default_rng(seed)
    stamps = pd.date_range("2019-03-05", periods=60, freq=freq, tz=zone)
    parts = []
    for name, start, stop in (("c", 3, 60), ("a", 0, 33), ("b", 12, 57)):
        kept = rng.random(stop - start) >= absent
        kept[[0, -1]] = True
        parts.append(pd.DataFrame({"unique_id": name, "ds": stamps[start:stop][kept]}))
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(**columns(len(frame), rng), note="seen", size=frame["unique_id"].map({"a": 1, "b": 2, "c": 3}))
    return frame.sample(frac=1, random_state=seed)


def guesses(panel: Panel) -> NDArray[np.float64]:
    """A value for every cell of a panel, none of which is whole."""
    return np.random.default_rng(9).normal(100, 30, size=panel.values.shape)


def by_stamp(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(["unique_id", "ds"])


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("freq", FREQS)
def test_a_panel_holds_each_row_at_its_step_and_nothing_else(freq: str, zone: str | None) -> None:
    frame = long_frame(freq, zone)
    schema = SeriesSchema.fit(frame, static_cols=["size"])
    panel = schema.read(frame)
    assert (schema.layout, schema.freq, schema.channels) == ("long", freq, CHANNELS)
    assert panel.ids == tuple(frame["unique_id"].unique())
    for i, (name, stamps) in enumerate(zip(panel.ids, schema.stamps(panel), strict=True)):
        rows = frame[frame["unique_id"] == name].set_index("ds")
        assert panel.starts[i] == rows.index.min()
        assert stamps.equals(pd.date_range(rows.index.min(), rows.index.max(), freq=freq))
        for channel, values in zip(CHANNELS, panel.series(i).T, strict=True):
            truth = rows[channel].astype(object).reindex(stamps).to_numpy()
            np.testing.assert_array_equal(values, np.where(pd.isna(truth), np.nan, truth).astype(float))


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("freq", FREQS)
def test_absent_stamps_come_back_as_rows_and_observed_cells_bit_for_bit(freq: str, zone: str | None) -> None:
    frame = long_frame(freq, zone)
    before = frame.copy(deep=True)
    schema = SeriesSchema.fit(frame, static_cols=["size"])
    panel = schema.read(frame)
    out = schema.write(panel, guesses(panel), frame)
    pd.testing.assert_frame_equal(frame, before)
    assert len(out) == sum(panel.lengths) > len(frame)
    assert out.index.equals(pd.RangeIndex(len(out))) and list(out.columns) == list(frame.columns)
    assert out.dtypes[["unique_id", "ds", *CHANNELS]].equals(frame.dtypes[["unique_id", "ds", *CHANNELS]])
    assert out["unique_id"].tolist() == np.repeat(np.array(panel.ids, dtype=object), panel.lengths).tolist()
    assert out["ds"].tolist() == [stamp for stamps in schema.stamps(panel) for stamp in stamps]
    assert not out[[*CHANNELS, "size"]].isna().any(axis=None)
    assert out["note"].isna().sum() == len(out) - len(frame)
    there = by_stamp(out).loc[list(by_stamp(frame).index)]
    for channel in CHANNELS:
        observed = frame[channel].notna().to_numpy()
        assert there[channel][observed].tolist() == frame[channel][observed].tolist()


def test_gaps_alone_leave_index_order_and_other_columns() -> None:
    frame = long_frame("D", absent=0.0)
    schema = SeriesSchema.fit(frame, target_cols=CHANNELS)
    panel = schema.read(frame)
    out = schema.write(panel, guesses(panel), frame)
    pd.testing.assert_frame_equal(out[["unique_id", "ds", "note", "size"]], frame[["unique_id", "ds", "note", "size"]])
    assert out.dtypes.equals(frame.dtypes)
    assert not out.isna().any(axis=None)
    for channel in CHANNELS:
        observed = frame[channel].notna()
        assert out[channel][observed].tolist() == frame[channel][observed].tolist()


def test_fills_lie_where_the_values_are_and_take_the_dtype() -> None:
    frame = pd.DataFrame(
        {
            "unique_id": "a",
            "ds": pd.date_range("2024", periods=4, freq="D")[[0, 1, 3]],
            "float": [1.0, np.nan, 3.0],
            "int": np.array([1, 2, 3], dtype=np.int8),
            "Int": pd.array([1, None, 3], dtype="UInt8"),
            "bool": [True, False, True],
            "objects": pd.Series([1, None, 3], dtype=object),
        }
    )
    schema = SeriesSchema.fit(frame)
    values = np.array([[0.0] * 5, [7.4, 0.0, 7.6, 0.0, 7.6], [-8.5, 1e9, -1e9, 0.5, 2.4], [0.0] * 5])
    out = schema.write(schema.read(frame), values, frame)
    assert out["float"].tolist() == [1.0, 7.4, -8.5, 3.0]
    assert out["int"].tolist() == [1, 2, 127, 3] and out["int"].dtype == np.int8
    assert out["Int"].tolist() == [1, 8, 0, 3] and out["Int"].dtype == "UInt8"
    assert out["bool"].tolist() == [True, False, True, True] and out["bool"].dtype == bool
    assert out["objects"].tolist() == [1, 8, 2, 3]


@pytest.mark.parametrize("dtype", ["int64", "uint64", "Int64", "UInt64", "uint64[pyarrow]"])
def test_fills_beyond_the_range_of_integers_are_clipped(dtype: str) -> None:
    frame = pd.DataFrame({"ds": [0, 2, 4], "y": pd.Series([1, 2, 3], dtype=dtype)})
    schema = SeriesSchema.fit(frame, freq=1)
    out = schema.write(schema.read(frame), np.array([[0], [1e30], [0], [-1e30], [0]]), frame)
    low, high = (0, 2**64 - 1) if dtype.lower().startswith("u") else (-(2**63), 2**63 - 1)
    assert out["y"].tolist() == [1, high, 2, low, 3] and out["y"].dtype == dtype


def test_where_no_value_is_known_the_cell_stays_missing() -> None:
    frame = pd.DataFrame({"ds": pd.date_range("2024", periods=4, freq="D")[[0, 1, 3]], "y": [1.0, np.nan, 3.0]})
    frame["k"] = [1, 2, 3]
    schema = SeriesSchema.fit(frame)
    out = schema.write(schema.read(frame), np.full((4, 2), np.nan), frame)
    assert out["y"].isna().tolist() == [False, True, True, False]
    assert out["k"].isna().tolist() == [False, False, True, False]


def test_identical_rows_are_one_step_and_stay_where_no_row_is_inserted() -> None:
    frame = pd.DataFrame({"ds": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-02", "2024-01-03"])})
    frame["y"] = [1.0, np.nan, np.nan, 3.0]
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    assert panel.lengths == (3,) and panel.ids == (None,)
    assert schema.write(panel, np.full((3, 1), 7.0), frame)["y"].tolist() == [1.0, 7.0, 7.0, 3.0]


def test_static_columns_are_repeated_and_other_integers_stay_exact() -> None:
    frame = long_frame("h").assign(town=lambda rows: rows["unique_id"] + "-ville", serial=2**60 + 1, flag=True)
    frame.loc[frame.index[:5], "size"] = np.nan
    schema = SeriesSchema.fit(frame, target_cols=["float64"], static_cols=["size", "town"])
    panel = schema.read(frame)
    out = schema.write(panel, guesses(panel), frame)
    assert (out["town"] == out["unique_id"] + "-ville").all()
    left = by_stamp(frame)["size"].isna().reindex(by_stamp(out).index, fill_value=False).to_numpy()
    assert left.sum() == 5 and out["size"].isna().tolist() == left.tolist()
    assert (out["size"] == out["unique_id"].map({"a": 1, "b": 2, "c": 3}))[~left].all()
    assert out["serial"].dropna().unique().tolist() == [2**60 + 1]
    assert out["flag"].dropna().unique().tolist() == [True]


def test_columns_known_ahead_are_read_apart_from_the_channels() -> None:
    frame = long_frame("D")
    schema = SeriesSchema.fit(frame, target_cols=["float64"], future_cols=["uint8", "float32"])
    panel = schema.read(frame)
    whole = SeriesSchema.fit(frame, target_cols=["uint8", "float32"]).read(frame)
    assert panel.values.shape[1] == 1
    np.testing.assert_array_equal(panel.future, whole.values)


def test_series_unseen_in_fit_are_read() -> None:
    frame = long_frame("D")
    schema = SeriesSchema.fit(frame)
    other = long_frame("D", seed=1).assign(unique_id="new", ds=lambda rows: rows["ds"] + pd.Timedelta(1000, "D"))
    other = other.drop_duplicates("ds")
    assert schema.read(other).ids == ("new",)


def test_a_series_is_a_view_of_the_panel() -> None:
    frame = long_frame("D")
    panel = SeriesSchema.fit(frame).read(frame)
    assert panel.offsets.tolist() == [0, *np.cumsum(panel.lengths).tolist()]
    assert all(np.shares_memory(panel.series(i), panel.values) for i in range(3))
    assert sum(len(panel.series(i)) for i in range(3)) == len(panel.values)


def test_a_schema_is_the_same_after_json() -> None:
    frame = long_frame("D")
    wide = pd.DataFrame({("a", 1): range(5), ("a", 2): range(5)}, index=pd.date_range("2024", periods=5, name="t"))
    fitted = [
        SeriesSchema.fit(frame, target_cols=["float64"], future_cols=["uint8"], static_cols=["size", "note"]),
        SeriesSchema.fit(wide),
        SeriesSchema.fit(wide.set_axis([0, 1], axis=1)),
        SeriesSchema.fit(np.zeros((2, 3, 4)), freq="h"),
    ]
    for schema in fitted:
        assert SeriesSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
