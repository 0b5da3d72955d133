"""Claims about `TabMAEDetector(contamination=share)`: foreign cells among the rows of fit are found, and good rows at
the ends of the data are learnt, not left out with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import tabmae
from tabmae import TabMAEDetector
from tabmae.estimators.detector.normal_rows import NormalRows, go_together

DISTANCES = ("distance", "log_distance", "rank_distance")
SHARE, N_ROWS = 0.05, 600
FAR = 1.8
"""Standard deviations of `a` beyond which a row is at an end of the data."""


def good_rows(n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw rows of two pairs of columns, each of which tells the other but for noise."""
    a, c = rng.normal(size=(2, n_rows))
    return pd.DataFrame(
        {"a": a, "b": 2 * a + 0.3 * rng.normal(size=n_rows), "c": c, "d": c + 0.2 * rng.normal(size=n_rows)}
    )


def with_foreign_cells(seed: int) -> tuple[pd.DataFrame, NDArray[np.bool_], pd.DataFrame]:
    """Draw rows of fit, a share of them with one cell of another row, which they are, and new good rows."""
    rng = np.random.default_rng(seed)
    good, new = good_rows(N_ROWS, rng), good_rows(400, rng)
    rows, is_foreign = good.copy(), np.zeros(N_ROWS, dtype=bool)
    for row in rng.choice(N_ROWS, round(SHARE * N_ROWS), replace=False):
        column = rng.integers(4)
        rows.iloc[row, column] = good.iloc[rng.integers(N_ROWS), column]
        is_foreign[row] = True
    return rows, is_foreign, new


Fitted = tuple[TabMAEDetector, pd.DataFrame, NDArray[np.bool_], pd.DataFrame]


@pytest.fixture(scope="module")
def several() -> list[Fitted]:
    """Detectors, the rows of fit, which of them hold a foreign cell, and new good rows; nothing may change them.

    One has some thirty new rows at the ends of the data: too few to tell a rate from.
    """
    tables = map(with_foreign_cells, range(3))
    return [(TabMAEDetector(contamination=SHARE, max_epochs=80, random_state=0).fit(t[0]), *t) for t in tables]


@pytest.fixture(scope="module")
def fitted(several: list[Fitted]) -> Fitted:
    """The first of `several`."""
    return several[0]


def drawn(rows: pd.DataFrame, share: float) -> NormalRows:
    """Which rows of a table are taken to be normal."""
    values = torch.tensor(((rows - rows.mean()) / rows.std()).to_numpy())
    generator = torch.Generator().manual_seed(0)
    return NormalRows.draw(values, torch.ones_like(values, dtype=torch.bool), share, [0] * values.shape[1], generator)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_at_the_ends_are_learnt_and_rows_with_a_foreign_cell_are_not(seed: int) -> None:
    rows, is_foreign, _ = with_foreign_cells(seed)
    normal = drawn(rows, SHARE)
    chosen = (normal.learnt | normal.held_out).numpy()
    at_ends = ~is_foreign & (rows["a"].abs() > FAR).to_numpy()
    assert not (normal.learnt & normal.held_out).any()
    assert chosen[at_ends].mean() > 0.85 and normal.near.numpy()[at_ends].mean() < 0.2
    assert is_foreign[chosen].mean() < 0.5 * SHARE
    assert chosen.mean() > 0.9


def test_all_rows_of_a_table_of_normal_ones_are_learnt_or_held_out() -> None:
    normal = drawn(with_foreign_cells(0)[0], 0.0)
    assert normal.near.all() and torch.equal(normal.learnt, ~normal.held_out)


def test_of_a_table_too_wide_for_a_gaussian_the_least_odd_rows_go_together() -> None:
    values, least_odd = torch.zeros(20, 301), torch.arange(0, 20, 2)
    chosen = go_together(values, torch.ones_like(values, dtype=torch.bool), least_odd, [0] * 301)
    assert torch.equal(torch.nonzero(chosen)[:, 0], least_odd)


def test_foreign_cells_come_before_the_ends_of_the_data(several: list[Fitted]) -> None:
    flagged_at_ends = []
    for detector, rows, is_foreign, new in several:
        flagged = detector.predict(rows) == -1
        assert flagged.sum() == is_foreign.sum() and (flagged & is_foreign).sum() >= 0.55 * is_foreign.sum()
        flagged_at_ends.append((detector.predict(new) == -1)[new["a"].abs() > FAR])
    assert np.concatenate(flagged_at_ends).mean() <= 0.1


def test_good_cells_at_the_ends_are_expected_as_they_are(several: list[Fitted]) -> None:
    error, held = [], []
    for detector, _, _, new in several:
        cells, at_ends = detector.explain(new).query("column == 'b'"), new["a"].abs().to_numpy() > FAR
        error.append((cells["value"] - cells["expected"]).to_numpy(dtype=float)[at_ends])
        held.append(cells["value"].between(cells["lower"], cells["upper"]).to_numpy()[at_ends])
    assert np.sqrt(np.square(np.concatenate(error)).mean()) < 0.45
    assert np.concatenate(held).mean() > 0.75


def test_distances_count_as_one_and_forests_as_far_as_the_network_does(fitted: Any) -> None:
    detector, rows, _, _ = fitted
    found = detector.anomaly_score(rows, by_member=True)
    assert list(found) == [*DISTANCES, "network", "forests"]
    surprise = (found["network"] + 2 * found[["network", "forests"]].min(axis=1)) / 3
    np.testing.assert_allclose(found[list(DISTANCES)].mean(axis=1) + surprise, detector.anomaly_score(rows))


def test_distances_are_to_near_rows_whose_cells_go_together(fitted: Any) -> None:
    detector, rows, is_foreign, _ = fitted
    values, _ = detector._read(rows)
    remembered = (values[:, None] == detector.members_.neighbours.values.to(values)[None]).all(2).any(1).numpy()
    assert remembered.mean() < 0.8
    assert is_foreign[remembered].mean() < 0.6 * SHARE and (rows["a"].abs()[remembered] < 2.5).all()


def test_a_loaded_detector_is_the_saved_one(fitted: Any, tmp_path: Path) -> None:
    detector, rows, _, new = fitted
    detector.save(tmp_path / "detector")
    loaded = tabmae.load(tmp_path / "detector")
    assert (loaded.anomaly_score(new) == detector.anomaly_score(new)).all()
    pd.testing.assert_frame_equal(loaded.explain(rows[:20]), detector.explain(rows[:20]))
