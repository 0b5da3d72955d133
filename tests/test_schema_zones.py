"""Dates with a time zone: what was observed at local midnight is imputed at local midnight."""

import datetime
import json
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tabmae import TimeSeriesMAE
from tabmae.errors import SavedModelError
from tabmae.schema import TableSchema, missing_cells

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "+05:30")
DAYS = pd.date_range("2024-01-01", "2024-12-01", freq="5D")


def daily(zone: str) -> pd.Series:
    """Midnights of a zone, every third one missing."""
    days = pd.Series(DAYS.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(len(DAYS), dtype=bool)))
    return days.mask(np.arange(len(days)) % 3 == 1)


def containers(stamps: pd.Series, zone: str) -> dict[str, Any]:
    """One column of zoned times, as every container holds it."""
    python = [None if pd.isna(stamp) else stamp.to_pydatetime() for stamp in stamps]
    arrow = pa.table({"d": pa.array(python, pa.timestamp("us", zone))})
    found = {
        "pandas": pd.DataFrame({"d": stamps}),
        "pandas ns": pd.DataFrame({"d": stamps.dt.as_unit("ns")}),
        "pandas arrow": pd.DataFrame({"d": stamps.astype(pd.ArrowDtype(pa.timestamp("ms", zone)))}),
        "timestamps": pd.DataFrame({"d": stamps.astype(object)}),
        "datetimes": [[stamp] for stamp in python],
        "arrow": arrow,
    }
    return found if zone.startswith("+") else found | {"polars": pl.DataFrame(arrow)}


def local(table: Any) -> pd.Series:
    """The only column of a table as times of a zone."""
    if isinstance(table, pd.DataFrame):
        return pd.Series(pd.DatetimeIndex(table["d"]))
    if isinstance(table, list):
        return pd.Series(pd.DatetimeIndex([row[0] for row in table]))
    return pd.Series(pd.DatetimeIndex(table["d"].to_pylist() if isinstance(table, pa.Table) else table["d"].to_list()))


def completed(table: Any, value: float, like: Any = None) -> Any:
    """One value for every missing cell, the cells that a schema in JSON makes of it."""
    like = table if like is None else like
    schema = TableSchema.from_dict(json.loads(json.dumps(TableSchema.fit(table).to_dict())))
    return schema.decode(np.full(missing_cells(like).shape, value), like)


@pytest.mark.parametrize("zone", ZONES)
def test_days_of_a_zone_are_imputed_at_its_midnight_and_observed_ones_stay(zone: str) -> None:
    stamps = daily(zone)
    known = stamps.notna()
    for name, table in containers(stamps, zone).items():
        assert TableSchema.fit(table).columns[0].step == 86_400, name
        for value in np.linspace(-1.7, 1.7, 60):
            filled = local(completed(table, value))
            assert (filled == filled.dt.normalize()).all(), (name, value)
            assert (filled[known] == stamps[known]).all(), name


def test_hours_of_a_zone_half_an_hour_away_are_imputed_at_full_hours_of_its_clock() -> None:
    hours = pd.Series(pd.date_range("2024-03-01", periods=40, freq="7h", tz="Asia/Kolkata")).mask(
        np.arange(40) % 4 == 1
    )
    frame = pd.DataFrame({"d": hours})
    assert TableSchema.fit(frame).columns[0].step == 3600
    assert (completed(frame, 0.123)["d"].dt.minute == 0).all()


def test_moments_are_imputed_by_the_clock_of_fit_whatever_the_zone_they_are_told_in() -> None:
    frame = pd.DataFrame({"d": daily("Europe/Berlin")})
    told = completed(frame, 0.5, frame.assign(d=frame["d"].dt.tz_convert("UTC")))["d"]
    assert str(told.dt.tz) == "UTC" and (told.dt.tz_convert("Europe/Berlin").dt.hour == 0).all()


@pytest.mark.parametrize(("zone", "first", "last"), [
    ("America/Sao_Paulo", "2017-10-12", "2017-10-18"),  # no midnight on the 15th
    ("America/Havana", "2024-10-31", "2024-11-06"),  # two midnights on the 3rd
    ("Africa/Cairo", "2024-04-23", "2024-04-29"),  # no midnight on the 26th
])  # fmt: skip
def test_midnights_that_the_clock_skips_or_shows_twice_are_days_too(zone: str, first: str, last: str) -> None:
    midnights = pd.date_range(first, last, freq="D")
    sides = [
        midnights.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.full(len(midnights), side))
        for side in (True, False)
    ]
    for days in sides:
        frame = pd.DataFrame({"d": [*days, pd.NaT]})
        assert TableSchema.fit(frame).columns[0].step == 86_400
        found = {completed(frame, value)["d"].iloc[-1] for value in np.linspace(-1.5, 1.5, 500)}
        assert found <= {*sides[0], *sides[1]} and len(found) >= len(days)


def test_zones_without_a_name_and_the_ends_of_time_raise_nothing() -> None:
    class Odd(datetime.tzinfo):
        def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
            return datetime.timedelta(hours=2 if moment is None or moment.month < 6 else 3)

        def dst(self, moment: datetime.datetime | None) -> datetime.timedelta:
            return datetime.timedelta(0)

        def tzname(self, moment: datetime.datetime | None) -> str:
            return "odd"

    odd = [[datetime.datetime(2024, month, 1, tzinfo=Odd())] for month in range(1, 8)]
    assert len(completed([*odd, [None]], 0.3)) == 8
    zone = zoneinfo.ZoneInfo("Pacific/Kiritimati")
    far = [[datetime.datetime(year, 1, 1, tzinfo=zone)] for year in (2, 9998)]
    for value in (-9.0, 0.0, 9.0):
        assert completed([*far, [None]], value)[2][0] is not None
    frame = pd.DataFrame(
        {"d": pd.DatetimeIndex(["2024-01-01", "2025-01-01", "NaT"]).as_unit("s").tz_localize("Asia/Tokyo")}
    )
    assert completed(frame, 1e5)["d"].notna().all()


def test_a_saved_zone_that_is_none_is_refused() -> None:
    saved = TableSchema.fit(pd.DataFrame({"d": daily("Europe/Berlin")})).to_dict()
    assert saved["columns"][0]["zone"] == "Europe/Berlin"
    for zone in ("Europe/Atlantis", "../secret", 5, None):
        saved["columns"][0]["zone"] = zone
        with pytest.raises(SavedModelError, match="The saved schema must be as `to_dict` wrote it"):
            TableSchema.from_dict(saved)


def test_a_series_of_local_days_is_completed_at_its_own_stamps() -> None:
    stamps = pd.date_range("2024-03-01", periods=60, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"unique_id": "A", "ds": stamps, "y": np.sin(np.arange(60.0))}).drop(index=[7, 30, 31])
    filled = TimeSeriesMAE(horizon=2, max_epochs=1, experts=("gaussian",), random_state=0).fit(frame).impute(frame)
    assert filled["ds"].tolist() == stamps.tolist() and filled["y"].notna().all()
