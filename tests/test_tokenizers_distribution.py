"""The predictive distribution: mean, density, cdf, quantiles and draws are of one and the same distribution."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm, truncnorm
from torch import Tensor

from tabmae.tokenizers import CellDistribution
from tabmae.tokenizers.bins import LEAST_WIDTH, Bins
from tabmae.tokenizers.mixture import Section

N_ROWS = 30
N_BINS = 8
CONTINUOUS, DISCRETE = [0, 2], [1]
"""Numeric columns: all bins, a bin for each of four values, five bins."""
RARE = 4
"""Class of the second category that stands for its rare levels."""
PROBABILITIES = (0.001, 0.05, 0.3, 0.5, 0.8, 0.99)

MOVED = pytest.mark.parametrize("moved", [False, True])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def distribution(n_rows: int = N_ROWS, same_rows: bool = False, moved: bool = False) -> CellDistribution:
    """Give a distribution over features (category, number, number, category, number) with bins of means off-centre."""
    edges = torch.zeros(3, N_BINS + 1, dtype=torch.float64)
    edges[0] = torch.tensor([-2.0, -1.5, -1.2, -0.3, 0.1, 0.2, 1.0, 2.0, 4.0])
    edges[1, :5] = torch.tensor([-1.25, -0.75, 0.0, 1.25, 2.75])
    edges[1, 5:] = 2.75
    edges[2, :6] = torch.tensor([-1.0, -0.9, 0.0, 0.5, 3.0, 3.5])
    edges[2, 6:] = 3.5
    shares = torch.tensor([0.02, 0.3, 0.99, 0.5, 0.9, 0.1, 0.8, 0.05], dtype=torch.float64)
    centres = edges[:, :-1] + shares * edges.diff(dim=1)
    centres[1, :4] = torch.tensor([-1.0, -0.5, 0.5, 2.0])
    centres[1, 4:] = 2.0
    absent = edges[:, 1:] <= edges[:, :-1]
    levels = 1.5 * normal(n_rows, 2, 5, seed=4)
    levels[:, 0, 3:] = -torch.inf
    belief = CellDistribution(
        direct=0.7 * normal(n_rows, 3, seed=1),
        scale=0.1 + 0.5 * normal(n_rows, 3, seed=2).abs(),
        gate=torch.sigmoid(normal(n_rows, 3, seed=5)),
        mass=normal(n_rows, 3, N_BINS, seed=3).masked_fill(absent, -torch.inf).softmax(2),
        bins=Bins(edges, centres, torch.tensor([False, True, False])[:, None].expand_as(centres)),
        log_levels=levels.log_softmax(2),
        numbers=torch.tensor([1, 2, 4]),
        categories=torch.tensor([0, 3]),
        has_rare=torch.tensor([False, True]),
        n_modelled=torch.tensor([3, 5]),
    )
    if same_rows:
        names = ("direct", "scale", "gate", "mass", "log_levels")
        belief = replace(belief, **{name: getattr(belief, name)[:1].expand_as(getattr(belief, name)) for name in names})
    return belief.moved_to(belief.mean + torch.tensor([0.4, -0.6, 2.0])) if moved else belief


def grid(low: float, high: float, n: int) -> Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64)


def at(belief: CellDistribution, points: Tensor) -> CellDistribution:
    """Repeat the first row's belief once a point."""
    names = ("direct", "scale", "gate", "mass", "log_levels", *(["moved"] if belief.moved is not None else []))
    return replace(
        belief,
        **{name: getattr(belief, name)[:1].expand(len(points), *getattr(belief, name).shape[1:]) for name in names},
    )


@MOVED
def test_the_cdf_climbs_from_nothing_to_one(moved: bool) -> None:
    points = grid(-40, 40, 4001)
    share = at(distribution(moved=moved), points).cdf(points[:, None].expand(-1, 3))
    assert (share.diff(dim=0) >= -1e-12).all()
    assert share[0].abs().max() < 1e-9 and (share[-1] - 1).abs().max() < 1e-9


@MOVED
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_are_the_inverse_of_the_cdf(moved: bool, probability: float) -> None:
    belief = distribution(moved=moved)
    share = belief.cdf(belief.quantile(probability))[:, CONTINUOUS]
    torch.testing.assert_close(share, torch.full_like(share, probability), rtol=0, atol=1e-6)
    points = belief.mean
    torch.testing.assert_close(
        belief.quantile(belief.cdf(points))[:, CONTINUOUS], points[:, CONTINUOUS], rtol=0, atol=1e-5
    )


