"""`tabmae report`: what is missing, what it was taken for, and how far that can be trusted, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pandas as pd
import pyarrow as pa

import tabmae
from tabmae.cli.models import note, prepared
from tabmae.cli.options import CSV, FORCE, IN, MODEL, OF_BOTH, PER_CENT, QUIET, SAVE
from tabmae.cli.sheets import PAGES, Target


def labelled(X: Any) -> pd.DataFrame:
    """A table whose rows are labelled from 1, as those of a file are counted."""
    frame = X.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True) if isinstance(X, pa.Table) else X
    return frame.set_axis(range(1, len(frame) + 1))


@click.command()
@IN
@click.argument("out", metavar="PAGE")
@click.option("--level", type=PER_CENT, default=90.0, show_default=True, help="Per cent that the bounds are to hold.")
@click.option("--rows", type=click.IntRange(1), default=20, show_default=True, help="Imputed cells to show.")
@MODEL
@SAVE
@CSV
@OF_BOTH
@FORCE
@QUIET
def report(source: str, out: str, level: float, rows: int, force: bool, **_: Any) -> None:
    """Impute the table IN and write a report of it to the file PAGE, such as report.html.

    The page stands alone: pictures are in it, and nothing is fetched from elsewhere.
    """
    target = Target(out, force, PAGES)
    target.check()
    work = prepared("TabMAE", "TimeSeriesMAE")
    X = work.table if work.of_series else labelled(work.table)
    model = work.fit(X)
    target.write(tabmae.html_report(model, X, title=Path(source).name, level=level / 100, n_cells=rows))
    note(f"The report is in {out!r}.")
