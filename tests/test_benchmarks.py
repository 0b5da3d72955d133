"""Claims about the benchmarks: the same cells for every method, nothing run twice, every number from the rows."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.cells import copy_patterns, hide_cells, score_cells
from benchmarks.markdown import markers
from benchmarks.missforest import MissExtraTrees
from benchmarks.peers import Iterative, MeanMode, Neighbours
from benchmarks.report import main, read_rows
from benchmarks.runs import append_rows, read_lines
from benchmarks.tables import BUNDLED, MAX_LEVELS, load_table, table_names
from benchmarks.worker import codes_of, frame_of

ROOT = Path(__file__).parent.parent
START, END = markers("benchmark")


def impute(out: Path, *arguments: str) -> str:
    command = [
        sys.executable,
        "-m",
        "benchmarks.impute",
        "--out",
        str(out),
        "--threads",
        "1",
        "--seeds",
        "0",
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the mean and of the nearest neighbours on iris."""
    out = tmp_path_factory.mktemp("benchmarks") / "rows.jsonl"
    impute(out, "--tables", "iris", "--methods", "mean", "knn")
    return out


def test_a_run_writes_a_row_for_each_split_with_errors_costs_and_versions(rows: Path) -> None:
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["method"], row["split"]) for row in written] == [
        *[("mean", "in"), ("mean", "out")],
        *[("knn", "in"), ("knn", "out")],
    ]
    for row in written:
        assert row["status"] == "ok" and (row["rows"], row["columns"], row["categories"]) == (150, 5, 1)
        assert row["nrmse"] == pytest.approx(np.mean(list(row["nrmse_columns"].values())))
        assert set(row["accuracy_columns"]) == {"target"}
        assert row["cpu_seconds"] > 0 and row["peak_mb"] > 10 and row["versions"]["numpy"] == np.__version__
    assert written[2]["nrmse"] < 0.7 < 0.9 < written[0]["nrmse"]
    assert written[0]["accuracy"] < 0.5 < 0.8 < written[2]["accuracy"]


def test_every_method_is_scored_on_the_same_cells(rows: Path) -> None:
    assert len({json.loads(line)["cells"] for line in rows.read_text().splitlines()}) == 1


