"""Claims about the benchmark of what follows an imputation: nothing leaks, and the scores are the models'."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cells import hide_cells
from benchmarks.downstream import MODELS, load_task, main, make_model, score_model
from benchmarks.worker import frame_of


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean and no imputation on two small tables."""
    out = tmp_path_factory.mktemp("downstream") / "rows.jsonl"
    run(out)
    return out


def run(out: Path) -> None:
    few = ["--tables", "iris", "diabetes", "--methods", "nan", "mean", "--seeds", "0", "--threads", "1"]
    main(["--out", str(out), "--max-rows", "100", *few])


def test_the_target_is_no_feature_and_rows_without_it_are_left_out(tmp_path: Path) -> None:
    load = {"x": np.arange(50.0), "Heating Load": np.r_[np.nan, np.arange(49.0)], "Cooling Load": np.arange(50.0)}
    pd.DataFrame(load).to_parquet(tmp_path / "energy.parquet")
    features, target, task = load_task("energy", tmp_path, 0, 0)
    assert list(features.columns) == ["x"] and task == "regression"
    assert features["x"].tolist() == list(range(1, 50)) and target.notna().all()


def test_a_run_gives_a_row_for_each_model_and_boosting_alone_takes_missing_cells(rows: Path) -> None:
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["dataset"], row["method"], row["model"]) for row in written] == [
        *[("iris", "nan", "boosting"), ("diabetes", "nan", "boosting")],
        *[(dataset, "mean", model) for dataset in ("iris", "diabetes") for model in MODELS],
    ]
    assert all(row["auroc"] > 0.8 for row in written if row["dataset"] == "iris")
    assert all(row["r2"] > -0.5 for row in written if row["dataset"] == "diabetes")
    assert len({(row["dataset"], row["cells"]) for row in written}) == 2


def test_a_second_run_repeats_nothing(rows: Path) -> None:
    before = rows.read_text()
    run(rows)
    assert rows.read_text() == before


def test_the_report_has_a_line_for_each_method_and_model(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--report", str(rows)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of classification, 1 of regression; MCAR 30%")
    assert lines[2] == "|  | runs | AUROC | R2 | rank | CPU s | wall s |"
    labels = [line.split(" |")[0] for line in lines[4:]]
    assert labels == ["| left missing, then boosting", "| mean / mode, then boosting", "| mean / mode, then linear"]
    row = next(json.loads(line) for line in rows.read_text().splitlines() if '"linear"' in line)
    assert f"| {row['auroc']:.3f} |" in lines[-1].replace("*", "")


@pytest.mark.parametrize("model", MODELS)
def test_a_model_scores_on_test_rows_alone(model: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    features = pd.DataFrame({"x": x, "city": pd.Categorical(np.where(rng.random(200) < 0.5, "Oslo", "Rome"))})
    cells = hide_cells(features, "mcar", 0.3, 0)
    train, test = (
        frame_of(cells.codes[chosen], cells.names, cells.levels) for chosen in (cells.is_train, ~cells.is_train)
    )
    for task, target in {
        "classification": pd.Series(np.where(x > 0.5, "a", np.where(x > -0.5, "b", "c"))),
        "regression": pd.Series(x),
    }.items():
        score = score_model(make_model(model, task, 0), train, test, target, cells, task)
        noise = target.where(
            cells.is_train,
            target[~cells.is_train].sample(frac=1, random_state=0).set_axis(np.flatnonzero(~cells.is_train)),
        )
        wrong = score_model(make_model(model, task, 0), train, test, noise, cells, task)
        assert score > 0.8 > 0.7 > wrong
