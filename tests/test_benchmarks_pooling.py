"""Claims about the benchmark of pooled intervals: known truth, the same holes for every method, nothing run twice."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.pooling import (
    DRIVERS,
    N_DRAWS,
    TRUTH,
    design,
    drawn_by_iterative,
    generated,
    least_squares,
    main,
    numbers,
    with_holes,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables, without holes and imputed by the mean."""
    file = tmp_path_factory.mktemp("pooling") / "rows.jsonl"
    main(["--out", str(file), "--n-tables", "2", "--methods", "complete", "mean"])
    return file


def test_a_row_for_each_run_holds_every_coefficient(out: Path) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["table"], row["mechanism"], row["method"]) for row in rows] == [
        (table, mechanism, method)
        for table in range(2)
        for mechanism in ("mcar", "mar")
        for method in ("complete", "mean")
    ]
    for row in rows:
        assert row["status"] == "ok" and row["seconds"] >= 0 and list(row["coefficients"]) == list(TRUTH)
        for name, found in row["coefficients"].items():
            assert found["truth"] == TRUTH[name] and found["low"] < found["estimate"] < found["high"]
            assert found["covered"] == (found["low"] <= TRUTH[name] <= found["high"])
            assert found["width"] == pytest.approx(found["high"] - found["low"])
            assert found["fraction_missing"] == 0


def test_a_second_run_repeats_nothing_and_adds_what_is_new(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(out.read_text())
    main(["--out", str(file), "--n-tables", "3", "--methods", "mean", "--mechanisms", "mar"])
    assert file.read_text().startswith(out.read_text())
    assert len(file.read_text().splitlines()) == 9
    assert capsys.readouterr().out.startswith("mar 2 mean")


def test_the_report_has_a_line_for_each_method_relative_to_the_complete_tables(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--report", str(out)])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:3] for line in lines] == [
        [mechanism, method, "2"] for mechanism in ("MAR", "MCAR") for method in ("complete", "mean")
    ]
    assert [line[6] for line in lines if line[1] == "complete"] == ["1.00", "1.00"]
    rows = [json.loads(line)["coefficients"] for line in out.read_text().splitlines()]
    covered = [found["covered"] for row in (rows[1], rows[5]) for found in row.values()]
    assert lines[3][4] == f"{np.mean(covered):.3f}"


def test_a_run_that_fails_says_why_and_is_repeated_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(holes: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
        raise ValueError("no luck")

    run = ["--out", str(tmp_path / "rows.jsonl"), "--n-tables", "1", "--methods", "mean", "--mechanisms", "mcar"]
    with monkeypatch.context() as broken:
        broken.setitem(main.__globals__["METHODS"], "mean", fail)
        main(run)
    main(run)
    main([*run, "--retry-failed"])
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "ok"] and rows[0]["reason"] == "ValueError: no luck"


def test_large_tables_give_the_true_coefficients() -> None:
    table = generated(0, n_rows=100_000)
    coefficients, squares = least_squares(design(table), table["y"].to_numpy())
    assert (np.abs(coefficients - list(TRUTH.values())) < 4 * np.sqrt(squares)).all() and (squares < 2e-4).all()
    assert not np.allclose(generated(1)["x1"], generated(2)["x1"])


def test_least_squares_agrees_with_the_regression_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = 2 * x + rng.normal(size=20)
    coefficients, squares = least_squares(np.column_stack([np.ones(20), x]), y)
    line = stats.linregress(x, y)
    np.testing.assert_allclose(coefficients, [line.intercept, line.slope])
    np.testing.assert_allclose(np.sqrt(squares), [line.intercept_stderr, line.stderr])


def test_holes_are_in_every_column_or_in_all_but_the_drivers() -> None:
    table = generated(0)
    assert with_holes(table, "mcar", 0).isna().mean().tolist() == [0.3] * 6
    missing = with_holes(table, "mar", 0).isna()
    assert not missing[list(DRIVERS)].any(axis=None)
    assert (missing.drop(columns=list(DRIVERS)).mean() - 0.3).abs().max() < 0.1


def test_draws_keep_the_known_cells_and_differ_in_the_others() -> None:
    holes = with_holes(generated(0), "mcar", 0)
    one, other, *more = drawn_by_iterative(holes, 0)
    assert len(more) == N_DRAWS - 2
    missing = holes.isna()
    pd.testing.assert_frame_equal(one.mask(missing), numbers(holes))
    assert ((one != other) == missing).all(axis=None)
