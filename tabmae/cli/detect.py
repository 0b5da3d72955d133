"""`tabmae detect`: odd rows of a table, or odd stretches of series."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from tabmae.cli.cells import plain, rows_from_one
from tabmae.cli.models import note, prepared
from tabmae.cli.options import CSV, FORCE, IN, MODEL, OF_BOTH, OUT, QUIET, SAVE, SHARE, named, refuse
from tabmae.cli.sheets import Target, check_targets, with_columns
from tabmae.errors import DataError, ParameterError, listed

ADDED = ("anomaly_score", "p_value", "outlier")


@click.command()
@IN
@OUT
@click.option("--alpha", type=SHARE, help="Share of usual rows, or stamps, to flag: 0.05, or 0.01, without it.")
@click.option("--contamination", type=SHARE, help="Share of odd rows among those of IN, up to 0.5.")
@click.option(
    "--explain",
    callback=named,
    metavar="FILE",
    help="Write the cells of odd rows, and what was expected of them, to FILE.",
)
@click.option("--events", callback=named, metavar="FILE", help="Write from when to when series are odd to FILE.")
@MODEL
@SAVE
@CSV
@OF_BOTH
@FORCE
@QUIET
def detect(
    out: str,
    alpha: float | None,
    contamination: float | None,
    explain: str | None,
    events: str | None,
    model: str | None,
    force: bool,
    **_: Any,
) -> None:
    """Find odd rows of the table IN and write it with a score, a p-value and a flag of each row to OUT.

    Scores are the higher the odder. With --time-col the table holds series, and OUT has a row for every stamp and
    channel: the value, what was expected of it and its bounds, and the stamp's score, p-value and flag. "-" as OUT is
    the standard output.
    """
    target, *others = [None if name is None else Target(name, force) for name in (out, explain, events)]
    assert target is not None
    check_targets(target, *others)
    if model:
        refuse(["contamination"], "is of a model that is to be fitted, and --model has one that is")
    if alpha and contamination:
        raise ParameterError("--alpha and --contamination both say how many rows to flag; leave out one of them.")
    work = prepared("TabMAEDetector", "TimeSeriesMAE", contamination=contamination)
    if work.of_series:
        refuse(["explain", "contamination"], "are of tables, and this one holds series")
        found = work.fit(X := work.table).detect(X, 0.01 if alpha is None else alpha)
        note(f"{len(found.events)} odd stretches.")
        if events:
            Target(events, force).write(found.events)
        target.write(found.points)
        return
    refuse(["events"], "are of series, and this is a table")
    taken = [name for name in ADDED if name in work.sheet.names]
    if taken:
        raise DataError(f"Columns {listed(ADDED)} are those of the result; the table has {listed(taken)} already.")
    X = work.table
    detector = work.fit(X)
    p_value = detector.p_value(X)
    odd = detector.predict(X) < 0 if alpha is None else p_value <= alpha
    note(f"{int(odd.sum())} of {len(odd)} rows are odd.")
    if explain:
        cells = rows_from_one(detector.explain(X))
        chosen = cells[cells["row"].isin(np.flatnonzero(odd) + 1)]
        Target(explain, force).write(plain(chosen, Target(explain, force)))
    scores = detector.anomaly_score(X)
    target.write(with_columns(work.sheet, dict(zip(ADDED, (scores, p_value, odd), strict=True)), target))
