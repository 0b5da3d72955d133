"""Forests as arrays: they answer as the library that grew them does, and see nothing but their features."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from tabmae.experts import trees
from tabmae.experts.trees import MIN_LEAF, N_TREES, CompiledTrees, Forest, compiles, floored


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randn(300, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def held_out() -> torch.Tensor:
    """Fold 1 in every fifth row, fold 2 in the rows behind them."""
    place = torch.arange(300) % 5
    return torch.where(place < 2, place + 1, 0).to(torch.int8)


def library(
    kind: type[Any], rows: torch.Tensor, target: torch.Tensor, held_out: torch.Tensor, half: int, **settings: Any
) -> Any:
    """Grow what the half of a forest should be that does not learn a fold."""
    shown = held_out != half
    seed = 3 + half
    return kind(N_TREES // 2, random_state=seed, **settings).fit(rows[shown].numpy(), target[shown].numpy())


def test_numbers_are_those_of_the_library(rows: torch.Tensor, held_out: torch.Tensor) -> None:
    target = rows[:, 0] * rows[:, 1] + rows[:, 2]
    forest = Forest().fit(rows, target, n_levels=0, seed=3, held_out=held_out)
    expected = [
        library(ExtraTreesRegressor, rows, target, held_out, half, min_samples_leaf=MIN_LEAF).predict(rows.numpy())
        for half in (1, 2)
    ]
    for fold, answer in enumerate([np.mean(expected, axis=0), *expected]):
        np.testing.assert_allclose(forest.predict(rows, fold)[:, 0].numpy(), answer, atol=1e-6)


def test_importances_are_those_of_either_half(rows: torch.Tensor, held_out: torch.Tensor) -> None:
    target = rows[:, 0] * rows[:, 1] + rows[:, 2]
    forest = Forest().fit(rows, target, n_levels=0, seed=3, held_out=held_out)
    for half, found in zip((1, 2), forest.importances, strict=True):
        grown = library(ExtraTreesRegressor, rows, target, held_out, half, min_samples_leaf=MIN_LEAF)
        gains = [tree.tree_.compute_feature_importances(normalize=False) for tree in grown.estimators_]
        np.testing.assert_allclose(found.numpy(), np.mean(gains, axis=0))
    assert forest.importances.argmin(1).ge(3).all() and not torch.equal(*forest.importances)


def test_probabilities_are_those_of_the_library_with_absent_levels_at_zero(
    rows: torch.Tensor, held_out: torch.Tensor
) -> None:
    codes = (rows[:, 0] > 0).float() * 2
    forest = Forest().fit(rows, codes, n_levels=4, seed=3, held_out=held_out)
    unseen = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    expected = [
        library(ExtraTreesClassifier, rows, codes.long(), held_out, half, max_features=1.0).predict_proba(
            unseen.numpy()
        )
        for half in (1, 2)
    ]
    for fold, answer in enumerate([np.mean(expected, axis=0), *expected]):
        found = forest.predict(unseen, fold)
        assert found.shape == (50, 4)
        np.testing.assert_allclose(found[:, [0, 2]].numpy(), answer, atol=1e-3)
        assert (found[:, [1, 3]] == 0).all()


def test_a_level_of_held_out_rows_alone_is_learnt_by_the_other_half(rows: torch.Tensor, held_out: torch.Tensor) -> None:
    codes = torch.where(held_out == 1, 2.0, (rows[:, 0] > 0).float())
    forest = Forest().fit(rows, codes, n_levels=3, seed=0, held_out=held_out)
    assert (forest.predict(rows, fold=1)[:, 2] == 0).all()
    assert (forest.predict(rows, fold=2)[held_out == 1, 2] > 0.2).all()
    torch.testing.assert_close(forest.predict(rows).sum(1), torch.ones(300))


@pytest.mark.parametrize("n_levels", [0, 3])
@pytest.mark.parametrize("fold", [1, 2])
def test_a_half_never_learns_the_rows_of_its_fold(
    rows: torch.Tensor, held_out: torch.Tensor, fold: int, n_levels: int
) -> None:
    target = (rows[:, 0] > 0).float() + (rows[:, 1] > 0)
    inputs, truth = rows.clone(), target.clone()
    truth[held_out == fold] = 2 - truth[held_out == fold]
    inputs[held_out == fold] = 9.0
    one = Forest().fit(rows, target, n_levels, seed=0, held_out=held_out)
    for features, learnt in ((rows, truth), (inputs, target)):
        other = Forest().fit(features, learnt, n_levels, seed=0, held_out=held_out)
        assert torch.equal(other.predict(rows, fold), one.predict(rows, fold))
        for seeing in (0, 3 - fold):
            assert not torch.equal(other.predict(rows, seeing), one.predict(rows, seeing))


@pytest.mark.parametrize("n_levels", [0, 3])
@pytest.mark.parametrize("n_trees", [2, 20])
def test_a_forest_of_fewer_trees_has_as_many_in_each_half(
    rows: torch.Tensor, held_out: torch.Tensor, n_trees: int, n_levels: int
) -> None:
    target = (rows[:, 0] > 0).float() * 2
    forest = Forest().fit(rows, target, n_levels, seed=3, held_out=held_out, n_trees=n_trees)
    assert len(forest.roots) == n_trees
    for half in (1, 2):
        shown, given = held_out != half, {"n_estimators": n_trees // 2, "random_state": 3 + half}
        inputs, truth = rows[shown].numpy(), target[shown].numpy()
        if n_levels:
            expected = ExtraTreesClassifier(max_features=1.0, **given).fit(inputs, truth).predict_proba(rows.numpy())
            found = forest.predict(rows, half)[:, [0, 2]]
        else:
            library = ExtraTreesRegressor(min_samples_leaf=MIN_LEAF, **given).fit(inputs, truth)
            expected, found = library.predict(rows.numpy())[:, None], forest.predict(rows, half)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("n_levels", [0, 3])
def test_the_answer_is_the_mean_of_both_halves(rows: torch.Tensor, held_out: torch.Tensor, n_levels: int) -> None:
    forest = Forest().fit(rows, (rows[:, 0] > 0).float() * 2, n_levels, seed=0, held_out=held_out)
    assert len(forest.roots) == N_TREES
    mean = (forest.predict(rows, fold=1) + forest.predict(rows, fold=2)) / 2
    torch.testing.assert_close(forest.predict(rows), mean, rtol=0, atol=1e-6)


def test_without_held_out_rows_both_halves_learn_all_and_differ(rows: torch.Tensor) -> None:
    one = Forest().fit(rows, rows[:, 0], n_levels=0, seed=0)
    other = Forest().fit(rows, rows[:, 0], n_levels=0, seed=0, held_out=torch.zeros(300, dtype=torch.int8))
    assert torch.equal(one.predict(rows), other.predict(rows))
    assert not torch.equal(one.predict(rows, fold=1), one.predict(rows, fold=2))
    assert all((one.predict(rows, fold)[:, 0] - rows[:, 0]).abs().mean() < 0.1 for fold in (1, 2))


def test_a_row_alone_answers_as_in_its_batch(rows: torch.Tensor) -> None:
    forest = Forest().fit(rows, rows[:, 0].exp(), n_levels=0, seed=0)
    together = forest.predict(rows[:20])
    alone = torch.cat([forest.predict(row[None]) for row in rows[:20]])
    assert torch.equal(together, alone)


def test_saved_arrays_answer_bit_equal(rows: torch.Tensor) -> None:
    forest = Forest().fit(rows, rows[:, 1].square(), n_levels=0, seed=0)
    other = Forest()
    other.load_state_dict(forest.state_dict())
    for fold in (0, 1, 2):
        assert torch.equal(other.predict(rows, fold), forest.predict(rows, fold))


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


@pytest.mark.parametrize("asked", [slice(None), slice(0, N_TREES // 2), slice(N_TREES // 2, None)])
@pytest.mark.parametrize("n_levels", [0, 3])
def test_the_compiled_descent_answers_as_the_arrays_do(
    rows: torch.Tensor, held_out: torch.Tensor, n_levels: int, asked: slice
) -> None:
    forest = Forest().fit(rows, (rows[:, 0] > 0).float() * 2, n_levels, seed=0, held_out=held_out)
    many = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    many[::7, 2] = torch.nan
    many[1, :] = forest.threshold[forest.feature >= 0][:5]
    compiled = CompiledTrees(forest)
    assert compiles() and compiled.serves(5)
    torch.testing.assert_close(compiled.predict(many, asked), forest._predict(many, asked), rtol=0, atol=1e-7)


def test_the_compiled_descent_asks_rows_that_fall_alike_one_after_another(
    forest: Forest, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    compiled, seen = CompiledTrees(forest), []
    descend = compiled._sum

    def watched(rows: np.ndarray, block: list[tuple[Any, np.ndarray]]) -> np.ndarray:
        seen.append(rows)
        return descend(rows, block)

    monkeypatch.setattr(compiled, "_sum", watched)
    found = compiled.predict(many, slice(None))
    assert all((np.diff(compiled.trees[0].apply(rows)) >= 0).all() for rows in seen)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(2))
    assert torch.equal(compiled.predict(many[order], slice(None)), found[order])


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of threads of each pool that is opened, however few rows there are."""
    opened: list[int] = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, n_threads: int) -> None:
            opened.append(n_threads)
            super().__init__(n_threads)

    monkeypatch.setattr(trees, "ThreadPoolExecutor", Counted)
    monkeypatch.setattr(trees, "MIN_DESCENTS_OF_THREAD", 10_000)
    return opened


