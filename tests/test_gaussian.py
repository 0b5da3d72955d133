"""The Gaussian expert: the textbook's conditional, an EM that climbs, and tables that break a naive solve."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tabmae.experts import conditionals, gaussian
from tabmae.experts.em import _extrapolated, em, sampled
from tabmae.experts.gaussian import SHRINKAGES, Gaussian


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def moments(n_columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw a mean and a covariance of strongly correlated columns of unequal scales."""
    scale = torch.logspace(-1, 1, n_columns, dtype=torch.float64)
    loadings = normal(n_columns, 2, seed=seed)
    covariance = loadings @ loadings.T + 0.3 * torch.eye(n_columns, dtype=torch.float64)
    return 10 * normal(n_columns, seed=seed + 1), covariance * scale[:, None] * scale


def knowing(mean: Tensor, covariance: Tensor) -> Gaussian:
    """Give the expert that knows the truth."""
    expert = Gaussian(len(mean))
    expert.mean, expert.covariance, expert.precision = mean, covariance, torch.linalg.inv(covariance)
    return expert


def correlated(n_rows: int, n_columns: int, n_factors: int = 1, noise: float = 0.3, seed: int = 0) -> Tensor:
    loadings = normal(n_factors, n_columns, seed=99)
    return normal(n_rows, n_factors, seed=seed) @ loadings + noise * normal(n_rows, n_columns, seed=seed + 1)


def observed_of(values: Tensor, missing: float, seed: int = 5) -> Tensor:
    return torch.rand(values.shape, generator=seeded(seed)) >= missing


