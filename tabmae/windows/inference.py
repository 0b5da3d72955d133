"""Find the frequency of stamps: the most common step between neighbours, which must divide all others.

Contract: the same stamps with some left out have the same frequency as long as it stays the most common step.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from tabmae.errors import DataError, listed
from tabmae.windows.frequency import NANOSECONDS, by_wall_alone, dates, in_zone, local, ticks

NEARLY_A_DAY = pd.Timedelta(20, "h")
"""From here on a step is counted in days: where the clock is put forward, a day has 23 hours."""

LEAST_STEPS = 10
"""Steps of a series from which on it is said to have another frequency, not to lack every second stamp by chance."""

MONTHS_DIFFER = 0.2
"""Steps that differ by less may be one step by the calendar: a month has 28 to 31 days."""

SHORTEST_MONTH = 28
"""Days from which on months are tried before weeks and days."""

ANCHORS = ("MS", "ME", "BMS", "BME", "SMS", "SME")
"""Calendars whose dates are tried, the most common first; then those of another day of the month."""

WRITTEN = {
    6: ("%Y%m", 1, 12),
    8: ("%Y%m%d", 1, 28),
    10: ("%Y%m%d%H", 0, 23),
    12: ("%Y%m%d%H%M", 0, 59),
    14: ("%Y%m%d%H%M%S", 0, 59),
}
"""Digits of integers that may be dates: how they are written then, and the ends of what their last two run over."""

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


class Neighbours(NamedTuple):
    """Stamps in order of series and time, and the pairs of neighbours within a series.

    codes : int64 (n,). left : int64 (m,), the place of the earlier of each pair; the later is the next one.
    """

    ids: Sequence[Hashable]
    codes: NDArray[np.int64]
    stamps: pd.Index
    left: NDArray[np.int64]


def inferred_freq(ids: Sequence[Hashable], codes: NDArray[np.int64], stamps: pd.Index) -> str | int:
    """Find the frequency of stamps that are sorted by series and time.

    Raises
    ------
    DataError : no series has two steps, or stamps are irregular, or series differ in frequency.
    """
    time = ticks(stamps)
    left = np.flatnonzero((codes[1:] == codes[:-1]) & (time[1:] > time[:-1]))
    if not len(left):
        refuse_single_steps(len(ids))
    neighbours = Neighbours(ids, codes, stamps, left)
    step = most_common(time[left + 1] - time[left])
    if isinstance(stamps, pd.PeriodIndex):
        return str((to_offset(stamps.freq).base * checked_step(neighbours, time)).freqstr)
    if not isinstance(stamps, pd.DatetimeIndex):
        refuse_written_dates(stamps)
        return checked_step(neighbours, time)
    if step * pd.Timedelta(1, stamps.unit) >= NEARLY_A_DAY:
        by_days = freq_of_days(neighbours)
        if by_days is not None:
            return by_days
    width = checked_step(neighbours, time)
    return name_of_width(width * NANOSECONDS[stamps.unit])


def refuse_written_dates(stamps: pd.Index) -> None:
    """Refuse integers that are all dates, such as 20240131, after which 20240132 would come."""
    unique = stamps.unique()
    for digits, (pattern, first, last) in WRITTEN.items():
        if unique.min() < 1900 * 10 ** (digits - 4) or unique.max() >= 2200 * 10 ** (digits - 4):
            continue
        # A short count may look like days of one month.
        ends = (unique % 100).min() == first and (unique % 100).max() >= last
        several = ends or (unique // 100).nunique() > 1
        if several and pd.to_datetime(unique.astype(str), format=pattern, errors="coerce").notna().all():
            raise DataError(
                f"Time stamps that are integers must count steps; {listed(unique)} are dates. Parse the column of "
                f"stamps first, pandas.to_datetime(column, format={pattern!r}), or pass `freq` if they do count."
            )


def name_of_width(nanoseconds: int) -> str:
    """The offset that is as wide; days in hours, since a day by the calendar may be shorter or longer."""
    sizes = {"h": 3600 * 10**9, "min": 60 * 10**9, **NANOSECONDS}
    name, size = next((name, size) for name, size in sizes.items() if nanoseconds % size == 0)
    return prefixed(nanoseconds // size, name)


def refuse_single_steps(n_series: int) -> NoReturn:
    """Refuse series of one step each."""
    raise DataError(
        f"A series must have at least two time stamps; each of the {n_series} series has one. If the rows are steps of "
        "one series, pass id_col=None."
    )


def most_common(steps: NDArray[np.int64]) -> int:
    """The most common step, the shortest of equals."""
    found, counts = np.unique(steps, return_counts=True)
    return int(found[counts.argmax()])


def checked_step(neighbours: Neighbours, time: NDArray[np.int64]) -> int:
    """The most common step, which must divide all others."""
    ids, codes, _, left = neighbours
    steps = time[left + 1] - time[left]
    step = most_common(steps)
    check_series_agree(neighbours, steps, step)
    clash = steps % step != 0
    if clash.any() and not regular_on_the_wall(neighbours, step):
        place = left[clash.argmax()]
        a, b = stamp_pair(neighbours, place)
        common_a, common_b = stamp_pair(neighbours, left[(steps == step).argmax()])
        owner = "" if ids == (None,) else f" in series {ids[codes[place]]!r}"
        raise DataError(
            f"Time stamps must be regular; most are as far apart as {common_a} and {common_b}, but {a} and {b}{owner} "
            f"are no multiple of that apart ({int(clash.sum())} such pairs). Resample X first, or pass `freq`."
        )
    return step


def regular_on_the_wall(neighbours: Neighbours, step: int) -> bool:
    """Whether stamps are regular on the clock of their zone."""
    ids, codes, stamps, _ = neighbours
    if getattr(stamps, "tz", None) is None:
        return False
    begins = np.searchsorted(codes, np.arange(len(ids)))
    return by_wall_alone(stamps[begins], codes, stamps, name_of_width(step * NANOSECONDS[stamps.unit]))


def check_series_agree(neighbours: Neighbours, steps: NDArray[np.int64], step: int) -> None:
    """Refuse a series with a step of its own: at least half of its steps are about as long, and `step` is not."""
    ids, codes, _, left = neighbours
    if len(ids) == 1:
        return
    owner = codes[left]
    begins = np.flatnonzero(np.diff(owner, prepend=-1))
    counts = np.diff(begins, append=len(owner))
    median = steps[np.lexsort((steps, owner))][begins + counts // 2]
    share = np.add.reduceat(alike(steps, np.repeat(median, counts)).astype(np.int64), begins) / counts
    other = np.flatnonzero(~alike(median, np.array(step)) & (share >= 0.5) & (counts >= LEAST_STEPS))
    if len(other):
        usual, odd = (steps == step).argmax(), begins[other[0]]
        a, b = stamp_pair(neighbours, left[usual])
        c, d = stamp_pair(neighbours, left[odd])
        raise DataError(
            f"All series must have one frequency; series {ids[owner[usual]]!r} steps from {a} to {b}, series "
            f"{ids[owner[odd]]!r} from {c} to {d}. Resample them to one frequency, fit them apart, or pass `freq`."
        )


def alike(steps: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether steps are about as long as others."""
    return np.asarray(np.abs(steps - others) <= MONTHS_DIFFER * np.maximum(steps, others))


