"""Forests as arrays: they answer as the library that grew them does, and see nothing but their features."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from tabmae.experts.trees import MIN_LEAF, N_TREES, Forest, floored


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randn(300, 5, generator=torch.Generator().manual_seed(0))


def test_numbers_are_those_of_the_library(rows: torch.Tensor) -> None:
    target = rows[:, 0] * rows[:, 1] + rows[:, 2]
    grown = ExtraTreesRegressor(N_TREES, min_samples_leaf=MIN_LEAF, random_state=3).fit(rows.numpy(), target.numpy())
    found = Forest().fit(rows, target, n_levels=0, seed=3).predict(rows)
    np.testing.assert_allclose(found[:, 0].numpy(), grown.predict(rows.numpy()), atol=1e-6)


def test_probabilities_are_those_of_the_library_with_absent_levels_at_zero(rows: torch.Tensor) -> None:
    codes = (rows[:, 0] > 0).float() * 2
    grown = ExtraTreesClassifier(N_TREES, max_features=1.0, random_state=3).fit(rows.numpy(), codes.long().numpy())
    unseen = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    found = Forest().fit(rows, codes, n_levels=4, seed=3).predict(unseen)
    assert found.shape == (50, 4)
    np.testing.assert_allclose(found[:, [0, 2]].numpy(), grown.predict_proba(unseen.numpy()), atol=1e-3)
    assert (found[:, [1, 3]] == 0).all()


def test_a_row_alone_answers_as_in_its_batch(rows: torch.Tensor) -> None:
    forest = Forest().fit(rows, rows[:, 0].exp(), n_levels=0, seed=0)
    together = forest.predict(rows[:20])
    alone = torch.cat([forest.predict(row[None]) for row in rows[:20]])
    assert torch.equal(together, alone)


def test_saved_arrays_answer_bit_equal(rows: torch.Tensor) -> None:
    forest = Forest().fit(rows, rows[:, 1].square(), n_levels=0, seed=0)
    other = Forest(len(forest.feature), len(forest.value), 1, len(forest.roots))
    other.load_state_dict(forest.state_dict())
    assert torch.equal(other.predict(rows), forest.predict(rows))


def test_no_rows_give_no_answers(rows: torch.Tensor) -> None:
    assert Forest().fit(rows, rows[:, 0], n_levels=0, seed=0).predict(rows[:0]).shape == (0, 1)


def test_thresholds_are_never_rounded_past_a_float32() -> None:
    exact = np.random.default_rng(0).normal(size=10_000)
    below = floored(exact)
    assert below.dtype == np.float32
    assert (below <= exact).all()
    assert (np.nextafter(below, np.float32(np.inf)) > exact).all()
