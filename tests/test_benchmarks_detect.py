"""Claims about the benchmark of detectors: the same rows for every method, nothing twice, figures from the rows."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.detect_packages import MODULES, installed, needs
from benchmarks.detect_tables import LEAST_OUTLIERS, load_set, main, make_task, parse_arguments, report
from benchmarks.detecting import METHODS, judged
from benchmarks.markdown import markers

START, END = markers("detect")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one set: 200 rows along a line, and 40 off it, first in the file."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(240, 1))
    rows = np.hstack([factor, factor, -factor]) + 0.1 * rng.normal(size=(240, 3))
    rows[:40, 1] += 3
    (folder / "ad").mkdir()
    np.savez(folder / "ad" / "line.npz", X=rows, y=np.r_[np.ones(40), np.zeros(200)])
    return folder


def run(data: Path, out: Path) -> None:
    few = ["--methods", "knn", "tabmae-distances", "--seeds", "0", "--threads", "1", "--missing", "0", "0.2"]
    main(["--data", str(data), "--out", str(out), *few])


def test_a_run_gives_a_row_with_scores_and_costs_and_none_is_repeated(data: Path, rows: Path) -> None:
    before = rows.read_text()
    found = [json.loads(line) for line in before.splitlines()]
    assert [(row["method"], row["missing"]) for row in found] == [
        *[("knn", 0), ("tabmae-distances", 0)],
        *[("knn", 0.2), ("tabmae-distances", 0.2)],
    ]
    assert all(row["status"] == "ok" and row["auroc"] > 0.8 and row["seconds"] > 0 for row in found)
    run(data, rows)
    assert rows.read_text() == before


def test_the_report_stands_between_its_markers(rows: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    main(["--report", str(rows), "--write", str(page)])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "**Clean.** " in text and "**Clean, 20% of all cells hidden.** " in text
    row = json.loads(rows.read_text().splitlines()[0])
    (line,) = [line for line in text.splitlines() if "kNN (5), mean" in line and f"{100 * row['auroc']:.1f}" in line]
    assert f"{100 * row['auprc']:.1f}" in line


def test_half_of_the_normal_rows_train_and_no_row_is_on_both_sides(data: Path) -> None:
    cells, is_outlier = load_set("line", data, 0, 0)
    clean, published = (make_task(cells, is_outlier, protocol, 0, 0) for protocol in ("clean", "published"))
    assert len(clean.train) == 100 and clean.is_outlier.sum() == 40 and len(clean.test) == 140
    assert not {tuple(row) for row in clean.train} & {tuple(row) for row in clean.test}
    assert len(published.train) + len(published.test) == 1000
    contaminated = make_task(cells, is_outlier, "contaminated", 0, 0)
    assert contaminated.same and contaminated.train is contaminated.test and len(contaminated.test) == 240


def test_a_sample_keeps_outliers_and_holes_do_not_depend_on_the_method(data: Path) -> None:
    cells, is_outlier = load_set("line", data, 60, 0)
    assert is_outlier.sum() == LEAST_OUTLIERS and 60 <= len(cells) <= 60 + LEAST_OUTLIERS
    one, other = (make_task(cells, is_outlier, "clean", 0.3, 0) for _ in range(2))
    np.testing.assert_array_equal(one.test, other.test)
    assert np.isnan(one.train).mean() == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in (*MODULES, "tabmae", "tabmae-network")])
def test_higher_is_odder_for_every_peer_with_and_without_holes(data: Path, method: str) -> None:
    cells, is_outlier = load_set("line", data, 0, 0)
    for protocol, missing, first in (("clean", 0.0, 0), ("clean", 0.1, 0), ("contaminated", 0.0, 35)):
        task = make_task(cells[first:], is_outlier[first:], protocol, missing, 0)
        scores, p_values = judged(method, task.train, task.test, task.same, 0)
        assert (p_values is None) == (method != "tabmae-distances")
        assert roc_auc_score(task.is_outlier, scores) > 0.7


class Detector:
    """In the place of a package's detector: scores by the distance to the mean, and keeps what it was given."""

    made: "list[Detector]"

    def __init__(self, *given: int, **settings: Any) -> None:
        self.given, self.settings = given, settings
        self.made.append(self)

    def fit(self, X: np.ndarray) -> "Detector":
        self.learnt = X
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return np.abs(X - self.learnt.mean(axis=0)).max(axis=1)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        *[("hbos", "HBOS"), ("ecod", "ECOD")],
        *[("autoencoder", "AutoEncoder"), ("lunar", "LUNAR"), ("deepsvdd", "DeepSVDD"), ("icl", "ICL")],
    ],
)
def test_detectors_of_packages_get_complete_standardised_rows_and_networks_the_seed(
    data: Path, method: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, Detector.made = ModuleType(MODULES[method]), []
    setattr(module, name, Detector)
    monkeypatch.setitem(sys.modules, MODULES[method], module)
    for missing in (0.0, 0.1):
        task = make_task(*load_set("line", data, 0, 0), "clean", missing, 0)
        scores, p_values = judged(method, task.train, task.test, False, 7)
        assert p_values is None and roc_auc_score(task.is_outlier, scores) > 0.7
    whole, holed = Detector.made
    np.testing.assert_allclose(whole.learnt.std(axis=0), 1)
    assert not np.isnan(holed.learnt).any() and whole.given in ((), (3,))
    assert whole.settings.get("random_state") == (None if method in ("hbos", "ecod") else 7)


def test_alarms_are_the_normal_rows_that_p_values_flag(data: Path, rows: Path) -> None:
    peer, ours = (json.loads(line) for line in rows.read_text().splitlines()[:2])
    task = make_task(*load_set("line", data, 0, 0), "clean", 0.0, 0)
    _, p_values = judged("tabmae-distances", task.train, task.test, False, 0)
    assert p_values is not None and "alarms 5%" not in peer
    assert ours["alarms 5%"] == pytest.approx((p_values[~task.is_outlier] <= 0.05).mean())
    text = report([rows])
    assert "alarms 5%" in text and f"{100 * ours['alarms 5%']:.2f}" in text


def test_methods_of_fewer_seeds_have_a_table_of_their_own(rows: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    first = min(line["seed"] for line in lines)
    lines += [{**line, "seed": first + 1} for line in lines]
    lines += [{**line, "method": "lunar"} for line in lines if line["method"] == "knn" and line["seed"] == first]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole, fewer = report([more]).split("**Clean.**")[1:3]
    assert f"seeds {first}, {first + 1}" in whole and "LUNAR" not in whole
    assert f"seeds {first}; " in fewer and "LUNAR" in fewer and "kNN" in fewer


def test_a_run_needs_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "rows.jsonl")])
    assert "a run needs --data DIR" in capsys.readouterr().err


def test_methods_of_absent_packages_are_no_default_and_say_where_they_come_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [name for name in METHODS if not installed(name)] == [name for name in METHODS if name in MODULES]
    assert not set(parse_arguments(["--data", str(data), "--out", str(tmp_path / "rows")]).methods) & MODULES.keys()
    with pytest.raises(SystemExit):
        main(["--data", str(data), "--out", str(tmp_path / "rows"), "--methods", "knn", "lunar", "ecod", "icl"])
    assert "lunar, ecod need pyod: pip install pyod; icl needs deepod: pip install --no-deps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert needs(METHODS) in " ".join(capsys.readouterr().out.split())
