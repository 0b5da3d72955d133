"""Imputed cells one by one, each with its bounds or its probability."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.errors import ParameterError
from tabmae.estimators.series import TimeSeriesMAE
from tabmae.estimators.table import TabMAE
from tabmae.schema import missing_cells, open_table, take_rows


def imputed_cells(model: TabMAE | TimeSeriesMAE, X: Any, level: float = 0.9) -> pd.DataFrame:
    """List the missing cells of a table or of series with what they are imputed by.

    Parameters
    ----------
    model : fitted. X : as for `transform`. level : share of missing numbers that the bounds are to hold, in (0, 1).

    Returns
    -------
    DataFrame, a line for each missing cell that can be filled. Of tables, by rows: `row` (index label, or position),
    `column`, `value`, `lower` and `upper` of numbers and times (about the value before a whole number is rounded),
    `probability` of levels. Of series: the id, the stamp, the `channel` where there are several, `value`, `lower`,
    `upper`.

    Raises
    ------
    ParameterError : `model` is another estimator; `level` is out of range.

    >>> from tabmae import TabMAE
    >>> rooms = pd.DataFrame({"size": [40.0, 62.0, None, 85.0] * 10, "city": ["Oslo", "Rome", "Rome", None] * 10})
    >>> cells = imputed_cells(TabMAE(max_epochs=2, experts=(), random_state=0).fit(rooms), rooms)
    >>> cells[["row", "column"]].head(2).values.tolist()
    [[2, 'size'], [3, 'city']]
    """
    if isinstance(model, TimeSeriesMAE):
        return of_series(model, X, level)
    if not isinstance(model, TabMAE):
        raise ParameterError(
            f"`model` must be a TabMAE or a TimeSeriesMAE; got {type(model).__name__}. Pass one that is fitted."
        )
    lower, upper = (columns_of(bound) for bound in model.predict_interval(X, level))
    filled, missing = columns_of(model.transform(X)), missing_cells(X)
    positions = model.schema_.positions(open_table(X))
    columns = dict(sorted(zip(positions, model.schema_.columns, strict=True)))
    numeric = [position for position, column in columns.items() if column.kind == "number"]
    labels = X.index.to_flat_index() if isinstance(X, pd.DataFrame) else range(len(missing))
    lines: list[tuple[Any, ...]] = []
    for position, column in columns.items():
        rows = np.flatnonzero(missing[:, position])
        if not column.learnable or not len(rows):
            continue
        probability: dict[Any, Any] = {}
        if column.kind == "category":
            weights = model.predict_proba(take_rows(X, rows), column.name).to_numpy()
            codes = {level: code for code, level in enumerate(column.levels)}
            probability = {row: weights[i, codes[filled[position][row]]] for i, row in enumerate(rows.tolist())}
        place = numeric.index(position) if position in numeric else None
        for row in rows.tolist():
            bounds = (None, None) if place is None else (lower[place][row], upper[place][row])
            lines.append((row, position, column.name, filled[position][row], *bounds, probability.get(row)))
    lines.sort(key=lambda line: line[:2])
    names = ["row", "position", "column", "value", "lower", "upper", "probability"]
    found = pd.DataFrame(lines, columns=names, dtype=object).drop(columns="position")
    return found.assign(row=[labels[row] for row in found["row"]], probability=found["probability"].astype("float64"))


def some_cells(model: TabMAE | TimeSeriesMAE, X: Any, level: float, n_cells: int) -> tuple[pd.DataFrame, int]:
    """Cells evenly over a table or series, and how many there are; of a table, their rows alone are predicted."""
    holes = fillable(model, X) if isinstance(model, TabMAE) else np.empty((0, 2), dtype=np.int64)
    if not len(holes):
        cells = imputed_cells(model, X, level)
        return cells.iloc[evenly(len(cells), n_cells)], len(cells)
    places = evenly(len(holes), n_cells)
    rows = np.unique(holes[places, 0])
    found = imputed_cells(model, take_rows(X, rows), level)
    if not isinstance(X, pd.DataFrame):
        found = found.assign(row=rows[found["row"].to_numpy(dtype=np.int64)])
    of_rows = np.flatnonzero(np.isin(holes[:, 0], rows))
    return found.iloc[np.searchsorted(of_rows, places)], len(holes)


def fillable(model: TabMAE, X: Any) -> NDArray[np.int64]:
    """Rows and positions of the missing cells that can be filled, by rows."""
    learnt = {
        position
        for position, column in zip(model.schema_.positions(open_table(X)), model.schema_.columns, strict=True)
        if column.learnable
    }
    holes = np.argwhere(missing_cells(X))
    return holes[np.isin(holes[:, 1], sorted(learnt))]


def evenly(n: int, n_chosen: int) -> NDArray[np.int64]:
    """Places evenly over n, at most so many."""
    return np.unique(np.linspace(0, n - 1, min(n_chosen, n)).round().astype(np.int64))


def of_series(model: TimeSeriesMAE, X: Any, level: float) -> pd.DataFrame:
    """The missing cells of series, absent stamps included."""
    schema = model.schema_
    panel = schema.read(X)
    lower, upper = (schema.read(bound).values for bound in model.predict_interval(X, level))
    filled = schema.read(model.impute(X)).values
    columns = {"value": filled, "lower": lower, "upper": upper, "missing": np.isnan(panel.values)}
    cells = schema.frame(panel, schema.stamps(panel), columns)
    return cells[cells["missing"]].drop(columns="missing").reset_index(drop=True)


def columns_of(X: Any) -> list[list[Any]]:
    """The cells of any supported table by columns, as Python objects."""
    if isinstance(X, pd.DataFrame):
        return [X.iloc[:, place].tolist() for place in range(X.shape[1])]
    table = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(table, nw.DataFrame):
        return [column.to_list() for column in table.iter_columns()]
    return [column.tolist() for column in np.asarray(X).T]
