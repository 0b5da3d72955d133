"""Claims about the comparison of settings: means and ratios of the same runs, and every exception named."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.markdown import markdown, markers, write_section
from benchmarks.report import read_rows
from benchmarks.report_settings import exceptions, main, relative, side_by_side

SPLITS = ("in", "out")


def a_run(method: str, dataset: str, mechanism: str, nrmse: float, accuracy: float, seconds: float) -> list[str]:
    """Give the lines of a run, a split each."""
    about = {"dataset": dataset, "rows": 100, "categories": 1, "mechanism": mechanism, "fraction": 0.3, "seed": 0}
    scores = {"nrmse": nrmse, "accuracy": accuracy, "cpu_seconds": seconds, "fit_seconds": seconds}
    rest = {"transform_seconds": 0.0, "status": "ok", "cells": "same", "versions": {}, "commit": "c"}
    return [json.dumps({**about, "method": method, "split": split, **scores, **rest}) for split in SPLITS]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two tables under two mechanisms; MissForest lacks one of the four runs."""
    lines = [
        *a_run("tabmae", "a", "mcar", 0.5, 0.8, 1.0),
        *a_run("tabmae", "b", "mcar", 0.7, 0.8, 3.0),
        *a_run("tabmae", "a", "mnar", 0.6, 0.8, 1.0),
        *a_run("tabmae", "b", "mnar", 0.8, 0.8, 1.0),
        *a_run("missforest", "a", "mcar", 0.6, 0.9, 5.0),
        *a_run("missforest", "b", "mcar", 0.65, 0.7, 3.0),
        *a_run("missforest", "a", "mnar", 0.59, 0.81, 2.0),
        *a_run("mean", "a", "mcar", 1.0, 0.5, 0.0),
        *a_run("mean", "b", "mcar", 1.0, 0.5, 0.0),
        *a_run("mean", "a", "mnar", 1.2, 0.5, 0.0),
        *a_run("mean", "b", "mnar", 1.0, 0.5, 0.0),
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_setting_is_a_column_and_a_mean_over_fewer_runs_says_so(file: Path) -> None:
    means = side_by_side(read_rows([file]), "nrmse", "in", ranked=False)
    assert list(means.columns) == ["mcar 30%", "mnar 30%", "mean"]
    assert means.loc["tabmae"].tolist() == pytest.approx([0.6, 0.7, 0.65])
    assert means.loc["missforest", "mnar 30%"] == "0.590 (1 of 2)" and pd.isna(means.loc["missforest", "mean"])


def test_ranks_are_among_the_methods_that_finished_the_setting(file: Path) -> None:
    ranks = side_by_side(read_rows([file]), "nrmse", "out", ranked=True)
    assert ranks["mcar 30%"].to_dict() == {"mean": 3.0, "missforest": 1.5, "tabmae": 1.5}
    assert ranks["mnar 30%"].dropna().to_dict() == {"mean": 2.0, "tabmae": 1.0}


def test_ratios_are_of_the_runs_that_both_finished(file: Path) -> None:
    compared = relative(read_rows([file]), "tabmae", "missforest")
    assert compared["nrmse in, ratio"].tolist() == pytest.approx([0.6 / 0.625, 0.6 / 0.59])
    assert compared["better in"].tolist() == ["1 of 2", "0 of 1"]
    assert compared["accuracy out, points"].tolist() == pytest.approx([0.0, -1.0])
    assert compared["CPU, ratio"].tolist() == pytest.approx([0.5, 0.5])


def test_an_exception_is_named_with_the_best_peer_and_the_difference(file: Path) -> None:
    found = exceptions(read_rows([file]), "tabmae")
    nrmse = found[found["score"] == "nrmse in"]
    assert nrmse.index.tolist() == ["b"]
    assert nrmse.loc["b", ["setting", "ours", "theirs", "worse by"]].tolist() == ["mcar 30%", 0.7, 0.65, "7.7%"]
    accuracy = found[found["score"] == "accuracy in"]
    assert accuracy.index.tolist() == ["a"] and accuracy.loc["a", "worse by"] == "10.0 points"


def test_each_section_is_written_between_its_own_markers(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    sections = ("settings", "sizes")
    page.write_text("top\n" + "".join("{}\nold\n{}\n".format(*markers(section)) for section in sections))
    write_section(page, "sizes", "figures")
    main([str(file), "--write", str(page), "--max-rows", "100"])
    text = page.read_text()
    assert text.startswith("top\n") and text.count("old") == 0
    assert "| **TabMAE** | **0.600** | **0.700** | **0.650** |" in text
    assert "3% of its error or 3 points of accuracy: 4 of 16 scores:" in text
    assert "{}\nfigures\n{}\n".format(*markers("sizes")) in text
    with pytest.raises(ValueError, match="must hold <!-- draws:start -->"):
        write_section(page, "draws", "figures")


def test_several_seeds_leave_out_the_methods_that_lack_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = [
        line.replace('"seed": 0', '"seed": 1').replace('"nrmse": 0.5,', '"nrmse": 0.7,')
        for line in (*a_run("tabmae", "a", "mcar", 0.5, 0.8, 1.0), *a_run("missforest", "a", "mcar", 0.9, 0.8, 1.0))
    ]
    file.write_text(file.read_text() + "\n".join(other) + "\n")
    main([str(file), "--several-seeds"])
    printed = capsys.readouterr().out
    assert "seeds 0, 1" in printed and "mean / mode" not in printed
    assert "| **TabMAE** | **0.650** |" in printed  # ((0.5 + 0.7) / 2 + 0.7) / 2


def test_text_beside_numbers_does_not_win_a_column() -> None:
    table = pd.DataFrame({"mcar": [0.5, "0.1 (1 of 2)"]}, index=["x", "y"])
    assert markdown(table, {}, {"mcar": True}).splitlines()[2:] == ["| x | **0.500** |", "| y | 0.1 (1 of 2) |"]
