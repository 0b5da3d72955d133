"""Claims about the benchmark of odd stretches: labels by time, a normal training part, nothing twice, no label seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.detect_series import (
    KEY,
    OF_WINDOWS,
    load_series,
    main,
    over_windows,
    report,
    scores_of,
    series_names,
    windows_of,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated files under the names of the published ones: a rhythm with a halt in it."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    labels = {"real/a.csv": [["2024-01-01 05:00:00", "2024-01-01 05:59:00"]], "real/b.csv": [], "real/gone.csv": [[]]}
    (folder / "NAB" / "data" / "real").mkdir(parents=True)
    (folder / "NAB" / "labels").mkdir()
    (folder / "NAB" / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    for name in "ab":
        values = wave(rng, 600)
        values[300:360] = 1.5
        stamps = pd.date_range("2024-01-01", periods=600, freq="min")
        path = folder / "NAB" / "data" / "real" / f"{name}.csv"
        pd.DataFrame({"timestamp": stamps, "value": values}).to_csv(path, index=False)
    (folder / "SMAP").mkdir()
    for number in (1, 2):
        test = np.stack([wave(rng, 500), wave(rng, 500)], axis=1)
        test[200:250, 1] = 1.5
        train = np.stack([wave(rng, 400), wave(rng, 400)], axis=1)
        np.savez(folder / "SMAP" / f"A-{number}.npz", train=train, test=test, label=np.arange(500) // 50 == 4)
    return folder


def wave(rng: np.random.Generator, n_steps: int) -> Any:
    return np.sin(np.arange(n_steps) / 3) + 0.1 * rng.normal(size=n_steps)


def run(data: Path, out: Path) -> None:
    methods = ["kmeans", "tabmae-untrained"]
    main(["--data", str(data), "--out", str(out), "--threads", "1", "--every", "2", "--methods", *methods])


def test_labels_lie_where_the_stamps_do_and_only_series_with_some_are_taken(data: Path) -> None:
    assert series_names("NAB", data) == ["real/a.csv"] and series_names("SMAP", data) == ["A-1", "A-2"]
    task = load_series("NAB", "real/a.csv", data)
    assert np.flatnonzero(task.labels)[[0, -1]].tolist() == [300, 359] and task.train is task.test
    task = load_series("SMAP", "A-1", data)
    assert (task.train.shape, task.test.shape, int(task.labels.sum())) == ((400, 2), (500, 2), 50)


def test_windows_come_back_to_their_steps() -> None:
    series = np.arange(12.0).reshape(6, 2)
    assert windows_of(series, 3)[1].tolist() == [2, 3, 4, 5, 6, 7]
    assert over_windows(np.array([0.0, 3.0, 0.0, 0.0]), 3).tolist() == [0, 1.5, 1, 1, 0, 0]


@pytest.mark.parametrize("method", OF_WINDOWS)
def test_a_peer_ranks_the_halt_above_the_rest(data: Path, method: str) -> None:
    task = load_series("SMAP", "A-1", data)
    scores = scores_of(method, task.train, task.test, 0)[""]
    assert len(scores) == 500 and np.median(scores[task.labels]) > np.quantile(scores[~task.labels], 0.9)


def test_a_row_has_the_scores_of_the_method_and_of_its_members(rows: Path) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(line["dataset"], line["method"]) for line in lines] == [
        (dataset, method) for dataset in ("NAB", "SMAP") for method in ("kmeans", "tabmae-untrained")
    ]
    assert all(line["status"] == "ok" and 0.5 < line["vus_pr"] <= 1 for line in lines)
    assert {"residual", "gaussian", "clusters"} <= lines[1]["members"].keys() and not lines[0]["members"]
    assert set(KEY) <= lines[0].keys()


def test_a_run_is_not_repeated_and_the_table_has_a_line_a_method_and_member(data: Path, rows: Path) -> None:
    before = rows.read_text()
    run(data, rows)
    assert rows.read_text() == before
    text = report([rows])
    for line in ("**NAB**", "**SMAP**", "| k-means of windows (KMeansAD) |", "| its gaussian alone |"):
        assert line in text


def test_a_run_needs_data_and_a_file_for_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "rows.jsonl"), "--methods", "kmeans"])
    assert "a run needs --data" in capsys.readouterr().err
