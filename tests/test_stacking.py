"""Weights of the members: on the simplex, right where cells are many, shared where they are few."""

import pytest
import torch
from torch import Tensor

from tabmae import stacking
from tabmae.stacking import PRIOR_CELLS, PRIOR_LEVELS, ROBUST_CELLS, SHARED_CELLS, fit, fit_levels


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def everywhere(target: Tensor) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool)


def equal(n_members: int) -> Tensor:
    return torch.full((n_members,), 1 / n_members)


def noisy(target: Tensor, *levels: float) -> Tensor:
    """Give members that miss the target by independent noise."""
    return torch.stack([target + level * normal(*target.shape, seed=i + 1) for i, level in enumerate(levels)])


@pytest.mark.parametrize("kind", ["random", "twins", "opposite", "zero", "huge", "one"])
@pytest.mark.parametrize("n", [0, 1, 4, 300])
def test_weights_are_non_negative_and_sum_to_one(kind: str, n: int) -> None:
    target = normal(n, 3)
    members = {
        "random": normal(4, n, 3, seed=1),
        "twins": target.expand(4, -1, -1) + 0.1,
        "opposite": -noisy(target, 0.1, 0.2, 0.3),
        "zero": torch.zeros(2, n, 3),
        "huge": 1e6 * normal(3, n, 3, seed=1),
        "one": normal(1, n, 3, seed=1),
    }[kind]
    weights = fit(members, target, everywhere(target), equal(len(members)))
    assert weights.shape == (3, len(members))
    assert weights.dtype == torch.float64
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))