@MOVED
def test_quantiles_of_a_discrete_column_are_its_values_and_climb(moved: bool) -> None:
    belief = distribution(moved=moved)
    quantiles = torch.stack([belief.quantile(probability) for probability in PROBABILITIES])
    assert torch.isin(quantiles[:, :, DISCRETE], belief.bins.centres[1, :4]).all()
    assert (quantiles.diff(dim=0) >= 0).all()
    if not moved:
        cell = belief.bins.bin(quantiles[3])[:, DISCRETE]
        low, high = belief.bins.edges[1][cell], belief.bins.edges[1][cell + 1]
        assert (belief.cdf(low.expand(-1, 3))[:, DISCRETE] <= 0.5 + 1e-9).all()
        assert (belief.cdf(high.expand(-1, 3))[:, DISCRETE] >= 0.5 - 1e-9).all()


def density_on_a_grid(belief: CellDistribution, column: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give midpoints, the density of the first row's cell there, and steps of a grid far beyond all of its mass."""
    edge = grid(-15, 15, 300_001)
    middle = (edge[1:] + edge[:-1]) / 2
    one = at(belief, middle).number_log_density(middle[:, None].expand(-1, 3))[:, column].exp()
    return middle, one, edge.diff()


@pytest.mark.parametrize("column", CONTINUOUS)
def test_the_cdf_is_the_integral_of_the_density_within_and_beyond_the_outer_edges(column: int) -> None:
    belief = distribution()
    middle, density, step = density_on_a_grid(belief, column)
    every = slice(None, None, 1_000)
    ends = (middle + step / 2)[every]
    share = at(belief, ends).cdf(ends[:, None].expand(-1, 3))[:, column]
    torch.testing.assert_close((density * step).cumsum(0)[every], share, rtol=0, atol=2e-4)
    assert float((density * step).sum()) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("column", CONTINUOUS)
def test_the_mean_is_the_integral_of_values_over_density(column: int) -> None:
    belief = distribution()
    middle, density, step = density_on_a_grid(belief, column)
    assert float((middle * density * step).sum()) == pytest.approx(float(belief.mean[0, column]), abs=5e-4)


@MOVED
def test_the_mean_is_the_mean_of_the_quantiles(moved: bool) -> None:
    n = 20_000
    belief = distribution(n, same_rows=True, moved=moved)
    quantiles = belief.quantile(((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None])
    torch.testing.assert_close(quantiles.mean(0)[CONTINUOUS], belief.mean[0, CONTINUOUS], rtol=0, atol=1e-3)


def test_the_variance_is_that_of_the_draws_but_for_what_spreads_within_bins() -> None:
    belief = distribution()
    torch.testing.assert_close(replace(belief, gate=torch.ones_like(belief.gate)).variance, belief.scale.square())
    drawn = distribution(40_000, same_rows=True)
    spread = drawn.sample(seeded())[:, drawn.numbers][:, [0, 2]].var(0)
    told, widest = drawn.variance[0, [0, 2]], drawn.bins.edges.diff(dim=1).amax(1)[[0, 2]]
    assert (told < 1.03 * spread).all() and (told > spread - widest.square() / 4).all()
    moved = replace(belief, moved=belief.mean + 1.0)
    torch.testing.assert_close(moved.variance, belief.variance)


def histogram(values: Tensor, n_rows: int) -> CellDistribution:
    """Give the belief that a cell is one of the values (n,) of its column."""
    bins = Bins.fit(values[:, None], torch.ones(len(values), 1, dtype=torch.bool))
    found = bins.bin(values[:, None])[:, 0]
    share = torch.bincount(found, minlength=bins.centres.shape[1]) / len(values)
    cell = torch.zeros(n_rows, 1, dtype=torch.float64)
    return CellDistribution(
        direct=cell,
        scale=cell + 1,
        gate=cell,
        mass=share.double().expand(n_rows, 1, -1),
        bins=Bins(bins.edges.double(), bins.centres.double(), bins.single),
        log_levels=torch.zeros(n_rows, 0, 1, dtype=torch.float64),
        numbers=torch.tensor([0]),
        categories=torch.zeros(0, dtype=torch.long),
        has_rare=torch.zeros(0, dtype=torch.bool),
        n_modelled=torch.zeros(0, dtype=torch.long),
    )


@pytest.mark.parametrize("power", [2, 5])
def test_draws_of_a_skewed_column_have_its_mean(power: int) -> None:
    n = 20_000
    values = normal(4_000).abs().pow(power).float()
    belief = histogram(values, n)
    draws = belief.sample(seeded())[:, 0]
    assert float(belief.mean[0, 0]) == pytest.approx(float(values.mean()), abs=1e-3)
    assert float(draws.mean()) == pytest.approx(float(values.mean()), abs=4 * float(draws.std()) / n**0.5)


@pytest.mark.parametrize("end", [0, 1])
def test_a_bin_whose_cells_all_lie_on_its_edge_has_a_bounded_density(end: int) -> None:
    whole = distribution()
    centres = whole.bins.edges[:, end : N_BINS + end]
    belief = replace(whole, bins=replace(whole.bins, centres=centres))
    for k in range(N_BINS):
        density = belief.number_log_density(centres[:, k].expand(N_ROWS, 3))
        assert torch.isfinite(density).all() and (density <= -math.log(LEAST_WIDTH)).all()
    binned = (belief.mass * centres).sum(2)
    wanted = belief.gate * belief.direct + (1 - belief.gate) * binned
    torch.testing.assert_close(belief.mean, wanted, rtol=0, atol=LEAST_WIDTH)
    share = belief.cdf(belief.quantile(0.7))[:, CONTINUOUS]
    torch.testing.assert_close(share, torch.full_like(share, 0.7), rtol=0, atol=1e-6)


def test_the_largest_value_of_a_column_lies_in_its_last_bin() -> None:
    belief = distribution()
    top = belief.bins.edges[:, -1].expand(N_ROWS, 3)
    just_below = belief.number_log_density(top - 1e-9)
    torch.testing.assert_close(belief.number_log_density(top), just_below, rtol=0, atol=1e-5)


@MOVED
def test_the_mean_is_the_mean_of_many_draws(moved: bool) -> None:
    n = 20_000
    belief = distribution(n, same_rows=True, moved=moved)
    draws = belief.sample(seeded())[:, belief.numbers]
    error = (draws.mean(0) - belief.mean[0]) / (draws.std(0) / n**0.5)
    assert (error[CONTINUOUS].abs() < 4).all()


@MOVED
def test_draws_follow_the_cdf(moved: bool) -> None:
    n = 5_000
    belief = distribution(n, moved=moved)
    share = belief.cdf(belief.sample(seeded())[:, belief.numbers])[:, CONTINUOUS].sort(0).values
    uniform = torch.arange(1, n + 1)[:, None] / n
    assert (share - uniform).abs().max() < 1.95 / n**0.5, "Kolmogorov-Smirnov, level .001"


@MOVED
def test_draws_of_a_discrete_column_are_its_values_at_the_share_of_their_bins(moved: bool) -> None:
    n = 20_000
    belief = distribution(n, same_rows=True, moved=moved)
    draws = belief.sample(seeded())[:, belief.numbers][:, 1]
    below = [belief.cdf(belief.bins.edges[1, k].expand(n, 3))[0, 1] for k in (1, 2, 3)]
    share = torch.stack([(draws == value).double().mean() for value in belief.bins.centres[1, :4]])
    expected = torch.stack([below[0], below[1] - below[0], below[2] - below[1], 1 - below[2]])
    torch.testing.assert_close(share, expected, rtol=0, atol=0.015)


def heaped(n_rows: int, shift: float) -> CellDistribution:
    """Give the belief that a cell is one of many values, of which most are 0 and some 3, moved by a shift."""
    rest = torch.linspace(-1, 6, 400)
    belief = histogram(torch.cat([torch.zeros(500), torch.full((250,), 3.0), rest]), n_rows)
    return belief.moved_to(belief.mean + shift)


def shares_of(draws: Tensor, values: Tensor) -> Tensor:
    return torch.stack([(draws == value).double().mean() for value in values])


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.4, 1.5])
def test_frequent_values_stay_where_they_are_and_are_the_likelier_the_nearer_the_mean(shift: float) -> None:
    n, heaps = 20_000, torch.tensor([0.0, 3.0], dtype=torch.float64)
    belief, still = heaped(n, shift), heaped(n, 0.0)
    draws = belief.sample(seeded())[:, 0]
    assert float(draws.mean()) == pytest.approx(float(belief.mean[0]), abs=4 * float(draws.std()) / n**0.5)
    share, before = shares_of(draws, heaps), shares_of(still.sample(seeded())[:, 0], heaps)
    torch.testing.assert_close(before, torch.tensor([500 / 1150, 250 / 1150], dtype=torch.float64), rtol=0, atol=0.015)
    assert float((share[1] / share[0]).log() - (before[1] / before[0]).log()) * shift >= 0
    assert (share > 0.02).all() and ((share - before).abs() > 0.02).any() == (shift != 0)
    for value in heaps:
        nearby = (draws - value).abs() < 0.3
        assert float((nearby & (draws != value)).double().mean()) < 0.09
    levels = belief.centrality(draws[:, None])
    for level in (0.5, 0.8, 0.95):
        lower, upper = belief.quantile((1 - level) / 2), belief.quantile((1 + level) / 2)
        within = (draws[:, None] >= lower) & (draws[:, None] <= upper)
        assert (within == (levels <= level)).double().mean() > 0.99
        assert float(within.double().mean()) >= level - 0.02


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.4])
def test_the_cdf_steps_over_frequent_values_and_meets_the_quantiles(shift: float) -> None:
    grid = torch.linspace(-3, 8, 2_000, dtype=torch.float64)[:, None]
    below = heaped(len(grid), shift).cdf(grid)
    assert (below.diff(dim=0) >= -1e-9).all()
    assert float(below[0]) == pytest.approx(0, abs=1e-4) and float(below[-1]) == pytest.approx(1, abs=1e-4)
    probability = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)[:, None]
    belief = heaped(len(probability), shift)
    values = belief.quantile(probability)
    found, alone = belief.cdf(values), ~torch.isin(values, torch.tensor([0.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(found[alone], probability[alone], rtol=0, atol=1e-6)
    assert (found >= probability - 1e-6).all() and alone.any() and not alone.all()


@pytest.mark.parametrize("shift", [-0.7, -0.2, 0.6, 1.2])
def test_few_values_are_drawn_with_the_mean_that_is_asked_for_and_tilted_by_no_more(shift: float) -> None:
    n = 40_000
    still = distribution(n, same_rows=True)
    target = still.mean[:, DISCRETE] + shift
    moved = still.moved_to(torch.where(torch.tensor([False, True, False]), still.mean + shift, still.mean))
    draws = moved.sample(seeded())[:, moved.numbers][:, 1]
    values = moved.bins.centres[1, :4]
    assert float(draws.mean()) == pytest.approx(float(target[0]), abs=4 * float(draws.std()) / n**0.5)
    bend = (shares_of(draws, values) / still.mass[0, 1, :4]).log()
    slopes = bend.diff() / values.diff()
    torch.testing.assert_close(slopes, slopes.mean().expand(3), rtol=0.1, atol=0.15)


@pytest.mark.parametrize(("mean", "value"), [(-5.0, -1.0), (5.0, 2.0)])
def test_a_mean_beyond_few_values_is_the_outer_one(mean: float, value: float) -> None:
    belief = distribution()
    belief = belief.moved_to(torch.full_like(belief.mean, mean))
    assert (belief.sample(seeded())[:, belief.numbers][:, DISCRETE] == value).all()
    lower, upper = belief.interval(0.9)
    assert (lower[:, DISCRETE] - value).abs().max() < 1e-5 and (upper[:, DISCRETE] - value).abs().max() < 1e-5


def test_what_is_learnt_of_few_values_is_their_probability() -> None:
    belief = distribution()
    found = torch.stack([belief.number_log_density(c.expand(N_ROWS, 3))[:, 1] for c in belief.bins.centres[1, :4]], 1)
    torch.testing.assert_close(found.exp(), belief.mass[:, 1, :4], rtol=0, atol=2e-4)
    sharper = replace(belief, scale=belief.scale / 100)
    at_it = sharper.direct[:, 1]
    assert (sharper.number_log_density(at_it[:, None].expand(-1, 3))[:, 1] <= 1e-3).all(), "no density without end"


def test_what_is_learnt_of_a_frequent_value_is_its_probability_and_of_others_their_density() -> None:
    rest = torch.linspace(0.5, 6, 400)
    belief = histogram(torch.cat([torch.zeros(500), rest]), 8_000)
    belief = replace(belief, gate=belief.gate + 0.7, direct=belief.direct + 0.3, scale=belief.scale - 0.5)
    edge = torch.linspace(float(belief.bins.edges[0, 1]), 12, 8_001, dtype=torch.float64)
    middle = ((edge[1:] + edge[:-1]) / 2)[:, None]
    of_others = float((belief.number_log_density(middle).exp() * edge.diff()[:, None]).sum())
    of_zero = float(belief.number_log_density(torch.zeros_like(middle)).exp()[0])
    assert of_zero + of_others == pytest.approx(1, abs=2e-3) and of_zero == pytest.approx(500 / 900)
    draws = replace(belief, moved=None).sample(seeded())[:, 0]
    assert float(draws.min()) == 0 and float((draws == 0).double().mean()) == pytest.approx(of_zero, abs=0.02)


@pytest.mark.parametrize("location", [-4.0, -0.5, 0.3, 9.0])
@pytest.mark.parametrize("mean", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("is_turned", [False, True])
def test_quantiles_have_the_mean_asked_for_however_much_of_the_normal_lies_beyond_the_frequent_values(
    location: float, mean: float, is_turned: bool
) -> None:
    side, n = -1 if is_turned else 1, 1_000
    belief = histogram(side * torch.cat([torch.zeros(500), torch.linspace(0.5, 6, 400)]), n)
    belief = replace(belief, gate=belief.gate + 0.9, direct=belief.direct + side * location)
    for asked in (belief, belief.moved_to(torch.full_like(belief.direct, side * mean))):
        quantiles = asked.quantile(((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None])
        assert float(quantiles.mean()) == pytest.approx(float(asked.mean[0]), abs=5e-3)


@MOVED
def test_draws_are_widened_by_the_levels_asked_for(moved: bool) -> None:
    n = 5_000
    belief = distribution(n, moved=moved)
    draws = belief.sample(seeded(), lambda level: level.sqrt())
    same = belief.sample(seeded(), lambda level: level)
    assert torch.equal(same, belief.sample(seeded()))
    assert torch.equal(draws[:, belief.categories], same[:, belief.categories])
    levels = belief.centrality(draws[:, belief.numbers])[:, CONTINUOUS].square().sort(0).values
    assert (levels - torch.arange(1, n + 1)[:, None] / n).abs().max() < 1.95 / n**0.5


def test_moving_shifts_mean_draws_quantiles_and_cdf_alike() -> None:
    belief = distribution()
    step = torch.tensor([0.4, -0.6, 2.0])
    moved = belief.moved_to(belief.mean + step)
    torch.testing.assert_close(moved.mean, belief.mean + step)
    points = normal(N_ROWS, 3, seed=8)
    torch.testing.assert_close(moved.cdf(points + step)[:, CONTINUOUS], belief.cdf(points)[:, CONTINUOUS])
    one, other = (each.sample(seeded())[:, belief.numbers] for each in (belief, moved))
    torch.testing.assert_close(other[:, CONTINUOUS], (one + step)[:, CONTINUOUS])
    for probability in PROBABILITIES:
        difference = moved.quantile(probability) - belief.quantile(probability) - step
        assert difference[:, CONTINUOUS].abs().max() < 1e-5
    torch.testing.assert_close(moved.point()[:, [0, 3]], belief.point()[:, [0, 3]])


def test_moving_twice_ends_where_it_was_sent_last() -> None:
    belief = distribution()
    target = normal(N_ROWS, 3, seed=8)
    twice = belief.moved_to(belief.mean + 5).moved_to(target)
    torch.testing.assert_close(twice.mean, target)
    torch.testing.assert_close(twice.quantile(0.3), belief.moved_to(target).quantile(0.3))


def test_the_same_generator_draws_the_same_and_the_global_one_is_left_alone() -> None:
    belief, state = distribution(), torch.get_rng_state()
    assert torch.equal(belief.sample(seeded(1)), belief.sample(seeded(1)))
    assert not torch.equal(belief.sample(seeded(1)), belief.sample(seeded(2)))
    assert torch.equal(torch.get_rng_state(), state)


def test_probabilities_sum_to_one_and_are_the_density() -> None:
    belief = distribution()
    for feature, k, n_levels in ((0, 0, 3), (3, 1, 5)):
        probabilities = belief.probabilities(feature)
        assert probabilities.shape == (N_ROWS, n_levels)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(N_ROWS, dtype=torch.float64))
        for code in range(n_levels):
            codes = torch.full((N_ROWS, 2), float(code), dtype=torch.float64)
            torch.testing.assert_close(belief.level_log_probability(codes)[:, k].exp(), probabilities[:, code])


def test_draws_of_categories_keep_their_odds_and_never_name_the_rare_class() -> None:
    n = 20_000
    belief = distribution(n, same_rows=True)
    draws = belief.sample(seeded())
    for feature, n_named in ((0, 3), (3, RARE)):
        share = torch.bincount(draws[:, feature].long(), minlength=5)[:5] / n
        named = belief.probabilities(feature)[0, :n_named]
        torch.testing.assert_close(share[:n_named].double(), named / named.sum(), rtol=0, atol=0.015)
        assert not share[n_named:].any()


def test_a_rare_class_is_never_imputed_nor_drawn_however_probable() -> None:
    belief = distribution()
    likely = belief.log_levels.clone()
    likely[:, 1, RARE] = 30.0
    likely = likely.log_softmax(2)
    certain = replace(belief, log_levels=likely)
    assert (certain.probabilities(3)[:, RARE] > 0.99).all()
    assert torch.equal(certain.point()[:, 3], likely[:, 1, :RARE].argmax(1).double())
    for seed in range(50):
        assert (certain.sample(seeded(seed))[:, 3] < RARE).all()


def test_the_value_to_impute_is_the_mean_or_the_most_probable_level() -> None:
    belief = distribution()
    assert torch.equal(belief.point()[:, belief.numbers], belief.mean)
    assert torch.equal(belief.point()[:, 0], belief.probabilities(0).argmax(1).double())


@MOVED
@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_its_centrality_is_the_smallest_that_holds_a_value(moved: bool, seed: int) -> None:
    belief = distribution(moved=moved)
    values = belief.sample(seeded(seed))[:, belief.numbers]
    centrality = belief.centrality(values)
    assert ((centrality >= 0) & (centrality <= 1)).all()
    for step, held in ((1e-4, True), (-1e-4, False)):
        level = (centrality + step).clamp(0, 1)
        low, high = belief.quantile((1 - level) / 2), belief.quantile((1 + level) / 2)
        inside = (low <= values) & (values <= high)
        judged = (centrality + step > 0) & (centrality + step < 1)
        assert (inside == held)[judged].all()


def test_the_median_has_no_centrality_and_far_cells_have_all() -> None:
    belief = distribution()
    assert belief.centrality(belief.quantile(0.5)).abs().max() < 1e-6
    far = belief.centrality(torch.full((N_ROWS, 3), 50.0, dtype=torch.float64))
    torch.testing.assert_close(far[:, CONTINUOUS], torch.ones(N_ROWS, 2, dtype=torch.float64))


def test_the_likelihood_may_keep_its_gradient_off_the_location() -> None:
    belief = distribution()
    for detach in (True, False):
        direct, scale = (tensor.clone().requires_grad_() for tensor in (belief.direct, belief.scale))
        replace(belief, direct=direct, scale=scale).number_log_density(
            belief.bins.centres[:, 2].expand(N_ROWS, 3), detach
        ).sum().backward()
        assert scale.grad is not None and scale.grad[:, CONTINUOUS].abs().min() > 0
        assert (direct.grad is None) == detach


@pytest.mark.parametrize("moved", [False, True])
def test_the_distribution_of_one_feature_is_that_feature_s(moved: bool) -> None:
    belief = distribution(moved=moved)
    point = belief.point()
    for features, name in ((belief.numbers, "number_log_density"), (belief.categories, "level_log_probability")):
        whole = getattr(belief, name)(point[:, features])
        for k, feature in enumerate(features.tolist()):
            alone = belief.of(feature)
            assert torch.equal(alone.point()[:, 0], point[:, feature])
            torch.testing.assert_close(getattr(alone, name)(point[:, [feature]])[:, 0], whole[:, k])
    first = belief.of(int(belief.numbers[0]))
    torch.testing.assert_close(first.quantile(0.3)[:, 0], belief.quantile(0.3)[:, 0])


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (-1e3, 1e3), (0.5, 1e3), (-1e3, -0.5), (4.0, 5.0), (-5.0, -4.0)]
)
def test_the_part_of_a_normal_between_two_ends_is_a_truncated_normal(low: float, high: float) -> None:
    location = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    scale = torch.tensor([[0.3, 1.0, 2.0]], dtype=torch.float64)
    found = Section(location, scale, torch.tensor([low]), torch.tensor([high]))
    below, above = (((end - location) / scale).numpy() for end in (low, high))
    truth = truncnorm(below, above, loc=location.numpy(), scale=scale.numpy())
    torch.testing.assert_close(found.mean, torch.from_numpy(truth.mean()))
    torch.testing.assert_close(found.variance, torch.from_numpy(truth.var()), rtol=1e-6, atol=0)
    # log(F(b) - F(a)) = log F(b) + log(1 - F(a) / F(b)), turned where both lie above.
    near, off = (np.where(below > 0, turned, plain) for turned, plain in ((-below, above), (-above, below)))
    mass = norm.logcdf(near) + np.log1p(-np.exp(norm.logcdf(off) - norm.logcdf(near)))
    torch.testing.assert_close(found.log_mass, torch.from_numpy(mass))


@MOVED
def test_cells_that_are_wanted_have_the_quantiles_bounds_and_draws_of_all(moved: bool) -> None:
    belief = distribution(moved=moved)
    wanted = torch.rand(N_ROWS, 5, generator=seeded(9)) < 0.3
    wanted[:, 1] = False
    numbers = wanted[:, belief.numbers]
    found, whole = (belief.quantile(torch.linspace(0.1, 0.9, 3), part) for part in (numbers, None))
    assert torch.equal(found[numbers], whole[numbers])
    for bounds in zip(belief.interval(0.8, numbers), belief.interval(0.8), strict=True):
        assert torch.equal(*(bound[numbers] for bound in bounds))
    found, whole = (belief.sample(seeded(), wanted=part) for part in (wanted, None))
    assert torch.equal(found[wanted], whole[wanted])
    nothing = belief.quantile(0.5, torch.zeros_like(numbers))
    assert nothing.shape == numbers.shape


def test_what_is_gathered_lies_about_its_place() -> None:
    belief = distribution()
    at = torch.where(belief.bins.has_single, 0.5, 0.3 * normal(N_ROWS, 3, seed=8))
    spread, whole = torch.full_like(at, 0.01), torch.ones_like(at)
    gathered = belief.gathered(at, spread, whole).moved_to(at)
    for probability in (0.01, 0.5, 0.99):
        off = gathered.quantile(probability) - at
        assert (off[:, CONTINUOUS] - 0.01 * norm.ppf(probability)).abs().max() < 0.002
        assert (off[:, DISCRETE] == 0).all()
    half = belief.gathered(at, spread, whole / 2)
    assert (half.scale < belief.scale).all() and (half.gate > belief.gate).all()
    assert (belief.gathered(at, 100 * belief.scale, whole).scale <= (1 + 1e-9) * belief.scale).all()
    none = belief.gathered(at, spread, torch.zeros_like(at))
    torch.testing.assert_close(none.quantile(0.3), belief.quantile(0.3))


def test_a_fixed_cell_is_its_number_and_nothing_else() -> None:
    belief = distribution(moved=True)
    fixed = torch.rand(belief.direct.shape, generator=seeded(6)) < 0.5
    numbers = normal(*belief.direct.shape, seed=7)
    found = belief.fixed_at(numbers, fixed)
    for told in (found.mean, found.quantile(0.03), found.quantile(0.9), found.sample(seeded(8))[:, found.numbers]):
        torch.testing.assert_close(told[fixed], numbers[fixed], rtol=0, atol=0)
    assert not found.variance[fixed].any()
    assert (found.cdf(numbers)[fixed] == 1).all() and (found.cdf(numbers - 1e-6)[fixed] == 0).all()
    assert (found.centrality(numbers)[fixed] == 0).all() and (found.centrality(numbers + 1e-6)[fixed] == 1).all()
    low, high = found.interval(0.9)
    assert ((low <= numbers) & (numbers <= high) & (high - low < 1e-5))[fixed].all()
    for ask in (lambda one: one.variance, lambda one: one.quantile(0.3), lambda one: one.cdf(numbers)):
        torch.testing.assert_close(ask(found)[~fixed], ask(belief)[~fixed])
    wanted = torch.rand(fixed.shape, generator=seeded(9)) < 0.5
    torch.testing.assert_close(found.quantile(0.3, wanted)[wanted], found.quantile(0.3)[wanted])
    torch.testing.assert_close(found.of(2).mean[:, 0], found.mean[:, 1])
    assert torch.equal(found.of(2).variance[:, 0] == 0, fixed[:, 1])
