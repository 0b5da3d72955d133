"""The masked autoencoder: blind to what is invisible, trainable in every part, its members weighed as asked."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tabmae.backbones import BACKBONES, build_backbone
from tabmae.experts.gaussian import Gaussian
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import CellDistribution, CellTokenizer, Guess

N_LEVELS = (0, 3, 0, 0, 5)
NUMBERS, CATEGORIES = [0, 2, 3], [1, 4]
D_TOKEN = 4


def linear(n_tokens: int, d_token: int) -> nn.Module:
    return nn.Linear(d_token, d_token)


EVERY = pytest.mark.parametrize(
    "backbone", [*BACKBONES, linear], ids=lambda backbone: getattr(backbone, "__name__", backbone)
)
WITH_EXPERT = pytest.mark.parametrize("with_expert", [True, False], ids=["expert", "alone"])
JUNK = pytest.mark.parametrize("junk", [123.0, torch.nan, torch.inf, -torch.inf])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n_rows: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw numbers and levels that share a factor; some rows are complete, the first shows nothing."""
    generator = seeded(seed)
    factor = torch.randn(n_rows, 1, generator=generator)
    values = factor + 0.5 * torch.randn(n_rows, 5, generator=generator)
    values[:, 1] = values[:, 1].round().clamp(-1, 1) + 1
    values[:, 4] = values[:, 4].round().clamp(-2, 2) + 2
    visible = torch.rand(n_rows, 5, generator=generator) < 0.6
    visible[0], visible[1:4] = False, True
    return values, visible


def build(
    backbone: str | Callable[..., nn.Module] = "mlp",
    with_expert: bool = True,
    dropout: float = 0.2,
    forests: bool = False,
) -> MaskedAutoencoder:
    values, observed = table()
    torch.manual_seed(0)
    tokenizer = CellTokenizer.fit(values, observed, N_LEVELS, D_TOKEN, with_guess=with_expert)
    network = build_backbone(backbone, n_tokens=5, d_token=D_TOKEN, depth=2, dropout=dropout)
    expert = None
    if with_expert:
        cells, shown = tokenizer.expand(values, observed)
        expert = Gaussian(tokenizer.n_expert_columns).fit(cells, shown)
    model = MaskedAutoencoder(tokenizer, network, expert)
    if forests:
        for feature in (1, 2):
            rows = observed[:, feature]
            model.grow_forest(values[rows], observed[rows], feature, seed=0)
        model.number_weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64).repeat(3, 1)
        model.level_weights = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).repeat(2, 1)
    return model.eval()


def parts(distribution: CellDistribution) -> Iterator[tuple[str, Tensor]]:
    """Give all that a distribution says of its cells."""
    for name in ("direct", "scale", "gate", "log_bins", "log_levels", "mean"):
        yield name, getattr(distribution, name)
    yield "point", distribution.point()
    yield "draw", distribution.sample(seeded())


def bit_equal(one: CellDistribution, other: CellDistribution) -> None:
    for (name, tensor), (_, same) in zip(parts(one), parts(other), strict=True):
        assert torch.equal(tensor, same), name
        assert not tensor.isnan().any(), name


@JUNK
@WITH_EXPERT
@EVERY
def test_changing_an_invisible_value_changes_no_output_bit(backbone: str, with_expert: bool, junk: float) -> None:
    model, (values, visible) = build(backbone, with_expert), table()
    changed = torch.where(visible, values, junk)
    for training in (False, True):
        model.train(training)
        outputs, latents = [], []
        for cells in (values, changed):
            torch.manual_seed(7)
            outputs.append(model(cells, visible))
            latents.append(model.encode(cells, visible))
        bit_equal(*outputs)
        assert torch.equal(*latents)
    one, other = model.guess(values, visible), model.guess(changed, visible)
    assert (one is not None) == (other is not None) == with_expert
    if one is not None and other is not None:
        assert torch.equal(one.mean, other.mean) and torch.equal(one.variance, other.variance)


@JUNK
@WITH_EXPERT
def test_forests_and_weights_do_not_leak_either(with_expert: bool, junk: float) -> None:
    model, (values, visible) = build(with_expert=with_expert, forests=True), table()
    changed = torch.where(visible, values, junk)
    bit_equal(model(values, visible), model(changed, visible))
    for one, other in zip(model.members(values, visible), model.members(changed, visible), strict=True):
        assert torch.equal(one, other)


def test_growing_a_forest_reads_no_invisible_cell() -> None:
    values, visible = table()
    rows = visible[:, 2]
    one, other = build(), build()
    one.grow_forest(values[rows], visible[rows], 2, seed=0)
    other.grow_forest(torch.where(visible, values, torch.nan)[rows], visible[rows], 2, seed=0)
    for name, tensor in one.forests.state_dict().items():
        assert torch.equal(tensor, other.forests.state_dict()[name]), name