def test_a_second_run_repeats_nothing_and_adds_what_is_new(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text(rows.read_text())
    printed = impute(out, "--tables", "iris", "--methods", "mean", "knn", "iterative", "--timeout", "0.1")
    assert out.read_text().startswith(rows.read_text())
    added = [json.loads(line) for line in out.read_text().splitlines()[4:]]
    assert [(row["method"], row["status"], row["reason"]) for row in added] == [("iterative", "timeout", "over 0.1 s")]
    assert "iterative in: over 0.1 s" in printed


def test_the_report_writes_its_tables_between_the_markers_and_nothing_else(rows: Path, tmp_path: Path) -> None:
    short, full, picture = tmp_path / "short.md", tmp_path / "full.md", tmp_path / "picture.png"
    for page in (short, full):
        page.write_text(f"before\n{START}\nold figures\n{END}\nafter\n")
    for _ in range(2):
        main([str(rows), "--short", str(short), "--full", str(full), "--picture", str(picture)])
    knn = [json.loads(line)["nrmse"] for line in rows.read_text().splitlines()[2:]]
    for page in (short, full):
        text = page.read_text()
        assert text.startswith((f"before\n{START}\n1 table ", f"before\n{START}\n### MCAR, 30%"))
        assert text.endswith(f"\n{END}\nafter\n") and "old figures" not in text
        line = next(line for line in text.splitlines() if line.startswith("| KNNImputer(5)"))
        assert f"| **{knn[0]:.3f}** | **{knn[1]:.3f}** |" in line
    assert "| iris | " in full.read_text()
    assert picture.stat().st_size > 1000


def test_the_report_refuses_rows_of_other_hidden_cells(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    lines[0]["cells"] = "other"
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="Methods must share their hidden cells"):
        read_rows([out])


def test_cells_are_hidden_in_both_splits_and_natively_missing_ones_are_not_scored() -> None:
    frame = load_table("wine", None, [], 0, 0)
    frame.iloc[:50, 0] = np.nan
    cells = hide_cells(frame, "mcar", 0.3, 0)
    assert cells.is_train.sum() == round(0.7 * 178)
    assert (np.abs(cells.hidden[~cells.is_train, 1:].mean(axis=0) - 0.3) < 0.2).all()
    assert not cells.hidden[:50, 0].any()
    rows = np.flatnonzero(cells.is_train)
    assert score_cells(cells, rows, cells.codes[rows])["nrmse"] == 0
    assert score_cells(cells, rows, cells.codes[rows])["accuracy"] == 1
    means = np.tile(np.nanmean(cells.codes, axis=0), (len(rows), 1))
    assert score_cells(cells, rows, means)["nrmse"] == pytest.approx(1, abs=0.1)


def test_natural_holes_are_those_of_other_rows_and_leave_every_row_and_column_a_known_cell() -> None:
    known = np.random.default_rng(0).random((400, 4)) > 0.2
    known[:30] = [True, False, False, False]
    hidden = copy_patterns(known, 0.5, np.random.RandomState(0))
    hit = hidden.any(axis=1)
    patterns = {tuple(row) for row in known if not row.all()}
    assert not (hidden & ~known).any() and (known & ~hidden)[known.any(axis=1)].any(axis=1).all()
    assert all(
        any((row & ~np.array(p) == lost).all() for p in patterns)
        for row, lost in zip(known[hit], hidden[hit], strict=True)
    )
    assert 0.3 < hit.mean() <= 0.5
    np.testing.assert_array_equal(hidden, copy_patterns(known, 0.5, np.random.RandomState(0)))
    one_column = np.ones((50, 2), dtype=bool)
    one_column[0, 1] = False
    hidden = copy_patterns(one_column, 1.0, np.random.RandomState(0))
    assert hidden[:, 1].sum() == 48 and not hidden[:, 0].any()


def test_natural_holes_hide_categories_too_and_need_a_table_with_holes() -> None:
    frame = load_table("iris", None, [], 0, 0)
    with pytest.raises(ValueError, match="Natural holes need a table with missing cells"):
        hide_cells(frame, "natural", 0.5, 0)
    frame.loc[:30, ["target", "petal width (cm)"]] = np.nan
    cells = hide_cells(frame, "natural", 0.5, 0)
    assert (cells.hidden[:, 3] == cells.hidden[:, 4]).all() and not cells.hidden[:, :3].any()
    few = score_cells(cells, cells.test_rows[:1], cells.codes[cells.test_rows[:1]], least=10)
    assert few["nrmse"] is None and few["accuracy"] is None


def test_dates_become_days_and_identifiers_and_nearly_empty_columns_are_dropped(tmp_path: Path) -> None:
    row = np.arange(3 * MAX_LEVELS)
    levels = np.char.add("level ", (row % MAX_LEVELS).astype(str))
    frame = pd.DataFrame(
        {
            "day": pd.Timestamp("1970-01-02") + pd.to_timedelta(row, unit="D"),
            "flag": row % 2 == 0,
            "city": levels,
            "name": np.char.add("person ", row.astype(str)),
            "ticket": np.char.add("ticket ", (row % (MAX_LEVELS + 1)).astype(str)),
            "rare": np.where(row < 5, 1.0, np.nan),
        }
    )
    frame.to_parquet(tmp_path / "people.parquet")
    table = load_table("people", tmp_path, [], 0, 0)
    assert table.dtypes.astype(str).to_dict() == {"day": "float64", "flag": "category", "city": "category"}
    assert table["day"].tolist() == (row + 1.0).tolist()
    assert table["city"].tolist() == levels.tolist()
    assert table_names(["natural"], None, ["x"])[-2:] == ["adult", "x"]


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_table_survives_the_way_to_a_worker_and_back(name: str) -> None:
    cells = hide_cells(load_table(name, None, [], 100, 0), "mcar", 0.3, 0)
    visible = cells.visible(np.arange(len(cells.codes)))
    np.testing.assert_array_equal(codes_of(frame_of(visible, cells.names, cells.levels)), visible)


@pytest.mark.parametrize("method", [MeanMode, Neighbours, Iterative, MissExtraTrees])
def test_a_peer_fills_every_cell_of_old_and_new_rows_and_changes_no_other(method: Any) -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=60)
    city = np.where(factor > 0, "Oslo", "Rome")
    frame = pd.DataFrame({"x": factor, "y": 3 * factor, "city": pd.Categorical(city)}).mask(rng.random((60, 3)) < 0.2)
    peer = method(seed=0, n_jobs=1)
    old, new = frame[:40], frame[40:].reset_index(drop=True)
    for before, after in ((old, peer.fit_transform(old)), (new, peer.transform(new))):
        assert not after.isna().any(axis=None) and (after.dtypes == before.dtypes).all()
        known = before.notna()
        assert np.allclose(after["y"][known["y"]], before["y"][known["y"]])
        assert (after["city"][known["city"]] == before["city"][known["city"]]).all()
    if method is not MeanMode:
        filled = peer.transform(new)["y"] - 3 * pd.Series(factor[40:])
        assert filled[new["y"].isna() & new["x"].notna()].abs().mean() < 1


def test_packed_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    plain, packed = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.gz"
    append_rows(plain, [{"a": 1}, {"a": 2}])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_lines([packed]) == read_lines([plain]) == [{"a": 1}, {"a": 2}]
