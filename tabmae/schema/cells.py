"""The record into which a column of any table is read: the missing cells, and the others as numbers or as levels.

Contract: reading never changes the table; what cannot be read raises `UnreadableError` with the kind of the trouble.
"""

import datetime
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.schema.zones import zone_name

Family = Literal["number", "level", "datetime", "datetime with time zone", "duration", "time of day", "empty"]
Problem = Literal["nested", "complex", "mixed", "sparse", "dtype", "infinite"]

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1)
DAY = 86_400.0

NUMBERS = (int, float, Decimal, Fraction, np.integer, np.floating)
NESTED = (list, tuple, dict, set, frozenset, np.ndarray, pd.Series, pd.Index, pd.DataFrame)


class UnreadableError(Exception):
    """A column that cannot be read; `kind` groups the columns of one message, `detail` says what was found."""

    def __init__(self, kind: Problem, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind: Problem = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Cells:
    """One column of a table.

    family : what the cells are; "empty" when the type says nothing and every cell is missing.
    missing : bool (n,).
    exact : (n,) numbers as they came (any numeric or object dtype); seconds as float64 for the families of time; int64
        codes into `levels`, -1 where missing, for levels. Anything where missing.
    levels : the values that occur, for the family "level".
    integer : the type, or each object, is an integer.
    zone : name of the time zone, of the first cell if each has its own; "" for none.
    """

    family: Family
    missing: NDArray[np.bool_]
    exact: NDArray[Any]
    levels: tuple[Hashable, ...] = ()
    integer: bool = False
    zone: str = ""

    @property
    def content(self) -> str:
        """What the observed cells are, in the words of messages."""
        return contents(self.levels) if self.family == "level" else self.family + "s"

    def as_numbers(self) -> NDArray[np.float64]:
        """Numbers, or seconds, as float64; NaN where missing. Levels must be bools."""
        numbers = np.full(len(self.missing), np.nan)
        present = self.exact[~self.missing]
        if self.family == "level":
            present = np.array(self.levels, dtype=np.float64)[present]
        numbers[~self.missing] = present.astype(np.float64)
        return numbers

    def as_levels(self) -> tuple[NDArray[np.int64], tuple[Hashable, ...]]:
        """Codes, -1 where missing, and the values that they stand for; numbers by their exact value."""
        if self.family == "level":
            return self.exact, self.levels
        codes = np.full(len(self.missing), -1, dtype=np.int64)
        present = self.exact[~self.missing]
        codes[~self.missing], found = pd.factorize(present.astype(present.dtype.newbyteorder("="), copy=False))
        return codes, tuple(plain(level) for level in found.tolist())


def plain(value: Any) -> Any:
    """A numpy scalar as the Python object that it equals, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def contents(levels: Iterable[Hashable]) -> str:
    """Name what levels are: "strings", "bools", "numbers", or "categories" for anything else."""
    kinds = {
        "bools" if isinstance(level, bool) else "strings" if isinstance(level, str) else
        "numbers" if isinstance(level, NUMBERS) else "categories"
        for level in levels
    }  # fmt: skip
    return kinds.pop() if len(kinds) == 1 else "categories"


def empty_cells(missing: NDArray[np.bool_]) -> Cells:
    """Cells of a column that holds nothing and whose type says nothing."""
    return Cells("empty", missing, np.zeros(len(missing)))


def number_cells(exact: NDArray[Any], missing: NDArray[np.bool_], *, integer: bool) -> Cells:
    """Cells of numbers; infinite ones are refused."""
    cells = Cells("number", missing, exact, integer=integer)
    if exact.dtype.kind in "fO":
        try:
            floats = exact[~missing].astype(np.float64, copy=False)
        except OverflowError:
            raise UnreadableError("dtype", "integers beyond the range of float64") from None
        if np.isinf(floats).any():
            raise UnreadableError("infinite")
    return cells


def bool_cells(values: NDArray[np.bool_], missing: NDArray[np.bool_]) -> Cells:
    """Cells of bools, which are levels."""
    return Cells("level", missing, np.where(missing, -1, values.astype(np.int64)), (False, True))


def level_cells(codes: NDArray[Any], categories: Sequence[Any]) -> Cells:
    """Cells of levels from codes (negative where missing) into categories, which may repeat or hold a missing value."""
    codes = np.where(codes < 0, -1, codes).astype(np.int64)
    levels: dict[Hashable, int] = {}
    renamed = np.full(len(categories) + 1, -1, dtype=np.int64)
    used = np.zeros(len(categories) + 1, dtype=bool)
    used[codes] = True
    for code, category in enumerate(categories):
        level = plain(category)
        if isinstance(level, NESTED):
            raise UnreadableError("nested", type(level).__name__)
        if used[code] and not pd.isna(level):
            renamed[code] = levels.setdefault(level, len(levels))
    codes = renamed[codes]
    return Cells("level", codes < 0, codes, tuple(levels))


def seconds_from(
    ticks: NDArray[Any], missing: NDArray[np.bool_], ticks_per_second: float, family: Family, zone: str = ""
) -> Cells:
    """Cells of a family of time from integer ticks."""
    return Cells(family, missing, np.asarray(ticks, dtype=np.float64) / ticks_per_second, zone=zone)


def ticks_from(seconds: NDArray[Any], ticks_per_second: float) -> NDArray[np.int64]:
    """Seconds as the nearest integer ticks that int64 holds."""
    return np.clip(np.rint(seconds * ticks_per_second), -9.2e18, 9.2e18).astype(np.int64)


def object_cells(array: NDArray[Any]) -> Cells:
    """Read an array of Python objects by the types that it holds."""
    missing = np.asarray(pd.isna(array), dtype=bool)
    present = array[~missing].tolist()
    types = set(map(type, present))
    if not types:
        return empty_cells(missing)
    if all_are(types, (bool, np.bool_)):
        return bool_cells(np.where(missing, False, array).astype(bool), missing)
    if all_are(types, str):
        codes, found = pd.factorize(array)
        return level_cells(codes, found.tolist())
    family = time_family(types, present)
    if family is not None:
        seconds = np.zeros(len(array))
        seconds[~missing] = [seconds_of(value) for value in present]
        zone = zone_name(present[0].tzinfo) if family == "datetime with time zone" else ""
        return Cells(family, missing, seconds, zone=zone)
    if any(issubclass(kind, (complex, np.complexfloating)) for kind in types):
        raise UnreadableError("complex")
    if all_are(types, NUMBERS) and bool not in types:
        return number_cells(array, missing, integer=all_are(types, (int, np.integer)))
    nested = [kind for kind in types if issubclass(kind, NESTED)]
    if nested:
        raise UnreadableError("nested", " and ".join(sorted(kind.__name__ for kind in nested)))
    if len(types) > 1:
        raise UnreadableError("mixed", " and ".join(sorted(kind.__name__ for kind in types)))
    try:
        codes, found = pd.factorize(array)
    except TypeError:
        raise UnreadableError("nested", types.pop().__name__) from None
    return level_cells(codes, list(found))


def all_are(types: Iterable[type], parents: type | tuple[type, ...]) -> bool:
    """Whether every type is one of, or below, the parents."""
    return all(issubclass(kind, parents) for kind in types)


def time_family(types: set[type], present: Sequence[Any]) -> Family | None:
    """The family of time that objects of these types form, None when they form none."""
    if all_are(types, (datetime.timedelta, np.timedelta64)):
        return "duration"
    if all_are(types, datetime.time):
        return "time of day"
    if types == {datetime.date}:
        return "datetime"
    if all_are(types, (datetime.datetime, np.datetime64)):
        aware = {getattr(value, "tzinfo", None) is not None for value in present}
        if len(aware) == 2:
            raise UnreadableError("mixed", "datetimes with and without time zone")
        return "datetime with time zone" if aware.pop() else "datetime"
    return None


def seconds_of(value: Any) -> float:
    """Seconds since 1970 (UTC), since midnight, or of a duration."""
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, datetime.date):
        return (value.toordinal() - EPOCH.toordinal()) * DAY
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    return float(pd.Timedelta(value).total_seconds())


def python_values(numbers: NDArray[Any], family: Family, present: Sequence[Any] = ()) -> list[Any]:
    """Numbers, or seconds, as Python objects of the type that is present."""
    example = present[0] if present else None
    if family == "number":
        types = set(map(type, present))
        if types and all_are(types, Decimal):
            return [Decimal(repr(number)) for number in numbers.tolist()]
        return list(numbers.tolist())
    if family == "duration":
        durations = [datetime.timedelta(seconds=second) for second in numbers.tolist()]
        return [pd.Timedelta(value) for value in durations] if isinstance(example, pd.Timedelta) else durations
    if family == "time of day":
        micros = np.clip(np.rint(numbers * 1e6), 0, DAY * 1e6 - 1)
        return [(EPOCH + datetime.timedelta(microseconds=micro)).time() for micro in micros.tolist()]
    seconds = np.clip(numbers, -6.2e10, 2.5e11)
    stamps = [EPOCH + datetime.timedelta(seconds=second) for second in seconds.tolist()]
    if family == "datetime with time zone":
        zone = UTC if example is None else example.tzinfo
        stamps = [stamp.replace(tzinfo=UTC).astimezone(zone) for stamp in stamps]
    if isinstance(example, np.datetime64):
        return [np.datetime64(stamp, "us") for stamp in stamps]
    if isinstance(example, pd.Timestamp):
        return [pd.Timestamp(stamp) for stamp in stamps]
    if type(example) is datetime.date:
        return [stamp.date() for stamp in stamps]
    return stamps


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """A 1-D array of Python objects, whatever they are."""
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array
