"""What is not what it seems: numbers and texts that stand for a missing value (-999, 1e30, "?", "nan"), and levels that
name the rows.

Contract: nothing is changed; what was found is told.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tabmae.errors import listed, warn

FAR = 5.0
"""Interquartile ranges of the other cells outside of their quartiles from which on such a number is no measurement."""
MAX_TOLD = 5
HUGE = 1e19
LOWEST = (-32768.0, -2147483648.0)
"""Least integers of two and four bytes."""
MIN_CELLS = 3
"""Cells that hold the same number, and others that have quartiles."""
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
"""Text that is a number, and no key: digits after a zero are one."""
MARKERS = ("NA", "N/A", "n/a", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA", "NaT")
"""What programs write for a missing value; people leave the field empty, or write a question mark."""
MIN_NAMES = 20
"""Levels, none of them twice, from which on they are the rows' names."""
MIN_NUMBERS, MAX_STRANGERS = 10, 5
"""Numbers among the levels of a column of text from which on it may be one of numbers, and the others that may be."""
BEYOND_LIMIT = (
    "What lies beyond a limit of detection, such as '<0.5', is not missing at random: as a missing cell it is imputed "
    "as if it lay within. Put a number in its place, such as half of the limit."
)


def sentinels_of(numbers: NDArray[np.float64]) -> list[float]:
    """Numbers (n,) that come again and again, look like a code and lie far outside of the others.

    >>> sentinels_of(np.array([*range(40), -999.0, -999.0, -999.0]))
    [-999.0]
    >>> sentinels_of(np.array([*range(990, 1000), 999.0, 999.0]))
    []
    """
    candidates, counts = np.unique(numbers[_like_a_code(numbers)], return_counts=True)
    found = [float(number) for number in candidates[counts >= MIN_CELLS]]
    others = numbers[~np.isin(numbers, found)]
    if not found or len(others) < MIN_CELLS:
        return []
    low, high = np.quantile(others, [0.25, 0.75])
    width = FAR * max(high - low, np.abs(others).max() * 1e-9)
    least, most = min(low - width, others.min()), max(high + width, others.max())
    return [number for number in found if number < least or number > most]


