"""Columns that the calendar knows ahead: the day of the week, the time of the year.

Contract: a stamp's columns depend on that stamp alone.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from tabmae.windows.frequency import respelt
from tabmae.windows.seasons import DAY, WEEK

YEAR = 365.25 * DAY
HARMONICS = 2
"""Pairs of sine and cosine that a year is drawn with."""
LEAST_TIMES = 3
"""Times that a series must hold a cycle for its effect to be learnt."""
LEAST_TIMES_OF_PARTS = 2
"""The same of a week whose days are seasons of their own: forecasts pass from one day to the next."""


def unseen_cycles(freq: str | int | None, n_steps: int, context: int) -> tuple[str, ...]:
    """Cycles, "week" or "year", that series of `n_steps` hold often enough and a context of so many steps not once.

    That is `LEAST_TIMES`, and `LEAST_TIMES_OF_PARTS` for a week of steps shorter than half a day. Steps that are
    numbers, or weeks and longer, have none.

    >>> unseen_cycles("h", 30_000, 720), unseen_cycles("10min", 5_000, 720), unseen_cycles("MS", 200, 48)
    (('year',), ('week',), ())
    """
    if freq is None or isinstance(freq, int):
        return ()
    offset = to_offset(respelt(freq))
    if isinstance(offset, pd.offsets.Day):
        seconds = offset.n * DAY
    elif isinstance(offset, pd.offsets.Tick):
        seconds = offset.nanos / 1e9
    elif isinstance(offset, pd.offsets.BusinessDay):
        seconds = offset.n * WEEK / 5
    else:
        return ()
    lengths = {"week": WEEK / seconds, "year": YEAR / seconds}
    times = {"week": LEAST_TIMES_OF_PARTS if 2 * seconds <= DAY else LEAST_TIMES, "year": LEAST_TIMES}
    return tuple(name for name, steps in lengths.items() if context < steps and times[name] * steps <= n_steps)


def calendar_columns(stamps: pd.Index, cycles: tuple[str, ...]) -> NDArray[np.float64]:
    """Columns (n, K) of stamps: seven of the week's days, and the harmonics of the year."""
    if not cycles:
        return np.zeros((len(stamps), 0))
    times = stamps.to_timestamp() if isinstance(stamps, pd.PeriodIndex) else stamps
    parts = []
    if "week" in cycles:
        parts.append(np.eye(7)[times.day_of_week])
    if "year" in cycles:
        angle = 2 * np.pi * (np.asarray(times.day_of_year)[:, None] * DAY / YEAR) * np.arange(1, HARMONICS + 1)
        parts += [np.sin(angle), np.cos(angle)]
    return np.concatenate(parts, axis=1)
