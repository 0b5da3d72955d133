"""Steps of time: how many lie between two stamps, and which stamp is so many steps away.

Contract: integers and sub-daily offsets step by a fixed amount, in UTC where there is a zone, or `by_wall` on the clock
there; days and longer step by the calendar of the zone and keep the time of day of each series' first stamp.
"""

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from tabmae.errors import DataError, ParameterError, listed

OLD_SPELLINGS = {
    "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns", "d": "D", "b": "B", "w": "W",
    "M": "ME", "Q": "QE", "Y": "YE", "A": "YE", "AS": "YS", "BM": "BME", "BQ": "BQE", "BY": "BYE", "BA": "BYE",
    "SM": "SME",
}  # fmt: skip
"""Names of offsets in older versions of pandas, and those of today."""

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Units of time stamps, the coarsest first."""


def checked_freq(freq: Any) -> str | int:
    """Bring what a user passes as `freq` into pandas' own spelling.

    Raises
    ------
    ParameterError : no offset of pandas and no integer, or no step forward.
    """
    if isinstance(freq, int | np.integer) and not isinstance(freq, bool):
        if freq < 1:
            raise ParameterError(f"`freq` must be a positive step; got {freq}. Pass 1 for stamps 0, 1, 2, and so on.")
        return int(freq)
    try:
        offset = to_offset(respelt(freq) if isinstance(freq, str) else freq)
        name = "" if offset is None else str(offset.freqstr)
        known = bool(name) and to_offset(name) == offset and "bh" not in name
    except (ValueError, TypeError):
        known = False
    if not known or isinstance(freq, bool):
        raise ParameterError(
            "`freq` must be the name of a pandas offset, such as 'D', 'h', '15min', 'W-MON', 'MS' or 'QS', or an "
            f"integer; got {freq!r}. Leave it None to infer it."
        )
    if offset.n < 1:
        raise ParameterError(f"`freq` must step forward; got {freq!r}. Pass {offset.base.freqstr!r}.")
    return name


def respelt(freq: str) -> str:
    """An offset's name in today's spelling."""
    parts = re.fullmatch(r"(-?\d*)([A-Za-z]+)(-.+)?", freq.strip())
    if parts is None or parts[2] not in OLD_SPELLINGS:
        return freq
    return f"{parts[1]}{OLD_SPELLINGS[parts[2]]}{parts[3] or ''}"


def steps_since(
    starts: pd.Index, codes: NDArray[np.int64], stamps: pd.Index, freq: str | int, *, by_wall: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Steps from the first stamp of a series to stamps of it, and which of the stamps lie on the grid.

    starts : (S,) the first stamps. codes : (n,) the series of each stamp. The number of a stamp off the grid is that of
        the step before it.
    """
    starts, stamps, width = in_ticks(starts, stamps, freq)
    if width is not None and by_wall:
        span = ticks(local(stamps)) - ticks(local(starts))[codes]
        shown = stamps_after(starts, codes, span // width, freq, by_wall=True)
        return span // width, (span % width == 0) | (shown == stamps)
    if width is not None:
        span = ticks(stamps) - ticks(starts)[codes]
        return span // width, span % width == 0
    offset = to_offset(freq)
    first, days = dates(starts), dates(stamps)
    grid = calendar(min(first.min(), days.min()), max(first.max(), days.max()), offset)
    if not len(grid):
        return np.zeros(len(stamps), dtype=np.int64), np.zeros(len(stamps), dtype=bool)
    begins = grid.searchsorted(first)
    places = grid.searchsorted(days, side="right") - 1
    span = places - begins[codes]
    wall = grid[np.maximum(places, 0)] + (local(starts) - first)[codes]
    on_grid = (places >= 0) & (span % offset.n == 0) & (begins < len(grid))[codes]
    on_grid &= grid[np.minimum(begins, len(grid) - 1)[codes]] == first[codes]
    on_grid &= (wall == local(stamps)) | (in_zone(wall, stamps) == stamps)
    return span // offset.n, np.asarray(on_grid)


def by_wall_alone(starts: pd.Index, codes: NDArray[np.int64], stamps: pd.Index, freq: str | int) -> bool:
    """Whether stamps are regular on the clock of their zone, and not in the time that goes by while it is changed."""
    if getattr(stamps, "tz", None) is None or steps_since(starts, codes, stamps, freq)[1].all():
        return False
    return in_ticks(starts, stamps, freq)[2] is not None and bool(
        steps_since(starts, codes, stamps, freq, by_wall=True)[1].all()
    )


def stamps_after(
    starts: pd.Index, codes: NDArray[np.int64], steps: NDArray[np.int64], freq: str | int, *, by_wall: bool = False
) -> pd.Index:
    """The stamps that lie so many steps after the first stamps of their series."""
    starts, _, width = in_ticks(starts, starts, freq)
    if width is not None and by_wall:
        wall = ticks(local(starts))[codes] + width * steps
        return in_zone(pd.DatetimeIndex(wall.view(f"M8[{starts.unit}]")), starts)
    if width is not None:
        moved = ticks(starts)[codes] + width * steps
        if isinstance(starts, pd.PeriodIndex):
            return pd.PeriodIndex.from_ordinals(moved, freq=starts.freq)
        if not isinstance(starts, pd.DatetimeIndex):
            return pd.Index(moved)
        return zoned(pd.DatetimeIndex(moved.view(f"M8[{starts.unit}]")), starts)
    offset = to_offset(freq)
    first = dates(starts)
    begins = calendar(first.min(), first.max(), offset).searchsorted(first)
    places = begins[codes] + offset.n * steps
    grid = pd.date_range(first.min(), periods=int(places.max(initial=0)) + 1, freq=offset.base).as_unit(first.unit)
    return in_zone(grid[places] + (local(starts) - first)[codes], starts)


def in_ticks(starts: pd.Index, stamps: pd.Index, freq: str | int) -> tuple[pd.Index, pd.Index, int | None]:
    """Two indexes in one unit, and how many of these a step is; None where the calendar says how long it is.

    Raises
    ------
    DataError : a step of integers for times, of times for integers, or none of whole periods.
    """
    if isinstance(freq, int) != pd.api.types.is_integer_dtype(stamps.dtype):
        kind, other = ("times", "the name of a pandas offset") if isinstance(freq, int) else ("integers", "an integer")
        raise DataError(
            f"Time stamps must go with their frequency; got {kind} and freq={freq!r}. Pass {other} as `freq`, or "
            "convert the stamps."
        )
    if isinstance(freq, int):
        return starts, stamps, freq
    offset = to_offset(freq)
    if isinstance(stamps, pd.PeriodIndex):
        if stamps.freq.base != offset.base:
            raise DataError(
                f"Periods must go with their frequency; got periods of {stamps.freqstr!r} and freq={freq!r}. "
                "Leave `freq` None, or convert the periods by X.index.asfreq."
            )
        return starts, stamps, int(offset.n)
    if not isinstance(offset, pd.offsets.Tick) or isinstance(offset, pd.offsets.Day):
        return starts, stamps, None
    coarsest = next(unit for unit, size in NANOSECONDS.items() if offset.nanos % size == 0)
    unit = max(starts.unit, stamps.unit, coarsest, key=list(NANOSECONDS).index)
    return starts.as_unit(unit), stamps.as_unit(unit), offset.nanos // NANOSECONDS[unit]


def ticks(stamps: pd.Index) -> NDArray[np.int64]:
    """Integers, ordinals of periods, or units of time since 1970 in UTC."""
    return stamps.asi8 if isinstance(stamps, pd.DatetimeIndex | pd.PeriodIndex) else stamps.to_numpy()


def local(stamps: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """What the clock on the wall showed."""
    return stamps.tz_localize(None)


def dates(stamps: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The days of stamps in their zone."""
    return local(stamps).normalize()


def in_zone(wall: pd.DatetimeIndex, like: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """What the clock on the wall shows, as stamps in a zone; a time that was skipped moves to the next that was not."""
    if like.tz is None:
        return wall
    return wall.tz_localize(like.tz, nonexistent="shift_forward", ambiguous=np.ones(len(wall), dtype=bool))


def zoned(utc: pd.DatetimeIndex, like: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Stamps without zone that count in UTC, in the zone of others."""
    return utc if like.tz is None else utc.tz_localize("UTC").tz_convert(like.tz)


def calendar(low: pd.Timestamp, high: pd.Timestamp, offset: Any) -> pd.DatetimeIndex:
    """The dates of single steps from `low` to `high`."""
    return pd.date_range(low, high, freq=offset.base).as_unit(low.unit)


def check_on_grid(stamps: pd.Index, on_grid: NDArray[np.bool_], freq: str | int) -> None:
    """Refuse stamps off the grid."""
    if on_grid.all():
        return
    off = [str(stamp) for stamp in stamps[~on_grid][:6].unique()]
    raise DataError(
        f"Time stamps must lie on the grid of freq={freq!r}, which begins with each series' first stamp; "
        f"{listed(off, 3)} do not ({int((~on_grid).sum())} rows). Resample X first, or pass the `freq` that fits."
    )
