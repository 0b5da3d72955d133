"""The model of a command: loaded from a folder, or made as its options say; and what it takes of a table.

Contract: options, columns and folders are checked before anything is learnt. Estimators are asked for at the shop
window, so that what is wrong is said before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

import tabmae
from tabmae.cli.csv_text import CsvSheet, Kind
from tabmae.cli.options import FITTED, SERIES, TABLES, chosen, refuse
from tabmae.cli.sheets import ArrowSheet, Sheet, check_folder, read_sheet, typed_as
from tabmae.errors import DataError, ParameterError, listed

OF_SERIES = "TimeSeriesMAE"
TEXTS = ("strings", "categories")
"""Contents of a column that CSV gives as text."""
ROLES = {"time_col": "--time-col", "id_col": "--id-col"}


@dataclass(slots=True)
class Work:
    """A model, fitted or not, with the sheet and the columns of it that the model takes."""

    model: Any
    fitted: bool
    sheet: Sheet
    names: list[str]

    @property
    def of_series(self) -> bool:
        return type(self.model).__name__ == OF_SERIES

    @property
    def table(self) -> Any:
        """The part of the sheet for the model; of series the whole, for an index may hold their stamps."""
        if self.of_series and isinstance(self.sheet, ArrowSheet):
            return self.sheet.table
        return self.sheet.part(self.names)

    def fit(self, X: Any) -> Any:
        """Fit the model where it is not, with progress on the standard error, and save it where asked to."""
        params = click.get_current_context().params
        if not self.fitted:
            self.model.set_params(verbose=0 if params["quiet"] else 1).fit(X)
            self.model.set_params(verbose=0)
        save(self.model)
        return self.model


def prepared(*kinds: str, of_fit: Sequence[str] = FITTED, **parameters: Any) -> Work:
    """What a command works with, all checked.

    Parameters
    ----------
    kinds : classes of models, by name, that the command can use; with one of series and one of tables, --time-col or
        the model says which of them.
    of_fit : options that have no meaning beside --model.
    parameters : of a new model, beside those of the common options; None is left to the estimator.
    """
    params = click.get_current_context().params
    folder = params.get("save")
    if folder and params.get("model"):
        raise ParameterError("--save keeps a model that is fitted here; with --model none is; leave out one of them.")
    if folder:
        check_folder(folder, params["force"])
    if params.get("model"):
        refuse(of_fit, "are of a model that is to be fitted, and --model has one that is")
    sheet = read_sheet(params["source"], params["delimiter"], params["missing"])
    if params.get("model"):
        return of_fitted(loaded(params["model"], kinds), sheet)
    if len(kinds) > 1 and not params.get("time_col"):
        refuse(SERIES, "are of series, and --time-col does not say that the table holds any")
    if kinds == (OF_SERIES,) or params.get("time_col"):
        refuse(TABLES, "are of tables, and this one holds series")
        return of_new_series(sheet, parameters)
    return of_new_table(kinds[0], sheet, parameters)


def of_new_table(kind: str, sheet: Sheet, parameters: dict[str, Any]) -> Work:
    """A new model of a table."""
    params = click.get_current_context().params
    wanted = chosen(params["columns"], sheet.names, "--columns") or sheet.names
    left_out = chosen(params["exclude"], sheet.names, "--exclude")
    names = [name for name in sheet.names if name in wanted and name not in left_out]
    if not names:
        raise ParameterError("--columns and --exclude must leave a column; they leave none; name fewer of them.")
    categorical = chosen(params["categorical"], names, "--categorical")
    own = {"categorical_features": categorical or None, "time_budget": params["time_budget"], **parameters}
    return Work(new_model(kind, own), False, typed_as(sheet, categorical, {}), names)


def of_new_series(sheet: Sheet, parameters: dict[str, Any]) -> Work:
    """A new model of series."""
    params = click.get_current_context().params
    there = sheet.table.column_names if isinstance(sheet, ArrowSheet) else sheet.names
    for role, option in ROLES.items():
        if params[role] is not None and params[role] not in there:
            raise ParameterError(f"{option} must name a column; {params[role]!r} is none of {listed(there)}; check it.")
    freq = params["freq"]
    own = {
        "time_col": params["time_col"],
        "id_col": params["id_col"],
        "target_cols": chosen(params["target"], there, "--target") or None,
        "freq": int(freq) if freq and freq.isdecimal() else freq,
        **parameters,
    }
    return Work(new_model(OF_SERIES, own), False, sheet, list(there))


def of_fitted(model: Any, sheet: Sheet) -> Work:
    """A fitted model, with the columns that it learnt."""
    schema = model.schema_
    if type(model).__name__ == OF_SERIES:
        if schema.layout != "long":
            raise DataError(
                f"A model of series must have learnt a table with a column of stamps; this one is {schema.layout}."
            )
        there = sheet.table.column_names if isinstance(sheet, ArrowSheet) else sheet.names
        keys = [name for name in (schema.id_col, schema.time_col) if name is not None]
        check_learnt([*keys, *schema.channels, *schema.static_cols], there)
        return Work(model, True, sheet, list(there))
    columns = [column.name for column in schema.columns]
    names = columns if schema.named else sheet.names
    check_learnt(names, sheet.names)
    if len(names) != len(columns):
        raise DataError(f"The table must have the {len(columns)} columns that the model learnt; it has {len(names)}.")
    texts = [name for name, column in zip(names, schema.columns, strict=True) if column.content in TEXTS]
    kinds = {name: kind_of(column) for name, column in zip(names, schema.columns, strict=True)}
    if isinstance(sheet, CsvSheet):
        check_content(sheet, names, schema.columns)
    return Work(model, True, typed_as(sheet, texts, kinds), names)


def check_content(sheet: CsvSheet, names: Sequence[str], columns: Sequence[Any]) -> None:
    """Refuse a column of CSV that a field makes one of text, where the model learnt numbers or times."""
    for name, column in zip(names, columns, strict=True):
        kind: Kind = "time" if column.family.startswith("datetime") else "number"
        if column.kind == "number" and (kind == "time" or column.family == "number"):
            found = sheet.columns[name].stranger(kind)
            if found is not None:
                raise DataError(
                    f"Column {name!r} must hold {kind}s, as those that the model learnt; row {found[0]} holds "
                    f"{found[1]!r}; mend it, or pass it as --missing where it stands for a missing value."
                )


def kind_of(column: Any) -> Kind:
    """What a column is in CSV by what the model learnt it is."""
    if column.content == "bools":
        return "bool"
    if column.family.startswith("datetime"):
        return "time"
    if column.family != "number":
        return "empty"
    return "number" if not column.whole else "integer" if column.integer else "empty"


def check_learnt(names: Sequence[Any], there: Sequence[str]) -> None:
    """Refuse a table that lacks columns that a model learnt."""
    lacking = [name for name in names if name not in there]
    if lacking:
        raise DataError(
            f"A table must hold the columns that the model learnt; it lacks {listed(lacking)} and has {listed(there)}."
        )


def loaded(folder: str, kinds: Sequence[str] = ()) -> Any:
    """A saved model of one of some classes, of any without them.

    Raises
    ------
    ParameterError : it is of another class.
    SavedModelError : the folder holds none.
    """
    model = tabmae.load(folder)
    found = type(model).__name__
    if kinds and found not in kinds:
        raise ParameterError(f"--model must hold a {' or '.join(kinds)}; {folder!r} holds a {found}; pass another one.")
    return model


def new_model(kind: str, parameters: dict[str, Any]) -> Any:
    """An estimator of a class by its name; parameters that are None keep their defaults."""
    params = click.get_current_context().params
    own = {**parameters, "max_epochs": params["max_epochs"], "random_state": params["seed"]}
    return getattr(tabmae, kind)(**{name: value for name, value in own.items() if value is not None})


def save(model: Any) -> None:
    """Save a model where the command is asked to."""
    folder = click.get_current_context().params.get("save")
    if folder:
        model.save(folder)
        note(f"The model is in {folder!r}.")


def note(text: str) -> None:
    """Say something on the standard error, unless asked to be quiet."""
    if not click.get_current_context().params.get("quiet"):
        click.echo(text, err=True)