@WITH_EXPERT
@EVERY
def test_an_invisible_value_spoils_no_gradient(backbone: str, with_expert: bool) -> None:
    model, (values, visible) = build(backbone, with_expert).train(), table()
    distribution = model(torch.where(visible, values, torch.nan), visible)
    latent = model.encode(torch.where(visible, values, torch.nan), visible)
    (model.tokenizer.errors(distribution, values).mean() + latent.mean()).backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@WITH_EXPERT
@EVERY
def test_a_gradient_reaches_every_parameter(backbone: str, with_expert: bool) -> None:
    model, (values, visible) = build(backbone, with_expert).train(), table()
    model.tokenizer.errors(model(values, visible), values).mean().backward()
    unreached = {
        name
        for name, parameter in model.named_parameters()
        if parameter.numel() and (parameter.grad is None or not parameter.grad.any())
    }
    # The asymmetric encoder takes no invisible token, and its decoder has a mask token of its own.
    unseen = {"tokenizer.mask_token", *(["tokenizer.guess_embedding"] if with_expert else [])}
    assert unreached == (unseen if backbone == "asymmetric" else set())
    assert bool(model.tokenizer.guess_embedding.numel()) == with_expert


@WITH_EXPERT
@EVERY
def test_complete_and_empty_rows_are_served(backbone: str, with_expert: bool) -> None:
    model, (values, _) = build(backbone, with_expert), table()
    for visible in (torch.ones_like(values, dtype=torch.bool), torch.zeros_like(values, dtype=torch.bool)):
        for training in (False, True):
            distribution = model.train(training)(values, visible)
            assert distribution.point().isfinite().all()
            assert model.tokenizer.errors(distribution, values).isfinite().all()
    empty = model.eval()(values, torch.zeros_like(values, dtype=torch.bool)).point()
    torch.testing.assert_close(empty, empty[:1].expand_as(empty), rtol=0, atol=1e-5)


@WITH_EXPERT
@EVERY
def test_a_row_alone_is_answered_as_in_its_batch(backbone: str, with_expert: bool) -> None:
    model, (values, visible) = build(backbone, with_expert), table()
    model.tokenizer.double()
    model.backbone.double()
    values = values.double()
    together, latent = model(values, visible).point(), model.encode(values, visible)
    for i in (0, 1, 7, 30):
        alone = slice(i, i + 1)
        torch.testing.assert_close(model(values[alone], visible[alone]).point()[0], together[i], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.encode(values[alone], visible[alone])[0], latent[i], rtol=1e-9, atol=1e-9)


def test_a_given_guess_is_taken_instead_of_asking_the_expert() -> None:
    model, (values, visible) = build(), table()
    guess = model.guess(values, visible)
    assert guess is not None
    bit_equal(model(values, visible, guess), model(values, visible))
    other = Guess(guess.mean + 1, guess.variance)
    assert not torch.equal(model(values, visible, other).mean, model(values, visible).mean)


def test_a_guess_is_the_cell_itself_where_visible_and_within_the_training_range() -> None:
    model, (values, visible) = build(), table()
    values[visible[:, 0], 0] = 40.0
    guess = model.guess(values, visible)
    assert guess is not None
    cells, shown = model.tokenizer.expand(values, visible)
    assert torch.equal(guess.mean[shown], cells[shown])
    assert not guess.variance[shown].any()
    assert torch.equal(model.tokenizer.bounded(guess.mean)[~shown], guess.mean[~shown])
    low, high = model.tokenizer.edges[:, 0], model.tokenizer.edges[:, -1]
    numbers = guess.mean[:, model.tokenizer.expert_of_number]
    assert ((numbers >= low) & (numbers <= high))[~visible[:, NUMBERS]].all()


def weighed(numbers: list[float], levels: list[float], with_expert: bool = True) -> MaskedAutoencoder:
    model = build(with_expert=with_expert, dropout=0.0)
    model.number_weights = torch.tensor([numbers], dtype=torch.float64).repeat(3, 1)
    model.level_weights = torch.tensor([levels], dtype=torch.float64).repeat(2, 1)
    return model


@WITH_EXPERT
def test_the_network_alone_answers_until_weights_are_set(with_expert: bool) -> None:
    values, visible = table()
    model = build(with_expert=with_expert, dropout=0.0)
    network = model.train()(values, visible)
    for same in (model.eval(), weighed([0, 0, 1, 0], [0, 1, 0], with_expert)):
        answer = same(values, visible)
        assert torch.equal(answer.mean, network.mean) and torch.equal(answer.point(), network.point())
        torch.testing.assert_close(answer.log_density(values), network.log_density(values))


