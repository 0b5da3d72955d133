"""Cells to tokens and back: what stays unseen, what a column's bins hold, and where a prediction starts."""

import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from tabmae.losses import LOSSES
from tabmae.tokenizers import CellDistribution, CellTokenizer, Guess
from tabmae.tokenizers.bins import LEAST_BINS, LEAST_WIDTH, MAX_BINS, Bins
from tabmae.tokenizers.cells import (
    BACKGROUND,
    FEW_EXPERT_COLUMNS,
    LEVEL_WEIGHT,
    LIKELIHOOD_WEIGHT,
    MAX_EXPERT_COLUMNS,
    MAX_LEVELS,
)
from tabmae.tokenizers.distribution import LEAST_SCALE

D_TOKEN = 6
N_LEVELS = (0, 3, 0, 400, 0)
"""Two kinds by turns: the middle number has few values, the second category more levels than are modelled."""

JUNK = pytest.mark.parametrize("junk", [7.5, 1e30, torch.nan, torch.inf, -torch.inf])
WITH_GUESS = pytest.mark.parametrize("with_guess", [True, False])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n_rows: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    values = torch.randn(n_rows, 5, generator=generator)
    values[:, 1] = torch.randint(3, (n_rows,), generator=generator).float()
    values[:, 2] = values[:, 2].round()
    values[:, 3] = torch.rand(n_rows, generator=generator).square().mul(400).floor()
    return values, torch.rand(n_rows, 5, generator=generator) < 0.7


def build(loss: str = "mse", with_guess: bool = True, d_token: int = D_TOKEN) -> CellTokenizer:
    torch.manual_seed(0)
    return CellTokenizer.fit(*table(), N_LEVELS, d_token, loss, with_guess)


def guess_for(tokenizer: CellTokenizer, values: Tensor, visible: Tensor, seed: int = 3) -> Guess:
    """Give an expert's answer of the right form: the cell itself where visible."""
    cells, shown = tokenizer.expand(values, visible)
    mean = torch.rand(cells.shape, generator=seeded(seed))
    mean = torch.where(shown, cells, mean)
    return Guess(mean, torch.where(shown, 0, mean + 0.1), mean)


def column(*values: float) -> tuple[Tensor, Tensor]:
    cells = torch.tensor(values)[:, None]
    return cells, torch.ones_like(cells, dtype=torch.bool)


def is_present(edges: Tensor) -> Tensor:
    return edges[:, 1:] > edges[:, :-1]


@WITH_GUESS
def test_there_is_a_token_a_cell(with_guess: bool) -> None:
    tokenizer, (values, visible) = build(with_guess=with_guess), table()
    guess = guess_for(tokenizer, values, visible) if with_guess else None
    tokens, seen = tokenizer.embed(values, visible, guess)
    assert tokens.shape == (40, 5, D_TOKEN)
    assert tokens.dtype == torch.float32
    assert torch.equal(seen, visible)


@JUNK
@WITH_GUESS
def test_a_missing_and_a_hidden_cell_become_the_same_token_bit_for_bit(junk: float, with_guess: bool) -> None:
    tokenizer, (values, visible) = build(with_guess=with_guess), table()
    guess = guess_for(tokenizer, values, visible) if with_guess else None
    hidden, _ = tokenizer.embed(values, visible, guess)
    missing, _ = tokenizer.embed(torch.where(visible, values, junk), visible, guess)
    assert torch.equal(hidden, missing)


def test_without_a_guess_an_invisible_cell_is_the_mask_token_at_its_position() -> None:
    tokenizer, (values, visible) = build(), table()
    tokens, _ = tokenizer.embed(values, visible)
    assert torch.equal(tokens[~visible], (tokenizer.mask_token + tokenizer.position).expand(40, -1, -1)[~visible])


def test_a_visible_value_changes_its_own_token_alone() -> None:
    tokenizer, (values, _) = build(), table()
    visible = torch.ones_like(values, dtype=torch.bool)
    tokens, _ = tokenizer.embed(values, visible)
    for j in range(5):
        changed = values.clone()
        changed[:, j] = torch.where(values[:, j] > 0, 0, 1)
        moved = (tokenizer.embed(changed, visible)[0] - tokens).abs().amax(2)
        assert (moved[:, j] > 1e-4).all()
        assert not moved[:, torch.arange(5) != j].any()


