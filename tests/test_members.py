"""The members of the ensemble: no cell is judged by what learnt it, and each is believed as it deserves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ensembles import (
    CATEGORIES,
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
from torch import Tensor, nn

import tabmae
from tabmae import TabMAE, training
from tabmae.estimators import base, growing, learner, members
from tabmae.estimators.members import check_parts, make_room, modelled_levels, refit_expert, weigh_members
from tabmae.estimators.validation import Validation, judged, split_held_out
from tabmae.experts.direct import DirectTrees
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.model import Batch, MaskedAutoencoder, Members
from tabmae.training import Plan

WITH_EXPERT = pytest.mark.parametrize("with_expert", [True, False], ids=["expert", "alone"])


def frame(n_rows: int) -> pd.DataFrame:
    """Two numbers and a category that share a factor, with holes."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=n_rows)
    complete = pd.DataFrame({"x": factor, "y": factor**2, "city": np.where(factor > 0.3, "Oslo", "Rome")})
    return complete.mask(rng.random(complete.shape) < 0.2)


def weights_of(imputer: TabMAE) -> pd.DataFrame:
    """How far each column believes each member."""
    return imputer.quality_.filter(like="weight_")


def with_trees(model: MaskedAutoencoder, has_direct: bool = False) -> MaskedAutoencoder:
    """A model with trees of each of its columns, which nobody asks."""
    names = [str(feature) for feature in range(len(model.tokenizer.n_levels))]
    model.add_sweep(nn.ModuleDict({name: Forest() for name in names}))
    if has_direct:
        model.direct.update({name: DirectTrees(0) for name in names})
    return model


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


@pytest.mark.parametrize(
    ("n_sweeps", "n_direct"), [(0, 0), (1, 0), (1, 6)], ids=["no trees", "forests", "direct trees, too"]
)
def test_members_are_weighed_by_answers_that_know_no_cell_of_their_fold(
    n_sweeps: int, n_direct: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "MIN_DIRECT_CELLS", 20 if n_direct else 10**9)
    values, observed, folds = table()
    model = grown(values, observed, folds) if n_sweeps else build(values, observed & (folds == 0))
    assert len(model.sweeps) == n_sweeps and len(model.direct) == n_direct
    changed = shifted(values, folds == 1)
    found, weights = [], []
    ask = MaskedAutoencoder.ask_trees

    def spied(self: MaskedAutoencoder, batches: Any, members: Members, fold: int) -> None:
        ask(self, batches, members, fold)
        found.append((members, fold))

    monkeypatch.setattr(MaskedAutoencoder, "ask_trees", spied)
    for cells in (values, changed):
        weigh_members(model, Validation(model, cells, observed, folds))
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
    weigh_members(model, Validation(model, values, observed, folds))
    for weights, earlier in zip((model.number_weights, model.level_weights), before, strict=True):
        assert torch.equal(weights[0], earlier[0]) and not torch.equal(weights[1], earlier[1])
        torch.testing.assert_close(weights[1].sum(1), torch.ones_like(weights[1, :, 0]))
        assert (weights >= 0).all()


@WITH_EXPERT
@pytest.mark.parametrize(("has_forests", "has_direct"), [(False, False), (True, False), (True, True)])
def test_without_a_held_out_cell_the_network_shares_with_the_best_starts_there_are(
    with_expert: bool, has_forests: bool, has_direct: bool
) -> None:
    values, observed, folds = table()
    model = build(values, observed, with_expert=with_expert)
    if has_forests:
        with_trees(model, has_direct)
    weigh_members(model, Validation(model, values, observed, torch.zeros_like(folds)))
    few = 50 / (50 + len(values)) if has_forests else 1.0
    believed = torch.tensor([few * with_expert, 1.0, has_forests, has_direct]).double()
    expected = believed / believed.sum()
    torch.testing.assert_close(model.level_weights[-1], expected.expand(2, 4), rtol=0, atol=1e-7)
    assert not model.number_weights[-1, :, 0].any()
    torch.testing.assert_close(model.number_weights[-1, :, 1:], expected.expand(4, 4), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("n_rows", "low", "high"), [(50, 0.19, 0.21), (5_000, 0.0, 0.01)])
