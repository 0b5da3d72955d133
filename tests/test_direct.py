"""Trees that learn values themselves: right where there is something to learn, and blind to the rows of their fold."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from tabmae.experts import direct
from tabmae.experts.direct import LEARNING_RATE, MAX_LEAVES, MAX_ROUNDS, N_ROUNDS, DirectTrees
from tabmae.experts.trees import N_TREES, Forest

N_ROWS = 200
N_LEVELS = pytest.mark.parametrize("n_levels", [0, 3], ids=["number", "levels"])


def drawn(n_levels: int, seed: int = 0, n_rows: int = N_ROWS) -> tuple[Tensor, Tensor]:
    """Draw rows whose target depends on two of three features."""
    rows = torch.rand(n_rows, 3, generator=torch.Generator().manual_seed(seed))
    score = 4 * (rows[:, 0] - 0.5).abs() + rows[:, 1]
    return rows, torch.bucketize(score, torch.tensor([1.0, 1.8])).double() if n_levels else score


@pytest.fixture
def held_out() -> Tensor:
    """Fold 1 in every fifth row, fold 2 in the rows behind them."""
    place = torch.arange(N_ROWS) % 5
    return torch.where(place < 2, place + 1, 0).to(torch.int8)


def grown(n_levels: int, held_out: Tensor | None = None, seed: int = 0) -> DirectTrees:
    return DirectTrees(n_levels).fit(*drawn(n_levels), seed, held_out)


def test_a_number_is_told_from_rows_never_seen() -> None:
    unseen, score = drawn(0, seed=1)
    found = grown(0).predict(unseen)
    assert found.shape == (N_ROWS, 1) and found.dtype == torch.float32
    assert (found[:, 0] - score).square().mean() < 0.05 * score.var()


def test_levels_are_told_from_rows_never_seen() -> None:
    unseen, codes = drawn(3, seed=1)
    found = grown(3).predict(unseen)
    assert found.shape == (N_ROWS, 3) and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(N_ROWS))
    assert (found >= 0).all() and (found.argmax(1) == codes).float().mean() > 0.85


@N_LEVELS
@pytest.mark.parametrize("fold", [1, 2])
def test_what_answers_for_a_fold_never_learnt_its_rows(held_out: Tensor, fold: int, n_levels: int) -> None:
    rows, target = drawn(n_levels)
    of_fold = held_out == fold
    inputs, truth = rows.clone(), target.clone()
    inputs[of_fold], truth[of_fold] = 9.0, 2 - truth[of_fold]
    one = grown(n_levels, held_out)
    for features, learnt in ((rows, truth), (inputs, target)):
        other = DirectTrees(n_levels).fit(features, learnt, 0, held_out)
        assert torch.equal(other.predict(rows, fold), one.predict(rows, fold))
        for seeing in (0, 3 - fold):
            assert not torch.equal(other.predict(rows, seeing), one.predict(rows, seeing))


@N_LEVELS
def test_all_answer_as_the_mean_of_those_that_leave_out_a_fold(held_out: Tensor, n_levels: int) -> None:
    (rows, _), trees = drawn(n_levels), grown(n_levels, held_out)
    first, second = trees.predict(rows, 1), trees.predict(rows, 2)
    assert not torch.equal(first, second)
    torch.testing.assert_close(trees.predict(rows), (first + second) / 2, rtol=0, atol=1e-6)


def test_without_held_out_rows_both_learn_all() -> None:
    rows, score = drawn(0)
    assert torch.equal(grown(0).predict(rows), grown(0, held_out=torch.zeros(N_ROWS, dtype=torch.int8)).predict(rows))
    assert all((grown(0).predict(rows, fold)[:, 0] - score).abs().mean() < 0.05 for fold in (1, 2))


def test_the_same_seed_grows_the_same_trees_of_levels_and_another_one_others(held_out: Tensor) -> None:
    one, same, other = (grown(3, held_out, seed).state_dict() for seed in (0, 0, 1))
    assert one.keys() == same.keys() and all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["forest.threshold"], other["forest.threshold"][: len(one["forest.threshold"])])


def test_numbers_are_grown_the_same_again(held_out: Tensor) -> None:
    one, same = (grown(0, held_out).state_dict() for _ in range(2))
    assert one.keys() == same.keys() and all(torch.equal(one[name], same[name]) for name in one)


def test_numbers_are_those_of_the_library_with_the_rounds_and_leaves_of_the_house(held_out: Tensor) -> None:
    rows, score = drawn(0)
    trees = grown(0, held_out)
    for fold in (1, 2):
        shown = held_out != fold
        library = HistGradientBoostingRegressor(
            max_iter=N_ROUNDS, learning_rate=LEARNING_RATE, max_leaf_nodes=MAX_LEAVES
        ).fit(rows[shown].numpy(), score[shown].numpy())
        np.testing.assert_allclose(trees.predict(rows, fold)[:, 0].numpy(), library.predict(rows.numpy()), atol=1e-5)


def test_the_trees_of_a_number_read_what_each_half_is_told_to(held_out: Tensor) -> None:
    trees = DirectTrees(0).fit(*drawn(0), 0, held_out, (torch.tensor([0, 2]), None))
    first, second = (set(forest.feature.tolist()) for forest in trees.forests())
    assert first == {-1, 0, 2} and second == {-1, 0, 1, 2}


def test_fewer_rounds_of_fewer_leaves_are_grown_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(trees.roots) for trees in grown(0).forests()] == [N_ROUNDS] * 2
    monkeypatch.setattr(direct, "N_ROUNDS", 25)
    monkeypatch.setattr(direct, "MAX_LEAVES", 3)
    for trees in grown(0).forests():
        assert len(trees.roots) == 25 and len(trees.value) <= 25 * 3


def test_its_arrays_are_those_of_one_forest_of_levels_or_of_two_of_a_number() -> None:
    (of_levels,) = grown(3).forests()
    assert len(of_levels.roots) == N_TREES and of_levels.value.shape[1] == 3
    assert len(grown(0).forests()) == 2
    assert all(isinstance(trees, Forest) and trees.value.shape[1] == 1 for trees in grown(0).forests())


@N_LEVELS
def test_a_row_alone_answers_as_in_its_batch_and_no_rows_give_no_answers(n_levels: int) -> None:
    (rows, _), trees = drawn(n_levels), grown(n_levels)
    alone = torch.cat([trees.predict(row[None]) for row in rows[:20]])
    assert torch.equal(trees.predict(rows)[:20], alone)
    assert trees.predict(rows[:0]).shape == (0, n_levels or 1)


def test_more_cells_have_more_rounds_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "N_ROUNDS", 12)

    def n_rounds(n_rows: int) -> list[int]:
        trees = DirectTrees(0).fit(*drawn(0, n_rows=n_rows), 0)
        return [len(forest.roots) for forest in trees.forests()]

    assert n_rounds(50) == [12, 12]
    assert n_rounds(400) == [30, 30]
    monkeypatch.setattr(direct, "MAX_ROUNDS", 20)
    assert n_rounds(400) == [20, 20] and MAX_ROUNDS > N_ROUNDS


def test_many_levels_have_more_trees_where_cells_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, target = drawn(3)
    of_many = torch.arange(len(target)) % 20
    (forest,) = DirectTrees(20).fit(rows, of_many.to(target), 0).forests()
    assert len(forest.roots) == 100 and forest.value.shape[1] == 20
    monkeypatch.setattr(direct, "MAX_TREES_TIMES_CELLS", 60 * len(target))
    (forest,) = DirectTrees(20).fit(rows, of_many.to(target), 0).forests()
    assert len(forest.roots) == 60
