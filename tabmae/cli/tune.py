"""`tabmae tune`: parameters that do better on rows or steps that fits do not see."""

from __future__ import annotations

import json
from typing import Any

import click

import tabmae
from tabmae.cli.models import note, prepared, save
from tabmae.cli.options import CSV, FORCE, IN, OF_BOTH, QUIET, SAVE, SECONDS


@click.command()
@IN
@SAVE
@click.option("--trials", type=click.IntRange(1), default=50, show_default=True, help="Sets of parameters to try.")
@click.option("--timeout", type=SECONDS, metavar="SECONDS", help="Seconds after which no trial begins.")
@click.option(
    "--storage", metavar="URL", help="Keep the study, such as sqlite:///study.db; the same call goes on from it."
)
@CSV
@OF_BOTH
@FORCE
@QUIET
def tune(trials: int, timeout: float | None, storage: str | None, seed: int | None, **_: Any) -> None:
    """Look for better parameters for the table IN, and print them as JSON.

    The defaults are the first trial, and what is fitted where nothing beats them. --save keeps the model that is fitted
    to all of IN with the best parameters, for the other commands; parameters alone are printed without it.
    """
    work = prepared("TabMAE", "TimeSeriesMAE")
    note(f"Trying {trials} sets of parameters.")
    model = tabmae.tune(work.model, work.table, n_trials=trials, timeout=timeout, storage=storage, random_state=seed)
    save(model)
    study = model.study_
    told = {
        "best_params": model.best_params_,
        "score": study.best_value,
        "score_of_defaults": study.trials[0].value,
        "trials": len(study.trials),
    }
    click.echo(json.dumps(told, indent=2, default=str))
