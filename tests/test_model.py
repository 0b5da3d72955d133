"""The masked autoencoder: blind to what is invisible, trainable in every part, its members weighed as asked."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tabmae.backbones import BACKBONES, build_backbone
from tabmae.experts.direct import DirectTrees
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import CellDistribution, CellTokenizer

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
    n_sweeps: int = 0,
) -> MaskedAutoencoder:
    values, observed = table()
    torch.manual_seed(0)
    tokenizer = CellTokenizer.fit(values, observed, N_LEVELS, D_TOKEN, with_guess=with_expert)
    network = build_backbone(backbone, n_tokens=5, d_token=D_TOKEN, depth=2, dropout=dropout)
    expert = None
    if with_expert:
        cells, shown = tokenizer.expand(values, observed)
        expert = Gaussian(tokenizer.n_expert_columns).fit(cells, shown)
    model = MaskedAutoencoder(tokenizer, network, expert).eval()
    for sweep in range(n_sweeps):
        model.add_sweep(nn.ModuleDict({"1": forest(model, 1, 3, sweep), "2": forest(model, 2, 0, sweep)}))
    if n_sweeps:
        model.direct.update({str(feature): deepcopy(direct_trees(feature)) for feature in (1, 2)})
        believe(model, [0.1, 0.2, 0.3, 0.25, 0.15], [0.2, 0.3, 0.3, 0.2])
    return model


def forest(model: MaskedAutoencoder, feature: int, n_levels: int, seed: int) -> Forest:
    """Grow a forest of a feature from complete rows."""
    values, _ = table()
    own = torch.zeros(len(values), model.tokenizer.n_expert_columns)
    cells, rows = model.tokenizer.sweep_cells(values), torch.arange(len(values))
    features = model.tokenizer.sweep_features(cells, rows, own, feature)
    return Forest().fit(features, values[:, feature], n_levels, 10 * seed)


@cache
def direct_trees(feature: int) -> DirectTrees:
    """Grow trees of complete rows, and of the cell itself: they betray whatever they are shown in its place."""
    (values, _), folds = table(), (torch.arange(60) % 6 - 3).clamp_min(0)
    rows = build().tokenizer.sweep_cells(values)
    return DirectTrees(N_LEVELS[feature]).fit(rows, values[:, feature], 5, folds)


def believe(model: MaskedAutoencoder, numbers: list[float], levels: list[float]) -> None:
    """Give the members the same weights in every column, before and after every sweep."""
    for weights, wanted in ((model.number_weights, numbers), (model.level_weights, levels)):
        weights[:] = torch.tensor(wanted, dtype=weights.dtype)


def parts(distribution: CellDistribution) -> Iterator[tuple[str, Tensor]]:
    """Give all that a distribution says of its cells."""
    for name in ("direct", "scale", "gate", "mass", "log_levels", "mean"):
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


@pytest.mark.parametrize("n_sweeps", [1, 2])
@WITH_EXPERT
def test_trees_and_weights_do_not_leak_either(with_expert: bool, n_sweeps: int) -> None:
    model, (values, visible) = build(with_expert=with_expert, n_sweeps=n_sweeps), table()
    assert len(model.direct) == 2
    for junk, fold in product((123.0, torch.nan, torch.inf, -torch.inf), (0, 1, 2)):
        changed = torch.where(visible, values, junk)
        bit_equal(model(values, visible, fold=fold), model(changed, visible, fold=fold))
        for one, other in zip(model.members(values, visible, fold), model.members(changed, visible, fold), strict=True):
            assert torch.equal(one, other)


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
    other = guess._replace(mean=guess.mean + 1)
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
    believe(model, numbers, levels)
    return model


@WITH_EXPERT
def test_the_network_alone_answers_until_weights_are_set(with_expert: bool) -> None:
    values, visible = table()
    model = build(with_expert=with_expert, dropout=0.0)
    network = model.train()(values, visible)
    for same in (model.eval(), weighed([0, 0, 1, 0, 0], [0, 1, 0, 0], with_expert)):
        answer = same(values, visible)
        assert torch.equal(answer.mean, network.mean) and torch.equal(answer.point(), network.point())
        numbers, codes = values[:, answer.numbers], values[:, answer.categories]
        torch.testing.assert_close(answer.number_log_density(numbers), network.number_log_density(numbers))
        torch.testing.assert_close(answer.level_log_probability(codes), network.level_log_probability(codes))


def test_the_mean_of_training_and_the_expert_answer_when_they_alone_are_believed() -> None:
    values, visible = table()
    assert not weighed([1, 0, 0, 0, 0], [1, 0, 0, 0])(values, visible).mean.any()
    model = weighed([0, 1, 0, 0, 0], [1, 0, 0, 0])
    guess, answer = model.guess(values, visible), model(values, visible)
    assert guess is not None
    expected = guess.mean[:, model.tokenizer.expert_of_number]
    torch.testing.assert_close(answer.mean, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(answer.point()[:, NUMBERS], expected, rtol=0, atol=1e-5)
    indicators = guess.mean[:, model.tokenizer.expert_of_level[:3]].clamp(1e-3, 1)
    torch.testing.assert_close(answer.probabilities(1), indicators / indicators.sum(1, keepdim=True))


def test_members_without_an_answer_are_the_network() -> None:
    values, visible = table()
    numbers, levels, _ = build(with_expert=False).members(values, visible)
    assert numbers.shape == (5, 60, 3) and levels.shape == (4, 60, 2, 5)
    assert all(torch.equal(numbers[member], numbers[2]) for member in (1, 3, 4))
    assert all(torch.equal(levels[member], levels[1]) for member in (2, 3))
    torch.testing.assert_close(levels[0], levels[0][:1].expand_as(levels[0]))


@pytest.mark.parametrize("n_sweeps", [0, 1, 2])
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_the_last_weights_mix_the_members_column_by_column(n_sweeps: int, fold: int) -> None:
    values, visible = table()
    model = build(n_sweeps=n_sweeps)
    of_numbers = [[0.0, 0.5, 0.5, 0.0, 0.0], [0.1, 0.15, 0.2, 0.25, 0.3], [0.0, 0.0, 1.0, 0.0, 0.0]]
    model.number_weights[-1] = torch.tensor(of_numbers, dtype=torch.float64)
    model.level_weights[-1] = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    members, answer = model.members(values, visible, fold), model(values, visible, fold=fold)
    for k in range(3):
        expected = (members.numbers[:, :, k].double() * model.number_weights[-1, k][:, None]).sum(0)
        torch.testing.assert_close(answer.mean[:, k].double(), expected, rtol=0, atol=1e-5)
    for k, feature in enumerate(CATEGORIES):
        expected = (members.levels[:, :, k].double() * model.level_weights[-1, k][:, None, None]).sum(0)
        found = answer.probabilities(feature).double()
        torch.testing.assert_close(found, expected[:, : N_LEVELS[feature]], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.sum(1), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-3)


def test_training_uses_the_network_alone() -> None:
    values, visible = table()
    model = weighed([1, 0, 0, 0, 0], [1, 0, 0, 0])
    bit_equal(model.train()(values, visible), build(dropout=0.0).train()(values, visible))


@pytest.mark.parametrize(("n_sweeps", "fold"), [(1, 0), (1, 2), (2, 0), (2, 1)])
@pytest.mark.parametrize("member", [3, 4], ids=["forest", "direct"])
def test_trees_answer_for_the_invisible_cells_of_their_feature_alone(n_sweeps: int, fold: int, member: int) -> None:
    values, visible = table()
    model = build(n_sweeps=n_sweeps)
    numbers, levels, _ = model.members(values, visible, fold)
    swept, network = numbers[member], numbers[2]
    assert torch.equal(swept[:, [0, 2]], network[:, [0, 2]])
    assert torch.equal(swept[visible[:, 2], 1], network[visible[:, 2], 1])
    assert (swept[~visible[:, 2], 1] != network[~visible[:, 2], 1]).all()
    swept, network = levels[member - 1], levels[1]
    assert torch.equal(swept[:, 1], network[:, 1])
    assert torch.equal(swept[visible[:, 1], 0], network[visible[:, 1], 0])
    assert (swept[~visible[:, 1], 0] != network[~visible[:, 1], 0]).any(1).all()


def test_a_forest_sees_the_row_as_the_ensemble_completes_it() -> None:
    values, visible = table()
    model = build(n_sweeps=1)
    believe(model, [0, 0, 1, 0, 0], [0, 1, 0, 0])
    before = model.members(values, visible).numbers[3, :, 1]
    model.tokenizer.number_bias.data[0, 0] += 2.0
    moved = model.members(values, visible).numbers[3, :, 1] != before
    assert not moved[visible[:, 0] | visible[:, 2]].any()
    assert moved[~visible[:, 0] & ~visible[:, 2]].float().mean() > 0.8
    model.number_weights[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    deaf = model.members(values, visible).numbers[3, :, 1]
    model.tokenizer.number_bias.data[0, 0] += 2.0
    assert torch.equal(model.members(values, visible).numbers[3, :, 1], deaf)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_forest_is_asked_for_the_row_that_the_sweep_before_completes(fold: int) -> None:
    values, visible = table()
    model = build(n_sweeps=2)
    guess = model.guess(values, visible)
    assert guess is not None
    completed = torch.where(visible, values, shortened(model, 1)(values, visible, fold=fold).point())
    cells, rows = model.tokenizer.sweep_cells(completed), torch.arange(len(values))
    asked = model.tokenizer.sweep_features(cells, rows, guess.mean, 2)
    forest = model.get_submodule("sweeps.1.2")
    assert isinstance(forest, Forest)
    expected = guess.mean[:, model.tokenizer.expert_of_number[1]] + forest.predict(asked, fold)[:, 0]
    found = model.members(values, visible, fold).numbers[3, :, 1]
    torch.testing.assert_close(found[~visible[:, 2]], expected[~visible[:, 2]])


@pytest.mark.parametrize("n_sweeps", [1, 2])
@pytest.mark.parametrize("fold", [0, 1, 2])
@WITH_EXPERT
def test_direct_trees_are_asked_for_the_row_of_the_last_sweep_without_the_guess_of_the_expert(
    with_expert: bool, fold: int, n_sweeps: int
) -> None:
    values, visible = table()
    model = build(with_expert=with_expert, n_sweeps=n_sweeps)
    before = shortened(model, n_sweeps - 1, with_expert)(values, visible, fold=fold)
    cells, rows = model.tokenizer.sweep_cells(torch.where(visible, values, before.point())), torch.arange(len(values))
    found = model.members(values, visible, fold)
    for feature, answer in ((2, found.numbers[4, :, 1, None]), (1, found.levels[3, :, 0, :3])):
        asked = model.tokenizer.sweep_features(cells, rows, None, feature)
        assert not asked[:, model.tokenizer.expert_feature == feature].any()
        expected = direct_of(model, feature).predict(asked, fold)
        torch.testing.assert_close(answer[~visible[:, feature]], expected[~visible[:, feature]])


def direct_of(model: MaskedAutoencoder, feature: int) -> DirectTrees:
    trees = model.get_submodule(f"direct.{feature}")
    assert isinstance(trees, DirectTrees)
    return trees


def shortened(model: MaskedAutoencoder, n_sweeps: int, with_expert: bool = True) -> MaskedAutoencoder:
    """Give a model with the first sweeps of another, without direct trees."""
    other = build(with_expert=with_expert)
    for sweep in list(model.sweeps)[:n_sweeps]:
        assert isinstance(sweep, nn.ModuleDict)
        other.add_sweep(sweep)
    other.number_weights, other.level_weights = (
        model.number_weights[: n_sweeps + 1],
        model.level_weights[: n_sweeps + 1],
    )
    return other


@pytest.mark.parametrize("member", [3, 4], ids=["forest", "direct"])
def test_a_fold_asks_one_half_of_the_trees(member: int) -> None:
    values, visible = table()
    model = build(n_sweeps=1)
    whole, one, other = (model.members(values, visible, fold) for fold in (0, 1, 2))
    hidden = ~visible[:, 2], ~visible[:, 1]
    assert (one.numbers[member, hidden[0], 1] != other.numbers[member, hidden[0], 1]).any()
    assert (one.levels[member - 1, hidden[1], 0] != other.levels[member - 1, hidden[1], 0]).any()
    for part, first, second in zip(whole, one, other, strict=True):
        torch.testing.assert_close(part, (first + second) / 2)


def test_a_new_sweep_keeps_the_weights_of_before_and_leaves_the_earlier_alone() -> None:
    model = build(n_sweeps=1)
    model.number_weights[0], model.level_weights[0] = 0.25, 1 / 3
    before = model.number_weights.clone(), model.level_weights.clone()
    model.add_sweep(nn.ModuleDict())
    for weights, earlier in zip((model.number_weights, model.level_weights), before, strict=True):
        assert len(weights) == len(model.sweeps) + 1 == 3
        assert torch.equal(weights[:2], earlier) and torch.equal(weights[2], earlier[1])


def test_a_column_without_a_forest_in_the_last_sweep_has_the_answer_of_the_network() -> None:
    model, (values, visible) = build(n_sweeps=1), table()
    assert not torch.equal(*model.members(values, visible).numbers[2:4, :, 1])
    model.add_sweep(nn.ModuleDict({"1": forest(model, 1, 3, 1)}))
    assert torch.equal(*model.members(values, visible).numbers[2:4, :, 1])


@pytest.mark.parametrize("n_sweeps", [1, 2])
def test_a_column_without_direct_trees_has_the_answer_of_its_forest(n_sweeps: int) -> None:
    model, (values, visible) = build(n_sweeps=n_sweeps), table()
    assert not torch.equal(*model.members(values, visible).numbers[3:, :, 1])
    del model.direct["2"]
    found = model.members(values, visible)
    assert torch.equal(*found.numbers[3:, :, 1]) and not torch.equal(*found.numbers[2:4, :, 1])
    assert not torch.equal(*found.levels[2:, :, 0]), "another column has its own"


def test_forests_stand_for_direct_trees_while_a_second_sweep_reads_rows() -> None:
    model, (values, visible) = build(n_sweeps=2), table()
    answers = []
    for numbers, levels in (([0, 0, 0, 1.0, 0], [0, 0, 1.0, 0]), ([0, 0, 0, 0, 1.0], [0, 0, 0, 1.0])):
        believe(model, numbers, levels)
        answers.append(model.members(values, visible))
    assert torch.equal(answers[0].numbers[3], answers[1].numbers[3])
    assert torch.equal(answers[0].levels[2], answers[1].levels[2])


@WITH_EXPERT
@pytest.mark.parametrize("n_sweeps", [0, 2])
def test_batches_that_share_their_trees_answer_as_each_alone(n_sweeps: int, with_expert: bool) -> None:
    model, (values, visible) = build(with_expert=with_expert, n_sweeps=n_sweeps), table()
    batches = [model.begin(*part) for part in zip(values.split(25), visible.split(25), strict=True)]
    for fold in (0, 1):
        for batch, found in zip(batches, model.believed(batches, fold), strict=True):
            (alone,) = model.believed([batch], fold)
            bit_equal(found, alone)
    asked: dict[type[Forest | DirectTrees], list[int]] = {Forest: [], DirectTrees: []}

    def counting(kind: type[Any]) -> Callable[..., Tensor]:
        predict = kind.predict

        def counted(trees: nn.Module, rows: Tensor, fold: int = 0) -> Tensor:
            asked[kind].append(len(rows))
            return predict(trees, rows, fold)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Forest, DirectTrees):
            patch.setattr(kind, "predict", counting(kind))
        list(model.believed(batches))
    once = [int((~visible)[:, feature].sum()) for feature in (1, 2)]
    direct = once if n_sweeps else []
    assert asked == {Forest: n_sweeps * once + direct[:1], DirectTrees: direct}, "those of levels ask a forest"


def test_a_loaded_model_answers_bit_equal() -> None:
    values, visible = table()
    model, other = build(with_expert=True), build(with_expert=True)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1, generator=seeded(1))
    model.number_weights[:, :, 1] = 0.5
    other.load_state_dict(model.state_dict())
    bit_equal(model(values, visible), other(values, visible))
