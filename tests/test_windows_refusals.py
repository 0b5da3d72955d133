"""Series that cannot be read give one clear error; the first words of each message stand here."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from tabmae.errors import DataError, ParameterError
from tabmae.windows import SeriesSchema

DAYS = pd.date_range("2024-01-01", periods=6, freq="D")


def frame(**columns: Any) -> pd.DataFrame:
    """Six days of one series, with some columns replaced."""
    return pd.DataFrame({"unique_id": "a", "ds": DAYS, "y": np.arange(6.0)}).assign(**columns)


def stamped(freq: str, n_steps: int, name: str, start: str = "2024-01-01") -> pd.DataFrame:
    return pd.DataFrame({"unique_id": name, "ds": pd.date_range(start, periods=n_steps, freq=freq), "y": 1.0})


def wide(**columns: Any) -> pd.DataFrame:
    return frame(**columns).set_index("ds").drop(columns="unique_id")


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no rows": (lambda: frame().iloc[:0], "X must hold rows; got a table of shape"),
    "one row": (lambda: frame().iloc[:1], "A series must have at least two time stamps"),
    "a row each": (lambda: frame(unique_id=range(6)), "A series must have at least two time stamps; each of the 6"),
    "no numbers": (lambda: frame(y="x"), "X must hold a numeric column that is no id"),
    "infinite": (lambda: frame(y=np.inf, z=1.0), "Numbers must be finite; columns 'y' hold"),
    "infinite object": (lambda: frame(y=pd.Series([1.5, np.inf] * 3, dtype=object)), "Numbers must be finite"),
    "sparse": (lambda: frame(y=pd.arrays.SparseArray(range(6))), "Columns must be dense; 'y'"),
    "names twice": (lambda: frame().set_axis(["unique_id", "y", "y"], axis=1), "Column names must be unique; 'y'"),
    "odd names": (lambda: frame().set_axis(["unique_id", "ds", 1.5], axis=1), "Column names must be strings"),
    "no stamp": (lambda: frame(ds=DAYS.where(DAYS[2] != DAYS)), "Every row must have a time stamp.*in 1 rows.*row 2"),
    "no stamp in the index": (
        lambda: wide().set_axis(DAYS.where(DAYS[2] != DAYS)),
        r"Every row must have a time stamp; the index has none in 1 rows.*row 2\. Drop.*X\[X\.index\.notna",
    ),
    "ids in the index": (
        lambda: frame().set_index("unique_id"),
        r"The ids of series must be a column; X has them in its index, 'unique_id'\. Pass X\.reset_index",
    ),
    "text in the index": (
        lambda: wide().set_axis(DAYS.astype(str)),
        r"X must hold a column 'ds'.*no column of 'y' holds times\. .*in the index, as X\.reset_index\(names='ds'\)",
    ),
    "no id": (lambda: frame(unique_id=["a", None] * 3), "Every row must have a series id.*in 3 rows.*row 1"),
    "no time": (lambda: frame()[["y"]], "X must hold a column 'ds' of time stamps.*no column of 'y' holds times"),
    "two times": (lambda: frame(t=DAYS, u=DAYS).drop(columns="ds"), "X must hold a column 'ds'.*columns 't', 'u' all"),
    "time in the index": (lambda: frame().set_index("ds"), "A frame with a column of ids must have its"),
    "levels": (lambda: frame().set_index(["unique_id", "ds"]), "The ids and stamps of series must be columns"),
    "float stamps": (lambda: frame(ds=np.arange(6.0)), r"Time stamps must be times, periods.*astype\('int64'\)"),
    "spans for stamps": (
        lambda: frame(ds=pd.to_timedelta(np.arange(6), unit="h")),
        r"Time stamps must be times, periods.*holds timedelta64.* pandas.Timestamp\('2000-01-01'\) [+] X\['ds'\]",
    ),
    "bool stamps": (lambda: frame(ds=True), "Time stamps must be times, periods.*holds bool"),
    "mixed stamps": (lambda: frame(ds=pd.Series(["x", 1] * 3, dtype=object)), "Time stamps must be times, periods"),
    "day first": (lambda: frame(ds=DAYS.strftime("%d/%m/%Y")), "Time stamps that are text must be ISO dates"),
    "words": (lambda: frame(ds=list("abcdef")), "Time stamps that are text must be ISO dates.*'a', 'b'"),
    "offsets": (
        lambda: frame(ds=[f"2024-01-0{day}T00:00:00+0{day}:00" for day in range(1, 7)]),
        "Time stamps must all have one time zone or none",
    ),
    "zones": (
        lambda: frame(ds=pd.Series([DAYS[0], *DAYS[1:].tz_localize("UTC")], dtype=object)),
        "Time stamps must all have one time zone or none",
    ),
    "conflict": (
        lambda: pd.concat([frame(), frame(y=2.0)]),
        "A series must have one row per time stamp; found different values for .'a' at 2024-01-01 00:00:00",
    ),
    "conflict without ids": (
        lambda: pd.concat([frame(), frame(y=2.0)]).drop(columns="unique_id"),
        "Without a column of ids, X must have one row per time stamp.*name the column of ids by `id_col`",
    ),
    "irregular": (
        lambda: frame(ds=[*DAYS[:4], DAYS[4] + pd.Timedelta("1h"), DAYS[5]]),
        "Time stamps must be regular.*2024-01-01 00:00:00 and 2024-01-02 00:00:00, but 2024-01-04.*2024-01-05 01:00",
    ),
    "irregular months": (
        lambda: frame(ds=pd.to_datetime([f"2024-0{month}-0{1 + month // 4}" for month in range(1, 7)])),
        "Time stamps must be regular",
    ),
    "irregular integers": (lambda: frame(ds=[0, 2, 4, 5, 8, 10]), "Time stamps must be regular.*4 and 5"),
    "days as integers": (
        lambda: frame(ds=[20240129, 20240130, 20240131, 20240201, 20240202, 20240203]),
        r"Time stamps that are integers must count steps; 20240129, .* and 1 more are dates\. .*format='%Y%m%d'",
    ),
    "months as integers": (
        lambda: frame(ds=[202310, 202311, 202312, 202401, 202402, 202403]),
        "Time stamps that are integers must count steps; 202310, .*format='%Y%m'",
    ),
    "a year of months as integers": (
        lambda: pd.DataFrame({"ds": range(202401, 202413), "y": 1.0}),
        "Time stamps that are integers must count steps; 202401, .* and 7 more are dates",
    ),
    "minutes as integers": (
        lambda: frame(ds=[202401012358, 202401012359, 202401020000, 202401020001, 202401020002, 202401020003]),
        "Time stamps that are integers must count steps; .*format='%Y%m%d%H%M'",
    ),
    "hours and days": (
        lambda: pd.concat([stamped("h", 30, "a"), stamped("D", 20, "b")]),
        "All series must have one frequency; series 'a' steps.* 01:00:00, series 'b' from",
    ),
    "days and months": (
        lambda: pd.concat([stamped("D", 30, "a"), stamped("MS", 20, "b")]),
        "All series must have one frequency; series 'a'",
    ),
    "hours and quarters": (
        lambda: pd.concat([stamped("h", 30, "a"), stamped("15min", 20, "b")]),
        "All series must have one frequency; series 'a'",
    ),
    "stray stamp": (
        lambda: pd.concat([stamped("s", 1, "a", "1970-01-01"), stamped("s", 9, "a")]),
        "Time stamps must fill a good part of their grid; 10 rows span 17",
    ),
    "words in a wide frame": (lambda: wide(note="x"), "Every column of a wide frame must be numeric; 'note'"),
    "two axes": (lambda: np.zeros((3, 4)), r"X must be an array.*got shape \(3, 4\). Reshape it to \(1, T, C\)"),
    "one axis": (lambda: [1.0, 2.0], r"X must be an array \(n, T, C\)"),
    "one step": (lambda: np.zeros((3, 1, 2)), "X must hold series of two time steps or more"),
    "no channel": (lambda: torch.zeros(3, 4, 0), "X must hold series of two time steps or more"),
    "infinite array": (lambda: np.array([[[1.0], [np.inf]]]), "Numbers must be finite; columns 0"),
    "array of words": (lambda: np.full((1, 2, 1), "x"), "X must hold numbers; got an array of <U1"),
    "list of words": (lambda: [[["x"], [1]]], "X must hold numbers; got an array of objects"),
    "masked array": (lambda: np.ma.masked_array(np.zeros((1, 2, 1))), "X must be a plain array; got a masked array"),
    "ragged": (lambda: [[[1], [2]], [[1]]], "Nested lists must be of one length"),
    "lazy": (lambda: pl.LazyFrame({"ds": [1]}), r"X must be a pandas or polars.*LazyFrame. Pass X.collect\(\)"),
    "dict": (lambda: {"ds": [1]}, "X must be a pandas or polars DataFrame.*got dict"),
    "batch": (lambda: pa.RecordBatch.from_pydict({"ds": [1]}), "X must be a pandas or polars DataFrame"),
    "128 bits": (lambda: pl.DataFrame({"y": pl.Series([1], dtype=pl.Int128)}), "Columns must have a type that Arrow"),
    "stamps named as an answer": (
        lambda: wide(z=2.0).rename_axis("channel"),
        r"Columns of ids and stamps must have other names than columns that answers bring, 'channel'; got 'channel'\.",
    ),
    "series without time": (lambda: pd.Series([1.0, 2.0], name="y"), "X must hold a column 'ds' of time stamps"),
}


def fit_and_read(X: Any) -> None:
    SeriesSchema.fit(X).read(X)


@pytest.mark.parametrize("case", BAD)
def test_series_that_cannot_be_read_are_refused(case: str) -> None:
    make, message = BAD[case]
    X = make()
    with pytest.raises(DataError, match=f"^{message}"):
        fit_and_read(X)


PARAMETERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown freq": ({"freq": "foo"}, ParameterError, "`freq` must be the name of a pandas offset.*got 'foo'"),
    "freq without a name": ({"freq": pd.DateOffset(months=1)}, ParameterError, "`freq` must be the name of a pandas"),
    "business hours": ({"freq": "bh"}, ParameterError, "`freq` must be the name of a pandas offset"),
    "no step": ({"freq": 0}, ParameterError, "`freq` must be a positive step; got 0"),
    "step back": ({"freq": "-2D"}, ParameterError, "`freq` must step forward; got '-2D'. Pass 'D'"),
    "bool": ({"freq": True}, ParameterError, "`freq` must be the name of a pandas offset"),
    "integer for times": ({"freq": 1}, DataError, "Time stamps must go with their frequency; got times and freq=1"),
    "off the grid": ({"freq": "W-MON"}, DataError, "Time stamps must lie on the grid of freq='W-MON'.*2024-01-02"),
    "a name": ({"target_cols": "y"}, ParameterError, r"`target_cols` must be a list.*got 'y'. Pass \['y'\]"),
    "lacking": ({"future_cols": ["q", "r"]}, DataError, "X must hold the columns of `future_cols`; it lacks 'q', 'r'"),
    "two roles": ({"target_cols": ["y"], "future_cols": ["y"]}, ParameterError, "A column must have one role; 'y'"),
    "a key": ({"target_cols": ["ds"]}, ParameterError, "A column must have one role; 'ds'"),
    "words": ({"future_cols": ["note"]}, DataError, "`target_cols` and `future_cols` must name col.*'note'"),
    "other id": ({"id_col": "shop"}, DataError, "X must hold the column `id_col`; it lacks 'shop'"),
    "all known ahead": ({"future_cols": ["y"]}, DataError, "X must hold a numeric column that is no id"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters_that_do_not_fit_are_refused(case: str) -> None:
    parameters, kind, message = PARAMETERS[case]
    with pytest.raises(kind, match=f"^{message}"):
        SeriesSchema.fit(frame(note="x"), **parameters)


def test_roles_need_a_table_that_has_them() -> None:
    with pytest.raises(ParameterError, match="^`static_cols` need a long frame; got 'k'"):
        SeriesSchema.fit(wide(k=1), static_cols=["k"])
    with pytest.raises(ParameterError, match="^`future_cols` must name columns of a table; got an array"):
        SeriesSchema.fit(np.zeros((1, 4, 2)), future_cols=["k"])


def test_periods_and_integers_need_their_own_frequency() -> None:
    with pytest.raises(DataError, match="^Periods must go with their frequency; got periods of 'D' and freq='h'"):
        SeriesSchema.fit(frame(ds=DAYS.to_period("D")), freq="h")
    with pytest.raises(DataError, match="^Time stamps must go with their frequency; got integers and freq='D'"):
        SeriesSchema.fit(frame(ds=range(6)), freq="D")


def test_other_data_must_have_the_layout_and_the_columns_of_fit() -> None:
    long, array = SeriesSchema.fit(frame(k=1)), SeriesSchema.fit(np.zeros((1, 4, 2)))
    with pytest.raises(DataError, match="^X must hold the columns of fit; it lacks 'k' and has"):
        long.read(frame())
    with pytest.raises(DataError, match="^X must hold the columns of fit; it lacks 'unique_id', 'ds'"):
        long.read(wide(k=1))
    with pytest.raises(DataError, match="^Columns must hold numbers; 'k'"):
        long.read(frame(k="x"))
    with pytest.raises(DataError, match="^X must have the layout of fit, a wide frame with its stamps in the index"):
        SeriesSchema.fit(wide()).read(frame())
    with pytest.raises(DataError, match="^X must have the layout of fit, long; got an array"):
        long.read(np.zeros((1, 4, 2)))
    with pytest.raises(DataError, match="^X must have the layout of fit, array; got a DataFrame"):
        array.read(frame())
    with pytest.raises(DataError, match="^X must have the 2 channels of fit; got 3"):
        array.read(np.zeros((1, 4, 3)))
    with pytest.raises(DataError, match="^Time stamps must lie on the grid of freq='D'"):
        long.read(stamped("h", 5, "a").assign(k=1))