def test_beside_trees_the_gaussian_of_few_rows_is_believed_at_first(n_rows: int, low: float, high: float) -> None:
    values, observed, folds = table(n_rows)
    model = with_trees(build(values, observed))
    weigh_members(model, Validation(model, values, observed, torch.zeros_like(folds)))
    assert (model.number_weights[-1, :, 1] >= low).all() and (model.number_weights[-1, :, 1] <= high).all()
    assert torch.equal(model.level_weights[-1, 0, 0], model.number_weights[-1, 0, 1])


def test_the_member_that_is_right_is_believed() -> None:
    values, observed, folds = table(800)
    model = with_trees(build(values, observed & (folds == 0)), has_direct=True)

    def knowing(right: int) -> Callable[..., None]:
        def ask(batches: Sequence[Batch], members: Members, fold: int) -> None:
            cells = next(part.values for part in judged(values, observed, folds) if part.fold == fold)
            members.numbers[:], members.levels[:] = 2, 1 / 3
            members.numbers[right] = cells[:, NUMBERS]
            members.levels[right - 1] = nn.functional.one_hot(cells[:, CATEGORIES].long(), 3).double()

        return ask

    for right in (1, 2, 3, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "ask_trees", knowing(right))
            weigh_members(model, Validation(model, values, observed, folds))
        assert (model.number_weights[-1, :, right] > 0.8).all()
        assert (model.level_weights[-1, :, right - 1] > 0.5).all()
        assert model.number_weights[-1].argmax(1).unique().tolist() == [right]


def test_trees_that_a_column_hardly_believes_leave_the_model_and_change_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "FAINT", 0.315)
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(700, 1))
    linear = factor + 0.5 * rng.normal(size=(700, 5))
    frame = pd.DataFrame(linear, columns=list("abcde")).assign(f=np.sign(linear[:, 0] * linear[:, 1]) + factor[:, 0])
    holed = frame.mask(rng.random(frame.shape) < 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(learner, "drop_unasked", lambda model: None)
        whole = TabMAE(max_epochs=5, random_state=0).fit(holed)
    imputer = TabMAE(max_epochs=5, random_state=0).fit(holed)
    weights = imputer.quality_[["weight_trees", "weight_direct"]]
    assert not ((weights > 0) & (weights < members.FAINT)).any().any()
    assert np.allclose(weights_of(imputer).sum(axis=1), 1)
    for forests, believed in (
        (members.forests_of(imputer.model_), weights["weight_trees"]),
        (imputer.model_.direct, weights["weight_direct"]),
    ):
        kept = [str(place) for place, weight in enumerate(believed) if weight > 0]
        assert sorted(forests) == kept
    assert 0 < len(members.forests_of(imputer.model_)) + len(imputer.model_.direct) < 12
    assert len(members.forests_of(whole.model_)) == len(whole.model_.direct) == 6
    imputed = imputer.transform(holed)
    pd.testing.assert_frame_equal(imputed, whole.transform(holed))
    imputer.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tabmae.load(tmp_path / "model").transform(holed), imputed)


def test_a_model_whose_trees_nobody_believes_is_saved_and_loaded(tmp_path: Path) -> None:
    rows = frame(300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "FAINT", 2.0)
        imputer = TabMAE(max_epochs=5, random_state=0).fit(rows)
    assert not len(members.forests_of(imputer.model_)) and not len(imputer.model_.direct)
    assert np.allclose(weights_of(imputer).sum(axis=1), 1)
    imputer.save(tmp_path / "model")
    assert tabmae.load(tmp_path / "model").transform(rows).equals(imputer.transform(rows))


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


def test_forests_go_on_to_read_the_expert_that_they_were_grown_with() -> None:
    values, observed, folds = table()
    model = grown(values, observed, folds)
    assert model.expert is not None and model.grown_with is None
    before = model.expert.covariance.clone()
    refit_expert(model, torch.where(observed, values, torch.nan), observed)
    assert model.grown_with is not None and torch.equal(model.grown_with.covariance, before)
    assert not torch.equal(model.expert.covariance, before)
    visible = torch.zeros_like(observed)
    read: list[Tensor] = []

    class Reader(nn.Module):
        def predict(self, features: Tensor, fold: int) -> Tensor:
            read.append(features)
            return torch.zeros(len(features), 1)

    feature = int(model.tokenizer.numbers[0])
    column = int(model.tokenizer.expert_of_number[0])
    model.sweeps[0] = nn.ModuleDict({str(feature): Reader()})
    with torch.no_grad():
        model.members(values[:1].double(), visible[:1])
    assert float(read[0][0, column]) == pytest.approx(float(model.grown_with.mean[column]), abs=1e-6)


