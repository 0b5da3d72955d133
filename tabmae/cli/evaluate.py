"""`tabmae evaluate`: how well known cells are found again that are hidden on purpose."""

from __future__ import annotations

from typing import Any

import click
import pandas as pd

import tabmae
from tabmae.cli.models import prepared
from tabmae.cli.options import CSV, FITTED, FORCE, IN, OF_TABLES, QUIET, SHARE, Finite, named
from tabmae.cli.sheets import Target, check_targets

MECHANISMS = ("mcar", "mar", "mnar")
BASELINES = ("mean", "knn", "iterative")


@click.command()
@IN
@click.argument("out", metavar="[OUT]", required=False)
@click.option("--fraction", type=SHARE, default=0.3, show_default=True, help="Share of the known cells to hide.")
@click.option("--mechanism", type=click.Choice(MECHANISMS), default="mcar", show_default=True, help="Which to hide.")
@click.option(
    "--test-size", type=Finite(0, 1, max_open=True), default=0.3, show_default=True, help="Share of rows kept from fit."
)
@click.option(
    "--baseline", type=click.Choice(BASELINES), multiple=True, help="What to compare with, repeated; all without it."
)
@click.option(
    "--model",
    callback=named,
    metavar="FOLDER",
    help="Take the parameters of the saved model in FOLDER; it is fitted anew.",
)
@CSV
@OF_TABLES
@FORCE
@QUIET
def evaluate(
    out: str | None,
    fraction: float,
    mechanism: str,
    test_size: float,
    baseline: tuple[str, ...],
    seed: int | None,
    force: bool,
    quiet: bool,
    **_: Any,
) -> None:
    """Hide known cells of the table IN, impute them, and print how far off TabMAE and simpler imputers are.

    Prints a line for each method and sample of rows (in: those of the fit, out: others), means over the columns: nrmse
    of numbers, in standard deviations; accuracy of categories; skill, the share of the error of mean and mode that is
    gone. OUT gets a line for each column; "-" prints these instead.
    """
    target = None if out is None else Target(out, force)
    check_targets(target)
    work = prepared("TabMAE", of_fit=[name for name in FITTED if name != "seed"])
    estimator = work.model.set_params(verbose=0 if quiet else 1)
    names = list(baseline) or BASELINES
    scores = tabmae.evaluate(
        estimator,
        work.table,
        fraction=fraction,
        mechanism=mechanism,
        test_size=test_size,
        baselines=names,
        random_state=seed,
    )
    if target is not None:
        target.write(scores)
    if out != "-":
        click.echo(summary(scores).to_string(float_format="{:.3f}".format, na_rep=""))


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over columns, a line for each method and sample."""
    return scores.groupby(["method", "sample"], sort=False)[["nrmse", "accuracy", "skill", "seconds"]].mean()
