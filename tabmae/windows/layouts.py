"""Which columns of a frame are what: ids, time stamps, channels, columns known ahead and static ones.

Contract: what is not named is found only where there is one way to read it; everything else is one clear error.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tabmae.errors import DataError, ParameterError, listed
from tabmae.sentinels import warn_of_strangers
from tabmae.windows.numbers import holds_numbers, is_numeric
from tabmae.windows.stamps import is_time

INDEX = re.compile(r"__index_level_\d+__$")
"""What Arrow calls a pandas index without a name."""

TIMES = (pd.DatetimeIndex, pd.PeriodIndex)
STAMPS = "ds"
"""The default name of the column of stamps: a frame may lack it, where a name that was asked for must be there."""


class Layout(NamedTuple):
    """The roles of a frame's columns; `wide` where the stamps are in the index and every column is a channel."""

    wide: bool
    id_col: Any
    time_col: Any
    channels: tuple[Any, ...]
    future_cols: tuple[Any, ...]
    static_cols: tuple[Any, ...]
    id_dtype: str | None


def find_layout(
    frame: pd.DataFrame,
    id_col: str | None,
    time_col: str,
    target_cols: Sequence[str] | None,
    future_cols: Sequence[str] | None,
    static_cols: Sequence[str] | None,
) -> Layout:
    """Find the roles of columns.

    Raises
    ------
    DataError : columns are lacking, no column or more than one can be the time, none is numeric, or some are not that
        must be.
    ParameterError : a column has two roles, or a list of names is none.
    """
    check_names(frame)
    named = {"target_cols": target_cols, "future_cols": future_cols, "static_cols": static_cols}
    targets, future, static = (checked_list(name, given) for name, given in named.items())
    wide = False
    if time_col not in frame.columns:
        stamps = time_column(frame, id_col, time_col, {*targets, *future, *static})
        wide, time_col = stamps is None, stamps if stamps is not None else index_name(frame, time_col)
    owner = None if wide else id_column(frame, id_col)
    keys = [] if wide else [time_col] if owner is None else [owner, time_col]
    check_roles(frame, keys, {"target_cols": targets, "future_cols": future, "static_cols": static})
    if wide and static:
        raise ParameterError(
            f"`static_cols` need a long frame; got {listed(static)} for one with its stamps in the index. "
            "Leave them out: a column that is the same for the only series tells nothing."
        )
    rest = [name for name in frame.columns if name not in {*keys, *future, *static} and not INDEX.match(str(name))]
    channels = targets or [name for name in rest if is_numeric(frame[name])]
    if not targets:
        warn_of_left_out(frame[[name for name in rest if name not in channels]])
    if wide and not targets and len(channels) < len(rest):
        other = [name for name in rest if name not in channels]
        raise DataError(
            f"Every column of a wide frame must be numeric; {listed(other)} are not. Convert or drop them, or name the "
            "channels by `target_cols`."
        )
    if not channels:
        raise DataError(
            "X must hold a numeric column that is no id, stamp, future or static column; it has "
            f"{listed(frame.columns)}. Convert the values with pandas.to_numeric."
        )
    textual = [name for name in [*channels, *future] if not holds_numbers(frame[name])]
    if textual:
        warn_of_left_out(frame[textual])
        raise DataError(
            f"`target_cols` and `future_cols` must name columns of numbers; {listed(textual)} are not. "
            "Convert them with pandas.to_numeric."
        )
    id_dtype = None if owner is None else str(frame[owner].dtype)
    return Layout(wide, owner, time_col, tuple(channels), tuple(future), tuple(static), id_dtype)


def warn_of_left_out(rest: pd.DataFrame) -> None:
    """Tell of columns of text that are no channels, though their values are numbers but for a few."""
    texts = {name: column.dropna().astype(str).unique() for name, column in rest.items() if not is_time(column)}
    warn_of_strangers(texts, "are no channels")


def check_names(frame: pd.DataFrame) -> None:
    """Refuse column names that cannot be saved, and frames whose index holds what must be columns."""
    if isinstance(frame.index, pd.MultiIndex):
        raise DataError(
            "The ids and stamps of series must be columns; X has an index of levels "
            f"{listed(frame.index.names)}. Pass X.reset_index()."
        )
    odd = [name for name in frame.columns if not isinstance(name, str | int | tuple)]
    if odd:
        raise DataError(
            f"Column names must be strings or integers; got {listed(odd)}. Rename them: X.columns.map(str)."
        )


def checked_list(name: str, given: Sequence[Any] | None) -> list[Any]:
    """Names of columns as a list."""
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Sequence | pd.Index):
        raise ParameterError(f"`{name}` must be a list of column names; got {given!r}. Pass [{given!r}].")
    return list(dict.fromkeys(given))


def time_column(frame: pd.DataFrame, id_col: Any, time_col: str, taken: set[Any]) -> Any:
    """The only column that can hold the stamps where none has the name asked for; None where the index does."""
    if isinstance(frame.index, TIMES) and id_col in frame.columns:
        raise DataError(
            f"A frame with a column of ids must have its time stamps in a column; X has {id_col!r}, and stamps in its "
            f"index. Pass X.reset_index(names={time_col!r})."
        )
    found = [name for name in frame.columns if name != id_col and name not in taken and is_time(frame[name])]
    if len(found) == 1 and time_col == STAMPS:
        return found[0]
    if len(found) == 1:
        raise DataError(
            f"X must hold the column `time_col`; it lacks {time_col!r} and has {listed(frame.columns)}. "
            f"Pass the name of the column of time stamps, such as {found[0]!r}."
        )
    if not found and isinstance(frame.index, TIMES):
        return None
    given = f"columns {listed(found)} all hold times" if found else f"no column of {listed(frame.columns)} holds times"
    raise DataError(
        f"X must hold a column {time_col!r} of time stamps, one column of times, or a DatetimeIndex; {given}. "
        f"Pass the name of the column as `time_col`; stamps or steps that are in the index, as X.reset_index(names="
        f"{time_col!r})."
    )


def index_name(frame: pd.DataFrame, time_col: str) -> str:
    """What forecasts call the time of a wide frame."""
    return frame.index.name if isinstance(frame.index.name, str) else time_col


def id_column(frame: pd.DataFrame, id_col: Any) -> Any:
    """The column of ids; None for a single series, which lacks the column of the default name."""
    if id_col is None or id_col in frame.columns:
        return id_col
    if frame.index.name == id_col:
        raise DataError(
            f"The ids of series must be a column; X has them in its index, {id_col!r}. Pass X.reset_index()."
        )
    if id_col == "unique_id":
        return None
    raise DataError(
        f"X must hold the column `id_col`; it lacks {id_col!r} and has {listed(frame.columns)}. "
        "Pass the name of the column of ids, or None for a single series."
    )


def check_roles(frame: pd.DataFrame, keys: Sequence[Hashable], roles: dict[str, list[Any]]) -> None:
    """Refuse names that X lacks or that have two roles."""
    lacking = {
        name: listed(missing) for name, names in roles.items() if (missing := [n for n in names if n not in frame])
    }
    if lacking:
        raise DataError(
            "; ".join(f"X must hold the columns of `{name}`; it lacks {missing}" for name, missing in lacking.items())
            + f". It has {listed(frame.columns)}."
        )
    seen: dict[Hashable, str] = dict.fromkeys(keys, "the ids or stamps")
    for role, names in roles.items():
        for name in names:
            if name in seen:
                raise ParameterError(
                    f"A column must have one role; {name!r} is in `{role}` and {seen[name]}. Name it once."
                )
            seen[name] = f"`{role}`"
