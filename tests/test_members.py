"""The members that start from the network: no cell is judged by what learnt it, and each is believed as it deserves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import tabmae
from tabmae import TabMAE
from tabmae.backbones import build_backbone
from tabmae.estimators import members
from tabmae.estimators.members import (
    N_GROUPS,
    N_SWEEPS,
    check_forests,
    grow_forests,
    judged,
    refit_expert,
    restored_sweeps,
    split_held_out,
    weigh_members,
)
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder, Members
from tabmae.tokenizers import CellTokenizer

N_ROWS = 90
N_LEVELS = (0, 3, 0, 2, 0, 0)
NUMBERS, CATEGORIES = [0, 2, 4, 5], [1, 3]
WITH_EXPERT = pytest.mark.parametrize("with_expert", [True, False], ids=["expert", "alone"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n_rows: int = N_ROWS, missing: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Draw numbers and levels that share a factor; also the folds of held-out cells."""
    generator = seeded()
    factor = torch.randn(n_rows, 1, generator=generator, dtype=torch.float64)
    values = factor + 0.5 * torch.randn(n_rows, 6, generator=generator, dtype=torch.float64)
    values[:, 1] = values[:, 1].round().clamp(-1, 1) + 1
    values[:, 3] = (values[:, 3] > 0).double()
    observed = torch.rand(n_rows, 6, generator=generator) >= missing
    held_out = observed & (torch.rand(n_rows, 6, generator=generator) < 0.2)
    return values, observed, split_held_out(held_out, generator)


def build(
    values: Tensor,
    trained: Tensor,
    n_levels: tuple[int, ...] = N_LEVELS,
    with_expert: bool = True,
    expert: Gaussian | None = None,
) -> MaskedAutoencoder:
    """Give a model of the cells that training may see, its network as it was drawn."""
    torch.manual_seed(0)
    tokenizer = CellTokenizer.fit(values.float(), trained, n_levels, d_token=4, with_guess=with_expert)
    network = build_backbone("mlp", n_tokens=len(n_levels), d_token=4, depth=1, dropout=0.0)
    tokenizer.double()
    network.double()
    if with_expert:
        expert = Gaussian(tokenizer.n_expert_columns).fit(*tokenizer.expand(values, trained))
    return MaskedAutoencoder(tokenizer, network, expert).eval()


def grown(
    values: Tensor, observed: Tensor, folds: Tensor, n_levels: tuple[int, ...] = N_LEVELS, with_expert: bool = True
) -> MaskedAutoencoder:
    model = build(values, observed & (folds == 0), n_levels, with_expert)
    weigh_members(model, values, observed, folds)
    grow_forests(model, values, observed, folds, seeded(3))
    return model


@pytest.fixture
def one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "N_SWEEPS", 1)


@pytest.fixture
def every_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "LEAST_TREE_WEIGHT", 0.0)


