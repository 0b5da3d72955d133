"""`tabmae impute`: the missing cells of a table, or the gaps of series, filled."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

import tabmae
from tabmae.cli.cells import plain, rows_from_one
from tabmae.cli.models import Work, note, prepared
from tabmae.cli.options import CSV, FORCE, IN, MODEL, OF_BOTH, OUT, PER_CENT, QUIET, SAVE, named
from tabmae.cli.sheets import ArrowSheet, Target, check_targets, completed

ROW = "\0row"
"""Column that remembers where a row stood: no CSV can hold its name."""
OF_QUALITY = ["kind", "n", "error", "baseline_error", "skill"]


@click.command()
@IN
@OUT
@MODEL
@SAVE
@click.option("--cells", callback=named, metavar="FILE", help="Write every imputed cell with its bounds to FILE.")
@click.option("--level", type=PER_CENT, default=90.0, show_default=True, help="Per cent that the bounds are to hold.")
@click.option("--quality", callback=named, metavar="FILE", help="Write how far each column can be trusted to FILE.")
@CSV
@OF_BOTH
@FORCE
@QUIET
def impute(out: str, cells: str | None, level: float, quality: str | None, force: bool, **_: Any) -> None:
    """Fill the missing cells of the table IN and write it to OUT.

    What was known comes out as it was: of CSV the very same text. Imputed numbers of CSV have one digit more after the
    point than the column has; whole numbers stay whole. With --time-col the table holds series, and rows are inserted
    where time stamps are absent. "-" as OUT is the standard output.
    """
    target, *others = [None if name is None else Target(name, force) for name in (out, cells, quality)]
    assert target is not None
    check_targets(target, *others)
    work = prepared("TabMAE", "TimeSeriesMAE")
    X = work.table
    model = work.fit(X)
    tell_quality(model)
    if quality:
        Target(quality, force).write(model.quality_.reset_index(drop=work.of_series))
    if cells:
        found = tabmae.imputed_cells(model, X, level / 100)
        Target(cells, force).write(plain(rows_from_one(found), Target(cells, force)))
    target.write(
        filled_series(work, X, target) if work.of_series else completed(work.sheet, model.transform(X), target)
    )


def filled_series(work: Work, X: Any, target: Target) -> Any:
    """What to write of series: their rows where they stood, and rows that were absent between them."""
    if isinstance(work.sheet, ArrowSheet):
        return work.model.impute(X)
    filled = work.model.impute(X.assign(**{ROW: np.arange(len(X))}))
    rows = filled.pop(ROW).astype("float64").fillna(-1).to_numpy().astype(np.int64)
    return completed(work.sheet, filled, target, rows)


def tell_quality(model: Any) -> None:
    """Tell on the standard error how far each column can be trusted."""
    table = model.quality_
    shown = table[[name for name in table if name in ("task", "channel", *OF_QUALITY)]]
    note("Errors on held-out cells, in standard deviations or shares of wrong levels; skill is what they tell:")
    note(shown.to_string(float_format="{:.3f}".format, index=table.index.name is not None))
