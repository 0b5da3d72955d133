"""Forests as arrays: they answer as the library that grew them does, and see nothing but their features."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from tabmae.experts import trees
from tabmae.experts.trees import MIN_LEAF, N_TREES, CompiledTrees, Forest, compiles, floored


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


@pytest.fixture
def forest(rows: torch.Tensor) -> Forest:
    return Forest().fit(rows, rows[:, 0] * rows[:, 1] + rows[:, 2], n_levels=0, seed=0)


@pytest.mark.parametrize("n_levels", [0, 3])
def test_the_compiled_descent_answers_as_the_arrays_do(rows: torch.Tensor, n_levels: int) -> None:
    forest = Forest().fit(rows, (rows[:, 0] > 0).float() * 2, n_levels, seed=0)
    many = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    many[::7, 2] = torch.nan
    many[1, :] = forest.threshold[forest.feature >= 0][:5]
    compiled = CompiledTrees(forest)
    assert compiles() and compiled.serves(5)
    torch.testing.assert_close(compiled.predict(many), forest._predict(many), rtol=0, atol=1e-7)


def test_rows_answer_bit_equal_however_they_are_shared_among_threads(forest: Forest) -> None:
    many = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        found = []
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            found.append(forest.predict(many))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert torch.equal(forest.predict(many[:1]), found[0][:1])


def test_another_scikit_learn_leaves_the_arrays_to_answer(
    forest: Forest, rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = forest.predict(rows)
    monkeypatch.setattr(trees, "NODE_FIELDS", ("left_child", "right_child", "feature", "limit"))
    trees.compiles.cache_clear()
    try:
        assert not trees.compiles()
        other = deepcopy(forest)
        torch.testing.assert_close(other.predict(rows), before, rtol=0, atol=1e-6)
    finally:
        trees.compiles.cache_clear()


def test_what_is_compiled_never_outlives_the_arrays(forest: Forest, rows: torch.Tensor) -> None:
    before, n_bytes = forest.predict(rows), len(pickle.dumps(Forest().fit(rows, rows[:, 0], 0, seed=0)))
    for copy in (deepcopy(forest), pickle.loads(pickle.dumps(forest))):
        assert torch.equal(copy.predict(rows), before)
    forest.load_state_dict({name: 2 * part if name == "value" else part for name, part in forest.state_dict().items()})
    torch.testing.assert_close(forest.predict(rows), 2 * before)
    other = forest.fit(rows, rows[:, 0], n_levels=0, seed=0)
    assert (other.predict(rows) != before).any()
    assert len(pickle.dumps(other)) == n_bytes


def test_arrays_that_leave_their_tree_are_never_given_to_compiled_code(forest: Forest, rows: torch.Tensor) -> None:
    inner = int(torch.nonzero(forest.feature >= 0)[0])
    for name, wrong in (("right", len(forest.feature)), ("left", int(forest.roots[1])), ("left", inner)):
        broken = deepcopy(forest)
        getattr(broken, name)[inner] = wrong
        assert not CompiledTrees(broken).serves(5), (name, wrong)
    assert not CompiledTrees(forest).serves(4)
    with pytest.raises((IndexError, RuntimeError)):
        forest.predict(rows[:, :1])