def textbook(mean: Tensor, covariance: Tensor, row: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Give the conditional mean and covariance of the invisible cells of one row."""
    hidden = ~visible
    weights = torch.linalg.solve(covariance[visible][:, visible], covariance[visible][:, hidden])
    spread = covariance[hidden][:, hidden] - covariance[hidden][:, visible] @ weights
    return mean[hidden] + (row[visible] - mean[visible]) @ weights, spread


def penalised(values: Tensor, observed: Tensor, shrinkage: float, mean: Tensor, covariance: Tensor) -> float:
    """Give the log likelihood of the observed cells and the prior, row by row, without the constants."""
    prior = len(values) * shrinkage / (1 - shrinkage)
    total = -0.5 * prior * (covariance.logdet() + torch.linalg.inv(covariance).trace())
    for row, seen in zip(values, observed, strict=True):
        block, centred = covariance[seen][:, seen], (row - mean)[seen]
        total -= 0.5 * (block.logdet() + centred @ torch.linalg.solve(block, centred))
    return float(total)


def textbook_em(values: Tensor, observed: Tensor, shrinkage: float, n_passes: int) -> tuple[Tensor, Tensor]:
    """Run EM one row at a time, from mean zero and the identity."""
    n_rows, n_columns = values.shape
    mean, covariance = torch.zeros_like(values[0]), torch.eye(n_columns, dtype=values.dtype)
    prior = n_rows * shrinkage / (1 - shrinkage)
    for _ in range(n_passes):
        filled, uncertainty = values.clone(), torch.zeros_like(covariance)
        for i, seen in enumerate(observed):
            hidden = torch.nonzero(~seen)[:, 0]
            filled[i, hidden], spread = textbook(mean, covariance, values[i], seen)
            uncertainty[hidden[:, None], hidden] += spread
        mean = filled.mean(0)
        scatter = (filled - mean).T @ (filled - mean) + uncertainty
        covariance = (scatter + prior * torch.eye(n_columns, dtype=values.dtype)) / (n_rows + prior)
    return mean, covariance


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("with_variance", [True, False])
@pytest.mark.parametrize("n_columns", [1, 2, 7])
def test_any_mask_gets_the_textbook_conditional(
    n_columns: int, with_variance: bool, dtype: torch.dtype, atol: float
) -> None:
    mean, covariance = moments(n_columns)
    visible = torch.tensor(list(product([False, True], repeat=n_columns)))
    rows = mean + normal(len(visible), n_columns, seed=3) @ torch.linalg.cholesky(covariance).T
    found, variance = knowing(mean, covariance).condition(rows.to(dtype), visible, with_variance)
    assert found.dtype == variance.dtype == dtype
    scale = covariance.diagonal().sqrt()
    for i, seen in enumerate(visible):
        expected, spread = textbook(mean, covariance, rows[i], seen)
        torch.testing.assert_close(found[i, ~seen] / scale[~seen], expected / scale[~seen], rtol=0, atol=30 * atol)
        upper = spread.diagonal() if with_variance else covariance.diagonal()[~seen]
        relative = (variance[i, ~seen] - upper) / scale[~seen].square()
        torch.testing.assert_close(relative, torch.zeros_like(relative), rtol=0, atol=atol)
    assert torch.equal(found[visible], rows.to(dtype)[visible])
    assert not variance[visible].any()


@pytest.mark.parametrize("with_variance", [True, False])
def test_a_row_alone_gets_what_it_gets_in_its_batch(with_variance: bool) -> None:
    mean, covariance = moments(9)
    expert, rows = knowing(mean, covariance), mean + normal(60, 9)
    visible = observed_of(rows, 0.5)
    together = expert.condition(rows, visible, with_variance)
    for i in range(len(rows)):
        alone = expert.condition(rows[i : i + 1], visible[i : i + 1], with_variance)
        for one, all_rows in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_rows[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("with_variance", [True, False])
@pytest.mark.parametrize("most", [1, 300])
def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch, most: int, with_variance: bool) -> None:
    mean, covariance = moments(8)
    expert, rows = knowing(mean, covariance), mean + normal(20, 8)
    visible = observed_of(rows, 0.4)
    whole = expert.condition(rows, visible, with_variance)
    fitted = Gaussian(8).fit(rows, visible, shrinkage=0.3)
    monkeypatch.setattr(conditionals, "MAX_CHUNK_CELLS", most)
    for one, other in zip(expert.condition(rows, visible, with_variance), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    again = Gaussian(8).fit(rows, visible, shrinkage=0.3)
    torch.testing.assert_close(again.covariance, fitted.covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
@pytest.mark.parametrize("n_columns", [1, 2, 7])
def test_a_cell_left_out_gets_the_conditional_with_that_cell_hidden(
    n_columns: int, dtype: torch.dtype, atol: float
) -> None:
    mean, covariance = moments(n_columns)
    expert, visible = knowing(mean, covariance), torch.tensor(list(product([False, True], repeat=n_columns)))
    rows = (mean + normal(len(visible), n_columns, seed=3) @ torch.linalg.cholesky(covariance).T).to(dtype)
    found, scale = expert.leave_one_out(rows, visible), covariance.diagonal().sqrt().to(dtype)
    assert found.dtype == dtype and found.shape == rows.shape
    for j in range(n_columns):
        hidden = visible & (torch.arange(n_columns) != j)
        expected, _ = expert.condition(rows, hidden, with_variance=False)
        wanted = torch.where(visible[:, j], expected[:, j], mean[j].to(dtype))
        torch.testing.assert_close(found[:, j] / scale[j], wanted / scale[j], rtol=0, atol=atol)


def test_every_chunk_gives_the_same_cells_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, covariance = moments(8)
    expert, rows = knowing(mean, covariance), mean + normal(30, 8)
    visible = observed_of(rows, 0.5)
    visible[:3] = False
    whole = expert.leave_one_out(rows, visible)
    ends: set[tuple[int, ...]] = set()
    for most in (1, 64, 100, 130, 300, 500, 1_000, 4_000):
        monkeypatch.setattr(conditionals, "MAX_CHUNK_CELLS", most)
        ends.add(chunk_ends(visible))
        torch.testing.assert_close(expert.leave_one_out(rows, visible), whole, rtol=1e-10, atol=1e-9)
    assert len(ends) >= 6, "the boundaries fall elsewhere"


def chunk_ends(visible: Tensor) -> tuple[int, ...]:
    """Give where the chunks of rows, sorted by their visible cells, end."""
    sizes, ends = sorted(visible.sum(1).tolist()), [0]
    while ends[-1] < len(sizes):
        ends.append(conditionals.chunk_end(sizes, ends[-1], visible.shape[1]))
    return tuple(ends)


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -1e30])
def test_a_cell_left_out_is_told_by_the_other_visible_cells_of_its_row_alone(junk: float) -> None:
    values = correlated(30, 6)
    observed = observed_of(values, 0.3)
    expert = Gaussian(6).fit(values, observed)
    left_out = expert.leave_one_out(values, observed)
    assert torch.equal(expert.leave_one_out(torch.where(observed, values, junk), observed), left_out)
    changed = values.clone()
    changed[:, 2] += 5
    moved = (expert.leave_one_out(changed, observed) - left_out).abs() > 1e-9
    own = torch.arange(6) == 2
    assert torch.equal(moved, observed & observed[:, 2:3] & ~own)


@pytest.mark.parametrize("kind", ["duplicated", "constant", "wide", "unequal units"])
def test_cells_left_out_of_hard_tables_are_finite_and_near_the_conditional(kind: str) -> None:
    values = BREAKERS[kind]()
    observed = observed_of(values, 0.2)
    expert = Gaussian(values.shape[1]).fit(values, observed)
    found, scale = expert.leave_one_out(values, observed), expert.covariance.diagonal().sqrt()
    for j in range(values.shape[1]):
        hidden = observed & (torch.arange(values.shape[1]) != j)
        expected = expert.condition(values, hidden, with_variance=False)[0][:, j]
        near = (found[:, j] - expected)[observed[:, j]] / scale[j]
        torch.testing.assert_close(near, torch.zeros_like(near), rtol=0, atol=1e-6)


def test_no_rows_leave_no_cell_out() -> None:
    assert Gaussian(3).leave_one_out(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)).shape == (0, 3)


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -1e30])
def test_an_invisible_cell_is_never_read(junk: float) -> None:
    values = correlated(30, 6)
    observed = observed_of(values, 0.3)
    held_out = observed & observed_of(values, 0.8, seed=6)
    changed = torch.where(observed, values, junk)
    one = Gaussian(6).fit(values, observed & ~held_out, held_out)
    other = Gaussian(6).fit(changed, observed & ~held_out, held_out)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for with_variance in (True, False):
        for part, same in zip(
            one.condition(values, observed, with_variance), one.condition(changed, observed, with_variance), strict=True
        ):
            assert torch.equal(part, same)


def test_held_out_cells_choose_the_shrinkage_and_nothing_else() -> None:
    values = correlated(60, 6)
    observed = observed_of(values, 0.3)
    held_out = observed & observed_of(values, 0.9, seed=6)
    expert = Gaussian(6).fit(values, observed & ~held_out, held_out)
    shuffled = torch.where(held_out, 100 * normal(60, 6, seed=8), values)
    sceptical = Gaussian(6).fit(shuffled, observed & ~held_out, held_out)
    assert float(expert.shrinkage) < float(sceptical.shrinkage)
    for one in (expert, sceptical):
        again = Gaussian(6).fit(values, observed & ~held_out, shrinkage=float(one.shrinkage))
        torch.testing.assert_close(one.covariance, again.covariance, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7])
def test_complete_rows_give_sample_mean_and_covariance_drawn_to_the_diagonal(shrinkage: float) -> None:
    values = 1000 * correlated(50, 4) + 7
    sample = torch.cov(values.T, correction=0)
    expert = Gaussian(4).fit(values, torch.ones(50, 4, dtype=torch.bool), shrinkage=shrinkage)
    torch.testing.assert_close(expert.mean, values.mean(0))
    drawn = (1 - shrinkage) * sample + shrinkage * torch.diag(sample.diagonal())
    torch.testing.assert_close(expert.covariance, drawn)
    torch.testing.assert_close(expert.precision, torch.linalg.inv(drawn))
    assert float(expert.shrinkage) == shrinkage


@pytest.mark.parametrize("n_passes", [1, 2])
def test_a_pass_of_em_equals_the_textbook_row_by_row(n_passes: int) -> None:
    values = correlated(40, 5, n_factors=2)
    observed = observed_of(values, 0.4)[torch.arange(40) // 3]
    found = em(values, observed, 0.05, max_iter=n_passes, tol=0.0)
    mean, covariance = textbook_em(values, observed, 0.05, n_passes)
    torch.testing.assert_close(found[0], mean, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(found[1], covariance, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("shrinkage", [0.003, 0.1, 0.7])
@pytest.mark.parametrize("kind", ["plain", "collinear", "wide"])
def test_the_penalised_likelihood_never_falls(missing: float, shrinkage: float, kind: str) -> None:
    values = {
        "plain": correlated(30, 5),
        "collinear": correlated(30, 3)[:, [0, 1, 2, 0, 1]],
        "wide": correlated(6, 9),
    }[kind]
    observed = observed_of(values, missing)
    n_columns = values.shape[1]
    mean, covariance = torch.zeros(n_columns, dtype=values.dtype), torch.eye(n_columns, dtype=values.dtype)
    likelihood = [penalised(values, observed, shrinkage, mean, covariance)]
    for _ in range(39):
        mean, covariance = em(values, observed, shrinkage, None, mean, covariance, max_iter=1)
        likelihood.append(penalised(values, observed, shrinkage, mean, covariance))
    trace = torch.tensor(likelihood, dtype=torch.float64)
    assert (trace.diff() >= -1e-9 * trace.abs().max()).all()


@pytest.mark.parametrize("shrinkage", [1e-8, 0.003, 0.1])
def test_long_steps_lead_as_far_in_a_quarter_of_the_passes(shrinkage: float) -> None:
    values = correlated(60, 6, n_factors=3)
    observed = observed_of(values, 0.4)
    begin = slow = em(values, observed, shrinkage, max_iter=1)
    for _ in range(159):
        slow = em(values, observed, shrinkage, None, *slow, max_iter=1)
    quick = em(values, observed, shrinkage, max_iter=40, tol=0.0)
    best, reached, begun = (penalised(values, observed, shrinkage, *found) for found in (slow, quick, begin))
    assert reached > best - 0.01 * abs(best - begun)


def test_a_step_that_leads_to_no_covariance_or_far_away_is_shortened() -> None:
    start, first, second = (
        (torch.zeros(2).double(), torch.diag(torch.tensor([variance, 1.0]).double())) for variance in (1.0, 0.5, 0.26)
    )
    mean, covariance = _extrapolated(start, first, second)
    assert 0 < covariance[0, 0] < 0.26 and covariance[1, 1] == 1 and not mean.any()
    far = [(torch.tensor([place]).double(), torch.eye(1).double()) for place in (0.0, 0.01, 0.01995)]
    assert 0.5 < _extrapolated(*far)[0][0] < 1.01995
    straight = [(torch.zeros(2).double(), torch.eye(2).double() * scale) for scale in (1.0, 0.6, 0.2)]
    assert _extrapolated(*straight)[1].equal(straight[2][1])


def test_em_ends_on_a_maximum() -> None:
    values = correlated(50, 4)
    observed = observed_of(values, 0.3)
    mean, covariance = em(values, observed, 0.05, max_iter=400, tol=1e-9)
    best = penalised(values, observed, 0.05, mean, covariance)
    for seed in range(10):
        step = 0.02 * normal(4, 4, seed=seed)
        near = covariance + 0.02 * (step @ covariance + covariance @ step.T)
        assert penalised(values, observed, 0.05, mean, near) < best
        assert penalised(values, observed, 0.05, mean + step[0], covariance) < best


def test_moments_of_cells_missing_at_random_are_better_than_pairwise_and_mean_filled() -> None:
    mean, covariance = moments(6, seed=4)
    scale = covariance.diagonal().sqrt()
    errors: dict[str, list[float]] = {"em": [], "pairwise": [], "mean": []}
    for seed in range(3):
        values = mean + normal(400, 6, seed=seed) @ torch.linalg.cholesky(covariance).T
        observed = observed_of(values, 0.5, seed=seed + 50)
        centre = values.where(observed, torch.nan).nanmean(0)
        filled, count = torch.where(observed, values - centre, 0), observed.double()
        found = {
            "em": Gaussian(6).fit(values, observed, shrinkage=0.003).covariance,
            "pairwise": (filled.T @ filled) / (count.T @ count),
            "mean": torch.cov(filled.T),
        }
        for name, estimate in found.items():
            errors[name].append(float(((estimate - covariance) / scale[:, None] / scale).norm()))
    averages = {name: sum(each) for name, each in errors.items()}
    assert averages["em"] < 0.85 * min(averages["pairwise"], averages["mean"])


def test_a_mean_whose_cells_are_missing_by_another_column_is_right() -> None:
    values = correlated(3000, 2, noise=0.2)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[:, 1] = values[:, 0] < 0
    expert = Gaussian(2).fit(values, observed)
    naive = values[observed[:, 1], 1].mean() - values[:, 1].mean()
    assert abs(float(expert.mean[1] - values[:, 1].mean())) < 0.1 * abs(float(naive))


def sums() -> Tensor:
    values = normal(60, 4)
    return torch.cat([values, values.sum(1, keepdim=True), values[:, :2].sum(1, keepdim=True)], 1)


BREAKERS: dict[str, Callable[[], Tensor]] = {
    "duplicated": lambda: correlated(60, 3)[:, [0, 1, 2, 0, 0, 1]],
    "sums": sums,
    "constant": lambda: torch.cat([correlated(60, 3), torch.full((60, 1), 4.0)], 1),
    "wide": lambda: correlated(8, 20),
    "one row": lambda: correlated(1, 5),
    "two rows": lambda: correlated(2, 5),
    "one column": lambda: correlated(60, 1),
    "unequal units": lambda: correlated(60, 4) * torch.tensor([1e-4, 1.0, 1e3, 1e5]),
}


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("kind", BREAKERS)
def test_tables_that_break_a_naive_solve_give_finite_answers(kind: str, missing: float) -> None:
    values = BREAKERS[kind]()
    observed = observed_of(values, missing)
    expert = Gaussian(values.shape[1]).fit(values.float(), observed)
    assert all(tensor.isfinite().all() for tensor in expert.state_dict().values())
    masks = (observed, ~observed, torch.zeros_like(observed))
    for visible, dtype in product(masks, (torch.float32, torch.float64)):
        mean, variance = expert.condition(values.to(dtype), visible)
        assert mean.isfinite().all() and variance.isfinite().all()
        assert (variance >= 0).all()
        assert (variance <= expert.covariance.diagonal() * 1.001).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_column_without_a_cell_is_zero_with_unit_variance_and_leaves_the_others_alone(dtype: torch.dtype) -> None:
    values = correlated(60, 4).to(dtype)
    observed = observed_of(values, 0.2)
    without = Gaussian(4).fit(values, observed, shrinkage=0.01)
    empty = torch.zeros(60, 1, dtype=torch.bool)
    expert = Gaussian(5).fit(
        torch.cat([values, torch.full((60, 1), torch.nan)], 1), torch.cat([observed, empty], 1), shrinkage=0.01
    )
    torch.testing.assert_close(expert.covariance[:4, :4], without.covariance)
    mean, variance = expert.condition(torch.cat([values, empty.to(dtype)], 1), torch.cat([observed, empty], 1))
    torch.testing.assert_close(mean[:, 4], torch.zeros(60, dtype=dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(variance[:, 4], torch.ones(60, dtype=dtype))
    torch.testing.assert_close(mean[:, :4], without.condition(values, observed)[0])


def test_five_hundred_columns_are_served_in_either_precision() -> None:
    values = correlated(60, 500, n_factors=2)
    observed = observed_of(values[:40], 0.2)
    mean, covariance = em(values[:40], observed, 0.1, max_iter=1)
    assert mean.isfinite().all() and covariance.isfinite().all()
    expert = Gaussian(500).fit(values[:40], torch.ones_like(observed), shrinkage=0.1)
    fresh, visible = values[40:], observed_of(values[40:], 0.2)
    visible[:10] = ~visible[:10]
    for dtype in (torch.float32, torch.float64):
        mean, variance = expert.condition(fresh.to(dtype), visible)
        assert mean.isfinite().all() and (variance >= 0).all()
        assert (mean - fresh)[~visible].square().mean() < 0.3 * fresh[~visible].square().mean()
        fast, _ = expert.condition(fresh.to(dtype), visible, with_variance=False)
        torch.testing.assert_close(fast, mean, rtol=0, atol=1e-3)


def test_a_copy_tells_its_twin_and_a_sum_its_part() -> None:
    for values, column in ((BREAKERS["duplicated"](), 3), (sums(), 4), (sums(), 0)):
        expert = Gaussian(values.shape[1]).fit(values, observed_of(values, 0.1))
        visible = torch.ones_like(values, dtype=torch.bool)
        visible[:, column] = False
        mean, variance = expert.condition(values, visible)
        scale = values[:, column].std()
        assert (mean - values)[:, column].abs().max() < 0.15 * scale
        assert (variance[:, column] < 0.05 * scale.square()).all()


def test_more_columns_than_rows_still_beat_the_mean() -> None:
    values = correlated(100, 25, n_factors=2)
    expert = Gaussian(25).fit(values[:20], observed_of(values[:20], 0.2))
    visible = observed_of(values, 0.3, seed=9)[20:]
    error = (expert.condition(values[20:], visible)[0] - values[20:])[~visible].square().mean()
    assert error < 0.4 * values[20:][~visible].square().mean()


def test_independent_noise_is_answered_by_the_mean() -> None:
    values = normal(500, 20)
    expert = Gaussian(20).fit(values[:50], observed_of(values[:50], 0.2))
    visible = observed_of(values, 0.3, seed=9)[50:]
    mean, _ = expert.condition(values[50:], visible)
    error, by_mean = ((guess - values[50:])[~visible].square().mean() for guess in (mean, expert.mean))
    assert float(expert.shrinkage) >= 0.3
    assert error < 1.03 * by_mean


def test_strong_correlation_in_many_rows_needs_hardly_any_prior() -> None:
    values = correlated(1000, 5, n_factors=2, noise=0.1)
    assert float(Gaussian(5).fit(values, observed_of(values, 0.2)).shrinkage) <= 0.01


def no_indicators(n_columns: int) -> Tensor:
    """Say that no column is an indicator, so that the Gaussian is an imputer's."""
    return torch.zeros(n_columns, dtype=torch.bool)


def stays(n_rows: int, noise: float = 0.0) -> Tensor:
    """Give starts that lie years apart, ends some days after them, the days, and a number beside, in standard units."""
    start, days = 30 * normal(n_rows), normal(n_rows, seed=1)
    end = start + days + noise * normal(n_rows, seed=3)
    rows = torch.stack([start, end, days, normal(n_rows, seed=2)], 1)
    return (rows - rows.mean(0)) / rows.std(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_columns_determine_exactly_is_found_by_the_sharp_share(dtype: torch.dtype) -> None:
    values = stays(500).to(dtype)
    known = observed_of(values, 0.2)
    held_out = known & ~observed_of(values, 0.1, seed=6)
    visible = torch.ones_like(known)
    visible[:, 2] = False
    errors = []
    for indicators in (no_indicators(4), None):
        expert = Gaussian(4).fit(values, known & ~held_out, held_out, indicators=indicators)
        errors.append(float((expert.condition(values, visible)[0] - values)[:, 2].square().mean().sqrt()))
    assert errors[0] < 0.05 < 0.3 < errors[1]


def doubled(n_rows: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """A column and its double beside columns of noise, of which each is nearly alone; observed and held-out cells."""
    values = torch.cat([normal(n_rows, 1), 2 * normal(n_rows, 1), normal(n_rows, 8, seed=4)], 1)
    values[:, 2:] += 0.2 * values[:, :1]
    known = observed_of(values, 0.2)
    held_out = known & ~observed_of(values, 0.1, seed=6)
    return values, known & ~held_out, held_out


def test_exact_columns_have_no_prior_and_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed, held_out = doubled()
    given: dict[str, Any] = {"indicators": no_indicators(10)}
    expert = Gaussian(10).fit(values, observed, held_out, shrinkage=None, **given)
    assert expert.exact.tolist() == [True, True, *[False] * 8]
    left = 1 / (expert.precision.diagonal() * expert.covariance.diagonal())
    assert (left[:2] < 1e-6).all() and (left[2:] > 0.3).all()
    again = expert.fit(values, observed | held_out, shrinkage=float(expert.shrinkage), warm_start=True, **given)
    assert again.exact.tolist() == [True, True, *[False] * 8]
    assert (1 / (again.precision.diagonal() * again.covariance.diagonal())[:2] < 1e-6).all()
    monkeypatch.setattr(gaussian, "MAX_SHARPENED", -1.0)
    assert float(again.shrinkage) == float(Gaussian(10).fit(values, observed, held_out, **given).shrinkage)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_of_two_columns_that_say_each_other_are_told_as_one(dtype: torch.dtype) -> None:
    values, observed, held_out = doubled()
    expert = Gaussian(10).fit(values, observed, held_out, indicators=no_indicators(10))
    restored = Gaussian(10)
    restored.load_state_dict(expert.state_dict())
    visible = torch.ones_like(observed)
    visible[:, :2] = False
    for found in (expert, restored):
        mean, variance = found.condition(values.to(dtype), visible)
        torch.testing.assert_close(2 * mean[:, 0], mean[:, 1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(4 * variance[:, 0], variance[:, 1], rtol=1e-3, atol=1e-3)
    left = 1 - textbook(expert.mean, expert.covariance, values[0], visible[0])[1][0, 0] / variance[0, 0].double()
    assert abs(left) < 1e-2


def test_single_precision_leaves_out_cells_of_exact_columns_as_double_does() -> None:
    values, observed, held_out = doubled()
    values[:, 1] += 1e-3 * normal(len(values), seed=7)
    expert = Gaussian(10).fit(values, observed, held_out, indicators=no_indicators(10))
    single, double = (expert.leave_one_out(values.to(dtype), observed) for dtype in (torch.float32, torch.float64))
    assert expert.exact[:2].all() and single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-3)


def test_without_exact_columns_nothing_is_sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    values = correlated(500, 6, n_factors=2, noise=0.1)
    known = observed_of(values, 0.2)
    held_out = known & ~observed_of(values, 0.1, seed=6)
    one = Gaussian(6).fit(values, known & ~held_out, held_out, indicators=no_indicators(6))
    monkeypatch.setattr(gaussian, "MAX_SHARPENED", -1.0)
    other = Gaussian(6).fit(values, known & ~held_out, held_out, indicators=no_indicators(6))
    assert not one.exact.any() and torch.equal(one.covariance, other.covariance)


def test_what_holds_in_training_alone_is_not_sharp() -> None:
    values = normal(300, 4)
    values[:, 1] = values[:, 0]
    known = observed_of(values, 0.2)
    held_out = known & ~observed_of(values, 0.1, seed=6)
    broken = torch.where(held_out, values + normal(300, 4, seed=8), values)
    kept, lost = (
        Gaussian(4).fit(cells, known & ~held_out, held_out, indicators=no_indicators(4)) for cells in (values, broken)
    )
    assert kept.exact.tolist() == [True, True, False, False] and not lost.exact.any()


def broken_total() -> tuple[Gaussian, Tensor, Tensor]:
    """Give an expert of a total and its parts beside columns that share a factor, a row whose total is one off, and
    its visible cells."""
    parts, others = normal(600, 2), correlated(600, 4, noise=0.5, seed=7)
    values = torch.cat([parts, parts.sum(1, keepdim=True) + 1e-4 * normal(600, 1, seed=9), others], 1)
    known = observed_of(values, 0.2)
    held_out = known & ~observed_of(values, 0.1, seed=6)
    expert = Gaussian(7).fit(values, known & ~held_out, held_out, indicators=no_indicators(7))
    row = values[:1].clone()
    row[0, 2] += 1
    visible = torch.ones_like(row, dtype=torch.bool)
    visible[0, 3] = False
    return expert, row, visible


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_breaks_what_columns_say_exactly_is_told_of_as_if_they_did_not(dtype: torch.dtype) -> None:
    expert, row, visible = broken_total()
    assert expert.exact.tolist() == [True] * 3 + [False] * 4
    kept = row.clone()
    kept[0, 2] -= 1
    (mean, variance), (expected, _) = (expert.condition(cells.to(dtype), visible) for cells in (row, kept))
    spread = float(expert.covariance[3, 3]) ** 0.5
    assert abs(float(mean[0, 3] - expected[0, 3])) < 0.3 * spread
    unseen = visible.clone()
    unseen[0, 2] = False  # the parts tell it exactly, and a broken row that does not show it is none
    assert float(expert.condition(row.to(dtype), unseen)[1][0, 2]) < 1e-4 < float(variance[0, 3])


def test_a_broken_row_is_told_of_alike_by_a_loaded_expert_and_in_any_batch() -> None:
    expert, row, visible = broken_total()
    restored = Gaussian(7)
    restored.load_state_dict(expert.state_dict())
    alone = expert.condition(row, visible)
    for one, other in zip(alone, restored.condition(row, visible), strict=True):
        assert torch.equal(one, other)
    rows, shown = torch.cat([correlated(50, 7), row]), torch.cat([observed_of(correlated(50, 7), 0.4), visible])
    for one, other in zip(alone, expert.condition(rows, shown), strict=True):
        torch.testing.assert_close(one[0], other[-1])


@pytest.mark.parametrize("hidden", [0.0, 0.3, 1.0])
def test_squared_distances_are_those_of_the_visible_cells(hidden: float) -> None:
    _, covariance = moments(6)
    values = correlated(30, 6)
    visible = observed_of(values, hidden)
    found = conditionals.squared_distances(torch.where(visible, values, 0), visible, covariance)
    for row, shown, squared in zip(values, visible, found, strict=True):
        known = row[shown]
        block = covariance[shown][:, shown]
        expected = float(known @ torch.linalg.solve(block, known)) if len(known) else 0.0
        assert float(squared) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answer_is_in_the_units_of_the_data(dtype: torch.dtype) -> None:
    values = correlated(80, 4).to(dtype)
    observed = observed_of(values, 0.3)
    units, origin = torch.tensor([[1.0, 100.0, 0.01, 5.0], [0.0, 50.0, -1.0, 3.0]], dtype=dtype)
    mean, variance = Gaussian(4).fit(values, observed).condition(values, observed)
    converted = values * units + origin
    other, spread = Gaussian(4).fit(converted, observed).condition(converted, observed)
    torch.testing.assert_close((other - origin) / units, mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(spread / units.square(), variance, rtol=0, atol=1e-3)


def test_rows_too_few_to_choose_by_are_answered_by_the_mean() -> None:
    values = correlated(2, 3)
    assert float(Gaussian(3).fit(values, torch.ones_like(values, dtype=torch.bool)).shrinkage) == max(SHRINKAGES)


def test_a_warm_start_goes_on_from_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    values = 50 * correlated(100, 5) + 20
    observed = observed_of(values, 0.4)
    expert = Gaussian(5).fit(values, observed, shrinkage=0.01)
    cold = expert.covariance.clone()
    monkeypatch.setattr(gaussian, "em", partial(em, max_iter=2))
    expert.fit(values, observed, shrinkage=0.01, warm_start=True)
    begun = Gaussian(5).fit(values, observed, shrinkage=0.01)
    torch.testing.assert_close(expert.covariance, cold, rtol=0.02, atol=1.0)
    assert not torch.allclose(begun.covariance, cold, rtol=0.02, atol=1.0)


def test_of_many_rows_a_sample_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = correlated(101, 4)
    observed = observed_of(values, 0.3)
    rows = sampled(101, 40)
    assert isinstance(rows, Tensor) and len(rows) == 40 and (rows.diff() > 0).all() and rows.max() < 101
    of_sample = em(values[rows], observed[rows], 0.01)
    monkeypatch.setattr("tabmae.experts.em.MAX_ROWS", 40)
    for one, other in zip(em(values, observed, 0.01), of_sample, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_loaded_expert_answers_bit_equal() -> None:
    values = correlated(60, 4)
    observed = observed_of(values, 0.3)
    expert, other = Gaussian(4).fit(values, observed), Gaussian(4)
    other.load_state_dict(expert.state_dict())
    assert torch.equal(expert.condition(values, observed)[0], other.condition(values, observed)[0])


def test_no_rows_give_no_answers() -> None:
    mean, variance = Gaussian(3).condition(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool))
    assert mean.shape == variance.shape == (0, 3)


def test_saving_does_not_lay_the_precision_out_anew() -> None:
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert Gaussian(4).fit(rows, torch.ones(50, 4, dtype=torch.bool)).precision.is_contiguous()


def test_a_covariance_on_its_way_to_the_diagonal_keeps_the_variances_and_stays_the_precision_s_inverse() -> None:
    rows = correlated(300, 4)
    seen = torch.ones_like(rows, dtype=torch.bool)
    free, half = (Gaussian(4, diagonal).fit(rows, seen, shrinkage=0.01) for diagonal in (0.0, 0.5))
    torch.testing.assert_close(half.covariance.diagonal(), free.covariance.diagonal())
    apart = ~torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(half.covariance[apart], free.covariance[apart] / 2)
    torch.testing.assert_close(half.precision @ half.covariance, torch.eye(4, dtype=torch.float64))


def test_rows_in_a_rhythm_are_sampled_out_of_step() -> None:
    first = torch.randn(12_000, 1, generator=torch.Generator().manual_seed(0))
    values = torch.cat([first, -first], 1)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[::3, 1] = False  # of three rows, the one that equal steps would take
    fitted = Gaussian(2).fit(values, observed)
    assert fitted.covariance[0, 1] < -0.9


def test_columns_that_are_only_nearly_lines_are_not_sharp() -> None:
    size = torch.rand(600, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    area = size.square() + 0.002 * torch.randn(600, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = torch.cat([size, size.pow(1.1), area, size + area, 2 * size + 0.05 * area.square()], 1)
    observed = torch.rand(rows.shape, generator=torch.Generator().manual_seed(2)) > 0.2
    held_out = observed & (torch.rand(rows.shape, generator=torch.Generator().manual_seed(3)) < 0.2)
    bent = Gaussian(5).fit(rows, observed & ~held_out, held_out, indicators=no_indicators(5))
    assert not bent.exact.any()


@pytest.mark.parametrize(("n_rows_of_level", "told", "alike"), [(4, 2.4, 2.97), (200, 2.97, 2.97)])
def test_few_rows_of_a_level_say_less_than_many(n_rows_of_level: int, told: float, alike: float) -> None:
    level = (torch.arange(400)[:, None] < n_rows_of_level).double()
    values = torch.cat([3 * level + 0.01 * normal(400, 1), level], 1)
    row, asked = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[False, True]])
    for indicators, expected in ((torch.tensor([False, True]), told), (None, alike)):
        # The prior, .01 of 400 rows with the variance of a fair coin, is worth one row more that is as the others.
        expert = Gaussian(2).fit(values, values.isfinite(), shrinkage=0.01, indicators=indicators)
        mean = float(expert.condition(row, asked)[0][0, 0])
        assert mean == pytest.approx(expected, abs=0.05)


def test_columns_of_noise_do_not_choose_the_shrinkage_of_those_that_are_told() -> None:
    told, noise = correlated(250, 8, n_factors=2), normal(250, 10)
    values = torch.cat([told, noise], 1)
    observed = observed_of(values, 0.2)
    wide = torch.ones(18, dtype=values.dtype)
    shares = [
        gaussian._chosen(values[:, columns], observed[:, columns], ~observed[:, columns], wide[columns], True)[2]
        for columns in (slice(None), slice(8), slice(8, None))
    ]
    assert shares[0] == shares[1] == 0.03 and shares[2] == max(SHRINKAGES)
