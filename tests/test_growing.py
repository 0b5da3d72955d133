"""How the trees of the ensemble grow: no cell is learnt by what judges it, and each where it is worth its time."""

from typing import Any, NamedTuple

import pytest
import torch
from ensembles import (
    CATEGORIES,
    N_LEVELS,
    N_ROWS,
    NUMBERS,
    answers,
    bit_equal,
    build,
    direct_of,
    features_of,
    forest_of,
    grown,
    seeded,
    shifted,
    table,
)
from torch import Tensor

from tabmae.estimators import growing, members, validation
from tabmae.estimators.growing import N_GROUPS, TREES_OF_FOREST, TREES_OF_MANY
from tabmae.estimators.validation import split_held_out
from tabmae.experts.direct import DirectTrees
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder

WITH_EXPERT = pytest.mark.parametrize("with_expert", [True, False], ids=["expert", "alone"])


@pytest.fixture
def fixed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe the members equally, whatever held-out cells say."""

    def believe(model: MaskedAutoencoder, *_: object) -> None:
        n_forests, n_direct = float(len(model.sweeps) > 0), float(len(model.direct) > 0)
        weights = torch.tensor([1.0, 1.0, n_forests, n_direct]).double() / (2 + n_forests + n_direct)
        model.number_weights[-1] = torch.cat([torch.zeros(1), weights])
        model.level_weights[-1] = weights

    monkeypatch.setattr(members, "weigh_members", believe)
    monkeypatch.setattr(growing, "weigh_members", believe)


def asked_of(model: MaskedAutoencoder) -> Tensor:
    return torch.randn(200, model.tokenizer.n_expert_columns, generator=seeded(8))


@WITH_EXPERT
def test_growing_reads_no_unobserved_cell(with_expert: bool, direct_trees: None) -> None:
    values, observed, folds = table(60)
    one = grown(values, observed, folds, with_expert=with_expert)
    assert features_of(one) == [list(range(6))] and set(one.direct) == set("012345")
    for junk in (torch.nan, torch.inf, 1e6):
        bit_equal(one, grown(torch.where(observed, values, junk), observed, folds, with_expert=with_expert))


def test_the_same_seed_grows_the_same_trees(direct_trees: None) -> None:
    one, other = (grown(*table(60)) for _ in range(2))
    assert len(one.sweeps) == 1 and len(one.direct) == 6
    bit_equal(one, other)


def test_one_forest_a_column_is_grown_of_so_many_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    model = grown(*table(60))
    assert features_of(model) == [list(range(6))]
    assert {len(forest_of(model, feature).roots) for feature in range(6)} == {TREES_OF_FOREST}
    monkeypatch.setattr(growing, "MANY_ROWS", 30)
    model = grown(*table(60))
    numbers, levels = model.tokenizer.numbers.tolist(), model.tokenizer.categories.tolist()
    assert {len(forest_of(model, feature).roots) for feature in numbers} == {TREES_OF_MANY}
    assert {len(forest_of(model, feature).roots) for feature in levels} == {TREES_OF_FOREST}


@WITH_EXPERT
@pytest.mark.parametrize("max_read", [3, 20], ids=["wide", "narrow"])
def test_a_held_out_cell_reaches_neither_the_members_nor_the_trees_that_judge_it(
    max_read: int, with_expert: bool, fixed_weights: None, direct_trees: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "MAX_READ", max_read)
    values, observed, folds = table()
    one = grown(values, observed, folds, with_expert=with_expert)
    asked = asked_of(one)
    for feature, fold in ((CATEGORIES[0], 1), (CATEGORIES[1], 2), (4, 1), (4, 2)):
        changed = shifted(values, (folds == fold) & (torch.arange(6) == feature))
        other = grown(changed, observed, folds, with_expert=with_expert)
        for trees_of in (forest_of, direct_of):
            trees, same_trees = trees_of(one, feature), trees_of(other, feature)
            assert torch.equal(trees.predict(asked, fold), same_trees.predict(asked, fold))
            for seeing in (0, 3 - fold):
                assert not torch.equal(trees.predict(asked, seeing), same_trees.predict(asked, seeing))

        place = int(one.tokenizer.place[feature])
        shown = observed & (folds != fold)
        found, same = (answers(model, cells, shown, fold) for model, cells in ((one, values), (other, changed)))
        if place < len(NUMBERS):
            assert torch.equal(found.numbers[:, :, place], same.numbers[:, :, place])
        else:
            place -= len(NUMBERS)
            assert torch.equal(found.levels[:, :, place], same.levels[:, :, place])
        assert torch.equal(found.numbers[:3], same.numbers[:3]) and torch.equal(found.levels[:2], same.levels[:2])


def test_every_forest_is_told_the_folds_of_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Tensor, Tensor | None]] = []
    fit = Forest.fit

    def spied(
        self: Forest, features: Tensor, target: Tensor, n_levels: int, seed: int, held_out: Tensor, n_trees: int
    ) -> Forest:
        told.append((target, held_out))
        return fit(self, features, target, n_levels, seed, held_out, n_trees)

    monkeypatch.setattr(Forest, "fit", spied)
    values, observed, folds = table(60)
    grown(values, observed, folds, with_expert=False)
    assert len(told) == 6
    for number, (target, held_out) in enumerate(told):
        rows = observed[:, number]
        assert held_out is not None and torch.equal(held_out, folds[rows, number])
        assert torch.equal(target, values[rows, number])


@WITH_EXPERT
def test_own_guesses_are_those_of_the_model_with_the_feature_hidden(with_expert: bool) -> None:
    values, observed, _ = table()
    values[:, 0] += 3 * (values[:, 0] > 1)
    model = build(values[:60], observed[:60], with_expert=with_expert)
    own = growing._own_guesses(model, values, observed)
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
def test_rows_are_completed_group_by_group_without_the_group(n_features: int) -> None:
    values, observed, folds = table()
    kept = slice(0, n_features)
    values, observed, folds = values[:, kept], observed[:, kept], folds[:, kept]
    model = grown(values, observed, folds, N_LEVELS[:n_features])
    completed = growing._completed_by_groups(model, values, observed, folds)
    assert len(completed) == min(N_GROUPS, n_features)
    for feature in range(n_features):
        group = torch.arange(n_features) % len(completed) == feature % len(completed)
        cells = completed[feature % len(completed)]
        assert torch.equal(cells[observed], values[observed])
        other = values + 1 if n_features == 1 else shifted_within(values, group)
        again = growing._completed_by_groups(model, other, observed, folds)[feature % len(completed)]
        assert torch.equal(again[~observed], cells[~observed])
        if not group.all():
            outside = growing._completed_by_groups(model, shifted_within(values, ~group), observed, folds)
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
    whole = growing._completed_by_groups(model, values, observed, folds)
    for number, cells in enumerate(whole):
        with torch.no_grad():
            answer = model(values, observed & (torch.arange(6) % N_GROUPS != number)).point()
        torch.testing.assert_close(cells[~observed], answer[~observed])
    monkeypatch.setattr(validation, "rows_at_once", lambda _: 7)
    for cells, same in zip(whole, growing._completed_by_groups(model, values, observed, folds), strict=True):
        torch.testing.assert_close(cells, same)


@pytest.mark.parametrize("n_incomplete", [0, 5, N_ROWS])
def test_rows_without_a_hole_are_not_asked_to_be_completed(n_incomplete: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed, folds = table()
    observed = observed.clone()
    observed[n_incomplete:] = True
    has_holes, asked = ~observed.all(1), []
    model = build(values, observed & (folds == 0))

    def spied(*arguments: Any, **named: Any) -> Any:
        asked.append(len(arguments[1]))
        return validation.answered(*arguments, **named)

    monkeypatch.setattr(growing, "answered", spied)
    completed = growing._completed_by_groups(model, values, observed, folds)
    assert asked == [int(has_holes.sum())] * N_GROUPS
    assert all(torch.equal(cells[observed], values[observed]) for cells in completed)
    assert len(features_of(grown(values, observed, folds))[0]) == 6


def curved(n_rows: int = 400) -> Tensor:
    """Draw uncorrelated columns of one angle: a line is no guide to any, a tree is."""
    angle = 6.283 * torch.rand(n_rows, generator=seeded(), dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin(), (2 * angle).sin()], 1)


def test_trees_learn_what_the_expert_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MIN_DIRECT_CELLS", 300)
    values = curved()
    observed = torch.ones_like(values, dtype=torch.bool)
    model = grown(values[:300], observed[:300], torch.zeros(300, 3, dtype=torch.int8), (0, 0, 0))
    visible = observed[300:].clone()
    visible[:, 2] = False
    error = (answers(model, values[300:], visible).numbers[:, :, 2] - values[300:, 2]).square().mean(1)
    assert error[3] < 0.15 * error[1] and error[4] < 0.15 * error[1]


def test_a_forest_needs_cells_and_few_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed, folds = table(60, missing=0.0)
    observed[growing.MIN_FOREST_ROWS - 1 :, 4] = False
    observed[growing.MIN_FOREST_ROWS :, 5] = False
    folds[~observed] = 0
    assert features_of(grown(values, observed, folds)) == [[0, 1, 2, 3, 5]]
    monkeypatch.setattr(growing, "MAX_FOREST_LEVELS", 2)
    assert features_of(grown(values, observed, folds)) == [[0, 2, 3, 5]]
    monkeypatch.setattr(growing, "MIN_ROWS_OF_LEVEL", 31)
    assert features_of(grown(values, observed, folds)) == [[0, 2, 5]]


def test_tables_too_wide_or_too_short_grow_no_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed, folds = table(growing.MIN_FOREST_ROWS - 1)
    assert not grown(values, observed, folds).sweeps
    monkeypatch.setattr(growing, "MAX_FOREST_COLUMNS", 5)
    assert not grown(*table(60)).sweeps


def test_forests_grow_on_a_sample_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[int] = []
    fit = Forest.fit

    def spied(self: Forest, features: Tensor, *arguments: Any) -> Forest:
        learnt.append(len(features))
        return fit(self, features, *arguments)

    monkeypatch.setattr(Forest, "fit", spied)
    monkeypatch.setattr(growing, "MAX_FOREST_ROWS", 40)
    values, observed, folds = table(60, missing=0.0)
    grown(values, observed, folds)
    assert learnt == [40] * 6
    monkeypatch.setattr(growing, "MAX_FOREST_CELLS", 30 * build(values, observed).tokenizer.n_expert_columns)
    grown(values, observed, folds)
    assert learnt[6:] == [30] * 6


class Lesson(NamedTuple):
    """What trees were told."""

    features: Tensor
    target: Tensor
    folds: Tensor


def test_direct_trees_learn_values_from_the_rows_of_the_forests_and_nothing_of_the_expert(
    monkeypatch: pytest.MonkeyPatch, direct_trees: None
) -> None:
    of_forests: list[Lesson] = []
    of_direct: list[Lesson] = []
    fit, fit_direct = Forest.fit, DirectTrees.fit

    def spied(self: Forest, features: Tensor, target: Tensor, n_levels: int, seed: int, *given: Any) -> Forest:
        of_forests.append(Lesson(features, target, given[0]))
        return fit(self, features, target, n_levels, seed, *given)

    def spied_direct(
        self: DirectTrees, features: Tensor, target: Tensor, seed: int, held_out: Tensor, read: Any
    ) -> DirectTrees:
        of_direct.append(Lesson(features, target, held_out))
        return fit_direct(self, features, target, seed, held_out, read)

    monkeypatch.setattr(Forest, "fit", spied)
    monkeypatch.setattr(DirectTrees, "fit", spied_direct)
    values, observed, folds = table(60)
    model = grown(values, observed, folds)
    assert list(model.direct) == list("012345") and len(of_direct) == 6
    assert len(of_forests) > 6, "levels have forests among the direct trees, too"
    for feature, (lesson, of_forest) in enumerate(zip(of_direct, of_forests[:6], strict=True)):
        rows, own = observed[:, feature], model.tokenizer.expert_feature == feature
        assert torch.equal(lesson.target, values[rows, feature])
        assert torch.equal(lesson.folds, folds[rows, feature])
        assert not lesson.features[:, own].any() and of_forest.features[:, own].any()
        assert torch.equal(lesson.features[:, ~own], of_forest.features[:, ~own])


def test_another_guess_of_the_expert_changes_no_direct_tree(
    monkeypatch: pytest.MonkeyPatch, fixed_weights: None, direct_trees: None
) -> None:
    values, observed, folds = table()
    one = grown(values, observed, folds)
    guesses = growing._own_guesses
    monkeypatch.setattr(growing, "_own_guesses", lambda *given: 1 - 2 * guesses(*given))
    other = grown(values, observed, folds)
    asked = asked_of(one)
    for feature in range(6):
        first, second = (forest_of(model, feature).predict(asked) for model in (one, other))
        assert not torch.equal(first, second)
        for fold in (0, 1, 2):
            first, second = (direct_of(model, feature).predict(asked, fold) for model in (one, other))
            assert torch.equal(first, second)


def test_direct_trees_need_cells(monkeypatch: pytest.MonkeyPatch, direct_trees: None) -> None:
    monkeypatch.setattr(growing, "MIN_DIRECT_CELLS", 40)
    values, observed, folds = table(60, missing=0.0)
    observed[39:, 4] = False
    observed[40:, 5] = False
    folds[~observed] = 0
    model = grown(values, observed, folds)
    assert features_of(model) == [list(range(6))] and list(model.direct) == list("01235")
    monkeypatch.setattr(growing, "MAX_FOREST_ROWS", 39)
    assert not grown(values, observed, folds).direct


@WITH_EXPERT
def test_boosted_trees_of_a_wide_table_read_what_the_expert_leaves(
    with_expert: bool, monkeypatch: pytest.MonkeyPatch, direct_trees: None
) -> None:
    monkeypatch.setattr(growing, "MAX_READ", 2)
    values, observed, folds = table()
    values[:, NUMBERS] = torch.randn(N_ROWS, 4, generator=seeded(1), dtype=torch.float64)
    values[:, 0] = 1.5 * values[:, 4] + values[:, 5] ** 2
    model = grown(values, observed, folds, with_expert=with_expert)
    feature_of = model.tokenizer.expert_feature
    for feature in NUMBERS:
        for half, trees in enumerate(direct_of(model, feature).forests()):
            gains = forest_of(model, feature).importances[half].masked_fill(feature_of == feature, -1)
            most = gains.topk(2).indices
            assert set(trees.feature.tolist()) - {-1} == set(most.tolist())
            assert feature or 5 in feature_of[most]


def test_direct_trees_are_weighed_once_they_are_grown(direct_trees: None) -> None:
    values = curved()
    observed = torch.ones_like(values, dtype=torch.bool)
    folds = split_held_out(torch.rand(values.shape, generator=seeded(1)) < 0.3, seeded(2))
    model = grown(values, observed, folds, (0, 0, 0))
    assert not model.number_weights[0, :, 4].any()
    assert (model.number_weights[1, :, 4] > 0).all()
    torch.testing.assert_close(model.number_weights.sum(2), torch.ones(2, 3).double())
