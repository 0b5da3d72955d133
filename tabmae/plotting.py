"""Pictures of what an estimator found; the only room beside the demo that draws.

Contract: matplotlib is imported when a picture is asked for, and no global figure is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from tabmae.errors import DataError, check_number, listed
from tabmae.estimators.detector import TabMAEDetector
from tabmae.estimators.series import Detection, TimeSeriesMAE
from tabmae.estimators.table import TabMAE
from tabmae.schema import missing_cells, open_table
from tabmae.schema.cells import DAY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ODD, USUAL, AHEAD = "#D55E00", "#999999", "#0072B2"
MAX_CELLS = 20
"""Cells that are drawn, the oddest first."""
MAX_ROWS, MAX_COLUMNS, MAX_LEVELS = 400, 40, 8
"""Rows and columns of a map of missing cells, and levels of a column, that are drawn."""
MAX_NAME, MAX_LEVEL = 30, 12
"""Characters of a name, and of a level below its bar."""
OUTER = 0.01
"""Share of the numbers at either end that is drawn in the outermost bars where it would take up most of the axis."""
MAX_CHANNELS = 6
"""Channels of a series that are drawn, those first that lie farthest outside of their bounds where it is flagged."""


def plot_explanation(detector: TabMAEDetector, X: Any, row: int = 0, level: float = 0.9) -> Figure:
    """Draw which cells make a row odd: a bar for each cell's contribution, with its value and what was expected.

    Parameters
    ----------
    detector : fitted, with the network among its members.
    X : (n, F), a container as in fit. row : position of the row in X.
    level : share of a column's normal cells that the interval is to hold.

    Returns
    -------
    matplotlib Figure; `figure.savefig("row.png")` writes it. At most 20 cells, the oddest above.

    Raises
    ------
    DataError : X has no such row.
    ParameterError : `row` is no integer; the detector has no network; `level` is out of range.
    """
    from matplotlib.figure import Figure

    check_number("row", row, low=0, integer=True, hint="Pass the position of a row of X, for example 0.")
    n_rows = open_table(X).n_rows
    if row >= n_rows:
        raise DataError(f"X must hold the row; it has {n_rows} rows, and `row` is {row}. Pass a smaller one.")
    one = X.iloc[row : row + 1] if isinstance(X, pd.DataFrame) else X[row : row + 1]
    cells = detector.explain(one, level)
    label = cells["row"].iloc[0] if isinstance(X, pd.DataFrame) else row
    name = label.item() if isinstance(label, np.generic) else label
    shown = cells.sort_values("contribution", ascending=False, kind="stable").head(MAX_CELLS)[::-1]
    figure = Figure(figsize=(9, 1.2 + 0.36 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    colours = [ODD if contribution >= 1 else USUAL for contribution in shown["contribution"]]
    axes.barh(range(len(shown)), shown["contribution"], color=colours)
    axes.set_yticks(
        range(len(shown)), [f"{shortened(cell.column)} = {_text(cell.value)}" for cell in shown.itertuples()]
    )
    widest = max(1.0, float(shown["contribution"].max()))
    for place, cell in enumerate(shown.itertuples()):
        axes.text(cell.contribution + 0.02 * widest, place, f"expected {_expected(cell)}", va="center", fontsize=9)
    axes.set_xlim(0, 1.6 * widest)
    axes.set_xlabel(f"nats less likely than usual, given the other cells\n(bounds hold {100 * level:g}%)")
    axes.set_title(f"Row {name!r}: p-value {detector.p_value(one)[0]:.3g}")
    axes.spines[["top", "right"]].set_visible(False)
    for text in (*axes.texts, *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.set_xlim(0, max(1.6 * widest, _end_of_texts(figure, axes)))
    return figure


def plot_detection(detection: Detection, id: Any = None) -> Figure:
    """Draw what is odd in a series: its channels and what is usual of them, odd stamps shaded, the scores below.

    Parameters
    ----------
    detection : of `TimeSeriesMAE.detect`.
    id : the series to draw; None for the one with the highest score.

    Returns
    -------
    matplotlib Figure; `figure.savefig("odd.png")` writes it. At most 6 channels, the oddest above.

    Raises
    ------
    DataError : there is no such series, or `detection` is something else.
    """
    from matplotlib.figure import Figure

    if not hasattr(detection, "points"):
        raise DataError(
            f"`detection` must be what `detect` gives; got {type(detection).__name__}. Pass model.detect(X)."
        )
    points = detection.points
    *owner, time = [name for name in points.columns[: points.columns.get_loc("value")] if name != "channel"]
    if owner:
        codes, there = pd.factorize(points[owner[0]])
        oddest = codes[int(points["score"].fillna(-np.inf).argmax())]
        number = oddest if id is None else _position("id", id, tuple(pd.Index(there).tolist()))
        points, chosen = points[codes == number], there[number]
        title = f"{chosen}: "
    else:
        title = ""
    distance = (points["value"] - points["expected"]).abs() / (points["upper"] - points["expected"])
    outside = points["flag"] & (distance > 1)
    channels = points.get("channel", pd.Series("value", index=points.index))
    farthest = distance.where(points["flag"], 0).groupby(channels, sort=False).max()
    order = farthest.sort_values(ascending=False, kind="stable").index[:MAX_CHANNELS]
    figure = Figure(figsize=(11, 1.6 + 1.7 * len(order)), layout="constrained")
    *above, below = figure.subplots(len(order) + 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(above, order, strict=True):
        one = points[channels == name]
        stamps = one[time].array if not isinstance(one[time].dtype, pd.PeriodDtype) else one[time].dt.to_timestamp()
        axes.fill_between(stamps, one["lower"], one["upper"], color=USUAL, alpha=0.35, linewidth=0, label="usual")
        axes.plot(stamps, one["value"], color="black", linewidth=0.8)
        axes.plot(stamps, one["value"].where(outside[one.index]), ".", color=ODD, markersize=5, label="odd")
        axes.set_ylabel(name)
    below.plot(stamps, one["score"], color="black", linewidth=0.8)
    below.set_ylabel("score, nats")
    flag = one["flag"].to_numpy()
    for axes in (*above, below):
        axes.fill_between(
            stamps, 0, 1, where=flag, color=ODD, alpha=0.25, transform=axes.get_xaxis_transform(), step="mid"
        )
        axes.spines[["top", "right"]].set_visible(False)
    n_events = int((flag[1:] & ~flag[:-1]).sum() + flag[:1].sum())
    figure.suptitle(f"{title}{n_events} odd {'stretch' if n_events == 1 else 'stretches'}")
    return figure


def plot_series(
    model: TimeSeriesMAE,
    X: Any,
    id: Any = None,
    channel: Any = None,
    n_steps: int = 200,
    horizon: int | None = None,
    X_future: Any = None,
) -> Figure:
    """Draw the last steps of a series, its gaps filled with their band, and its forecast with its fan.

    Parameters
    ----------
    model : fitted. X : series as for `impute`. id, channel : which series and channel; None for the first.
    n_steps : of the history. horizon : steps ahead; None for that of fit. X_future : as for `forecast`.

    Returns
    -------
    matplotlib Figure; `figure.savefig("series.png")` writes it. Bands hold 90 % of the missing values, fans 80 and 95 %
    of those to come.

    Raises
    ------
    DataError : X has no such series or channel; `model` is something else.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    if not isinstance(model, TimeSeriesMAE):
        raise DataError(f"`model` must be a TimeSeriesMAE; got {type(model).__name__}. Pass plot_series(model, X).")
    check_is_fitted(model)
    check_number("n_steps", n_steps, low=2, integer=True, hint="Pass the steps to draw, for example 200.")
    schema = model.schema_
    panel = schema.read(X)
    number = _position("id", id, panel.ids)
    place = _position("channel", channel, schema.channels)
    lower, upper = (schema.read(bound) for bound in model.predict_interval(X, 0.9))
    low, filled, high = (part.series(number)[-n_steps:, place] for part in (lower, schema.read(model.impute(X)), upper))
    known = panel.series(number)[-n_steps:, place]
    missing = np.isnan(known)
    stamps = schema.stamps(panel)[number][-n_steps:]
    ahead = model.forecast(X, horizon, level=(80, 95), X_future=X_future)
    length = len(ahead) // (len(panel.ids) * len(schema.channels))
    begin = (number * len(schema.channels) + place) * length
    drawn = slice(begin, begin + length)  # forecasts come in the library of X
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    times = stamps.to_timestamp() if isinstance(stamps, pd.PeriodIndex) else stamps
    gap = missing | np.roll(missing, 1) | np.roll(missing, -1)
    gap[[0, -1]] = missing[[0, -1]]
    axes.fill_between(times, np.where(gap, low, np.nan), np.where(gap, high, np.nan), color=ODD, alpha=0.25, lw=0)
    axes.plot(times, known, color="#333333", lw=1, label="observed")
    if missing.any():
        axes.plot(times, np.where(gap, filled, np.nan), color=ODD, lw=1.4, label="filled, 90 %")
    later = schema.future_stamps(panel, length)[number]
    later = later.to_timestamp() if isinstance(later, pd.PeriodIndex) else later
    for per_cent, alpha in ((95, 0.18), (80, 0.3)):
        under, over = (np.asarray(ahead[f"TimeSeriesMAE-{side}-{per_cent}"])[drawn] for side in ("lo", "hi"))
        axes.fill_between(later, under, over, color=AHEAD, alpha=alpha, lw=0)
    axes.plot(later, np.asarray(ahead["TimeSeriesMAE"])[drawn], color=AHEAD, lw=1.4, label="forecast, 80 and 95 %")
    title = [str(part) for part in (panel.ids[number], schema.channels[place]) if part is not None]
    axes.set_title(", ".join(title), loc="left", fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0.4, 1.0))
    if isinstance(later, pd.DatetimeIndex):
        locator = AutoDateLocator(later.tz, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, later.tz))
    return figure


