"""`tabmae info`: what a saved model is, what it learnt, and how far it can be trusted."""

from __future__ import annotations

import json
from typing import Any

import click
import pandas as pd

from tabmae.cli.models import OF_SERIES, loaded

OF_SCHEMA = ("time_col", "id_col", "freq", "channels", "future_cols", "static_cols")


@click.command()
@click.argument("folder", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(folder: str, as_json: bool) -> None:
    """Tell of the saved model in the folder MODEL: its class, parameters, columns and quality."""
    model = loaded(folder)
    defaults = type(model)().get_params(deep=False)
    changed = {name: value for name, value in model.get_params(deep=False).items() if value != defaults[name]}
    columns, quality = columns_of(model), quality_of(model)
    if as_json:
        told = {
            "class": type(model).__name__,
            "parameters": changed,
            "columns": columns,
            "quality": None if quality is None else json.loads(quality.to_json(orient="records")),
        }
        click.echo(json.dumps(told, indent=2, default=str))
        return
    click.echo(f"{type(model).__name__} in {folder}")
    click.echo(f"parameters other than the defaults: {changed or 'none'}")
    click.echo()
    click.echo("\n".join(f"{name}: {what}" for name, what in columns.items()))
    if quality is not None:
        click.echo()
        click.echo(quality.to_string(index=False, float_format="{:.3f}".format))


def columns_of(model: Any) -> dict[str, Any]:
    """What each column is, or of series what plays which part."""
    if type(model).__name__ == OF_SERIES:
        own = {"horizon": model.horizon_, "season": model.season_}
        return {name: getattr(model.schema_, name) for name in OF_SCHEMA} | own
    return {str(column.name): described(column) for column in model.schema_.columns}


def described(column: Any) -> str:
    """A column in words."""
    if not column.learnable:
        return "empty"
    if column.kind == "category":
        return f"category of {len(column.levels)} levels"
    kind = "whole number" if column.whole else column.family
    return f"{kind} from {column.low:g} to {column.high:g}" if column.family == "number" else kind


def quality_of(model: Any) -> pd.DataFrame | None:
    """How far columns can be trusted, where the model knows."""
    try:
        table = model.quality_
    except (AttributeError, ValueError):
        return None
    return table.reset_index() if table.index.name is not None else table
