"""Values that are known ahead: the rows of a frame that lie after the end of each series.

Contract: every stamp of the horizon has a row, or one error names those that have none.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.errors import DataError, listed
from tabmae.windows.frequency import steps_since
from tabmae.windows.panel import Panel
from tabmae.windows.rows import Owners


def starts_of(panel: Panel) -> pd.Index:
    """The first stamps of all series as one index."""
    first = panel.starts[0]
    if isinstance(first, pd.Period):
        return pd.PeriodIndex(panel.starts, freq=first.freq)
    if not isinstance(first, pd.Timestamp):
        return pd.Index(panel.starts, dtype=np.int64)
    utc = pd.DatetimeIndex(np.array([stamp.to_datetime64() for stamp in panel.starts]))
    return utc if first.tz is None else utc.tz_localize("UTC").tz_convert(first.tz)


def spread_ahead(
    owners: Owners, numbers: NDArray[np.float64], panel: Panel, horizon: int, freq: str | int, *, by_wall: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Columns of rows (n, K) at the steps after the end of each series of a panel, (S, horizon, K); which have a row.

    Rows of other series and times are passed over.

    Raises
    ------
    DataError : the stamps are of another kind than those of the series, or two rows of one stamp differ.
    """
    starts, ends = starts_of(panel), np.array(panel.lengths, dtype=np.int64)
    stamps = alike(owners.stamps, starts)
    places = {name: place for place, name in enumerate(panel.ids)}
    codes = np.array([places.get(name, -1) for name in owners.ids], dtype=np.int64)[owners.codes]
    known = np.flatnonzero(codes >= 0)
    codes, stamps = codes[known], stamps[known]
    out = np.full((len(ends) * horizon, numbers.shape[1]), np.nan)
    seen = np.zeros(len(out), dtype=bool)
    if len(known):
        steps, on_grid = steps_since(starts, codes, stamps, freq, by_wall=by_wall)
        steps -= ends[codes]
        ahead = on_grid & (steps >= 0) & (steps < horizon)
        cells, given = (codes * horizon + steps)[ahead], numbers[known[ahead]]
        out[cells], seen[cells] = given, True
        differ = ((out[cells] != given) & ~(np.isnan(out[cells]) & np.isnan(given))).any(axis=1)
        if differ.any():
            raise DataError(
                "`X_future` must have one row per series and time stamp; found different values for "
                f"{listed(dict.fromkeys(map(str, stamps[ahead][differ][:1000])))}. Keep one of them."
            )
    return out.reshape(len(ends), horizon, -1), seen.reshape(len(ends), horizon)


def alike(stamps: pd.Index, starts: pd.Index) -> pd.Index:
    """Stamps in the zone of the series; those that cannot be compared with the series' own are refused."""
    zones = [getattr(index, "tz", None) for index in (stamps, starts)]
    if type(starts) is not type(stamps) or (None in zones and zones != [None, None]):
        raise DataError(
            f"`X_future` must have time stamps like those of the series; got {stamps.dtype}, the series have "
            f"{starts.dtype}. Convert them, or give both a time zone."
        )
    return stamps if zones[1] is None else stamps.tz_convert(zones[1])


def refuse_lacking(seen: NDArray[np.bool_], panel: Panel, stamps: list[pd.Index]) -> None:
    """Name the stamps that have no row, and the series that have none at all."""
    if seen.all():
        return
    empty = [name for name, row in zip(panel.ids, seen, strict=True) if not row.any()]
    if empty and panel.ids != (None,):
        lacking = f"it has none of them for {listed(empty)}"
    else:
        missing = (
            str(stamp) if name is None else f"{name!r} at {stamp}"
            for name, row, index in zip(panel.ids, seen, stamps, strict=True)
            for stamp in index[~row][:6]
        )
        lacking = f"it lacks {listed(missing)}"
    raise DataError(
        f"`X_future` must hold the {seen.shape[1]} stamps after the end of each series; {lacking}. "
        "Add these rows, or lower `horizon`."
    )