def plot_missing(X: Any) -> Figure:
    """Draw which cells of a table are missing: rows from top to bottom, a column for each of its columns.

    Parameters
    ----------
    X : pandas or polars DataFrame, Arrow table or array (n, F).

    Returns
    -------
    matplotlib Figure. At most 400 rows, evenly over the table, and 40 columns, those with most holes.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    missing = missing_cells(X)
    names = open_table(X).names
    rows = np.unique(np.linspace(0, len(missing) - 1, min(MAX_ROWS, len(missing))).round().astype(int))
    most = np.sort(np.argsort(-missing.sum(0), kind="stable")[:MAX_COLUMNS])
    figure = Figure(figsize=(min(11, 2.5 + 0.5 * len(most)), 4.5), layout="constrained")
    axes = figure.subplots()
    colours = ListedColormap(["#E6E6E6", "#333333"])
    axes.imshow(missing[np.ix_(rows, most)], aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    labels = [f"{shortened(names[place])}, {missing[:, place].mean():.0%}" for place in most]
    axes.set_xticks(range(len(most)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    axes.set_ylabel(f"{len(rows)} of {len(missing)} rows" if len(rows) < len(missing) else "rows")
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def plot_imputed(model: TabMAE, X: Any) -> Figure:
    """Draw how the imputed cells of columns are spread beside the observed ones.

    Parameters
    ----------
    model : fitted. X : as for `transform`, with a missing cell at least.

    Returns
    -------
    matplotlib Figure: shares of the observed and of the imputed cells, of the 6 columns with most holes at most.

    Raises
    ------
    DataError : no cell is missing of any column that the model learnt.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    if not isinstance(model, TabMAE):
        raise DataError(f"`model` must be a fitted TabMAE; got {type(model).__name__}. Pass TabMAE().fit(X).")
    check_is_fitted(model)
    missing, schema = missing_cells(X), model.schema_
    completed = model.transform(X)
    values, _ = schema.encode(completed)
    places = [place for place, column in enumerate(schema.columns) if column.learnable]
    counts = {place: missing[:, schema.positions(open_table(X))[place]] for place in places}
    most = sorted((place for place in places if counts[place].any()), key=lambda place: -counts[place].sum())
    if not most:
        raise DataError(
            "X must have a missing cell of a column that fit learnt; it has none. Pass the table with holes."
        )
    most = most[:MAX_CHANNELS]
    n_across = min(3, len(most))
    n_down = -(-len(most) // n_across)
    figure = Figure(figsize=(3.6 * n_across, 2.8 * n_down), layout="constrained")
    panels = figure.subplots(n_down, n_across, squeeze=False).ravel()
    for axes, place in zip(panels, most, strict=False):
        column, hidden = schema.columns[place], counts[place]
        numbers = values[:, place].astype(np.float64)
        if column.kind == "category":
            edges = np.arange(min(len(column.levels), MAX_LEVELS) + 1) - 0.5
            axes.set_xticks(edges[1:] - 0.5, [shortened(name, MAX_LEVEL) for name in column.levels[:MAX_LEVELS]])
            axes.tick_params("x", rotation=30)
        else:
            numbers = column.numbers(numbers)
            if column.family.startswith("datetime"):
                numbers = numbers / DAY  # matplotlib's unit
                locator = AutoDateLocator(maxticks=5)
                axes.xaxis.set_major_locator(locator)
                axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
            low, high = np.quantile(numbers, [OUTER, 1 - OUTER])
            if np.ptp(numbers) > 2 * (high - low) > 0:
                numbers = numbers.clip(low, high)
                axes.set_xlabel("the ends hold what lies beyond", fontsize=8)
            edges = np.histogram_bin_edges(numbers, bins=12)
        groups = [numbers[~hidden], numbers[hidden]]
        weights = [np.full(len(group), 1 / max(1, len(group))) for group in groups]
        labels = [f"{name}, {len(group)}" for name, group in zip(("observed", "imputed"), groups, strict=True)]
        axes.hist(groups, edges, weights=weights, color=[USUAL, ODD], label=labels)
        axes.margins(y=0.25)  # room for the legend
        axes.set_title(shortened(column.name, 40), loc="left", fontsize=10, parse_math=False)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        for label in axes.get_xticklabels():
            label.set_parse_math(False)
    for axes in panels[len(most) :]:
        axes.set_visible(False)
    figure.supylabel("share of cells", fontsize=9)
    return figure


def _position(name: str, wanted: Any, there: tuple[Any, ...]) -> int:
    """Where a series or channel stands; the first where none is named."""
    if wanted is None:
        return 0
    if not pd.api.types.is_hashable(wanted) or wanted not in there:
        given = repr(wanted) if pd.api.types.is_hashable(wanted) else f"a {type(wanted).__name__}"
        raise DataError(f"`{name}` must be one of {listed(there)}; got {given}. Pass one of them, or None.")
    return there.index(wanted)


def _expected(cell: Any) -> str:
    bounds = f" ({_text(cell.lower)} to {_text(cell.upper)})" if not pd.isna(cell.lower) else ""
    return _text(cell.expected) + bounds


def _text(value: Any) -> str:
    """A cell as a label: short, without a time of day where it is midnight."""
    if pd.isna(value):
        return "missing"
    if isinstance(value, pd.Timestamp):
        return str(value.date())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return short_number(value)
    return shortened(value)


def short_number(number: float) -> str:
    """A number in four digits, or in all before its point up to a billion.

    >>> short_number(0.123456), short_number(25963.4), short_number(2.5e12)
    ('0.1235', '25963', '2.5e+12')
    """
    return f"{number:.0f}" if 1e4 <= abs(number) < 1e9 else f"{number:.4g}"


def shortened(name: Any, most: int = MAX_NAME) -> str:
    """A name as a label, cut in its middle, for names that are alike differ at an end.

    >>> shortened("Saint-Denis-sur-Loire", 12)
    'Saint-\u2026Loire'
    """
    text = str(name)
    return text if len(text) <= most else f"{text[: most // 2]}\u2026{text[len(text) - (most - 1) // 2 :]}"


def _end_of_texts(figure: Figure, axes: Any) -> float:
    """The end of an axis that begins at 0 on which no text passes the edge."""
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    shares = [min(0.8, text.get_window_extent().width / frame.width) for text in axes.texts]
    starts = [text.get_position()[0] for text in axes.texts]
    return max(start / (1 - share) for start, share in zip(starts, shares, strict=True))
