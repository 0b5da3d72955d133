"""The clocks of time zones: what a clock on the wall shows at a moment, and moments rounded to a step of it.

Contract: moments are seconds since 1970 in UTC; a zone goes by the name that pandas knows it by, "" is UTC.
"""

import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

YEARS = (-6.2e10, 2.5e11)
"""Moments, from the year 5 to 9892, whose local times Python's dates hold; beyond, it is that of the nearest."""


def zone_name(zone: Any) -> str:
    """The name of a time zone, by its object or its name; "" if pandas finds no zone under it.

    >>> zone_name("Europe/Berlin"), zone_name(datetime.timezone(datetime.timedelta(hours=2)))
    ('Europe/Berlin', 'UTC+02:00')
    """
    fixed = zone.utcoffset(None) if isinstance(zone, datetime.tzinfo) else None
    name = str(zone if fixed is None else datetime.timezone(fixed))
    try:
        pd.Timestamp(0, tz=name)
    except (LookupError, ValueError, TypeError, OSError):
        return ""
    return name


def shifts(moments: NDArray[np.float64], zone: str) -> NDArray[np.float64]:
    """Seconds by which the clock of a zone is ahead of UTC at each moment (n,)."""
    if not zone:
        return np.zeros(len(moments))
    utc = pd.DatetimeIndex(np.floor(np.clip(moments, *YEARS)).astype("int64").astype("datetime64[s]"))
    local = utc.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return np.asarray((local - utc) / pd.Timedelta(seconds=1), dtype=np.float64)


def round_moments(moments: NDArray[np.float64], step: float, zone: str) -> NDArray[np.float64]:
    """Moments (n,) at which the clock shows the multiples of `step` that are nearest to what it shows at these.

    A time that the clock skips becomes the moment of the change; of one that it shows twice, the one on this side of
    the change is taken.
    """
    shift = shifts(moments, zone)
    shown = np.rint((moments + shift) / step) * step
    first = shown - shift
    second = shown - shifts(first, zone)
    return np.where(second + shifts(second, zone) == shown, second, np.maximum(first, second))