@pytest.fixture
def fixed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe the members equally, whatever held-out cells say."""

    def believe(model: MaskedAutoencoder, *_: object) -> None:
        n_trees = float(len(model.sweeps) > 0)
        model.number_weights[-1] = torch.tensor([0.0, 1.0, 1.0, n_trees]).double() / (2 + n_trees)
        model.level_weights[-1] = torch.tensor([1.0, 1.0, n_trees]).double() / (2 + n_trees)

    monkeypatch.setattr(members, "weigh_members", believe)
    monkeypatch.setitem(globals(), "weigh_members", believe)


def forest_of(model: MaskedAutoencoder, feature: int, sweep: int = -1) -> Forest:
    forest = model.get_submodule(f"sweeps.{range(len(model.sweeps))[sweep]}.{feature}")
    assert isinstance(forest, Forest)
    return forest


def features_of(model: MaskedAutoencoder) -> list[list[int]]:
    """Give the features with a forest, sweep by sweep."""
    return [[int(name) for name, _ in sweep.named_children()] for sweep in model.sweeps]


def asked_of(model: MaskedAutoencoder) -> Tensor:
    return torch.randn(200, model.tokenizer.n_expert_columns, generator=seeded(8))


def shifted(values: Tensor, cells: Tensor) -> Tensor:
    """Give other numbers and other levels in some cells."""
    other = values + 1.5
    other[:, CATEGORIES] = 1 - values[:, CATEGORIES].clamp_max(1)
    return torch.where(cells, other, values)


def bit_equal(one: MaskedAutoencoder, other: MaskedAutoencoder) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]) and tensor.dtype == second[name].dtype, name


def test_folds_halve_the_held_out_cells_and_no_others() -> None:
    held_out = torch.rand(2_000, 5, generator=seeded()) < 0.2
    folds = split_held_out(held_out, seeded(1))
    assert torch.equal(folds > 0, held_out) and int(folds.max()) == 2
    n = int(held_out.sum())
    assert abs(int((folds == 1).sum()) - n / 2) < 3 * (n / 4) ** 0.5
    assert torch.equal(folds, split_held_out(held_out, seeded(1)))
    assert not torch.equal(folds, split_held_out(held_out, seeded(2)))


def test_the_cells_of_a_fold_alone_are_hidden_when_it_is_judged() -> None:
    values, observed, folds = table()
    parts = list(judged(values, observed, folds))
    assert [part.fold for part in parts] == [1, 2]
    for part in parts:
        rows = (folds == part.fold).any(1)
        assert torch.equal(part.values, values[rows])
        assert torch.equal(part.held_out, (folds == part.fold)[rows])
        assert torch.equal(part.visible, observed[rows] & ~part.held_out)
        assert (part.visible & (folds[rows] == 3 - part.fold)).any()


@pytest.mark.parametrize("most", [1, 7, 30])
def test_judged_rows_are_thinned_to_equal_steps(most: int) -> None:
    values, observed, folds = table()
    for part, whole in zip(judged(values, observed, folds, most), judged(values, observed, folds), strict=True):
        step = -(-len(whole.values) // most)
        assert 0 < len(part.values) <= most
        assert torch.equal(part.values, whole.values[::step]) and torch.equal(part.visible, whole.visible[::step])


def test_no_held_out_cell_leaves_nothing_to_judge() -> None:
    values, observed, folds = table()
    assert all(not len(part.values) for part in judged(values, observed, torch.zeros_like(folds)))


@WITH_EXPERT
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, 1e6])
def test_growing_reads_no_unobserved_cell(junk: float, with_expert: bool, one_sweep: None) -> None:
    values, observed, folds = table(60)
    one = grown(values, observed, folds, with_expert=with_expert)
    other = grown(torch.where(observed, values, junk), observed, folds, with_expert=with_expert)
    assert features_of(one) == [list(range(6))]
    bit_equal(one, other)


def test_the_same_seed_grows_the_same_sweeps(every_sweep: None) -> None:
    one, other = (grown(*table(60)) for _ in range(2))
    assert len(one.sweeps) == N_SWEEPS
    bit_equal(one, other)


@WITH_EXPERT
@pytest.mark.parametrize("feature", [*CATEGORIES, 4])
@pytest.mark.parametrize("fold", [1, 2])
def test_a_held_out_cell_reaches_neither_the_members_nor_the_trees_that_judge_it(
    fold: int, feature: int, with_expert: bool, one_sweep: None, fixed_weights: None
) -> None:
    values, observed, folds = table()
    changed = shifted(values, (folds == fold) & (torch.arange(6) == feature))
    one, other = (grown(cells, observed, folds, with_expert=with_expert) for cells in (values, changed))
    asked, trees, same_trees = asked_of(one), forest_of(one, feature), forest_of(other, feature)
    assert torch.equal(trees.predict(asked, fold), same_trees.predict(asked, fold))
    for seeing in (0, 3 - fold):
        assert not torch.equal(trees.predict(asked, seeing), same_trees.predict(asked, seeing))

    place = int(one.tokenizer.place[feature])
    found, same = (
        answers(model, cells, observed & (folds != fold), fold) for model, cells in ((one, values), (other, changed))
    )
    if place < len(NUMBERS):
        assert torch.equal(found.numbers[:, :, place], same.numbers[:, :, place])
    else:
        place -= len(NUMBERS)
        assert torch.equal(found.levels[:, :, place], same.levels[:, :, place])
    assert torch.equal(found.numbers[:3], same.numbers[:3]) and torch.equal(found.levels[:2], same.levels[:2])


@torch.no_grad()
def answers(model: MaskedAutoencoder, values: Tensor, visible: Tensor, fold: int = 0) -> Members:
    return model.members(values, visible, fold)


def test_every_forest_of_every_sweep_is_told_the_folds_of_its_column(
    monkeypatch: pytest.MonkeyPatch, every_sweep: None
) -> None:
    told: list[tuple[Tensor, Tensor | None]] = []
    fit = Forest.fit

    def spied(self: Forest, features: Tensor, target: Tensor, n_levels: int, seed: int, held_out: Tensor) -> Forest:
        told.append((target, held_out))
        return fit(self, features, target, n_levels, seed, held_out)

    monkeypatch.setattr(Forest, "fit", spied)
    values, observed, folds = table(60)
    grown(values, observed, folds, with_expert=False)
    assert len(told) == 6 * N_SWEEPS
    for number, (target, held_out) in enumerate(told):
        rows, feature = observed[:, number % 6], number % 6
        assert held_out is not None and torch.equal(held_out, folds[rows, feature])
        assert torch.equal(target, values[rows, feature])


@pytest.mark.parametrize("n_sweeps", [0, 1])
def test_members_are_weighed_by_answers_that_know_no_cell_of_their_fold(
    n_sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "N_SWEEPS", n_sweeps)
    values, observed, folds = table()
    model = grown(values, observed, folds)
    changed = shifted(values, folds == 1)
    found, weights = [], []
    ask = MaskedAutoencoder.members

    def spied(self: MaskedAutoencoder, *arguments: Any) -> Members:
        found.append((ask(self, *arguments), arguments[2]))
        return found[-1][0]

    monkeypatch.setattr(MaskedAutoencoder, "members", spied)
    for cells in (values, changed):
        weigh_members(model, cells, observed, folds)
        weights.append(torch.cat([model.number_weights[-1].flatten(), model.level_weights[-1].flatten()]))
    (one, first), (two, second), (same, _), (other, _) = found
    assert (first, second) == (1, 2)
    assert torch.equal(one.numbers, same.numbers) and torch.equal(one.levels, same.levels)
    assert not torch.equal(two.numbers, other.numbers), "the cells of the other fold are visible"
    assert not torch.equal(*weights), "the cells are what the answers are compared with"


def test_only_the_weights_of_the_last_sweep_are_set() -> None:
    values, observed, folds = table()
    model = build(values, observed & (folds == 0))
    model.add_sweep(nn.ModuleDict())
    before = model.number_weights.clone(), model.level_weights.clone()
    weigh_members(model, values, observed, folds)
    for weights, earlier in zip((model.number_weights, model.level_weights), before, strict=True):
        assert torch.equal(weights[0], earlier[0]) and not torch.equal(weights[1], earlier[1])
        torch.testing.assert_close(weights[1].sum(1), torch.ones_like(weights[1, :, 0]))
        assert (weights >= 0).all()


@WITH_EXPERT
@pytest.mark.parametrize("has_trees", [False, True])
def test_without_a_held_out_cell_the_network_shares_with_the_best_start_there_is(
    with_expert: bool, has_trees: bool
) -> None:
    values, observed, folds = table()
    model = build(values, observed, with_expert=with_expert)
    if has_trees:
        model.add_sweep(nn.ModuleDict())
    weigh_members(model, values, observed, torch.zeros_like(folds))
    expected = [0.0, 0.5, 0.5] if has_trees else [0.5, 0.5, 0.0] if with_expert else [0.0, 1.0, 0.0]
    assert model.level_weights[-1].tolist() == [expected] * 2
    assert model.number_weights[-1].tolist() == [[0.0, *expected]] * 4


def test_the_member_that_is_right_is_believed() -> None:
    values, observed, folds = table(800)
    model = build(values, observed & (folds == 0))
    model.add_sweep(nn.ModuleDict())

    def knowing(right: int) -> Callable[..., Members]:
        def ask(cells: Tensor, visible: Tensor, fold: int) -> Members:
            numbers = torch.zeros(4, len(cells), 4).double() + 2
            numbers[right] = cells[:, NUMBERS]
            levels = torch.full((3, len(cells), 2, 3), 1 / 3).double()
            levels[right - 1] = nn.functional.one_hot(cells[:, CATEGORIES].long(), 3).double()
            return Members(numbers, levels)

        return ask

    for right in (1, 2, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "members", knowing(right))
            weigh_members(model, values, observed, folds)
        assert (model.number_weights[-1, :, right] > 0.8).all()
        assert (model.level_weights[-1, :, right - 1] > 0.5).all()
        assert model.number_weights[-1].argmax(1).unique().tolist() == [right]


@WITH_EXPERT
def test_own_guesses_are_those_of_the_model_with_the_feature_hidden(with_expert: bool) -> None:
    values, observed, _ = table()
    values[:, 0] += 3 * (values[:, 0] > 1)
    model = build(values[:60], observed[:60], with_expert=with_expert)
    own = members._own_guesses(model, values, observed)
    assert own.shape == (N_ROWS, model.tokenizer.n_expert_columns)
    if not with_expert:
        assert not own.any()
        return
    for feature in range(6):
        guess = model.guess(values, observed & (torch.arange(6) != feature))
        assert guess is not None
        columns = model.tokenizer.expert_feature == feature
        rows = observed[:, feature]
        torch.testing.assert_close(own[rows][:, columns], guess.mean[rows][:, columns], rtol=0, atol=1e-9)
        assert columns.any() and rows.any()


@pytest.mark.parametrize("n_features", [1, 2, 6])
def test_rows_are_completed_group_by_group_without_the_group(n_features: int, one_sweep: None) -> None:
    values, observed, folds = table()
    kept = slice(0, n_features)
    values, observed, folds = values[:, kept], observed[:, kept], folds[:, kept]
    model = grown(values, observed, folds, N_LEVELS[:n_features])
    completed = members._completed_by_groups(model, values, observed)
    assert len(completed) == min(N_GROUPS, n_features)
    for feature in range(n_features):
        group = torch.arange(n_features) % len(completed) == feature % len(completed)
        cells = completed[feature % len(completed)]
        assert torch.equal(cells[observed], values[observed])
        other = values + 1 if n_features == 1 else shifted_within(values, group)
        again = members._completed_by_groups(model, other, observed)[feature % len(completed)]
        assert torch.equal(again[~observed], cells[~observed])
        if not group.all():
            outside = members._completed_by_groups(model, shifted_within(values, ~group), observed)
            assert not torch.equal(outside[feature % len(completed)][~observed], cells[~observed])


def shifted_within(values: Tensor, features: Tensor) -> Tensor:
    """Give other values in the cells of some features."""
    other = values + 1
    other[:, 1] = 2 - values[:, 1]
    if values.shape[1] > 3:
        other[:, 3] = 1 - values[:, 3]
    return torch.where(features, other, values)


def test_completed_cells_are_those_of_the_ensemble_that_sees_the_other_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed, folds = table()
    model = build(values, observed & (folds == 0))
    whole = members._completed_by_groups(model, values, observed)
    for number, cells in enumerate(whole):
        with torch.no_grad():
            answer = model(values, observed & (torch.arange(6) % N_GROUPS != number)).point()
        torch.testing.assert_close(cells[~observed], answer[~observed])
    monkeypatch.setattr(members, "rows_at_once", lambda _: 7)
    for cells, same in zip(whole, members._completed_by_groups(model, values, observed), strict=True):
        torch.testing.assert_close(cells, same)


def curved(n_rows: int = 400) -> Tensor:
    """Draw uncorrelated columns of one angle: a line is no guide to any, a tree is."""
    angle = 6.283 * torch.rand(n_rows, generator=seeded(), dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin(), (2 * angle).sin()], 1)


def straight(n_rows: int = 400) -> Tensor:
    """Draw columns of one factor: the expert knows all that there is."""
    values = torch.randn(n_rows, 3, generator=seeded(), dtype=torch.float64)
    return values[:, :1] + 0.3 * values


@pytest.mark.parametrize(("draw", "n_sweeps"), [(curved, N_SWEEPS), (straight, 1)])
def test_a_second_sweep_is_grown_only_where_the_first_is_believed(draw: Callable[[], Tensor], n_sweeps: int) -> None:
    values = draw()
    observed = torch.ones_like(values, dtype=torch.bool)
    folds = split_held_out(torch.rand(values.shape, generator=seeded(1)) < 0.3, seeded(2))
    model = grown(values, observed, folds, (0, 0, 0))
    believed = model.number_weights[1, :, 3].mean()
    assert (believed >= members.LEAST_TREE_WEIGHT) == (n_sweeps > 1)
    assert features_of(model) == [[0, 1, 2]] * n_sweeps
    assert len(model.number_weights) == len(model.level_weights) == n_sweeps + 1


def test_forests_learn_what_the_expert_cannot(one_sweep: None) -> None:
    values = curved()
    observed = torch.ones_like(values, dtype=torch.bool)
    model = grown(values[:300], observed[:300], torch.zeros(300, 3, dtype=torch.int8), (0, 0, 0))
    visible = observed[300:].clone()
    visible[:, 2] = False
    error = (answers(model, values[300:], visible).numbers[:, :, 2] - values[300:, 2]).square().mean(1)
    assert error[3] < 0.15 * error[1]


def test_a_forest_needs_cells_and_few_levels(monkeypatch: pytest.MonkeyPatch, one_sweep: None) -> None:
    values, observed, folds = table(60, missing=0.0)
    observed[members.MIN_FOREST_ROWS - 1 :, 4] = False
    observed[members.MIN_FOREST_ROWS :, 5] = False
    folds[~observed] = 0
    assert features_of(grown(values, observed, folds)) == [[0, 1, 2, 3, 5]]
    monkeypatch.setattr(members, "MAX_FOREST_LEVELS", 2)
    assert features_of(grown(values, observed, folds)) == [[0, 2, 3, 5]]
    monkeypatch.setattr(members, "MIN_ROWS_OF_LEVEL", 31)
    assert features_of(grown(values, observed, folds)) == [[0, 2, 5]]


def test_tables_too_wide_or_too_short_grow_no_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed, folds = table(members.MIN_FOREST_ROWS - 1)
    assert not grown(values, observed, folds).sweeps
    monkeypatch.setattr(members, "MAX_FOREST_COLUMNS", 5)
    assert not grown(*table(60)).sweeps


def test_forests_grow_on_a_sample_of_many_rows(monkeypatch: pytest.MonkeyPatch, one_sweep: None) -> None:
    learnt = []
    fit = Forest.fit

    def spied(self: Forest, features: Tensor, *arguments: Any) -> Forest:
        learnt.append(len(features))
        return fit(self, features, *arguments)

    monkeypatch.setattr(Forest, "fit", spied)
    monkeypatch.setattr(members, "MAX_FOREST_ROWS", 40)
    values, observed, folds = table(60, missing=0.0)
    grown(values, observed, folds)
    assert learnt == [40] * 6
    monkeypatch.setattr(members, "MAX_FOREST_CELLS", 30 * build(values, observed).tokenizer.n_expert_columns)
    grown(values, observed, folds)
    assert learnt[6:] == [30] * 6


def test_the_expert_learns_held_out_cells_at_last_and_keeps_its_shrinkage() -> None:
    values, observed, folds = table()
    model = build(values, observed & (folds == 0))
    assert model.expert is not None
    before, shrinkage = model.expert.covariance.clone(), float(model.expert.shrinkage)
    refit_expert(model, torch.where(observed, values, torch.nan), observed)
    assert float(model.expert.shrinkage) == shrinkage
    known = Gaussian(len(before)).fit(*model.tokenizer.expand(values, observed), shrinkage=shrinkage)
    assert not torch.equal(model.expert.covariance, before)
    torch.testing.assert_close(model.expert.covariance, known.covariance, rtol=0, atol=0.02)
    assert (model.expert.covariance - known.covariance).norm() < 0.1 * (before - known.covariance).norm()
    refit_expert(build(values, observed, with_expert=False), values, observed)


def test_loaded_weights_of_two_sweeps_answer_bit_equal(every_sweep: None) -> None:
    values, observed, folds = table(60)
    model = grown(values, observed, folds)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = build(values, observed & (folds == 0))
    restored_sweeps(other, weights)
    other.load_state_dict(weights)
    check_forests(other)
    bit_equal(other, model)
    assert features_of(other) == features_of(model) == [list(range(6))] * 2
    for fold in (0, 1, 2):
        for one, same in zip(
            answers(model, values, observed, fold), answers(other, values, observed, fold), strict=True
        ):
            assert torch.equal(one, same)


def test_a_saved_estimator_with_two_sweeps_predicts_bit_equal(tmp_path: Path, every_sweep: None) -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=60)
    complete = pd.DataFrame({"x": factor, "y": factor**2, "city": np.where(factor > 0.3, "Oslo", "Rome")})
    holes = complete.mask(rng.random(complete.shape) < 0.2)
    model = TabMAE(max_epochs=2, d_token=4, random_state=0).fit(holes)
    assert len(model.model_.sweeps) == N_SWEEPS
    model.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    bit_equal(model.model_, loaded.model_)
    pd.testing.assert_frame_equal(loaded.transform(holes), model.transform(holes), check_exact=True)


@pytest.mark.parametrize(
    ("part", "wrong"), [("roots", -1), ("roots", 10**6), ("left", 10**6), ("right", 0), ("feature", 10**3)]
)
def test_forests_of_any_sweep_that_lead_nowhere_are_refused(part: str, wrong: int) -> None:
    values, observed, _ = table(60)
    model = build(values, observed)
    rows = torch.randn(30, model.tokenizer.n_expert_columns, generator=seeded())
    for _ in range(2):
        model.add_sweep(nn.ModuleDict({"0": Forest().fit(rows, rows[:, 0], 0, seed=0)}))
    check_forests(model)
    broken = forest_of(model, 0)
    inner = int(torch.nonzero(broken.feature >= 0)[0])
    getattr(broken, part)[0 if part == "roots" else inner] = wrong
    with pytest.raises(ValueError, match="A forest's nodes must lead to its leaves"):
        check_forests(model)


@pytest.mark.parametrize(("name", "of"), [("0", "1"), ("1", "0"), ("99", "0")])
def test_a_forest_of_another_or_of_no_column_is_refused(name: str, of: str) -> None:
    values, observed, _ = table(60)
    model = build(values, observed)
    rows = torch.randn(30, model.tokenizer.n_expert_columns, generator=seeded())
    forests = {"0": Forest().fit(rows, rows[:, 0], 0, seed=0), "1": Forest().fit(rows, torch.arange(30) % 3, 3, seed=0)}
    model.add_sweep(nn.ModuleDict(forests))
    check_forests(model)
    model.add_sweep(nn.ModuleDict({name: forests[of]}))
    with pytest.raises(ValueError, match="A forest must be of a column and hold its levels"):
        check_forests(model)
