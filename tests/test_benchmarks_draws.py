"""Claims about the benchmark of draws: its distances and coverages are the textbook's, and nothing runs twice."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import drawing
from benchmarks.cells import Hidden, hide_cells
from benchmarks.drawing import LEVELS, N_FOR_INTERVALS, bound_codes, drawn_by_iterative, drawn_by_tabmae
from benchmarks.draws import all_intervals, draw_scores, embedded, energy_distance, main, sliced_wasserstein
from benchmarks.tables import load_table
from benchmarks.worker import codes_of, frame_of
from tabmae import TabMAE


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean and the chained ridge on a small table."""
    out = tmp_path_factory.mktemp("draws") / "rows.jsonl"
    run(out)
    return out


def run(out: Path) -> None:
    few = ["--tables", "iris", "--methods", "mean", "iterative", "--seeds", "0", "--threads", "1", "--n-jobs", "1"]
    main(["--out", str(out), "--max-rows", "100", *few])


def independent(n_rows: int = 4_000) -> Hidden:
    """A table of two independent normal columns of deviation 3, every cell hidden."""
    codes = 3 * np.random.default_rng(0).normal(size=(n_rows, 2))
    return Hidden(["a", "b"], [0, 0], codes, np.ones_like(codes, dtype=bool), np.ones(n_rows, dtype=bool))


def test_a_run_gives_a_row_with_distances_and_the_intervals_of_draws(rows: Path) -> None:
    mean, iterative = (json.loads(line) for line in rows.read_text().splitlines())
    assert (mean["status"], mean["n_draws"], mean["intervals"]) == ("ok", 1, {})
    assert iterative["n_draws"] == N_FOR_INTERVALS and list(iterative["intervals"]) == ["in, type 6", "in, type 7"]
    assert mean["cells"] == iterative["cells"] and mean["draws"]["energy"] > iterative["draws"]["energy"] > 0
    for scores in iterative["intervals"].values():
        assert scores["columns"] == 4
        assert scores["coverage"] == sorted(scores["coverage"]) and scores["width"] == sorted(scores["width"])
        assert all(low <= held for low, held in zip(scores["worst"], scores["coverage"], strict=True))


def test_a_second_run_repeats_nothing(rows: Path) -> None:
    before = rows.read_text()
    run(rows)
    assert rows.read_text() == before


def test_the_report_has_a_line_for_each_method_and_kind_of_interval(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--report", str(rows)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 tables of up to 100 rows, seeds 0; MCAR 30%")
    labels = [line.split(" |")[0] for line in lines if line.startswith("| ") and " --- " not in line[:8]]
    ridge = "| IterativeImputer(BayesianRidge)"
    kinds = [f"{ridge}, in, type 6", f"{ridge}, in, type 7"]
    assert [name for name in labels if name != "| "] == [*kinds, *kinds, "| mean / mode", ridge]
    row = json.loads(rows.read_text().splitlines()[1])
    assert f"{ridge} | **{row['draws']['energy']:.3f}** |" in lines[-1]


def test_distances_of_one_column_are_those_of_scipy() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 200, 1)) * [[[1]], [[2]]] + 0.5
    expected = stats.energy_distance(one[:, 0], other[:, 0])
    assert energy_distance(one, other) == pytest.approx(expected)
    expected = stats.wasserstein_distance(one[:, 0], other[:, 0])
    assert sliced_wasserstein(one, other, np.random.RandomState(0)) == pytest.approx(expected)
    assert energy_distance(one, one) == pytest.approx(0, abs=1e-7)


def test_rows_of_another_level_are_as_far_as_numbers_a_deviation_apart() -> None:
    frame = pd.DataFrame({"x": [0.0, 2.0, 0.0] * 9, "city": pd.Categorical(["a", "b", "c"] * 9)})
    cells = hide_cells(frame, "mcar", 0.3, 0)
    points = embedded(cells, cells.codes)
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(1)
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(np.hypot(1, 2 / frame["x"].std(ddof=0)))
    assert embedded(cells, cells.codes, numbers_alone=True).shape == (27, 1)


def test_true_draws_are_nearer_than_their_mean_and_hold_their_share() -> None:
    cells = independent()
    draws = 3 * np.random.default_rng(1).normal(size=(N_FOR_INTERVALS, *cells.codes.shape))
    near, far = (draw_scores(cells, drawn, 0) for drawn in (draws, 0 * draws))
    assert all(near[name] < far[name] / 5 for name in near)
    scores = all_intervals(cells, {"draws": draws})
    exact, low = scores["in, type 6"]["coverage"], scores["in, type 7"]["coverage"]
    assert exact == pytest.approx([0.5, 0.8, 0.9, 19 / 21], abs=0.02)
    assert low == pytest.approx([0.452, 0.724, 0.814, 0.860], abs=0.02)
    assert scores["in, type 6"]["width"][1] == pytest.approx(2 * 1.2816, rel=0.1)


def test_bounds_are_scored_on_the_rows_that_they_are_of() -> None:
    cells = independent()
    reach = np.array([stats.norm.ppf((1 + level) / 2) for level in LEVELS])[:, None, None] * 3
    whole = np.ones((1, len(cells.codes), 2)) * reach
    none = np.zeros((len(LEVELS), 2, 0, 2))
    scores = all_intervals(cells, {"train": np.stack([-whole, whole], 1), "test": none, "draws": cells.codes[None]})
    assert scores["in"]["coverage"] == pytest.approx(LEVELS, abs=0.02) and scores["out"] == {"columns": 0}


def test_the_draws_of_this_project_and_of_the_ridge_are_complete_and_keep_known_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tabmae.TabMAE", lambda **given: TabMAE(max_epochs=5, **given))
    cells = hide_cells(load_table("iris", None, [], 60, 0), "mcar", 0.3, 0)
    train, test = (
        frame_of(cells.visible(rows), cells.names, cells.levels) for rows in (cells.train_rows, cells.test_rows)
    )
    known = train.notna().to_numpy()
    ours, ridge = (draw(train, test, 0, 1) for draw in (drawn_by_tabmae, drawn_by_iterative))
    for drawn, n_draws in ((ours, drawing.N_DRAWS), (ridge, N_FOR_INTERVALS)):
        assert len(drawn.draws) == n_draws
        one, other = codes_of(drawn.draws[0]), codes_of(drawn.draws[1])
        assert not np.isnan(one).any() and (one != other).any()
        np.testing.assert_allclose(one[known], codes_of(train)[known])
    bounds = bound_codes(ours.bounds["test"], cells.names)
    assert bounds.shape == (len(LEVELS), 2, len(test), 5) and np.isnan(bounds[..., 4]).all()
    assert (bounds[:, 0, :, :4] <= bounds[:, 1, :, :4]).all()