def test_the_better_member_wins_with_many_cells() -> None:
    target = normal(20_000, 1)
    weights = fit(noisy(target, 0.3, 1.0), target, everywhere(target), torch.tensor([0.1, 0.9]))
    by_precision = torch.tensor([[1 / 0.09, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights, by_precision / by_precision.sum(), rtol=0, atol=0.02)


def test_a_mixture_is_found() -> None:
    members = normal(3, 20_000, 1, seed=1)
    target = (torch.tensor([0.2, 0.0, 0.8])[:, None, None] * members).sum(0)
    weights = fit(members, target, everywhere(target), equal(3))
    torch.testing.assert_close(weights, torch.tensor([[0.2, 0.0, 0.8]], dtype=torch.float64), rtol=0, atol=0.01)


@pytest.mark.parametrize("perfect", [0, 1, 2])
def test_a_perfect_member_takes_it_all(perfect: int) -> None:
    target = normal(5_000, 2)
    levels = [0.0 if i == perfect else 1.0 for i in range(3)]
    assert (fit(noisy(target, *levels), target, everywhere(target), equal(3))[:, perfect] > 0.98).all()


def test_every_column_has_its_own_weights() -> None:
    target = normal(5_000, 2)
    members = torch.stack([target * torch.tensor([1.0, 0.0]), target * torch.tensor([0.0, 1.0])])
    weights = fit(members, target, everywhere(target), equal(2))
    assert weights[0, 0] > 0.95 and weights[1, 1] > 0.95


def test_without_a_cell_the_start_is_believed() -> None:
    start = torch.tensor([0.1, 0.2, 0.7])
    weights = fit(normal(3, 50, 4), normal(50, 4), torch.zeros(50, 4, dtype=torch.bool), start)
    torch.testing.assert_close(weights, start.double().expand(4, -1))


def test_a_column_without_a_cell_takes_the_shared_weights() -> None:
    target = normal(2_000, 2)
    hidden = everywhere(target)
    hidden[:, 1] = False
    weights = fit(noisy(target, 0.0, 1.0), target, hidden, equal(2))
    shared = (2_000 * 1 + PRIOR_CELLS * 0.5) / (2_000 + PRIOR_CELLS)
    assert weights[1, 0] == pytest.approx(shared, abs=1e-3)


@pytest.mark.parametrize(("n_cells", "low", "high"), [(3, 0.85, 1.0), (300, 0.4, 0.6), (4_000, 0.0, 0.1)])
def test_the_fewer_cells_the_closer_to_the_shared_weights(n_cells: int, low: float, high: float) -> None:
    target = normal(4_000, 6)
    members = torch.stack([target.clone(), torch.zeros_like(target)])
    members[:, :, 5] = members[:, :, 5].flip(0)
    hidden = everywhere(target)
    hidden[n_cells:, 5] = False
    assert low < fit(members, target, hidden, equal(2))[5, 0] < high


def test_shared_weights_lean_on_the_start_and_columns_on_the_shared_ones() -> None:
    target = normal(200, 3)
    members = torch.stack([target, torch.zeros_like(target)])
    shared = (600 + PRIOR_CELLS * 0.2) / (600 + PRIOR_CELLS)
    expected = (200 + SHARED_CELLS * shared) / (200 + SHARED_CELLS)
    weights = fit(members, target, everywhere(target), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(weights[:, 0], torch.full((3,), expected, dtype=torch.float64), rtol=0, atol=1e-4)


def outlying() -> tuple[Tensor, Tensor]:
    """Give 40 cells and two members; the better one misses the first cell, which is an outlier, by far more."""
    target = normal(40, 1)
    members = torch.stack([target + 0.3 * normal(40, 1, seed=1), normal(40, 1, seed=2)])
    target[0], members[0, 0], members[1, 0] = -20.0, 5.0, 0.0
    return members, target


def test_an_outlier_among_few_cells_moves_the_weights_less_than_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    members, target = outlying()

    def moved() -> float:
        with_it = fit(members, target, everywhere(target), equal(2))
        return float((fit(members[:, 1:], target[1:], everywhere(target[1:]), equal(2)) - with_it)[0, 0])

    robust = moved()
    monkeypatch.setattr(stacking, "N_REWEIGHTED", 0)
    assert moved() > 0.05
    assert 0 <= robust < 0.3 * moved()


def test_the_worse_the_outlier_the_less_its_weight_is_lost() -> None:
    members, target = outlying()
    weights = [fit(members, target, everywhere(target), equal(2))]
    target[0] = -2_000.0
    weights.append(fit(members, target, everywhere(target), equal(2)))
    torch.testing.assert_close(*weights, rtol=0, atol=0.05)


@pytest.mark.parametrize(("n", "wanted"), [(int(ROBUST_CELLS), 1), (100 * int(ROBUST_CELLS), 0)])
def test_many_cells_of_a_skewed_column_believe_the_mean_and_few_the_median(n: int, wanted: int) -> None:
    target = normal(n, 1).mul(1.5).exp()
    mean, median = torch.full_like(target, float(target.mean())), torch.full_like(target, float(target.median()))
    weights = fit(torch.stack([mean, median]), target, everywhere(target), equal(2))
    assert weights[0, wanted] > 0.5


@pytest.mark.parametrize("n", [5, 300, 5_000])
def test_a_perfect_member_gains_the_same_whatever_the_others_say(n: int) -> None:
    target = normal(n, 1)
    target[:2] *= 50
    members = torch.stack([torch.zeros_like(target), target, 100 * normal(n, 1, seed=4)])
    shared = (n + PRIOR_CELLS / 3) / (n + PRIOR_CELLS)
    expected = (n + SHARED_CELLS * shared) / (n + SHARED_CELLS)
    assert float(fit(members, target, everywhere(target), equal(3))[0, 1]) == pytest.approx(expected, abs=1e-3)


def test_members_that_are_right_in_most_cells_are_weighed_by_the_rest() -> None:
    target = normal(2_000, 1).round()
    near, far = target.clone(), target.clone()
    near[::3] += 1.0
    far[::3] += 2.0
    assert fit(torch.stack([near, far]), target, everywhere(target), equal(2))[0, 0] > 0.95


def test_the_start_is_forgotten_with_many_cells_and_kept_with_few() -> None:
    target = normal(10_000, 1)
    wrong = torch.tensor([0.0, 1.0])
    members = noisy(target, 0.0, 1.0)
    assert fit(members, target, everywhere(target), wrong)[0, 0] > 0.95
    assert fit(members[:, :5], target[:5], everywhere(target[:5]), wrong)[0, 0] < 0.1


def test_only_hidden_cells_are_looked_at() -> None:
    target = normal(300, 3)
    members, hidden = noisy(target, 0.5, 1.0), normal(300, 3, seed=9) > 0
    weights = fit(members, target, hidden, equal(2))
    junk = torch.where(hidden, members, torch.nan), torch.where(hidden, target, torch.inf)
    assert torch.equal(fit(*junk, hidden, equal(2)), weights)


def test_no_columns_give_no_weights() -> None:
    assert fit(torch.zeros(3, 9, 0), torch.zeros(9, 0), torch.zeros(9, 0, dtype=torch.bool), equal(3)).shape == (0, 3)


def levels(n: int, n_levels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Give the codes of cells and two members: one is sure and right in nine of ten, the other knows nothing."""
    codes = torch.randint(n_levels, (n,), generator=torch.Generator().manual_seed(seed))
    named = torch.where(torch.arange(n) % 10 > 0, codes, (codes + 1) % n_levels)
    return codes, torch.stack([torch.eye(n_levels)[named], torch.full((n, n_levels), 1 / n_levels)])


@pytest.mark.parametrize("n", [0, 1, 40, 4_000])
def test_weights_of_levels_lie_on_the_simplex_and_lean_on_the_start(n: int) -> None:
    codes, members = levels(n)
    start = torch.tensor([0.2, 0.8])
    weights = fit_levels(members, codes, start)
    assert weights.shape == (2,) and weights.dtype == torch.float64
    assert (weights >= 0).all() and float(weights.sum()) == pytest.approx(1)
    kept = PRIOR_LEVELS / (n + PRIOR_LEVELS)
    assert 0.2 * kept - 1e-6 <= weights[0] <= 0.2 * kept + (1 - kept) + 1e-6


def test_the_better_member_of_levels_wins_with_many_cells() -> None:
    codes, members = levels(5_000)
    weights = fit_levels(members, codes, torch.tensor([0.0, 1.0]))
    best = min(
        torch.linspace(0, 1, 101).tolist(),
        key=lambda w: float((w * members[0] + (1 - w) * members[1] - torch.eye(3)[codes]).square().sum()),
    )
    assert best > 0.7
    assert float(weights[0]) == pytest.approx(best, abs=0.03)


def test_levels_that_a_column_lacks_change_no_weight() -> None:
    codes, members = levels(60)
    padded = torch.cat([members, torch.zeros(2, 60, 20)], 2)
    start = torch.tensor([0.5, 0.5])
    torch.testing.assert_close(fit_levels(padded, codes, start), fit_levels(members, codes, start), rtol=0, atol=1e-5)


def test_weights_that_are_not_found_are_the_believed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(matrix: object, target: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("tabmae.stacking.nnls", endless)
    target = normal(50, 2)
    assert torch.equal(
        fit(noisy(target, 0.1, 1.0), target, everywhere(target), equal(2)), equal(2).double().expand(2, -1)
    )
