"""`tabmae tune`: parameters that do better on rows or steps that fits do not see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import tabmae
from tabmae.cli.models import note, prepared, save
from tabmae.cli.options import CSV, FORCE, IN, OF_BOTH, QUIET, SAVE, SECONDS, named
from tabmae.errors import ParameterError

SQLITE = b"SQLite format 3\0"
"""How a file of a study begins."""


@click.command()
@IN
@SAVE
@click.option("--trials", type=click.IntRange(1), default=50, show_default=True, help="Sets of parameters to try.")
@click.option("--timeout", type=SECONDS, metavar="SECONDS", help="Seconds after which no trial begins.")
@click.option(
    "--study",
    callback=named,
    metavar="FILE",
    help="Keep the trials in FILE; the same call goes on from them. Takes a --seed.",
)
@CSV
@OF_BOTH
@FORCE
@QUIET
def tune(trials: int, timeout: float | None, study: str | None, seed: int | None, **_: Any) -> None:
    """Look for better parameters for the table IN, and print them as JSON.

    The defaults are the first trial, and what is fitted where nothing beats them. --save keeps the model that is fitted
    to all of IN with the best parameters, for the other commands; parameters alone are printed without it.
    """
    storage = None if study is None else storage_of(study, seed)
    work = prepared("TabMAE", "TimeSeriesMAE")
    note(f"Trying {trials} sets of parameters.")
    model = tabmae.tune(work.model, work.table, n_trials=trials, timeout=timeout, storage=storage, random_state=seed)
    save(model)
    trials_done = model.study_
    told = {
        "best_params": model.best_params_,
        "score": trials_done.best_value,
        "score_of_defaults": trials_done.trials[0].value,
        "trials": len(trials_done.trials),
    }
    click.echo(json.dumps(told, indent=2, default=str))


def storage_of(study: str, seed: int | None) -> str:
    """Where Optuna keeps a study in a file.

    Raises
    ------
    ParameterError : the file is something else, or cannot be made; without a seed no call is the same again.
    """
    if seed is None:
        raise ParameterError("--study must come with a --seed, for without one no other call goes on from it.")
    path = Path(study)
    kept = path.read_bytes()[: len(SQLITE)] if path.is_file() else b""
    if not path.parent.is_dir() or path.is_dir() or (kept and kept != SQLITE):
        raise ParameterError(f"--study must name a new file or one of a study before; {study!r} cannot be one.")
    quoted = str(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{quoted}"