def test_a_wave_that_the_gaussian_does_not_see_is_imputed_as_well_as_held_out_cells_say() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, 300)
    table = pd.DataFrame({"x": x, "y": np.cos(3 * x) + rng.normal(0, 0.1, 300)})
    missing = rng.random(300) < 0.25
    holes = table.assign(y=table["y"].mask(missing))
    imputer = TabMAE(random_state=0).fit(holes)
    error = (imputer.transform(holes)["y"] - table["y"])[missing].std() / holes["y"].std()
    assert error < 1.3 * imputer.quality_.loc["y", "error"] < 0.4


def second_sweep(model: MaskedAutoencoder) -> None:
    """Let a sweep of other forests follow, as earlier versions grew one."""
    rows, forests = torch.randn(30, model.tokenizer.n_expert_columns, generator=seeded()), nn.ModuleDict()
    for feature, n_levels in enumerate(modelled_levels(model)):
        forests[str(feature)] = Forest().fit(rows, torch.arange(30) % max(2, n_levels), n_levels, seed=0)
    model.add_sweep(forests)


def test_loaded_weights_of_two_sweeps_and_direct_trees_answer_bit_equal(direct_trees: None) -> None:
    values, observed, folds = table(60)
    model = grown(values, observed, folds)
    second_sweep(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = build(values, observed & (folds == 0))
    make_room(other, weights)
    other.load_state_dict(weights)
    check_parts(other)
    bit_equal(other, model)
    assert features_of(other) == features_of(model) == [list(range(6))] * 2
    assert set(other.direct) == set(model.direct) == set("012345")
    for fold in (0, 1, 2):
        for one, same in zip(
            answers(model, values, observed, fold), answers(other, values, observed, fold), strict=True
        ):
            assert torch.equal(one, same)


def test_a_saved_estimator_with_two_sweeps_and_direct_trees_predicts_bit_equal(
    tmp_path: Path, direct_trees: None
) -> None:
    holes = frame(60)
    model = TabMAE(max_epochs=2, d_token=4, random_state=0).fit(holes)
    assert len(model.model_.sweeps) == 1 and set(model.model_.direct) == set("012")
    second_sweep(model.model_)
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
    check_parts(model)
    broken = forest_of(model, 0)
    inner = int(torch.nonzero(broken.feature >= 0)[0])
    getattr(broken, part)[0 if part == "roots" else inner] = wrong
    with pytest.raises(ValueError, match="A forest's nodes must lead to its leaves"):
        check_parts(model)


@pytest.mark.parametrize(("name", "of"), [("0", "1"), ("1", "0"), ("99", "0")])
def test_a_forest_of_another_or_of_no_column_is_refused(name: str, of: str) -> None:
    values, observed, _ = table(60)
    model = build(values, observed)
    rows = torch.randn(30, model.tokenizer.n_expert_columns, generator=seeded())
    forests = {"0": Forest().fit(rows, rows[:, 0], 0, seed=0), "1": Forest().fit(rows, torch.arange(30) % 3, 3, seed=0)}
    model.add_sweep(nn.ModuleDict(forests))
    check_parts(model)
    model.add_sweep(nn.ModuleDict({name: forests[of]}))
    with pytest.raises(ValueError, match="A forest must be of (its|a) column"):
        check_parts(model)


def with_direct_trees() -> MaskedAutoencoder:
    """Give a model with direct trees of its first number and its first category."""
    values, observed, _ = table(60)
    model = build(values, observed)
    rows = torch.randn(60, model.tokenizer.n_expert_columns, generator=seeded())
    model.add_sweep(nn.ModuleDict())
    model.direct["0"] = DirectTrees(0).fit(rows, rows[:, 0], seed=0)
    model.direct["1"] = DirectTrees(3).fit(rows, torch.arange(60) % 3, seed=0)
    return model


@pytest.mark.parametrize(
    ("part", "wrong"), [("roots", -1), ("roots", 10**6), ("left", 10**6), ("right", 0), ("feature", 10**3)]
)
@pytest.mark.parametrize(("feature", "number"), [(0, 0), (0, 1), (1, 0)])
def test_direct_trees_that_lead_nowhere_are_refused(feature: int, number: int, part: str, wrong: int) -> None:
    model = with_direct_trees()
    check_parts(model)
    broken = direct_of(model, feature).forests()[number]
    inner = int(torch.nonzero(broken.feature >= 0)[0])
    getattr(broken, part)[0 if part == "roots" else inner] = wrong
    with pytest.raises(ValueError, match="A forest's nodes must lead to its leaves"):
        check_parts(model)


@pytest.mark.parametrize(("name", "of"), [("0", "1"), ("1", "0"), ("3", "1"), ("99", "0"), ("x", "0")])
def test_direct_trees_of_another_or_of_no_column_are_refused(name: str, of: str) -> None:
    model = with_direct_trees()
    model.direct[name] = model.direct[of]
    with pytest.raises(ValueError, match="A forest must be of (its|a) column"):
        check_parts(model)


def taught(monkeypatch: pytest.MonkeyPatch, share: float, **given: Any) -> tuple[TabMAE, list[Tensor]]:
    """A fit whose network goes on with held-out cells for a share of its epochs, and the cells of each training."""
    cells: list[Tensor] = []
    train = training.train

    def watched(model: Any, values: Tensor, observed: Tensor, *others: Any, **named: Any) -> Any:
        cells.append(observed)
        return train(model, values, observed, *others, **named)

    monkeypatch.setattr(base, "TAUGHT_ON", share)
    monkeypatch.setattr(base, "train", watched)
    return TabMAE(max_epochs=4, d_token=4, random_state=0, **given).fit(frame(200)), cells


def test_the_network_learns_the_held_out_cells_after_they_have_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = taught(monkeypatch, 0.0)
    model, (first, then) = taught(monkeypatch, 0.25)
    _, observed = model._read(frame(200))
    assert torch.equal(then, observed) and (first <= observed).all() and 0.8 < first.sum() / observed.sum() < 0.95
    assert model.quality_.equals(plain.quality_) and model.history_ == plain.history_
    one, other = plain.model_.state_dict(), model.model_.state_dict()
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert moved == {"tokenizer", "backbone"}, "trees, weights of members and the expert stay"


def test_neither_expert_nor_network_of_many_rows_learns_the_held_out_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, n_trained in ((200, 1), (201, 2)):
        monkeypatch.setattr(learner, "MAX_REFIT_ROWS", most)
        model, cells = taught(monkeypatch, 0.25)
        assert len(cells) == n_trained and (model.model_.grown_with is not None) == (n_trained == 2)


def test_a_network_that_a_callback_stopped_is_not_taught_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cells = taught(monkeypatch, 0.25, callbacks=[lambda record: record["epoch"] >= 3])
    assert model.n_iter_ == 3 and len(cells) == 1


def test_a_network_of_few_epochs_is_not_taught_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cells = taught(monkeypatch, 0.1)
    assert len(cells) == 1


def test_a_network_that_stopped_before_its_end_is_taught_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def train(*given: Any, **named: Any) -> training.History:
        plans.append(given[3])
        return training.train(*given, **named)

    monkeypatch.setattr(base, "train", train)
    given: dict[str, Any] = {"max_epochs": 60, "experts": ("gaussian",), "random_state": 0}
    few = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 20)).cumsum(1)).mask(
        np.random.default_rng(1).random((30, 20)) < 0.2
    )
    stopped = TabMAE(**given, patience=6, lr=0.02).fit(few)
    assert stopped.n_iter_ < 60 and len(plans) == 1
    whole = TabMAE(**given).fit(frame(200))
    best = min(whole.history_, key=lambda record: record["held_out_error"])["epoch"]
    assert [plan.max_epochs for plan in plans[1:]] == [60, round(base.TAUGHT_ON * best)]
