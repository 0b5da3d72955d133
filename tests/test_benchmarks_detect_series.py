"""Claims about the benchmark of odd stretches: labels by time, a normal training part, nothing twice, no label seen."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.detect_packages import MODULES
from benchmarks.detect_series import (
    KEY,
    METHODS,
    OF_STUMPY,
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
    """Write a row of a peer, and rows of a peer and of this project for the other data set."""
    options = ["--data", str(data), "--out", str(out), "--threads", "1", "--every", "2"]
    main([*options, "--datasets", "NAB", "--methods", "kmeans"])
    main([*options, "--datasets", "SMAP", "--methods", "kmeans", "tabmae-untrained"])


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


@pytest.mark.parametrize("method", [name for name in OF_WINDOWS if name not in MODULES])
def test_a_peer_ranks_the_halt_above_the_rest(data: Path, method: str) -> None:
    task = load_series("SMAP", "A-1", data)
    scores = scores_of(method, task.train, task.test, 0)[""]
    assert len(scores) == 500 and np.median(scores[task.labels]) > np.quantile(scores[~task.labels], 0.9)


def stump(one: np.ndarray, window: int, other: np.ndarray | None, ignore_trivial: bool, normalize: bool) -> np.ndarray:
    """In the place of stumpy's function: nearest distances in the first column, windows near its own left out."""
    parts = [windows_of(part[:, None], window) for part in (one, one if other is None else other)]
    if normalize:
        parts = [(part - part.mean(axis=1, keepdims=True)) / part.std(axis=1, keepdims=True) for part in parts]
    gaps = np.linalg.norm(parts[0][:, None] - parts[1][None], axis=2)
    places = np.abs(np.subtract.outer(np.arange(len(parts[0])), np.arange(len(parts[1]))))
    nearest = np.where(ignore_trivial & (places < window / 4), np.inf, gaps).min(axis=1)
    return np.stack([nearest, nearest], axis=1).astype(object)


@pytest.mark.parametrize("method", OF_STUMPY)
@pytest.mark.parametrize("dataset", ["NAB", "SMAP"])
def test_a_matrix_profile_is_of_the_series_itself_or_from_training_to_test(
    data: Path, dataset: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("stumpy")
    module.__dict__["stump"] = stump
    monkeypatch.setitem(sys.modules, "stumpy", module)
    task = load_series(dataset, series_names(dataset, data)[0], data)
    noise = 0.01 * np.random.default_rng(1).normal(size=task.test.shape)
    train = task.train + noise if dataset == "NAB" else task.train
    test = train if dataset == "NAB" else task.test + noise
    scores = scores_of(method, train, test, 0)[""]
    assert len(scores) == len(test)
    assert np.median(scores[task.labels]) > np.quantile(scores[~task.labels], 0.75)


def test_an_autoencoder_learns_from_windows_of_training_and_scores_those_of_the_test(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AutoEncoder:
        def __init__(self, preprocessing: bool, verbose: int, random_state: int) -> None:
            assert (preprocessing, random_state) == (False, 3)

        def fit(self, X: np.ndarray) -> "AutoEncoder":
            assert X.shape == (321, 160)
            return self

        def decision_function(self, X: np.ndarray) -> np.ndarray:
            assert X.shape == (421, 160)
            return np.abs(X).sum(axis=1)

    module = ModuleType(MODULES["autoencoder"])
    module.__dict__["AutoEncoder"] = AutoEncoder
    monkeypatch.setitem(sys.modules, MODULES["autoencoder"], module)
    task = load_series("SMAP", "A-1", data)
    assert scores_of("autoencoder", task.train, task.test, 3)[""].shape == (500,)


def test_a_row_has_the_scores_of_the_method_and_of_its_members(rows: Path) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(line["dataset"], line["method"]) for line in lines] == [
        *[("NAB", "kmeans"), ("SMAP", "kmeans")],
        ("SMAP", "tabmae-untrained"),
    ]
    assert all(line["status"] == "ok" and 0.5 < line["vus_pr"] <= 1 for line in lines)
    assert {"residual", "gaussian", "clusters"} <= lines[2]["members"].keys() and not lines[1]["members"]
    assert set(KEY) <= lines[0].keys()


def test_a_run_is_not_repeated_and_the_table_has_a_line_a_method_and_member(data: Path, rows: Path) -> None:
    before = rows.read_text()
    run(data, rows)
    assert rows.read_text() == before
    text = report([rows])
    assert "1 series that nobody looked at in development" in text.split("**SMAP**")[0]
    assert "1 series of development" in text.split("**SMAP**")[1]
    for line in ("**NAB**", "**SMAP**", "| k-means of windows (KMeansAD) |", "| its gaussian alone |"):
        assert line in text


def test_a_run_needs_data_and_a_file_for_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "rows.jsonl"), "--methods", "kmeans"])
    assert "a run needs --data" in capsys.readouterr().err


def test_methods_of_absent_packages_say_where_they_come_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["--data", str(data), "--out", str(tmp_path / "rows"), "--methods", *METHODS])
    found = capsys.readouterr().err
    assert "autoencoder needs pyod: pip install pyod" in found and "matrix-profile, matrix-profile-raw need st" in found