def test_the_mean_of_training_and_the_expert_answer_when_they_alone_are_believed() -> None:
    values, visible = table()
    assert not weighed([1, 0, 0, 0], [1, 0, 0])(values, visible).mean.any()
    model = weighed([0, 1, 0, 0], [1, 0, 0])
    guess, answer = model.guess(values, visible), model(values, visible)
    assert guess is not None
    expected = guess.mean[:, model.tokenizer.expert_of_number]
    torch.testing.assert_close(answer.mean, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(answer.point()[:, NUMBERS], expected, rtol=0, atol=1e-5)
    indicators = guess.mean[:, model.tokenizer.expert_of_level[:3]].clamp(1e-3, 1)
    torch.testing.assert_close(answer.probabilities(1), indicators / indicators.sum(1, keepdim=True))


def test_members_without_an_answer_are_the_network() -> None:
    values, visible = table()
    numbers, levels = build(with_expert=False).members(values, visible)
    assert numbers.shape == (4, 60, 3) and levels.shape == (3, 60, 2, 5)
    assert torch.equal(numbers[1], numbers[2]) and torch.equal(numbers[3], numbers[2])
    assert torch.equal(levels[2], levels[1])
    torch.testing.assert_close(levels[0], levels[0][:1].expand_as(levels[0]))


def test_weights_mix_the_members_column_by_column() -> None:
    values, visible = table()
    model = build(forests=True)
    model.number_weights = torch.tensor(
        [[0.0, 0.5, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64
    )
    model.level_weights = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    members, answer = model.members(values, visible), model(values, visible)
    for k in range(3):
        expected = (members.numbers[:, :, k].double() * model.number_weights[k][:, None]).sum(0)
        torch.testing.assert_close(answer.mean[:, k].double(), expected, rtol=0, atol=1e-5)
    for k, feature in enumerate(CATEGORIES):
        expected = (members.levels[:, :, k].double() * model.level_weights[k][:, None, None]).sum(0)
        found = answer.probabilities(feature).double()
        torch.testing.assert_close(found, expected[:, : N_LEVELS[feature]], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.sum(1), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-3)


def test_training_uses_the_network_alone() -> None:
    values, visible = table()
    model = weighed([1, 0, 0, 0], [1, 0, 0])
    bit_equal(model.train()(values, visible), build(dropout=0.0).train()(values, visible))


def test_a_forest_answers_for_the_invisible_cells_of_its_feature_alone() -> None:
    values, visible = table()
    model = build(forests=True)
    numbers, levels = model.members(values, visible)
    swept, network = numbers[3], numbers[2]
    assert torch.equal(swept[:, [0, 2]], network[:, [0, 2]])
    assert torch.equal(swept[visible[:, 2], 1], network[visible[:, 2], 1])
    assert (swept[~visible[:, 2], 1] != network[~visible[:, 2], 1]).all()
    assert torch.equal(levels[2][:, 1], levels[1][:, 1])
    assert torch.equal(levels[2][visible[:, 1], 0], levels[1][visible[:, 1], 0])
    assert (levels[2][~visible[:, 1], 0] != levels[1][~visible[:, 1], 0]).any(1).all()


def test_a_forest_sees_the_row_as_the_network_completes_it() -> None:
    values, visible = table()
    model = build(forests=True)
    before = model.members(values, visible).numbers[3, :, 1]
    model.tokenizer.number_bias.data[0, 0] += 2.0
    moved = model.members(values, visible).numbers[3, :, 1] != before
    assert not moved[visible[:, 0] | visible[:, 2]].any()
    assert moved[~visible[:, 0] & ~visible[:, 2]].float().mean() > 0.8


def test_a_forest_learns_what_the_expert_cannot() -> None:
    generator = seeded()
    values = torch.randn(400, 3, generator=generator)
    values[:, 2] = values[:, 0].abs() + 0.1 * torch.randn(400, generator=generator)
    visible = torch.ones_like(values, dtype=torch.bool)
    torch.manual_seed(0)
    tokenizer = CellTokenizer.fit(values[:300], visible[:300], (0, 0, 0), D_TOKEN)
    network = build_backbone("mlp", n_tokens=3, d_token=D_TOKEN, depth=1, dropout=0.0)
    model = MaskedAutoencoder(tokenizer, network, Gaussian(3).fit(values[:300], visible[:300])).eval()
    model.grow_forest(values[:300], visible[:300], 2, seed=0)
    visible[:, 2] = False
    numbers = model.members(values[300:], visible[300:]).numbers[:, :, 2]
    error = (numbers - values[300:, 2]).square().mean(1)
    assert error[3] < 0.15 * error[1]


def test_a_loaded_model_answers_bit_equal() -> None:
    values, visible = table()
    model, other = build(with_expert=True), build(with_expert=True)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1, generator=seeded(1))
    model.number_weights[:, 1] = 0.5
    other.load_state_dict(model.state_dict())
    bit_equal(model(values, visible), other(values, visible))