def test_a_guess_changes_the_tokens_of_invisible_cells_alone() -> None:
    tokenizer, (values, visible) = build(), table()
    one = tokenizer.embed(values, visible, guess_for(tokenizer, values, visible))[0]
    other = tokenizer.embed(values, visible, guess_for(tokenizer, values, visible, seed=4))[0]
    moved = (one - other).abs().amax(2) > 0
    has_expert = torch.isin(torch.arange(5), tokenizer.expert_feature)
    assert torch.equal(moved, ~visible & has_expert)
    assert torch.equal(one[visible], tokenizer.embed(values, visible)[0][visible])


def test_rare_and_unknown_levels_share_a_token() -> None:
    tokenizer = build()
    codes = torch.tensor([MAX_LEVELS, MAX_LEVELS + 50, 399, 10_000, MAX_LEVELS - 1], dtype=torch.float32)
    values = torch.zeros(5, 5)
    values[:, 3] = codes
    tokens = tokenizer.embed(values, torch.ones_like(values, dtype=torch.bool))[0][:, 3]
    assert (tokens[:4] == tokens[0]).all()
    assert not torch.equal(tokens[4], tokens[0])


def test_the_gradient_of_the_levels_has_the_same_bits_on_any_number_of_threads() -> None:
    tokenizer = build(with_guess=False, d_token=64)
    values, visible = table(3000)
    pull = torch.randn(3000, 5, 64, generator=seeded(1))
    found: list[Tensor] = []
    for n_threads in (1, 3, 3, 3):
        with threadpool_limits(n_threads, user_api="openmp"):
            tokens, _ = tokenizer.embed(values, visible)
            found.extend(torch.autograd.grad(tokens, tokenizer.level_embedding, pull))
    assert all(torch.equal(found[0], again) for again in found[1:])


