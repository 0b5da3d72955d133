"""The members that learn a target: what each starts from, who judges whom, and how they are weighed."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from generated import correlated, with_holes
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tabmae.estimators.supervised.linear import LinearModel
from tabmae.estimators.supervised.members import Ensemble, answer, folds
from tabmae.estimators.supervised.network import FineTuned, Rows
from tabmae.estimators.table import TabMAE

TABLE = with_holes(correlated(90))


@pytest.fixture(scope="module")
def imputer() -> TabMAE:
    return TabMAE(max_epochs=2, d_token=4, random_state=0).fit(TABLE)


@pytest.fixture(scope="module")
def rows(imputer: TabMAE) -> Rows:
    values, visible = imputer._read(TABLE)
    model = imputer.model_
    completed = torch.where(visible, values.double(), imputer._points(values, visible))
    shown = torch.where(visible, values.double(), 0)
    return Rows(shown, visible, model.guess(shown, visible), model.tokenizer.sweep_cells(completed))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def target_of(rows: Rows, n_levels: int) -> Tensor:
    """A target of the first two features."""
    score = rows.features[:, 0].double() - rows.features[:, 1]
    if not n_levels:
        return (score - score.mean()) / score.std()
    return torch.bucketize(score, score.quantile(torch.linspace(0, 1, n_levels + 1).double()[1:-1]))


def test_folds_share_out_every_level_and_leave_the_only_label_of_one_to_all() -> None:
    target = torch.tensor([0] * 20 + [1] * 10 + [2])
    fold = folds(target, 5, generator(), 3)
    assert fold[-1] == -1
    for level, share in ((0, 4), (1, 2)):
        assert (torch.bincount(fold[target == level], minlength=5) == share).all()


def test_folds_of_numbers_hold_high_and_low_ones_alike() -> None:
    target = torch.arange(100.0)
    fold = folds(target, 5, generator(), 0)
    means = torch.stack([target[fold == number].mean() for number in range(5)])
    assert (means - 49.5).abs().max() <= 2


def test_the_linear_model_is_that_of_scikit_learn(rows: Rows) -> None:
    features, target = rows.features, target_of(rows, 3)
    standard = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(standard, target).predict_proba(standard)
    found = LinearModel().fit(features, target, 3, 0.1).predict(features)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_level_without_a_label_is_less_likely_than_any_other(rows: Rows) -> None:
    target = target_of(rows, 2)
    found = LinearModel().fit(rows.features, target, 3).predict(rows.features)
    assert (found[:, 2] > 0).all() and (found.mean(0)[2] < found.mean(0)[:2]).all()


@pytest.mark.parametrize("n_levels", [0, 3])
def test_the_network_starts_from_the_linear_answer_and_leaves_the_pretrained_one_alone(
    imputer: TabMAE, rows: Rows, n_levels: int
) -> None:
    target = target_of(rows, n_levels)
    linear = LinearModel().fit(rows.features, target, n_levels)
    before = deepcopy(imputer.model_.state_dict())
    network = FineTuned(imputer.model_, linear, max(1, n_levels))
    torch.testing.assert_close(network.predict(rows), linear.predict(rows.features))
    kept = deepcopy(linear.state_dict())
    network.fit(rows, target, torch.arange(len(target)), n_levels, generator())
    assert (network.predict(rows) - linear.predict(rows.features)).abs().max() > 1e-3
    assert all(torch.equal(tensor, before[name]) for name, tensor in imputer.model_.state_dict().items())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in linear.state_dict().items())


def test_the_network_does_not_feel_what_is_not_visible(imputer: TabMAE, rows: Rows) -> None:
    network = FineTuned(imputer.model_, LinearModel(rows.features.shape[1]), 1)
    torch.nn.init.ones_(network.head.weight)
    other = rows._replace(values=torch.where(rows.visible, rows.values, 9.0))
    assert torch.equal(network.predict(other), network.predict(rows))


def test_labelled_rows_judge_only_models_that_did_not_learn_them(imputer: TabMAE, rows: Rows) -> None:
    noise = torch.randn(len(rows.values), generator=generator()).double()
    names = ("linear", "trees", "boosting", "network")
    ensemble = Ensemble(0).fit(names, [rows], noise, imputer.model_, generator())
    assert (ensemble.held_out_errors > 0.9 * noise.std()).all()
    learnt = torch.stack([answer(model, rows)[:, 0] for model in ensemble.members["trees"].children()]).mean(0)
    assert (learnt - noise).square().mean().sqrt() < 0.7 * noise.std()


@pytest.mark.parametrize("n_levels", [0, 3])
def test_weights_are_shares_and_the_best_member_has_most(imputer: TabMAE, rows: Rows, n_levels: int) -> None:
    names = ("linear", "trees")
    ensemble = Ensemble(n_levels).fit(names, [rows], target_of(rows, n_levels), imputer.model_, generator())
    assert (ensemble.weights >= 0).all() and ensemble.weights.sum(1).tolist() == pytest.approx([1, 1])
    assert (ensemble.weights.argmax(1) == ensemble.held_out_errors[:2].argmin()).all()


@pytest.mark.parametrize("n_levels", [0, 3])
def test_rows_as_complete_as_those_of_fit_and_others_are_answered_by_weights_of_their_own(
    rows: Rows, n_levels: int
) -> None:
    ensemble, target, n = Ensemble(n_levels), target_of(rows, n_levels), len(rows.values)
    truth = nn.functional.one_hot(target, n_levels).double() if n_levels else target[:, None].double()
    wrong = truth.roll(1, 0)
    right_at_first, right_at_last = torch.cat([truth, wrong]), torch.cat([wrong, truth])
    ensemble.weights = ensemble._weighed(torch.stack([right_at_first, right_at_last]), target.repeat(2), None, n)
    assert ensemble.weights[0, 0] > 0.6 and ensemble.weights[1, 1] > 0.6
    ensemble.visible = torch.tensor([1.0, 0.5]).double()
    visible = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    answers = torch.stack([torch.ones(4, 1), torch.zeros(4, 1)]).double()
    of_first, of_last = ensemble.weights[:, 0].tolist()
    found = ensemble._combined(answers, visible)[:, 0].tolist()
    assert found == pytest.approx([of_first, (of_first + of_last) / 2, of_last, of_last])
    ensemble.visible = torch.tensor([1.0, 1.0]).double()
    assert ensemble._combined(answers, visible)[:, 0].tolist() == pytest.approx([of_first] * 4)


def test_a_member_that_is_never_wrong_is_believed(imputer: TabMAE, rows: Rows) -> None:
    target = target_of(rows, 3)
    telling = rows._replace(features=torch.cat([rows.features, target[:, None]], 1).float())
    ensemble = Ensemble(3).fit(("linear", "trees"), [telling], target, imputer.model_, generator())
    assert ensemble.held_out_errors[1] == 0 and not ensemble.held_out_errors[1].signbit()
    assert (ensemble.weights[:, 1] > 0.99).all()