def stamp_pair(neighbours: Neighbours, place: int) -> tuple[str, str]:
    """The two stamps of a pair, in the words of messages."""
    return str(neighbours.stamps[place]), str(neighbours.stamps[place + 1])


def freq_of_days(neighbours: Neighbours) -> str | None:
    """The frequency of stamps a day or more apart, None where their time of day changes or no calendar holds them."""
    _, codes, stamps, left = neighbours
    days = dates(stamps)
    clock = local(stamps) - days
    first = np.searchsorted(codes, codes)
    if ((clock != clock[first]) & (in_zone(days + clock[first], stamps) != stamps)).any():
        return None
    number = days.as_unit("s").asi8 // 86_400
    steps = number[left + 1] - number[left]
    step = most_common(steps)
    divides = bool((steps % step == 0).all())
    if step >= SHORTEST_MONTH or not divides:
        found = calendar_freq(neighbours, days)
        if found is not None:
            return found
    if not divides:
        return None
    check_series_agree(neighbours, steps, step)
    if step == 1 and business(days, left):
        return "B"
    if step % 7 == 0 and days.day_of_week.nunique() == 1:
        return prefixed(step // 7, f"W-{WEEKDAYS[days.day_of_week[0]]}")
    return prefixed(step, "D")


def business(days: pd.DatetimeIndex, left: NDArray[np.int64]) -> bool:
    """Whether days leave out every weekend, and at least one between two neighbours."""
    weekday = days.day_of_week.to_numpy()
    return bool((weekday < 5).all() and (weekday[left + 1] < weekday[left]).any())


def calendar_freq(neighbours: Neighbours, days: pd.DatetimeIndex) -> str | None:
    """The offset whose calendar holds all days, None without one."""
    unique = days.unique()
    same_day = {f"SMS-{day}" for day in np.unique(unique.day)[:2] if 1 < day < 28}
    for anchor in (*ANCHORS, *sorted(same_day)):
        grid = pd.date_range(unique.min(), unique.max(), freq=anchor)
        if not unique.isin(grid).all():
            continue
        places = grid.searchsorted(days)
        steps = places[neighbours.left + 1] - places[neighbours.left]
        step = most_common(steps)
        if (steps % step == 0).all():
            check_series_agree(neighbours, steps, step)
            return anchored(anchor, step, unique)
    return None


def anchored(anchor: str, step: int, days: pd.DatetimeIndex) -> str:
    """Steps of so many months in the words of pandas: quarters and years where one of them holds all stamps."""
    start, end = anchor[:-2], anchor[-1]
    for months, letter in ((12, "Y"), (3, "Q")):
        of_cycle = np.unique((days.month - 1) % months)
        if anchor in ("MS", "ME", "BMS", "BME") and step % months == 0 and len(of_cycle) == 1:
            month = MONTHS[of_cycle[0] + (9 if letter == "Q" and end == "E" else 0)]
            return prefixed(step // months, f"{start}{letter}{end}-{month}")
    return prefixed(step, anchor)


def prefixed(count: int, name: str) -> str:
    """An offset's name, with its count where there is more than one."""
    return str(to_offset(name if count == 1 else f"{count}{name}").freqstr)
