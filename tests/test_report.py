"""Claims about reports: what they show is what the model says, they stand alone, and data cannot break out of them."""

import base64
import html
import re
import warnings
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tabmae import TabMAE, TabMAEDetector, TimeSeriesMAE, html_report, imputed_cells, plot_imputed, plot_missing
from tabmae.errors import DataError, ParameterError
from tabmae.report.cells import some_cells

pytestmark = pytest.mark.usefixtures("few_structures")

EVIL = "<script>alert('x')</script> & $\\frac{$"


class Page(HTMLParser):
    """Tags with their attributes, and the tables as rows of text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    frame = pd.DataFrame(
        {
            "a": x + 0.1 * rng.normal(size=200),
            EVIL: np.where(x > 0, "<img src=x onerror=y>", "$b_{$"),
            "noise": rng.normal(size=200),
            "day": pd.Timestamp("2024-03-01") + pd.to_timedelta(np.round(20 * x), unit="D"),
            "n": pd.array(np.round(5 * x).astype(int), dtype="Int64"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.25)


@pytest.fixture(scope="module")
def model(table: pd.DataFrame) -> TabMAE:
    return TabMAE(max_epochs=3, experts=("gaussian",), random_state=0).fit(table)


@pytest.fixture(scope="module")
def page(model: TabMAE, table: pd.DataFrame) -> Page:
    return Page(html_report(model, table, title=f"Rooms {EVIL}", n_cells=12))


def test_imputed_cells_are_the_holes_with_what_the_model_makes_of_them(model: TabMAE, table: pd.DataFrame) -> None:
    cells = imputed_cells(model, table, 0.8)
    assert len(cells) == table.isna().to_numpy().sum()
    complete, (lower, upper) = model.transform(table), model.predict_interval(table, 0.8)
    weights = model.predict_proba(table, EVIL)
    assert cells["row"].is_monotonic_increasing
    for cell in cells.itertuples():
        assert pd.isna(table.loc[cell.row, cell.column]) and complete.loc[cell.row, cell.column] == cell.value
        if cell.column == EVIL:
            assert cell.probability == pytest.approx(weights.loc[cell.row, cell.value]) and cell.lower is None
        else:
            assert (cell.lower, cell.upper) == (lower.loc[cell.row, cell.column], upper.loc[cell.row, cell.column])
            assert np.isnan(cell.probability)


def test_imputed_cells_are_the_same_in_any_container(model: TabMAE, table: pd.DataFrame) -> None:
    wanted = imputed_cells(model, table)
    for other in (pa.Table.from_pandas(table), pl.from_pandas(table)):
        found = imputed_cells(model, other).sort_values(["row", "column"], ignore_index=True)
        sorted_ = wanted.sort_values(["row", "column"], ignore_index=True)
        assert found[["row", "column"]].equals(sorted_[["row", "column"]])
        assert [str(value)[:8] for value in found["value"]] == [str(value)[:8] for value in sorted_["value"]]


def test_arrays_have_positions_for_rows_and_columns() -> None:
    X = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, 6.0], [np.nan, 8.0]] * 5)
    cells = imputed_cells(TabMAE(max_epochs=1, experts=(), random_state=0).fit(X), X)
    assert cells[["row", "column"]].head(2).to_numpy().tolist() == [[1, 1], [3, 0]]


def test_columns_of_which_nothing_is_known_are_left_out_and_called_empty() -> None:
    frame = pd.DataFrame({"a": [1.0, None, 3.0, 4.0] * 5, "none": [None] * 20})
    with pytest.warns(UserWarning, match="Columns 'none' have no observed cell"):
        model = TabMAE(max_epochs=1, experts=(), random_state=0).fit(frame)
    assert set(imputed_cells(model, frame)["column"]) == {"a"}
    shown = Page(html_report(model, frame)).tables[0]
    assert shown[2][:3] == ["none", "empty", "100.0%"]
    full = Page(html_report(model, frame.fillna({"a": 2.0})))
    assert len(full.tables) == 1 and len(full.attributes("img")) == 1


def test_the_page_fetches_nothing_and_runs_nothing(page: Page) -> None:
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"} == set()
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "href" for name in attributes)
    sources = [image["src"] or "" for image in page.attributes("img")]
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    for source in sources:
        assert base64.b64decode(source.split(",")[1], validate=True).startswith(b"\x89PNG")
    policy = page.attributes("meta")[2]
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_names_and_levels_from_the_data_stay_text(model: TabMAE, table: pd.DataFrame, page: Page) -> None:
    text = html_report(model, table, title=f"Rooms {EVIL}", n_cells=200)
    assert "<script" not in text and "<img src=x" not in text
    assert f"<h1>Rooms {html.escape(EVIL, quote=False)}" in text.replace("&#39;", "'")
    assert EVIL in [row[0] for row in page.tables[0]]


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.attributes("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.attributes("img"))
    headings = [cell for cell in page.attributes("th") if cell.get("scope") in ("col", "row")]
    assert headings == page.attributes("th") and len(headings) > 20


def test_columns_are_shown_with_their_holes_and_their_quality(model: TabMAE, table: pd.DataFrame, page: Page) -> None:
    head, *rows = page.tables[0]
    assert head[:3] == ["column", "kind", "missing"]
    quality = model.quality_
    for row, name in zip(rows, table, strict=True):
        assert row[:3] == [name, "category" if name == EVIL else row[1], f"{table[name].isna().mean():.1%}"]
        assert row[3] == str(quality.loc[name, "n"]) and float(row[6]) == pytest.approx(
            quality.loc[name, "skill"], rel=1e-3
        )
    said = {row[0]: row[-1] for row in rows}
    assert said["a"] in ("well", "in part") and said["noise"] == "hardly better than the mean or mode"


def test_a_column_of_one_value_is_not_called_short_of_cells() -> None:
    alike = pd.DataFrame({"a": np.arange(400.0), "same": "x"})
    alike = alike.mask(np.arange(400)[:, None] % 5 == np.array([0, 1]))
    rows = Page(html_report(TabMAE(max_epochs=1, experts=(), random_state=0).fit(alike), alike)).tables[0][1:]
    assert int(rows[1][3]) >= 10 and rows[1][-1] == "the mean or mode is always right"


def test_few_held_out_cells_are_no_judgement(table: pd.DataFrame) -> None:
    few = table[["a", "n"]].head(40)
    rows = Page(html_report(TabMAE(max_epochs=1, experts=(), random_state=0).fit(few), few)).tables[0][1:]
    assert all(int(row[3]) < 10 and row[-1] == "too few known cells to tell" for row in rows)


def test_the_sample_is_spread_over_the_holes(model: TabMAE, table: pd.DataFrame, page: Page) -> None:
    head, *rows = page.tables[-1]
    assert head == ["row", "column", "value", "lower", "upper", "probability"] and len(rows) == 12
    cells = imputed_cells(model, table)
    assert [int(row[0]) for row in (rows[0], rows[-1])] == [cells["row"].iloc[0], cells["row"].iloc[-1]]
    own = {(cell.row, cell.column): cell for cell in cells.itertuples()}
    for row in rows:
        cell = own[int(row[0]), row[1]]
        assert row[2] in (
            str(cell.value),
            f"{cell.value:.4g}" if isinstance(cell.value, float) else str(cell.value)[:10],
        )


def test_a_page_is_the_same_twice(model: TabMAE, table: pd.DataFrame) -> None:
    assert html_report(model, table) == html_report(model, table)


def test_a_table_without_holes_has_a_page_without_imputed_cells(model: TabMAE, table: pd.DataFrame) -> None:
    page = Page(html_report(model, model.transform(table)))
    assert len(page.tables) == 1 and len(page.attributes("img")) == 1


def test_series_have_a_page_of_their_own() -> None:
    stamps = pd.date_range("2024-01-01", periods=150, freq="h")
    frame = pd.DataFrame(
        {"unique_id": "<i>s", "ds": stamps, "y": np.sin(np.arange(150) / 4), "$z_{$": np.arange(150) % 9}
    )
    frame.loc[20:25, "y"] = np.nan
    frame = frame.drop(index=[70, 71, 72])
    model = TimeSeriesMAE(horizon=6, max_epochs=1, random_state=0).fit(frame)
    cells = imputed_cells(model, frame)
    assert cells.groupby("channel").size().to_dict() == {"y": 9, "$z_{$": 3}
    assert (cells["lower"] <= cells["value"]).all() and (cells["value"] <= cells["upper"]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = html_report(model, frame)
    page = Page(text)
    assert page.tables[0][1:] == [["y", "6.0%"], ["$z_{$", "2.0%"]] and "<i>s" not in text
    assert [row[:2] for row in page.tables[1][1:]] == [[t, c] for t in ("impute", "forecast") for c in ("y", "$z_{$")]
    assert (page.attributes("img")[0]["alt"] or "").startswith("y of series <i>s")


def test_other_estimators_and_wrong_parameters_are_refused(model: TabMAE, table: pd.DataFrame) -> None:
    other: Any = TabMAEDetector()
    with pytest.raises(ParameterError, match="`model` must be a TabMAE or a TimeSeriesMAE; got TabMAEDetector"):
        html_report(other, table)
    with pytest.raises(ParameterError, match="`n_cells` must be an integer of at least 1"):
        html_report(model, table, n_cells=0)
    with pytest.raises(ParameterError, match=re.escape("`level` must lie in (0, 1)")):
        html_report(model, table, level=90)


def test_the_map_of_holes_is_dark_where_a_cell_is_missing(table: pd.DataFrame) -> None:
    (axes,) = plot_missing(table).axes
    drawn = axes.images[0].get_array()
    assert drawn is not None and (np.asarray(drawn) == table.isna().to_numpy()).all()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == f"a, {table['a'].isna().mean():.0%}"
    plot_missing(table.rename(columns={"n": "$n_{$"})).savefig(pa.BufferOutputStream())
    wide = np.where(np.random.default_rng(0).random((1000, 60)) < np.linspace(0, 1, 60), np.nan, 1.0)
    shown = np.asarray(plot_missing(wide).axes[0].images[0].get_array())
    assert shown.shape == (400, 40) and shown.mean() > 0.5


def test_imputed_cells_are_drawn_beside_the_observed_ones(model: TabMAE, table: pd.DataFrame) -> None:
    figure = plot_imputed(model, table)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    holes = table.isna().sum()
    assert (
        sorted(titles) == sorted(name[:40] for name in table)
        and holes[[name for name in table if name[:40] == titles[0]]].iloc[0] == holes.max()
    )
    axes = figure.axes[titles.index("n")]
    assert axes.get_legend_handles_labels()[1] == [
        f"observed, {200 - holes['n']}",
        f"imputed, {holes['n']}",
    ]
    bars = [patch for container in axes.containers for patch in container]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(2)
    figure.savefig(pa.BufferOutputStream())
    with pytest.raises(DataError, match="X must have a missing cell"):
        plot_imputed(model, model.transform(table))


def test_a_page_tells_the_level_of_its_bounds_to_the_digit(model: TabMAE, table: pd.DataFrame) -> None:
    assert "Bounds hold 99.5% of the missing numbers" in html_report(model, table, level=0.995)


def test_a_page_bounds_only_the_rows_whose_cells_it_shows(
    model: TabMAE, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = imputed_cells(model, table)
    bound, n_rows = TabMAE.predict_interval, []

    def watched(self: TabMAE, X: Any, level: float) -> Any:
        n_rows.append(len(X))
        return bound(self, X, level)

    monkeypatch.setattr(TabMAE, "predict_interval", watched)
    assert f"5 of {len(whole)}." in html_report(model, table, n_cells=5) and n_rows.pop() <= 5
    places = np.linspace(0, len(whole) - 1, 5).round().astype(int)
    for X in (table, pl.from_pandas(table), pa.Table.from_pandas(table, preserve_index=False)):
        found, n_cells = some_cells(model, X, 0.9, 5)
        assert n_cells == len(whole) and n_rows.pop() <= 5
        expected = whole.iloc[places]
        assert found["column"].tolist() == expected["column"].tolist()
        positions = table.index.get_indexer(expected["row"]).tolist()
        assert found["row"].tolist() == (expected["row"].tolist() if X is table else positions)
        assert found["probability"].tolist() == pytest.approx(expected["probability"].tolist(), nan_ok=True)
        lower = found["lower"].map(lambda cell: cell if isinstance(cell, float) else 0.0)
        assert lower.tolist() == pytest.approx(
            expected["lower"].map(lambda cell: cell if isinstance(cell, float) else 0.0).tolist()
        )
