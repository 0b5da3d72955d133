"""Options that commands share.

Contract: an option that is given is used or refused, never passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import click

from tabmae.errors import ParameterError, listed


class Finite(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SHARE = Finite(0, 1, min_open=True, max_open=True)
PER_CENT = Finite(1, 100, max_open=True)
SECONDS = Finite(0, min_open=True)
Option = Callable[[Any], Any]

SERIES = ("time_col", "id_col", "target", "freq")
TABLES = ("columns", "exclude", "categorical", "time_budget")
FITTED = (*SERIES, *TABLES, "seed", "max_epochs")
"""Options of a model that is to be fitted, by the names of their parameters."""


def named(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse a name that is empty, as a variable of the shell is that is not set."""
    if value == "":
        raise click.BadParameter("a name must have a character; got none, as of a variable that is not set.")
    return value


def one_character(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot part fields; a tab may be written as shells pass it."""
    if value == r"\t":
        return "\t"
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter(f"{value!r} is not one character that parts fields.")
    return value


IN = click.argument("source", metavar="IN")
OUT = click.argument("out", metavar="OUT")
MODEL = click.option(
    "--model", callback=named, metavar="FOLDER", help="Use the saved model in FOLDER instead of fitting one."
)
SAVE = click.option("--save", callback=named, metavar="FOLDER", help="Keep the fitted model in FOLDER.")
FORCE = click.option("--force", is_flag=True, help="Replace files that are there already.")
QUIET = click.option("--quiet", is_flag=True, help="No progress and no notes; warnings and errors stay.")
_CSV = (
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=one_character,
        help="What parts the fields of CSV; a comma, of .tsv a tab.",
    ),
    click.option(
        "--missing",
        multiple=True,
        metavar="TEXT",
        help="What stands for a missing value of CSV, beside an empty field; may be repeated. "
        "Without it NA, N/A, NaN, null, None and the like do.",
    ),
)
_ANY = (
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed; with the same one comes the same result."),
    click.option("--max-epochs", type=click.IntRange(1), help="Passes over the rows; fewer are faster."),
)
_TABLE = (
    click.option("--columns", multiple=True, metavar="NAMES", help="Only these columns, by commas or repeated."),
    click.option("--exclude", multiple=True, metavar="NAMES", help="All columns but these, such as keys."),
    click.option("--categorical", multiple=True, metavar="NAMES", help="Columns of numbers that are categories."),
    click.option("--time-budget", type=SECONDS, metavar="SECONDS", help="Seconds after which the fit ends."),
)
_SERIES = (
    click.option("--time-col", callback=named, metavar="NAME", help="Column of time stamps: the table holds series."),
    click.option(
        "--id-col", callback=named, metavar="NAME", help="Column of the ids of several series.  [default: unique_id]"
    ),
    click.option("--target", multiple=True, metavar="NAMES", help="Columns of values; all numbers without it."),
    click.option(
        "--freq", callback=named, metavar="STEP", help="Step of the series such as h or 15min; inferred without it."
    ),
)


def together(*options: Option) -> Option:
    """Several options as one decorator, in their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


CSV = together(*_CSV)
OF_TABLES = together(*_TABLE, *_ANY)
OF_SERIES = together(*_SERIES, *_ANY)
OF_BOTH = together(*_TABLE, *_SERIES, *_ANY)


def given(names: Sequence[str]) -> list[str]:
    """Those of some options that the command line holds, as they are written there."""
    context = click.get_current_context()
    values = {name: context.params.get(name) for name in names}
    # A seed of 0 equals False, and is given.
    written = [name for name, value in values.items() if value is not None and value is not False and value != ()]
    return [f"--{name.replace('_', '-')}" for name in written]


def refuse(names: Sequence[str], why: str) -> None:
    """Refuse options that have no meaning beside the others.

    Raises
    ------
    ParameterError : names them, and says why.
    """
    found = given(names)
    if found:
        raise ParameterError(f"Options must belong together; {', '.join(found)} {why}; leave them out.")


def chosen(names: Sequence[str], columns: Sequence[str], option: str) -> list[str]:
    """Columns by their names; a name that is no column is a list of them, parted by commas.

    Raises
    ------
    ParameterError : the table lacks some.
    """
    parts = [part for name in names for part in ([name] if name in columns else name.split(","))]
    found = [part if part in columns else part.strip() for part in parts]
    lacking = [name for name in found if name not in columns]
    if lacking:
        raise ParameterError(
            f"{option} must name columns of the table; it has {listed(columns)} and lacks {listed(lacking)}."
        )
    return list(dict.fromkeys(found))
