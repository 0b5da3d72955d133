"""The benchmark of few labels: who sees what, and what the table is made of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.few_labels import HOLES, Task, fit_method, intervals, main, score, tasks
from tabmae import TabMAERegressor

N_ROWS = 80
FEATURES = pd.DataFrame(np.random.default_rng(0).normal(size=(N_ROWS, 3)), columns=list("abc"))
TARGET = pd.Series(np.where(FEATURES["a"] > 0, "yes", "no"))


def test_labels_are_nested_and_hidden_cells_are_those_of_larger_shares() -> None:
    found = tasks(FEATURES, TARGET, "classification", [10, 20, 0], 0)
    assert [int(task.known.notna().sum()) for task in found.values()] == [10, 20, N_ROWS // 2]
    few, more = found[10], found[20]
    assert more.known[few.known.notna()].equals(few.known[few.known.notna()])
    assert not set(few.learnt.index) & set(few.truth.index)
    holes = [few.asked[str(share)].isna().to_numpy() for share in HOLES]
    assert not holes[0].any() and (holes[1] <= holes[2]).all()
    assert [hidden.mean() for hidden in holes] == pytest.approx(HOLES, abs=0.1)


def test_a_count_of_labels_that_the_table_does_not_have_is_left_out() -> None:
    assert list(tasks(FEATURES, TARGET, "classification", [10, N_ROWS], 0)) == [10]


@pytest.mark.parametrize("method", ["boosting", "masked-boosting", "forest", "linear"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_peers_learn_the_labelled_rows_alone(method: str, kind: str) -> None:
    holes = np.random.default_rng(1).random((N_ROWS, 4)) < 0.1
    table = FEATURES.assign(city=pd.Categorical(np.where(FEATURES["b"] > 0, "x", "y"))).mask(holes)
    target = TARGET if kind == "classification" else FEATURES["a"]
    known = target.where(np.arange(N_ROWS) < 60)
    model = fit_method(method, kind, 0, table, known)
    assert score(model, table.iloc[60:], target.iloc[60:], kind) > 0
    same = fit_method(method, kind, 0, table.iloc[:60], known.iloc[:60])
    assert score(same, table.iloc[60:], target.iloc[60:], kind) == score(model, table.iloc[60:], target.iloc[60:], kind)


def test_a_run_that_is_written_is_not_repeated_and_the_report_has_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    options = ["--tables", "iris", "--methods", "boosting", "linear", "--labels", "30", "0", "--seeds", "0"]
    run = [*options, "--out", str(out), "--threads", "1"]
    main(run)
    main(run)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["labels"], row["method"]) for row in rows] == [
        (labels, method) for labels in (30, 0) for method in ("boosting", "linear")
    ]
    capsys.readouterr()
    main(["--report", str(out)])
    printed = capsys.readouterr().out
    assert "classification, 30 labels" in printed and "classification, all labels" in printed
    page = tmp_path / "page.md"
    page.write_text("<!-- few-labels:start -->\n<!-- few-labels:end -->\n")
    main(["--report", str(out), "--short", str(page)])
    few = [row for row in rows if row["labels"] == 30]
    assert "30 labels" in page.read_text()
    assert all(f"{found:.3f}" in page.read_text() for row in few for found in row["scores"].values())
    for row in rows:
        assert f"{row['scores']['0.3']:.3f}" in printed


def test_intervals_of_numbers_are_measured_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = FEATURES["a"] + 1
    quick = TabMAERegressor(max_epochs=1, d_token=4, members=("linear",), random_state=0).fit(FEATURES, truth)
    task = Task("regression", FEATURES, truth, {str(share): FEATURES for share in HOLES}, truth)
    found = intervals(quick, task)
    lower, upper = quick.predict_interval(FEATURES, 0.9)
    assert found["coverage"]["0.3"] == pytest.approx(((lower <= truth) & (truth <= upper)).mean())
    assert found["width"]["0.6"] == pytest.approx((upper - lower).mean() / truth.std(ddof=0))
    about = {"dataset": "a", "rows": N_ROWS, "task": "regression", "labels": 50, "seed": 0, "method": "tabmae"}
    seconds = {"fit_seconds": 1.0, "predict_seconds": 1.0, "commit": "c"}
    row = {**about, "status": "ok", "scores": dict.fromkeys(map(str, HOLES), 0.5), **seconds}
    told = {"coverage": {"0.0": 0.91, "0.3": 0.87, "0.6": 0.83}, "width": {"0.0": 1.21, "0.3": 1.43, "0.6": 1.75}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | told))
    main(["--report", str(tmp_path / "rows.jsonl")])
    assert "| 50 labels | 1 | 0.910 | 0.870 | 0.830 | 1.210 | 1.430 | 1.750 |" in capsys.readouterr().out