def bins(values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = Bins.fit(values, observed)
    return found.edges, found.centres, found.discrete


def test_a_column_of_few_values_gets_a_bin_a_value() -> None:
    edges, centres, discrete = bins(*column(2.0, -1.0, 0.0, 2.0, 0.0))
    assert discrete.tolist() == [True]
    assert edges[0, :4].tolist() == [-1.5, -0.5, 1.0, 2.5]
    assert centres[0, :3].tolist() == [-1.0, 0.0, 2.0]
    assert is_present(edges).sum() == 3


@pytest.mark.parametrize(("n_values", "discrete"), [(MAX_BINS, True), (MAX_BINS + 1, False)])
def test_a_bin_a_value_as_long_as_there_are_enough(n_values: int, discrete: bool) -> None:
    assert Bins.fit(*column(*torch.arange(n_values).repeat(3).tolist())).discrete.tolist() == [discrete]


def test_bins_of_many_values_hold_equal_counts_and_their_mean() -> None:
    values = torch.randn(1600, 1, generator=seeded()).exp()
    edges, centres, _ = bins(values, torch.ones_like(values, dtype=torch.bool))
    ends = torch.stack([values.min() - edges[0, 0], edges[0, -1] - values.max()])
    assert ((ends >= 0) & (ends <= LEAST_WIDTH)).all()
    for low, high, centre in zip(edges[0], edges[0, 1:], centres[0], strict=False):
        inside = values[(values >= low) & (values <= high)]
        assert 98 <= len(inside) <= 102
        assert float(centre) == pytest.approx(float(inside.mean()), rel=0.05)


TIES = {
    "zeros": [0.0] * 900 + [i / 7 for i in range(1, 60)],
    "zeros and both signs": [0.0] * 900 + [i / 7 for i in range(-30, 60)],
    "most at the top": [1.0] * 900 + [i / 90 for i in range(60)],
    "a step and a gap": [i / 10 - 30 for i in range(20)] + [5.0] * 12 + [6.0 + i for i in range(8)],
    "a gap below zero": [i / 10 - 30 for i in range(20)] + [-5.0] * 12 + [i / 9 - 4 for i in range(8)],
    "two heaps": [-1.0] * 300 + [1.0] * 300 + [i / 100 for i in range(30)],
    "seventeen": [float(i**3) for i in range(17)],
}


def test_a_frequent_value_among_many_has_a_bin_of_its_own() -> None:
    found = Bins.fit(*column(*TIES["zeros and both signs"], 1e-5, -1e-5))
    assert not found.discrete.any() and found.has_single.all()
    assert found.centres[found.single].tolist() == [0.0]
    own = int(found.single[0].nonzero())
    assert found.edges[0, own + 1] - found.edges[0, own] == pytest.approx(LEAST_WIDTH)
    assert is_present(found.edges).sum() == LEAST_BINS + 2, "the zeros part a bin of the rest in two"
    assert not Bins.fit(*column(*TIES["seventeen"], *TIES["zeros"][895:])).single.any(), "six of 81 are few"
    several = Bins.fit(*column(*TIES["two heaps"]))
    assert several.centres[several.frequent].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("kind", TIES)
def test_bins_of_a_column_of_ties_cover_it_and_stay_in_order(kind: str) -> None:
    values, observed = column(*TIES[kind])
    edges, centres, _ = bins(values, observed)
    present = is_present(edges)[0]
    assert edges.shape == (1, MAX_BINS + 1) and centres.shape == (1, MAX_BINS)
    ends = torch.stack([values.min() - edges[0, 0], edges[0, -1] - values.max()])
    assert ((ends >= 0) & (ends <= LEAST_WIDTH)).all(), "a frequent value at an end has its bin about it"
    assert present[: present.sum()].all(), "absent bins stand last"
    assert (centres[0, present] >= edges[0, :-1][present]).all()
    assert (centres[0, present] <= edges[0, 1:][present]).all()
    tokenizer = CellTokenizer.fit(values, observed, (0,), D_TOKEN)
    distribution = tokenizer.predict(torch.zeros(len(values), 1, D_TOKEN))
    histogram = distribution.mass.log().gather(2, distribution.bins.bin(values)[:, :, None])
    assert histogram.isfinite().all(), "every value lies in a bin that has a probability"


@pytest.mark.parametrize("offset", [0, 1])
def test_rare_values_of_a_long_column_are_covered_wherever_they_stand(offset: int) -> None:
    values = torch.zeros(200_002, 1)
    values[offset : offset + 60 : 2, 0] = torch.arange(30) - 9.0
    edges, centres, _ = bins(values, torch.ones_like(values, dtype=torch.bool))
    assert edges[0, 0] == -9 and edges[0, -1] == 20
    assert centres.isfinite().all()


@pytest.mark.parametrize("kind", ["none", "constant", "one"])
def test_a_column_that_teaches_nothing_has_one_bin(kind: str) -> None:
    values = torch.full((20, 1), 3.0)
    observed = torch.zeros_like(values, dtype=torch.bool)
    observed[: {"none": 0, "one": 1, "constant": 20}[kind]] = True
    edges, centres, discrete = bins(values, observed)
    value = 0.0 if kind == "none" else 3.0
    assert discrete.tolist() == [True]
    assert is_present(edges)[0].tolist() == [True] + [False] * (MAX_BINS - 1)
    assert edges[0, :2].tolist() == [value - 0.5, value + 0.5]
    assert (centres == value).all()


def test_bins_are_those_of_the_weights_that_are_loaded_last() -> None:
    values = torch.randn(40, 3, generator=seeded())
    observed, tokens = torch.ones_like(values, dtype=torch.bool), torch.zeros(40, 3, D_TOKEN)
    one, other = (CellTokenizer.fit(factor * values, observed, (0, 0, 0), D_TOKEN) for factor in (1, 3))
    wanted = other.predict(tokens).number_log_density(3 * values)
    assert not torch.allclose(one.predict(tokens).number_log_density(3 * values), wanted)
    one.load_state_dict(other.state_dict())
    torch.testing.assert_close(one.predict(tokens).number_log_density(3 * values), wanted)
    assert one.double().predict(tokens.double()).number_log_density(values.double()).dtype == torch.float64


def test_what_is_learnt_comes_from_observed_cells_alone() -> None:
    values, observed = table()
    one = CellTokenizer.fit(values, observed, N_LEVELS, D_TOKEN)
    other = CellTokenizer.fit(torch.where(observed, values, torch.nan), observed, N_LEVELS, D_TOKEN)
    for name in CellTokenizer.LEARNT:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.edges[0, -1] == values[observed[:, 0], 0].max()


def test_an_expert_sees_numbers_as_they_are_and_an_indicator_a_frequent_level() -> None:
    tokenizer, (values, visible) = build(), table()
    cells, shown = tokenizer.expand(values, visible)
    assert cells.shape == shown.shape == (40, tokenizer.n_expert_columns)
    assert torch.equal(cells[:, tokenizer.expert_of_number], values[:, [0, 2, 4]])
    assert torch.equal(shown, visible[:, tokenizer.expert_feature])
    indicators = torch.nonzero(tokenizer.expert_feature == 1)[:, 0]
    assert torch.equal(cells[:, indicators].argmax(1).float(), values[:, 1])
    assert torch.equal(cells[:, indicators].sum(1), torch.ones(40))
    assert tokenizer.expert_of_level[:3].tolist() == indicators.tolist()


@pytest.mark.parametrize(
    ("n_numbers", "n_indicators"), [(0, 3), (FEW_EXPERT_COLUMNS - 3, 3), (FEW_EXPERT_COLUMNS - 2, 2)]
)
def test_rare_levels_have_no_indicator_and_less_rare_ones_where_columns_are_many(
    n_numbers: int, n_indicators: int
) -> None:
    codes = torch.cat([torch.full((n,), float(code)) for code, n in enumerate((700, 292, 6, 2))])[:, None]
    values = torch.cat([codes, codes.repeat(1, n_numbers)], 1)
    tokenizer = CellTokenizer.fit(values, torch.ones_like(values, dtype=torch.bool), (4, *[0] * n_numbers), D_TOKEN)
    assert tokenizer.expert_level[: n_indicators + 1].tolist() == [*range(n_indicators), *[-1.0] * (n_numbers > 0)]
    assert tokenizer.expert_of_level.tolist() == [*range(n_indicators), *[-1] * (4 - n_indicators)]


def test_indicators_of_many_features_share_the_room_there_is() -> None:
    codes = torch.arange(60.0).repeat(20)[:, None].repeat(1, 11)
    tokenizer = CellTokenizer.fit(codes, torch.ones_like(codes, dtype=torch.bool), (60,) * 11, D_TOKEN)
    counts = torch.bincount(tokenizer.expert_feature)
    assert tokenizer.n_expert_columns <= MAX_EXPERT_COLUMNS
    assert counts.unique().tolist() == [MAX_EXPERT_COLUMNS // 11]


def test_ten_thousand_levels_are_capped() -> None:
    values = torch.cat([torch.arange(256.0).repeat(3), torch.arange(10_000.0)])[:, None]
    observed = torch.ones_like(values, dtype=torch.bool)
    tokenizer = CellTokenizer.fit(values, observed, (10_000,), D_TOKEN)
    assert tokenizer.level_embedding.shape == (MAX_LEVELS + 1, D_TOKEN)
    distribution = tokenizer.predict(tokenizer.embed(values, observed)[0])
    assert distribution.probabilities(0).shape == (len(values), MAX_LEVELS + 1)
    assert distribution.probabilities(0)[:, -1].mean() > 0.8, "the class of rare levels holds most cells"
    assert distribution.point().max() < MAX_LEVELS
    assert tokenizer.errors(distribution, values).isfinite().all()


def test_an_expert_is_held_to_the_range_of_the_training_cells() -> None:
    tokenizer, (values, observed) = build(), table()
    far = torch.tensor([[-50.0], [0.3], [50.0]]).expand(-1, tokenizer.n_expert_columns)
    bounded = tokenizer.bounded(far)
    for k, j in zip(tokenizer.expert_of_number.tolist(), (0, 2, 4), strict=True):
        known = values[observed[:, j], j]
        width = 0.5 if j == 2 else 0.0
        assert bounded[:, k].tolist() == pytest.approx([float(known.min()) - width, 0.3, float(known.max()) + width])
    indicators = tokenizer.expert_level >= 0
    assert torch.equal(bounded[:, indicators], torch.tensor([[0.0], [0.3], [1.0]]).expand(-1, int(indicators.sum())))


def headless(with_guess: bool) -> CellTokenizer:
    """Give a tokenizer whose network says nothing."""
    tokenizer = build(with_guess=with_guess)
    for head in (tokenizer.number_head, tokenizer.number_bias, tokenizer.level_head, tokenizer.level_bias):
        torch.nn.init.zeros_(head)
    return tokenizer


def test_a_prediction_starts_at_the_guess() -> None:
    tokenizer, (values, _) = headless(with_guess=True), table()
    guess = guess_for(tokenizer, values, torch.zeros_like(values, dtype=torch.bool))
    distribution = tokenizer.predict(torch.ones(40, 5, D_TOKEN), guess)
    numbers = tokenizer.expert_of_number
    assert torch.equal(distribution.direct, guess.mean[:, numbers])
    torch.testing.assert_close(distribution.scale, guess.variance[:, numbers].sqrt().clamp_min(LEAST_SCALE))
    three = guess.mean[:, tokenizer.expert_of_level[:3]].clamp_min(1e-3)
    torch.testing.assert_close(distribution.probabilities(1), three / three.sum(1, keepdim=True))


def test_without_a_guess_a_prediction_starts_at_the_mean_and_the_frequencies() -> None:
    tokenizer, (values, observed) = headless(with_guess=False), table()
    distribution = tokenizer.predict(torch.ones(40, 5, D_TOKEN))
    assert not distribution.direct.any()
    counts = torch.bincount(values[observed[:, 1], 1].long(), minlength=3) + 1.0
    torch.testing.assert_close(distribution.probabilities(1), (counts / counts.sum()).expand(40, -1))


@pytest.mark.parametrize("loss", [*LOSSES, "nll"])
def test_errors_have_the_shape_of_values_and_each_is_of_its_own_cell(loss: str) -> None:
    tokenizer, (values, _) = build(loss), table()
    distribution = tokenizer.predict(torch.randn(40, 5, D_TOKEN, generator=seeded(2)))
    errors = tokenizer.errors(distribution, values)
    assert errors.shape == values.shape and errors.isfinite().all()
    for j in range(5):
        changed = values.clone()
        changed[7, j] = 1.0 - changed[7, j].clamp(0, 1).round()
        moved = torch.nonzero(tokenizer.errors(distribution, changed) != errors)
        assert moved.tolist() == [[7, j]]


def test_errors_are_the_loss_of_the_mean_the_likelihood_and_the_cross_entropy() -> None:
    values, _ = table()
    numbers, categories = [0, 2, 4], [1, 3]
    distribution = build().predict(torch.randn(40, 5, D_TOKEN, generator=seeded(2)))
    density = distribution.number_log_density(values[:, numbers])
    probability = distribution.level_log_probability(values[:, categories])
    for loss, function in LOSSES.items():
        expected = function(distribution.mean, values[:, numbers]) - LIKELIHOOD_WEIGHT * density
        errors = build(loss).errors(distribution, values)
        torch.testing.assert_close(errors[:, numbers], expected)
        torch.testing.assert_close(errors[:, categories], -LEVEL_WEIGHT * probability)
    torch.testing.assert_close(build("nll").errors(distribution, values)[:, numbers], -density)


@pytest.mark.parametrize("n_levels", [(0, 0), (3, 2), (0,), (4,)])
def test_tables_of_one_kind_are_served(n_levels: tuple[int, ...]) -> None:
    values = torch.randint(2, (30, len(n_levels)), generator=seeded()).float()
    observed = torch.ones_like(values, dtype=torch.bool)
    tokenizer = CellTokenizer.fit(values, observed, n_levels, D_TOKEN)
    guess = guess_for(tokenizer, values, ~observed)
    tokens, _ = tokenizer.embed(values, ~observed, guess)
    distribution = tokenizer.predict(tokens, guess)
    assert tokenizer.errors(distribution, values).shape == values.shape
    assert distribution.sample(seeded()).shape == distribution.point().shape == values.shape


def test_a_histogram_has_a_background_in_the_bins_of_its_column_alone() -> None:
    tokenizer = build()
    torch.nn.init.normal_(tokenizer.number_bias, std=200.0, generator=seeded())
    probability = tokenizer.predict(torch.zeros(40, 5, D_TOKEN)).mass.detach()
    present = is_present(tokenizer.edges)
    assert probability.log().isfinite().all()
    assert (probability[:, ~present] < 1e-25).all()
    for k, bins_of_column in enumerate(present):
        least = BACKGROUND / int(bins_of_column.sum())
        assert float(probability[:, k, bins_of_column].min()) == pytest.approx(least, rel=1e-4)
    torch.testing.assert_close(probability.sum(2), torch.ones(40, 3))


def test_an_absent_bin_has_no_gradient_and_spoils_none() -> None:
    tokenizer = build()
    present = is_present(tokenizer.edges)
    assert not present.all()
    tokenizer.predict(torch.randn(40, 5, D_TOKEN, generator=seeded())).mass.log().sum().backward()
    gradient = tokenizer.number_bias.grad
    assert gradient is not None and gradient.isfinite().all()
    bins_alone = gradient[:, 3:]
    assert not bins_alone[~present].any() and bins_alone[present].any()


def test_what_is_learnt_and_the_weights_make_the_same_tokenizer() -> None:
    tokenizer, (values, visible) = build(), table()
    learnt = {name: getattr(tokenizer, name) for name in CellTokenizer.LEARNT}
    other = CellTokenizer(N_LEVELS, **learnt, d_token=D_TOKEN)
    other.load_state_dict(tokenizer.state_dict())
    assert torch.equal(other.embed(values, visible)[0], tokenizer.embed(values, visible)[0])


@JUNK
@pytest.mark.parametrize("feature", [0, 1, 3])
def test_a_forest_never_sees_the_cell_it_predicts(feature: int, junk: float) -> None:
    tokenizer, (values, visible) = build(), table()
    guess = guess_for(tokenizer, values, torch.zeros_like(visible))
    changed = values.clone()
    changed[:, feature] = junk
    own, rows = tokenizer.expert_feature == feature, torch.arange(1, len(values), 3)
    for given in (guess.mean, None):
        seen, same = (
            tokenizer.sweep_features(tokenizer.sweep_cells(cells), rows, given, feature) for cells in (values, changed)
        )
        assert torch.equal(seen, same)
        assert torch.equal(seen[:, own], torch.zeros_like(seen[:, own]) if given is None else given[rows][:, own])
        assert torch.equal(seen[:, ~own], tokenizer.expand(values, visible)[0][rows][:, ~own])


def begun(tokenizer: CellTokenizer, mean: float, variance: float, n_rows: int = 1) -> CellDistribution:
    """Give what an untrained tokenizer predicts of rows of which the expert says the same of each column."""
    cells = torch.full((n_rows, tokenizer.n_expert_columns), mean)
    tokens = torch.zeros(n_rows, len(tokenizer.n_levels), tokenizer.number_head.shape[1])
    return tokenizer.predict(tokens, Guess(cells, torch.full_like(cells, variance), cells))


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_a_prediction_starts_as_sharp_as_the_expert_is_sure(spread: float) -> None:
    cells = torch.randn(500, 1, generator=seeded())
    tokenizer = CellTokenizer.fit(cells, torch.ones_like(cells, dtype=torch.bool), (0,), D_TOKEN, with_guess=True)
    at = torch.linspace(-6, 6, 100_001)[:, None]
    found = begun(tokenizer, 0.4, spread**2, len(at))
    density = found.number_log_density(at).detach().exp()[:, 0] * 12 / 100_000
    variance = (density * (at[:, 0] - 0.4).square()).sum()
    assert spread**2 < float(variance) < 1.6 * spread**2
    assert begun(tokenizer, 0.0, 1.0).gate.item() == pytest.approx(0.731, abs=1e-3), "where it knows nothing"


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.8, 0.3), (-1.0, 0.05)])
def test_few_values_start_from_their_shares_and_what_the_expert_says_of_them(mean: float, variance: float) -> None:
    shares = torch.tensor([0.6, 0.2, 0.15, 0.05])
    cells = torch.arange(4.0).repeat_interleave((1000 * shares).long())[:, None]
    cells = (cells - cells.mean()) / cells.std()
    tokenizer = CellTokenizer.fit(cells, torch.ones_like(cells, dtype=torch.bool), (0,), D_TOKEN, with_guess=True)
    values = tokenizer.centres[0, :4]
    prior, told = torch.distributions.Normal(0, 1), torch.distributions.Normal(mean, variance**0.5)
    expected = (shares.log() + told.log_prob(values) - prior.log_prob(values)).softmax(0)
    mass = begun(tokenizer, mean, variance).mass[0, 0, :4]
    torch.testing.assert_close(mass, (1 - BACKGROUND) * expected + BACKGROUND / 4, rtol=0, atol=2e-3)
