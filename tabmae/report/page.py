"""The page: what is shown of a model and its table, in words, tables and pictures.

Contract: the same model, table and parameters give the same page.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from tabmae.errors import check_number
from tabmae.estimators.series import TimeSeriesMAE
from tabmae.estimators.table import TabMAE
from tabmae.plotting import plot_imputed, plot_missing, plot_series, short_number
from tabmae.report.cells import some_cells
from tabmae.schema import missing_cells, open_table

LEAST_TO_JUDGE = 10
"""Held-out cells below which a skill is mostly chance."""
VERDICTS = ((0.6, "well"), (0.3, "in part"), (0.1, "weakly"))
"""Skills from which on a column is said to be predicted so."""
MAX_SERIES = 3
"""Series that are drawn, those with most missing cells."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share as a cell of a table: a bar and its text."""

    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A table of the page."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str | Share]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in base64, and what it shows for those who do not see it."""

    data: str
    alt: str
    caption: str


def html_report(
    model: TabMAE | TimeSeriesMAE, X: Any, *, title: str = "Imputation report", level: float = 0.9, n_cells: int = 20
) -> str:
    """Report what is missing in a table or in series, what it is imputed by, and how far that can be trusted.

    Parameters
    ----------
    model : fitted. X : as for `transform`. title : heading of the page.
    level : share of missing numbers that the bounds are to hold, in (0, 1). n_cells : imputed cells to show, evenly
        over the table.

    Returns
    -------
    One page of HTML, pictures and style included, that fetches nothing; all text from the data is escaped.

    Raises
    ------
    ParameterError : `model` is another estimator; a parameter is out of range.

    >>> from tabmae import TabMAE
    >>> rooms = pd.DataFrame({"size <m2>": [40.0, 62.0, None, 85.0] * 10})
    >>> page = html_report(TabMAE(max_epochs=1, experts=(), random_state=0).fit(rooms), rooms)
    >>> "size &lt;m2&gt;" in page, "size <m2>" in page
    (True, False)
    """
    check_number("n_cells", n_cells, low=1, integer=True, hint="Pass the number of cells to show, for example 20.")
    cells, n_imputed = some_cells(model, X, level, n_cells)
    describe = of_series if isinstance(model, TimeSeriesMAE) else of_table
    facts, tables, pictures = describe(model, X)
    sample = Shown(
        "Some imputed cells",
        f"{len(cells)} of {n_imputed}. Bounds hold {100 * level:g}% of the missing numbers; a level has the "
        "probability that the model gives it.",
        [str(name) for name in cells],
        [[told(cell) for cell in line] for line in cells.itertuples(index=False)],
    )
    page = resources.files("tabmae.report").joinpath("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(page).render(
        title=title, facts=facts, tables=[*tables, sample] if len(cells) else tables, pictures=pictures
    )


def of_table(model: Any, X: Any) -> tuple[list[str], list[Shown], list[Picture]]:
    """Facts, tables and pictures of a table."""
    missing = missing_cells(X)[:, model.schema_.positions(open_table(X))]
    facts = [f"{len(missing)} rows of {missing.shape[1]} columns", f"{missing.mean():.1%} of the cells are missing"]
    rows: list[list[str | Share]] = []
    for column, hidden, line in zip(model.schema_.columns, missing.T, model.quality_.itertuples(), strict=True):
        kind = "empty" if not column.learnable else column.kind if column.kind == "category" else column.family
        rows.append([str(column.name), kind, share(hidden.mean()), *judged(line, "mean or mode")])
    trust = Shown(
        "How far each column can be trusted",
        "Known cells were held out and predicted: errors are root mean squares in standard deviations of the column, "
        "or shares of wrong levels; skill is the share of the error of the mean, or of the mode, that is gone.",
        ["column", "kind", "missing", "held out", "error", "of mean or mode", "skill", "predicted"],
        rows,
    )
    pictures = [
        picture(plot_missing(X), "Which cells are missing, and which together: rows from top to bottom, missing dark.")
    ]
    learnt = [column.learnable for column in model.schema_.columns]
    if missing[:, learnt].any():
        caption = "What was known and what was imputed, of the columns with most holes."
        pictures.append(picture(plot_imputed(model, X), caption))
    return facts, [trust], pictures


def of_series(model: Any, X: Any) -> tuple[list[str], list[Shown], list[Picture]]:
    """Facts, tables and pictures of series."""
    schema = model.schema_
    panel = schema.read(X)
    missing = np.isnan(panel.values)
    facts = [
        f"{len(panel.ids)} series of {len(schema.channels)} channels, {len(missing)} steps",
        f"{missing.mean():.1%} of the values are missing, absent stamps included",
    ]
    gone = Shown(
        "What is missing",
        "Absent time stamps count as missing.",
        ["channel", "missing"],
        [[str(name), share(hidden.mean())] for name, hidden in zip(schema.channels, missing.T, strict=True)],
    )
    lines = model.quality_.itertuples()
    trust = Shown(
        "How far each channel can be trusted",
        "Known steps were held out and predicted: errors are root mean squares in standard deviations of the channel; "
        "skill is the share of the error of a straight line, or of the better of last step and season, that is gone.",
        ["task", "channel", "held out", "error", "of line or last", "skill", "predicted"],
        [[line.task, str(line.channel), *judged(line, "line or last step")] for line in lines],
    )
    pictures = []
    if not schema.future_cols:
        bounds = zip(panel.offsets[:-1], panel.offsets[1:], strict=True)
        holes = np.array([missing[begin:end].sum(0) for begin, end in bounds])
        most = np.argsort(-holes.ravel(), kind="stable")[:MAX_SERIES]
        for number, channel in zip(*np.unravel_index(most, holes.shape), strict=True):
            name = schema.channels[channel]
            figure = plot_series(model, X, panel.ids[number], name)
            whose = "" if panel.ids[number] is None else f" of series {panel.ids[number]}"
            pictures.append(picture(figure, f"{name}{whose}: its last steps, gaps filled, and the forecast."))
    return facts, [gone, trust], pictures


def judged(line: Any, baseline: str) -> list[str | Share]:
    """Cells of a line of `quality_`: held-out cells, errors, skill, and what it means in words."""
    if line.n >= LEAST_TO_JUDGE and line.baseline_error == 0:
        verdict = f"the {baseline} is always right"
    elif line.n < LEAST_TO_JUDGE or math.isnan(line.skill):
        verdict = "too few known cells to tell"
    else:
        words = (word for least, word in VERDICTS if line.skill >= least)
        verdict = next(words, f"hardly better than the {baseline}")
    return [str(line.n), told(line.error), told(line.baseline_error), told(line.skill), verdict]


def share(part: float) -> Share:
    return Share(float(part), f"{part:.1%}")


def told(cell: Any) -> str:
    """A cell as text: short numbers, stamps without a time of day where it is midnight, nothing where it is missing."""
    if cell is None or cell is pd.NaT or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, pd.Timestamp) and cell == cell.normalize():
        return str(cell.date())
    return short_number(cell) if isinstance(cell, float) else str(cell)


def picture(figure: Any, caption: str) -> Picture:
    """A figure as a PNG of the page."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of glyphs that fonts lack, and ticks that are hard to place
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return Picture(base64.b64encode(file.getvalue()).decode(), caption, caption)
