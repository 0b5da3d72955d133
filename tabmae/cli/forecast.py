"""`tabmae forecast`: the steps after the end of every series, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tabmae.cli.models import Work, prepared
from tabmae.cli.options import CSV, FORCE, IN, MODEL, OF_SERIES, OUT, QUIET, SAVE, chosen, named, refuse
from tabmae.cli.sheets import ArrowSheet, Target, check_targets, read_sheet
from tabmae.errors import ParameterError, listed


def levels(_: click.Context, __: click.Parameter, value: str) -> list[float]:
    """Levels in per cent, parted by commas."""
    try:
        found = [float(part) for part in value.split(",") if part.strip()]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 80,95.") from None
    if not all(1 <= level < 100 for level in found):
        raise click.BadParameter(f"{value!r} holds a level that is below 1 or not below 100 per cent.")
    return found


@click.command()
@IN
@OUT
@click.option("--horizon", type=click.IntRange(1), help="Steps ahead; that of the model, or else two seasons.")
@click.option("--level", callback=levels, default="80,95", show_default=True, help="Per cents that intervals hold.")
@click.option("--future-col", "future_col", multiple=True, metavar="NAMES", help="Columns that are known ahead.")
@click.option(
    "--future", callback=named, metavar="FILE", help="Table of the columns that are known ahead, after the end."
)
@MODEL
@SAVE
@CSV
@OF_SERIES
@FORCE
@QUIET
def forecast(
    out: str,
    horizon: int | None,
    level: list[float],
    future_col: tuple[str, ...],
    future: str | None,
    delimiter: str | None,
    missing: tuple[str, ...],
    model: str | None,
    force: bool,
    **_: Any,
) -> None:
    """Forecast the series of the table IN and write ids, stamps, values and intervals to OUT.

    IN is long: a column of time stamps ("ds" or the only one that holds times), one of ids where there are several
    series, and columns of values, with gaps or without. "-" as OUT is the standard output.
    """
    target = Target(out, force)
    check_targets(target)
    ahead = None if future is None else read_sheet(future, delimiter, missing)
    if model:
        refuse(["future_col"], "are of a model that is to be fitted, and --model has one that is")
    names = chosen(future_col, [] if ahead is None else ahead.names, "--future-col")
    work = prepared("TimeSeriesMAE", horizon=horizon, future_cols=names or None)
    wanted = list(work.model.schema_.future_cols) if work.fitted else names
    if bool(wanted) != (ahead is not None):
        raise ParameterError(
            "--future must come with columns that are known ahead, named by --future-col or learnt by the model, and "
            "they with it; one of both is lacking."
        )
    if ahead is not None:
        check_future(ahead.names, [*keys_of(work), *wanted])
    X = work.table
    X_future = ahead.table if isinstance(ahead, ArrowSheet) else ahead and ahead.part(ahead.names)
    target.write(work.fit(X).forecast(X, horizon, level=level, X_future=X_future))


def keys_of(work: Work) -> list[str]:
    """Columns of ids and stamps, as far as they are known before the fit."""
    params = click.get_current_context().params
    keys = (
        (work.model.schema_.id_col, work.model.schema_.time_col)
        if work.fitted
        else (params["id_col"], params["time_col"])
    )
    return [name for name in keys if name is not None]


def check_future(there: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a future that lacks columns."""
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise ParameterError(f"--future must hold the columns {listed(wanted)}; it lacks {listed(lacking)}.")