def test_trees_answer_bit_equal_however_they_are_shared_among_threads(forest: Forest, pools: list[int]) -> None:
    many = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        found = []
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            found.append(torch.cat([forest.predict(many, fold) for fold in (0, 1, 2)]))
        alone = forest.predict(many[:1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert torch.equal(alone, found[0][:1])
    assert pools == [3, 2, 2]


def test_another_scikit_learn_leaves_the_arrays_to_answer(
    forest: Forest, rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [forest.predict(rows, fold) for fold in (0, 1, 2)]
    monkeypatch.setattr(trees, "NODE_FIELDS", ("left_child", "right_child", "feature", "limit"))
    trees.compiles.cache_clear()
    try:
        assert not trees.compiles()
        other = deepcopy(forest)
        for fold in (0, 1, 2):
            torch.testing.assert_close(other.predict(rows, fold), before[fold], rtol=0, atol=1e-6)
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


def test_leaves_hold_means_of_other_numbers_than_the_target_of_rows_that_their_half_learnt(
    rows: torch.Tensor, held_out: torch.Tensor
) -> None:
    target = rows[:, 0] * rows[:, 1]
    given: dict[str, Any] = {"n_levels": 0, "seed": 0, "held_out": held_out}
    plain = Forest().fit(rows, target, **given)
    other = Forest().fit(rows, target, **given, kept=torch.stack([target, 1 - 2 * target], 1))
    for fold in (0, 1, 2):
        expected = plain.predict(rows, fold)
        torch.testing.assert_close(other.leaf_means(rows, fold), torch.cat([expected, 1 - 2 * expected], 1))


def test_leaves_are_as_large_as_asked(rows: torch.Tensor) -> None:
    codes = (rows[:, 0] > 0).float()
    for n_levels, target in ((0, rows[:, 0]), (2, codes)):
        forest = Forest().fit(rows, target, n_levels, seed=0, n_trees=2, min_leaf=200)
        torch.testing.assert_close(forest.predict(rows)[:, -1], target.mean().expand(300), atol=1e-3, rtol=0)
