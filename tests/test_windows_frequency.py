"""Frequencies are found in incomplete stamps, and grids go on by the calendar and through changes of the clock."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tabmae.errors import DataError
from tabmae.windows import SeriesSchema, season_of

EVERY_FREQ = (
    *("s", "10s", "min", "5min", "15min", "h", "2h", "12h", "36h", "ms", "500ms"),
    *("D", "2D", "10D", "B", "W-SUN", "W-MON", "2W-THU"),
    *("MS", "ME", "BMS", "BME", "2MS", "QS-JAN", "QS-FEB", "QE-DEC", "QE-NOV", "BQS-JAN", "BQE-DEC", "2QS-JAN"),
    *("YS-JAN", "YE-DEC", "YE-JUN", "SMS-15", "SME-15", "2SMS-10", "5YS-JAN"),
)


def fitted(stamps: pd.Index, freq: str | int | None = None) -> SeriesSchema:
    return SeriesSchema.fit(pd.DataFrame({"ds": stamps, "y": 1.0}), freq=freq)


@pytest.mark.parametrize("freq", EVERY_FREQ)
def test_the_frequency_is_found_with_stamps_absent(freq: str) -> None:
    stamps = pd.date_range("2003-01-02", periods=24, freq=freq)
    frame = pd.DataFrame({"ds": stamps, "y": np.arange(24.0)}).drop(index=[4, 5, 11, 18])
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    assert schema.freq == freq
    assert schema.stamps(panel)[0].equals(stamps)
    assert np.flatnonzero(np.isnan(panel.values)).tolist() == [4, 5, 11, 18]
    assert schema.future_stamps(panel, 3)[0].equals(pd.date_range(stamps[-1], periods=4, freq=freq)[1:])


@pytest.mark.parametrize("freq", ["MS", "QS-JAN", "YS-JAN", "D", "W-MON"])
def test_the_time_of_day_is_kept(freq: str) -> None:
    stamps = pd.date_range("2003-01-01", periods=12, freq=freq) + pd.Timedelta("09:30:00")
    schema = fitted(stamps.delete([3, 7]))
    panel = schema.read(pd.DataFrame({"ds": stamps.delete([3, 7]), "y": 1.0}))
    assert schema.freq == freq
    assert schema.stamps(panel)[0].equals(stamps)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
@pytest.mark.parametrize("freq", ["15min", "30min", "h", "D", "W-SUN", "MS", "B"])
def test_the_clock_may_change(freq: str, zone: str) -> None:
    stamps = pd.date_range("2018-01-05", "2018-12-20", freq=freq, tz="UTC" if freq[-1] in "nh" else None)
    stamps = stamps.tz_convert(zone) if stamps.tz else stamps.tz_localize(zone, nonexistent="shift_forward")
    frame = pd.DataFrame({"ds": stamps, "y": np.arange(len(stamps))})
    absent = np.random.default_rng(0).choice(len(stamps) - 2, len(stamps) // 10, replace=False) + 1
    holed = frame.drop(index=absent)
    schema = SeriesSchema.fit(holed)
    panel = schema.read(holed)
    out = schema.write(panel, np.arange(len(stamps))[:, None].astype(float), holed)
    assert schema.freq == freq
    pd.testing.assert_frame_equal(out, frame)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
@pytest.mark.parametrize("freq", ["2h", "3h", "6h", "12h"])
def test_hours_on_the_wall_may_be_regular_where_those_that_go_by_are_not(freq: str, zone: str) -> None:
    wall = pd.date_range("2018-01-05", "2018-12-20", freq=freq)
    stamps = wall.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(len(wall), dtype=bool))
    frame = pd.DataFrame({"ds": stamps, "y": np.arange(float(len(stamps)))})
    absent = np.random.default_rng(0).choice(len(stamps) - 2, len(stamps) // 10, replace=False) + 1
    for holed in (frame, frame.drop(index=absent)):
        for schema in (SeriesSchema.fit(holed), SeriesSchema.fit(holed, freq=freq)):
            schema = SeriesSchema.from_dict(schema.to_dict())
            panel = schema.read(holed)
            assert (schema.freq, panel.lengths) == (freq, (len(stamps),))
            out = schema.write(panel, np.arange(float(len(stamps)))[:, None], holed)
            pd.testing.assert_frame_equal(out, frame)
    early = frame.iloc[: len(frame) // 2]
    schema = SeriesSchema.fit(early.assign(known=early["y"]), future_cols=["known"])
    panel, n_ahead = schema.read(early.assign(known=early["y"])), len(frame) - len(early)
    assert schema.future_stamps(panel, n_ahead)[0].equals(pd.DatetimeIndex(frame["ds"].iloc[len(early) :]))
    known = schema.read_future(frame.assign(known=frame["y"]), panel, n_ahead)
    assert known[0, :, 0].tolist() == frame["y"].iloc[len(early) :].tolist()


def test_an_hour_that_comes_twice_needs_a_zone() -> None:
    stamps = pd.date_range("2024-10-26", periods=48, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"ds": stamps, "y": np.arange(48.0)})
    assert SeriesSchema.fit(frame).read(frame).lengths == (48,)
    with pytest.raises(DataError, match=r"must have one row per time stamp.*if the clock was set back"):
        fitted(stamps, "h").read(frame.assign(ds=stamps.tz_localize(None)))


def test_series_start_where_they_start() -> None:
    parts = [
        pd.DataFrame({"unique_id": name, "ds": pd.date_range(start, periods=6, freq="2D"), "y": 1.0})
        for name, start in (("a", "2024-01-01 03:00"), ("b", "2024-02-02 05:00"))
    ]
    frame = pd.concat(parts, ignore_index=True)
    schema = SeriesSchema.fit(frame)
    assert schema.freq == "2D"
    panel = schema.read(frame)
    assert panel.lengths == (6, 6)
    assert [stamps.tolist() for stamps in schema.stamps(panel)] == [part["ds"].tolist() for part in parts]
    quarters = frame.assign(
        ds=[*pd.date_range("2024-01", periods=6, freq="3MS"), *pd.date_range("2024-02", periods=6, freq="3MS")]
    )
    assert SeriesSchema.fit(quarters).freq == "3MS"
    assert SeriesSchema.fit(quarters).read(quarters).lengths == (6, 6)


def test_weekdays_are_business_days_only_where_a_weekend_is_left_out() -> None:
    assert fitted(pd.date_range("2024-01-01", periods=5)).freq == "D"
    assert fitted(pd.bdate_range("2024-01-01", periods=6)).freq == "B"


def test_integer_stamps_stay_integers() -> None:
    frame = pd.DataFrame({"ds": pd.array([10, 20, 40, 50], dtype="Int32"), "y": [1, 2, 4, 5]})
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    out = schema.write(panel, np.full((5, 1), 3.0), frame)
    assert (schema.freq, panel.starts, panel.lengths) == (10, (10,), (5,))
    assert out["ds"].tolist() == [10, 20, 30, 40, 50] and out["ds"].dtype == "Int32"
    assert out["y"].tolist() == [1, 2, 3, 4, 5] and out["y"].dtype == np.int64
    assert schema.future_stamps(panel, 2)[0].tolist() == [60, 70]


@pytest.mark.parametrize("first", [0, 190001, 202401, 20240101, 2024010100, 1_700_000_000])
def test_counts_that_look_like_dates_for_a_while_are_counts(first: int) -> None:
    for n_steps in (10, 40):
        frame = pd.DataFrame({"ds": first + np.arange(n_steps), "y": 1.0})
        assert SeriesSchema.fit(frame).freq == 1
    dates = pd.DataFrame({"ds": [202411, 202412, 202501], "y": 1.0})
    assert SeriesSchema.fit(dates, freq=1).freq == 1


@pytest.mark.parametrize("freq", ["M", "Q", "W-WED", "D", "h", "Y"])
def test_periods_stay_periods(freq: str) -> None:
    periods = pd.period_range("2020-01-01", periods=9, freq=freq)
    frame = pd.DataFrame({"ds": periods, "y": range(9)}).drop(index=[2, 5])
    schema = SeriesSchema.fit(frame)
    panel = schema.read(frame)
    out = schema.write(panel, np.arange(9.0)[:, None], frame)
    assert out["ds"].tolist() == list(periods) and out["ds"].dtype == frame["ds"].dtype
    assert schema.future_stamps(panel, 2)[0].equals(periods[-2:] + 2)
    assert season_of(schema.freq) == season_of({"M": "MS", "Q": "QS", "Y": "YS"}.get(freq, freq))


@pytest.mark.parametrize(
    ("old", "new"), [("H", "h"), ("T", "min"), ("M", "ME"), ("Q", "QE-DEC"), ("6H", "6h"), ("A-JUN", "YE-JUN")]
)
def test_older_names_of_frequencies_are_understood(old: str, new: str) -> None:
    assert fitted(pd.date_range("2020-01-01", periods=5, freq=new), freq=old).freq == new


def test_a_frequency_that_is_given_makes_the_grid() -> None:
    stamps = pd.date_range("2024-01-01", periods=4, freq="2h")
    frame = pd.DataFrame({"ds": stamps, "y": 1.0})
    assert SeriesSchema.fit(frame).read(frame).lengths == (4,)
    assert SeriesSchema.fit(frame, freq="h").read(frame).lengths == (7,)


def test_one_step_is_enough_after_fit() -> None:
    schema = fitted(pd.date_range("2024-01-01", periods=4))
    panel = schema.read(pd.DataFrame({"ds": [pd.Timestamp("2025-02-03")], "y": [1.0]}))
    assert panel.lengths == (1,)
    assert schema.future_stamps(panel, 1)[0].tolist() == [pd.Timestamp("2025-02-04")]


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        *(("s", (60, 3600)), ("min", (60, 1440)), ("5min", (288, 2016)), ("10min", (144, 1008)), ("15min", (96, 672))),
        *(
            ("30min", (48, 336)),
            ("h", (24, 168)),
            ("H", (24, 168)),
            ("6h", (4, 28)),
            ("D", (7, 365)),
            ("24h", (7, 365)),
        ),
        *(("7h", (24,)), ("B", (5,)), ("W-SUN", (52,)), ("7D", (52,)), ("MS", (12,)), ("BME", (12,)), ("2MS", (6,))),
        *(("QS-JAN", (4,)), ("QE-DEC", (4,)), ("SMS-15", (24,)), ("YS-JAN", ()), ("WOM-3FRI", ()), ("5MS", ())),
        *((1, ()), (None, ())),
    ],
)
def test_seasons_are_whole_numbers_of_steps(freq: str | int | None, season: tuple[int, ...]) -> None:
    assert season_of(freq) == season


def test_neighbours_in_the_frame_do_not_matter() -> None:
    stamps = pd.date_range("2024-01-31", periods=7, freq="ME").delete(3)
    for order in itertools.islice(itertools.permutations(range(6)), 0, None, 97):
        assert fitted(stamps[list(order)]).freq == "ME"
