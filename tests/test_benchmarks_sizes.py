"""Claims about the benchmark of sizes: a table that can be imputed, the same for all, and no hopeless run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LinearRegression

from benchmarks import sizes
from benchmarks.sizes import Size, generate_table, hide_size, main, too_large


def test_a_generated_table_has_numbers_that_trees_explain_better_than_lines_and_categories_of_four_levels() -> None:
    table = generate_table(2_000, 20, 0)
    categories = table.select_dtypes("category")
    assert list(categories.columns) == ["c4", "c9", "c14", "c19"]
    assert (categories.nunique() == 4).all()
    numbers = table.drop(columns=categories.columns)
    first, second = numbers[:1_000], numbers[1_000:]
    shares = [
        np.mean(
            [
                model.fit(first.drop(columns=name), first[name]).score(second.drop(columns=name), second[name])
                for name in numbers.columns[:4]
            ]
        )
        for model in (LinearRegression(), ExtraTreesRegressor(20, max_features=0.5, random_state=0))
    ]
    assert 0.2 < shares[0] < shares[0] + 0.05 < shares[1] < 0.95
    pd.testing.assert_frame_equal(table, generate_table(2_000, 20, 0))


def test_the_first_rows_are_fitted_on_and_new_ones_follow() -> None:
    cells = hide_size(Size(60, 5, 40), 0.2, 0)
    assert cells.train_rows.tolist() == list(range(60)) and cells.test_rows.tolist() == list(range(60, 100))
    assert cells.hidden.sum(axis=0).tolist() == [20] * 5
    assert not np.isnan(cells.codes).any()


def test_a_size_is_too_large_where_no_larger_one_ran_out_of_time() -> None:
    late = [Size(2_000, 50, 0)]
    assert too_large(Size(2_000, 200, 0), late) and too_large(Size(20_000, 50, 0), late)
    assert not too_large(Size(20_000, 10, 0), late) and not too_large(Size(200, 200, 0), late)


def test_runs_are_written_and_resumed_and_larger_sizes_than_one_out_of_time_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizes, "GRID", [Size(50, 5, 0), Size(100, 5, 0)])
    monkeypatch.setattr(sizes, "NEW_ROWS", Size(50, 5, 70))
    out = tmp_path / "rows.jsonl"
    options = ["--out", str(out), "--threads", "1", "--methods"]
    for _ in range(2):
        main([*options, "mean", "--new-rows-methods", "mean"])
    for _ in range(2):
        main([*options, "knn", "--new-rows-methods", "--timeout", "0.05"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["method"], row["rows"], row["new_rows"], row["status"]) for row in rows] == [
        *[("mean", 50, 0, "ok"), ("mean", 100, 0, "ok"), ("mean", 50, 70, "ok")],
        *[("knn", 50, 0, "timeout"), ("knn", 100, 0, "skipped")],
    ]
    assert rows[0]["nrmse"] == pytest.approx(1, abs=0.4)
    capsys.readouterr()
    main(["--report", str(out)])
    printed = capsys.readouterr().out
    assert f"| 50 x 5 | 0.0 ({rows[0]['nrmse']:.3f}) | over 0.05 s |" in printed
    assert f"| 100 x 5 | 0.0 ({rows[1]['nrmse']:.3f}) | skipped |" in printed
    assert "mean / mode, fitted on 50 x 5, completes 70 new rows in 0.0 processor seconds" in printed
