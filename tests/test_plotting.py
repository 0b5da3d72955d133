"""Claims about pictures: they draw the row or series that was asked for, and what was expected of it."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from matplotlib.dates import num2date
from matplotlib.patches import Rectangle
from sklearn.exceptions import NotFittedError

from tabmae import TabMAE, TabMAEDetector, TimeSeriesMAE, plot_explanation, plot_series
from tabmae.errors import DataError, ParameterError
from tabmae.plotting import MAX_CELLS, ODD, USUAL, plot_imputed

pytestmark = pytest.mark.usefixtures("few_structures")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Rows whose numbers follow one factor, the third with a cell that does not, and a hole."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=120)
    frame = pd.DataFrame({name: factor + 0.1 * rng.normal(size=120) for name in "abc"})
    frame["city"] = np.where(factor > 0, "Oslo", "Rome")
    frame["day"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.round(20 * factor), unit="D")
    frame.loc[2, "a"], frame.loc[2, "c"] = frame.loc[2, "b"] + 4, np.nan
    frame.index = pd.Index([f"r{row}" for row in range(120)])
    return frame


@pytest.fixture(scope="module")
def detector(table: pd.DataFrame) -> TabMAEDetector:
    return TabMAEDetector(max_epochs=40, random_state=0).fit(table)


def test_bars_are_the_contributions_of_the_row_the_oddest_above(detector: TabMAEDetector, table: pd.DataFrame) -> None:
    (axes,) = plot_explanation(detector, table, 2).axes
    cells = detector.explain(table).query("row == 'r2'").sort_values("contribution", kind="stable")
    bars = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert bars == sorted(bars) and bars == pytest.approx(cells["contribution"].tolist())
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[-1].startswith("a = ") and "c = missing" in labels
    assert any(label in ("city = Oslo", "city = Rome") for label in labels)
    said = axes.texts[-1].get_text()
    planted = cells.iloc[-1]
    assert said == f"expected {planted['expected']:.4g} ({planted['lower']:.4g} to {planted['upper']:.4g})"
    assert axes.get_title().startswith("Row 'r2': p-value 0.0")
    assert axes.patches[-1].get_facecolor() != axes.patches[0].get_facecolor() and ODD != USUAL


def test_a_picture_is_written(detector: TabMAEDetector, table: pd.DataFrame, tmp_path: Path) -> None:
    plot_explanation(detector, table, 2).savefig(tmp_path / "row.png")
    assert (tmp_path / "row.png").stat().st_size > 5_000


def test_other_containers_are_drawn(detector: TabMAEDetector, table: pd.DataFrame) -> None:
    (axes,) = plot_explanation(detector, pl.from_pandas(table), 2).axes
    assert axes.get_title().startswith("Row 2: p-value 0.0")


def test_wide_tables_show_their_oddest_cells() -> None:
    rows = np.random.default_rng(0).normal(size=(60, MAX_CELLS + 5))
    detector = TabMAEDetector(max_epochs=1, d_token=4, random_state=0).fit(rows)
    (axes,) = plot_explanation(detector, rows).axes
    assert len(axes.patches) == MAX_CELLS


@pytest.mark.parametrize("row", [-1, 1.5, "r2"])
def test_a_row_is_a_position(detector: TabMAEDetector, table: pd.DataFrame, row: int) -> None:
    with pytest.raises(
        ParameterError, match="`row` must be an integer of at least 0; got .*Pass the position of a row"
    ):
        plot_explanation(detector, table, row)


def test_a_row_that_is_not_there_is_refused(detector: TabMAEDetector, table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="X must hold the row; it has 120 rows, and `row` is 120. Pass a smaller one."):
        plot_explanation(detector, table, 120)


def test_a_series_is_drawn_with_its_filled_gaps_and_its_forecast() -> None:
    hours = pd.date_range("2024-01-01", periods=200, freq="h")
    day = np.sin(2 * np.pi * np.arange(200) / 24)
    frame = pd.DataFrame({"roof": day, "room": 2 * day + 50}, index=hours)
    frame.iloc[150:160, 1] = np.nan
    model = TimeSeriesMAE(horizon=12, max_epochs=0, random_state=0).fit(frame)
    axes = plot_series(model, frame, channel="room", n_steps=100).axes[0]
    observed, filled, ahead = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert np.isnan(observed).sum() == 10 and len(observed) == 100
    imputed = model.impute(frame)["room"].to_numpy()[150:160]
    assert np.array_equal(filled[50:60], imputed)
    expected = model.forecast(frame).query("channel == 'room'")["TimeSeriesMAE"]
    assert np.array_equal(ahead, expected)
    with pytest.raises(DataError, match="`channel` must be one of"):
        plot_series(model, frame, channel="cellar")
    with pytest.raises(DataError, match=r"^`model` must be a TimeSeriesMAE; got Detection\. Pass"):
        plot_series(cast(Any, model.detect(frame)), frame)
    with pytest.raises(NotFittedError):
        plot_series(TimeSeriesMAE(), frame)


def test_series_of_other_libraries_are_drawn_as_those_of_pandas() -> None:
    stamps = pd.date_range("2024-01-01", periods=60, freq="h")
    wave = np.sin(np.arange(60) / 2)
    frame = pd.concat([pd.DataFrame({"unique_id": name, "ds": stamps, "y": k + wave}) for k, name in enumerate("ab")])
    model = TimeSeriesMAE(horizon=6, max_epochs=0, random_state=0).fit(frame)
    tables = (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame, preserve_index=False))
    expected, *others = ([line.get_ydata() for line in plot_series(model, X, id="b").axes[0].lines] for X in tables)
    for lines in others:
        for line, same in zip(lines, expected, strict=True):
            np.testing.assert_allclose(np.asarray(line), np.asarray(same))


def test_days_begin_at_midnight_in_the_zone_of_the_series() -> None:
    hours = pd.date_range("2024-01-01", periods=120, freq="h", tz="Asia/Tokyo")
    frame = pd.DataFrame({"y": np.sin(np.arange(120) / 4)}, index=hours)
    model = TimeSeriesMAE(horizon=12, max_epochs=0, random_state=0).fit(frame)
    axis = plot_series(model, frame).axes[0].xaxis
    begun = num2date(axis.get_majorticklocs(), tz=hours.tz)
    assert {day.hour for day in begun} == {0}
    assert axis.get_major_formatter().format_ticks(axis.get_majorticklocs().tolist())[1] == f"{begun[1].day:02d}"


def test_a_picture_tells_the_level_of_its_bounds_to_the_digit(detector: TabMAEDetector, table: pd.DataFrame) -> None:
    (axes,) = plot_explanation(detector, table, 2, level=0.995).axes
    assert axes.get_xlabel().endswith("(bounds hold 99.5%)")


def test_no_text_of_an_explanation_passes_the_edge_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({f"a long name of a column, the {n}th of all": rng.lognormal(10, 1, 90) for n in range(4)})
    detector = TabMAEDetector(max_epochs=1, d_token=4, random_state=0).fit(rows)
    figure = plot_explanation(detector, rows, int(rows.iloc[:, 0].argmax()))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = [*axes.texts, *axes.get_yticklabels(), axes.xaxis.label, axes.title]
    boxes = [text.get_window_extent() for text in texts]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == 4 and not any("e+" in text.get_text() for text in texts)


def test_levels_that_differ_at_their_ends_and_numbers_with_a_tail_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    size, town = rng.normal(size=400), rng.integers(0, 8, 400)
    frame = pd.DataFrame({"town": [f"Saint-Somewhere-{n}" for n in town], "income": np.exp(3 * size), "size": size})
    frame = frame.mask(rng.random(frame.shape) < 0.2)
    figure = plot_imputed(TabMAE(max_epochs=1, d_token=4, random_state=0).fit(frame), frame)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert len({label.get_text() for label in panels["town"].get_xticklabels()}) == 8
    assert panels["income"].get_xlabel() == "the ends hold what lies beyond" and not panels["size"].get_xlabel()
    heights = [bar.get_height() for bar in panels["income"].patches if isinstance(bar, Rectangle)]
    assert sum(heights) == pytest.approx(2)


def test_only_a_fitted_imputer_has_imputed_cells_to_draw(table: pd.DataFrame, detector: TabMAEDetector) -> None:
    with pytest.raises(DataError, match="^`model` must be a fitted TabMAE; got TabMAEDetector"):
        plot_imputed(cast(TabMAE, detector), table)
    with pytest.raises(NotFittedError):
        plot_imputed(TabMAE(), table)