def strangers_of(levels: Iterable[object]) -> list[str] | None:
    """The few of a column's levels that are no numbers where all others are; None where it may well be one of text.

    Whole numbers alone may be codes.

    >>> strangers_of(["?", *map(str, range(40))]), strangers_of(["0.5", "1.5"] * 9), strangers_of(["80331", "10115"])
    (['?'], [], None)
    """
    texts = [level.strip() for level in levels if isinstance(level, str)]
    strangers = [text for text in texts if not NUMBER.fullmatch(text)]
    n_numbers = len(texts) - len(strangers)
    if n_numbers < MIN_NUMBERS or len(strangers) > min(MAX_STRANGERS, n_numbers // 2):
        return None
    return strangers if strangers or any("." in text for text in texts) else None


def warn_of_strangers(columns: Mapping[Hashable, Iterable[object]], fate: str) -> None:
    """Warn of columns, by name, whose levels are numbers in text but for a few, and of what becomes of them."""
    found = {name: few for name, levels in columns.items() if (few := strangers_of(levels)) is not None}
    if found:
        told = [f"{name!r} (but for {listed(few)})" if few else repr(name) for name, few in found.items()]
        warn(
            f"Columns hold numbers as text, and {fate}: {_few(told)}. "
            'Convert them with pandas.to_numeric(errors="coerce"), or pass what stands for a missing value as '
            "--missing on the command line." + (f" {BEYOND_LIMIT}" if _beyond_limit(found.values()) else "")
        )


def _beyond_limit(several: Iterable[list[str]]) -> bool:
    """Whether some of the texts among numbers are values below or above a limit."""
    return any(text.startswith(("<", ">")) for few in several for text in few)


def marks_of(levels: Iterable[object]) -> list[str]:
    """Levels of a column of text that are a missing value written out; those among numbers are strangers instead.

    >>> marks_of(["red", "?", "blue"])
    ['?']
    """
    levels = list(levels)
    marks = [level for level in levels if isinstance(level, str) and level.strip() in ("", "?", *MARKERS)]
    return marks if marks and strangers_of(levels) is None else []


def warn_of_marks(columns: Mapping[Hashable, Iterable[object]]) -> None:
    """Warn of such texts in columns, by name."""
    found = {name: marks for name, levels in columns.items() if (marks := marks_of(levels))}
    if found:
        warn(
            f"Columns hold texts that may stand for a missing value: {_with_cells(found)}. "
            "They are learnt as levels; if they do, replace them by None before fit (on the command line, pass them as "
            "--missing), else name the columns in `categorical_features`."
        )


def warn_of_names(columns: Mapping[Hashable, Sequence[object]], n_observed: Mapping[Hashable, int]) -> None:
    """Warn of columns, by name, whose known cells all differ in level; numbers in text are told of elsewhere."""
    found = [
        name
        for name, levels in columns.items()
        if len(levels) == n_observed[name] >= MIN_NAMES and strangers_of(levels) is None
    ]
    if found:
        warn(
            f"Columns {listed(found)} hold another level in every row, as names of rows do: nothing can be learnt of "
            "them, and a missing one is imputed as that of another row. Drop them before fit, or index by them; if "
            "they are categories all the same, name them in `categorical_features`."
        )


def warn_of_apart(columns: Mapping[Hashable, Sequence[object]]) -> None:
    """Warn of numbers of columns, by name, that a gap sets apart from all others of their column."""
    if columns:
        warn(
            f"Columns hold a few numbers far apart from all others: {_with_counts(columns)}. They come back as they "
            "are, but as slips or other units they teach nothing, and say nothing of other cells. Replace them by NaN "
            "to have them imputed."
        )


def warn_of_beyond(columns: Mapping[Hashable, Sequence[object]]) -> None:
    """Warn of numbers of a later table's columns, by name, that lie too far from those of fit to be believed."""
    if columns:
        warn(
            f"Columns hold numbers far outside of all that fit saw: {_with_counts(columns)}. They come back as they "
            "are, but as slips or other units they teach nothing, and say nothing of other cells. Pass them in the "
            "unit of fit; where a column has moved that far, fit again with rows of now."
        )


def warn_of_sentinels(columns: Mapping[Hashable, NDArray[np.float64]]) -> None:
    """Warn of such numbers in columns of observed numbers, by name."""
    found = {name: sentinels for name, numbers in columns.items() if (sentinels := sentinels_of(numbers))}
    if found:
        warn(
            f"Columns hold one number again and again, far outside of all others: {_with_cells(found)}. "
            "It is learnt as it is; if it stands for a missing value, replace it by NaN before fit."
        )


def _with_cells(columns: Mapping[Hashable, Iterable[object]]) -> str:
    """Columns by name, each with the cells that are meant."""
    return _few([f"{name!r} ({listed(cells)})" for name, cells in columns.items()])


def _with_counts(columns: Mapping[Hashable, Sequence[object]]) -> str:
    """Columns by name, each with how many cells are meant, and one of them."""
    return _few([f"{name!r} ({len(cells)} of them, such as {listed(cells[:1])})" for name, cells in columns.items()])


def _few(columns: Sequence[str]) -> str:
    """What is told of columns, at most `MAX_TOLD` of them."""
    more = f" and {len(columns) - MAX_TOLD} more" if len(columns) > MAX_TOLD else ""
    return ", ".join(columns[:MAX_TOLD]) + more


def _like_a_code(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which numbers (n,) are two or more nines, huge, or the least of an integer type."""
    size = np.abs(numbers)
    with np.errstate(over="ignore", divide="ignore"):
        power = np.log10(np.floor(size) + 1)
    nines = (power == np.round(power)) & (power >= 2) & (size - np.floor(size) < 1)
    return nines | (size > HUGE) | np.isin(numbers, LOWEST)
