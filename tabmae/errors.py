"""The error tree, the checks of parameters that raise it, and warnings at the line of the user's call.

Contract: a message says what must hold, what was given, and what to do; the `hint` of a check is the last part.
"""

import inspect
import math
import os
import warnings
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Integral, Real

import numpy as np
import sklearn

MAX_SHOWN = 80
"""Characters of a wrong value that a message shows."""
INSIDE = tuple(os.path.dirname(os.path.abspath(file)) + os.sep for file in (__file__, sklearn.__file__))
"""Folders whose lines no user wrote."""


class TabMAEError(Exception):
    """Base of every error that this package raises."""


class DataError(TabMAEError, ValueError):
    """The data cannot be used as they are."""


class ParameterError(TabMAEError, ValueError):
    """A parameter has the wrong type, range or spelling."""


class SavedModelError(TabMAEError, ValueError):
    """A folder holds no model that can be loaded."""


class TrainingError(TabMAEError, RuntimeError):
    """Training could not go on."""


class TrainingInterruptedWarning(UserWarning):
    """Training was interrupted; the best model so far is kept."""


def warn(message: str, category: type[UserWarning] = UserWarning) -> None:
    """Warn at the line from which this package, or scikit-learn that calls it, was called.

    Not at the nearest line outside: it may be one of a decorator's.
    """
    level, outside, frame = 0, 1, inspect.currentframe()
    while frame is not None:
        level += 1
        if frame.f_code.co_filename.startswith(INSIDE):
            outside = level + 1
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=outside)


def listed(names: Iterable[object], limit: int = 5) -> str:
    """List names for a message, at most `limit` of them.

    >>> listed(["age", "city"])
    "'age', 'city'"
    >>> listed(range(7), limit=2)
    '0, 1 and 5 more'
    """
    shown = [_shown(name) for name in names]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def kind_of(value: object) -> str:
    """What a value of the wrong kind is, for a message.

    >>> kind_of(3.5), kind_of(float)
    ('float', 'the class float')
    """
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse a `value` that is none of the `choices`.

    Raises
    ------
    ParameterError : lists the choices, and names the one that is spelt most like `value`.
    """
    if isinstance(value, str) and value in choices:
        return
    by_lower = {choice.lower(): choice for choice in choices}
    nearest = get_close_matches(value.lower(), by_lower, n=1, cutoff=0.5) if isinstance(value, str) else []
    remedy = f"Did you mean {by_lower[nearest[0]]!r}?" if nearest else "Pass one of these names."
    raise ParameterError(
        f"`{name}` must be one of {listed(choices, limit=len(choices))}; got {_shown(value)}. {remedy}"
    )


def check_number(
    name: str,
    value: object,
    *,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    integer: bool = False,
    hint: str = "",
) -> None:
    """Refuse a `value` that is no finite number between `low` and `high`.

    An open end is excluded itself. NumPy's scalars are numbers; bools and numbers in text are not. With `integer`, 3.0
    is refused.

    Raises
    ------
    ParameterError : ends in `hint`.

    >>> check_number("mask_ratio", 1.5, low=0, high=1, low_open=True, high_open=True)
    Traceback (most recent call last):
    tabmae.errors.ParameterError: `mask_ratio` must lie in (0, 1); got 1.5.
    """
    of_kind = isinstance(value, Integral if integer else Real) and not isinstance(value, bool)
    if isinstance(value, Real) and of_kind and _within(float(value), low, high, low_open, high_open):
        return
    kind = "an integer" if integer else "a finite number"
    bounds = _bounds(low, high, low_open, high_open)
    if not bounds:
        must = f"be {kind}"
    elif of_kind and low is not None and high is not None:
        must = f"lie {bounds}"
    else:
        must = f"be {kind} {bounds}"
    raise ParameterError(f"`{name}` must {must}; got {_shown(value)}.{hint and ' '}{hint}")


def _within(number: float, low: float | None, high: float | None, low_open: bool, high_open: bool) -> bool:
    above = low is None or (number > low if low_open else number >= low)
    below = high is None or (number < high if high_open else number <= high)
    return math.isfinite(number) and above and below


def _bounds(low: float | None, high: float | None, low_open: bool, high_open: bool) -> str:
    if low is not None and high is not None:
        return f"in {'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
    if low is not None:
        return f"{'above' if low_open else 'of at least'} {low}"
    if high is not None:
        return f"{'below' if high_open else 'of at most'} {high}"
    return ""


def _shown(value: object) -> str:
    """The value as its user wrote it: NumPy's scalars as plain ones, long ones cut."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
