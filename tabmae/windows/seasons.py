"""How long the natural seasons of a frequency are: what repeats by the hour, the day, the week or the year.

Contract: seasons are whole numbers of steps; a frequency that is not known to have any has none.
"""

import pandas as pd
from pandas.tseries.frequencies import to_offset

from tabmae.windows.frequency import respelt

MINUTE, HOUR, DAY, WEEK = 60.0, 3600.0, 86_400.0, 604_800.0
CYCLES = ((MINUTE, (MINUTE, HOUR)), (5 * MINUTE, (HOUR, DAY)), (DAY, (DAY, WEEK)), (WEEK, (WEEK, 365 * DAY)))
"""Steps shorter than so many seconds have these seasons."""

PER_YEAR = {"W": 52, "SM": 24, "M": 12, "Q": 4}
"""Steps a year of offsets by the calendar, whether they name the first or the last day of theirs."""


def season_of(freq: str | int | None) -> tuple[int, ...]:
    """Natural seasons in steps, the shortest first.

    >>> season_of("h"), season_of("15min"), season_of("MS"), season_of(1)
    ((24, 168), (96, 672), (12,), ())
    """
    if freq is None or isinstance(freq, int):
        return ()
    offset = to_offset(respelt(freq))
    if isinstance(offset, pd.offsets.Day):
        return whole_cycles(offset.n * DAY)
    if isinstance(offset, pd.offsets.Tick):
        return whole_cycles(offset.nanos / 1e9)
    if isinstance(offset, pd.offsets.BusinessDay):
        return (5,) if offset.n == 1 else ()
    per_year = PER_YEAR.get(offset.base.freqstr.split("-")[0].removeprefix("B").rstrip("SE"), 0)
    return (per_year // offset.n,) if per_year % offset.n == 0 and per_year > offset.n else ()


def whole_cycles(seconds: float) -> tuple[int, ...]:
    """The seasons that hold a whole number, above one, of steps of so many seconds."""
    cycles = next((cycles for limit, cycles in CYCLES if seconds < limit), (364 * DAY,))
    return tuple(int(cycle // seconds) for cycle in cycles if cycle % seconds == 0 and cycle > seconds)
