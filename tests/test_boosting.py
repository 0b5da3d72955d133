"""Boosted trees as arrays answer as those that were grown."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Tensor

from tabmae import ParameterError, TabMAE, TabMAEClassifier
from tabmae.experts import boosting
from tabmae.experts.boosting import BoostedTrees


def drawn(n_levels: int) -> tuple[Tensor, Tensor]:
    """Draw rows whose target depends on a product of two features."""
    rows = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    score = rows[:, 0] * rows[:, 1] + rows[:, 2]
    if not n_levels:
        return rows, score
    edges = score.quantile(torch.linspace(0, 1, n_levels + 1)[1:-1])
    return rows, torch.bucketize(score, edges)


@pytest.mark.parametrize("n_levels", [0, 2, 3])
def test_the_arrays_answer_as_the_trees_that_were_grown(n_levels: int) -> None:
    rows, target = drawn(n_levels)
    found = BoostedTrees().fit(rows, target, n_levels, seed=0).predict(rows).numpy()
    if n_levels:
        expected = HistGradientBoostingClassifier(random_state=0).fit(rows, target).predict_proba(rows)
    else:
        expected = HistGradientBoostingRegressor(random_state=0).fit(rows, target).predict(rows)[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("n_levels", [0, 3])
def test_rounds_learning_rate_and_leaves_are_those_asked_for(n_levels: int) -> None:
    rows, target = drawn(n_levels)
    grown = BoostedTrees().fit(rows, target, n_levels, seed=0, max_rounds=12, learning_rate=0.3, max_leaves=5)
    given = {"max_iter": 12, "learning_rate": 0.3, "max_leaf_nodes": 5, "random_state": 0}
    if n_levels:
        expected = HistGradientBoostingClassifier(**given).fit(rows, target).predict_proba(rows)
    else:
        expected = HistGradientBoostingRegressor(**given).fit(rows, target).predict(rows)[:, None]
    np.testing.assert_allclose(grown.predict(rows).numpy(), expected, atol=1e-5)
    assert len(grown.forest.roots) == 12 * max(1, n_levels)


@pytest.mark.parametrize("n_levels", [0, 3])
def test_features_that_are_not_to_be_read_are_not(n_levels: int) -> None:
    rows, target = drawn(n_levels)
    read = torch.tensor([1, 3])
    grown = BoostedTrees().fit(rows, target, n_levels, seed=0, read=read)
    if n_levels:
        expected = (
            HistGradientBoostingClassifier(random_state=0).fit(rows[:, read], target).predict_proba(rows[:, read])
        )
    else:
        expected = (
            HistGradientBoostingRegressor(random_state=0).fit(rows[:, read], target).predict(rows[:, read])[:, None]
        )
    np.testing.assert_allclose(grown.predict(rows).numpy(), expected, atol=1e-5)
    assert set(grown.forest.feature.tolist()) == {-1, 1, 3}


@pytest.mark.parametrize(("held", "n_levels"), [((0, 2), 3), ((0, 1, 3), 4)])
def test_a_level_that_no_row_holds_is_impossible(held: tuple[int, ...], n_levels: int) -> None:
    rows, target = drawn(len(held))
    levels = torch.tensor(held)[target]
    found = BoostedTrees().fit(rows, levels, n_levels, seed=0).predict(rows)
    absent = [level for level in range(n_levels) if level not in held]
    assert (found[:, absent] == 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(len(rows)))
    assert (found.argmax(1) == levels).float().mean() > 0.9


def test_many_levels_have_fewer_rounds() -> None:
    rows, target = drawn(50)
    grown = BoostedTrees().fit(rows, target, 50, seed=0)
    assert len(grown.forest.roots) == 1000


def test_a_state_of_any_size_is_loaded() -> None:
    rows, target = drawn(3)
    grown = BoostedTrees().fit(rows, target, 3, seed=0)
    weights = grown.state_dict()
    blank = BoostedTrees(n_outputs=3)
    blank.load_state_dict(weights)
    assert torch.equal(blank.predict(rows), grown.predict(rows))


@pytest.fixture(params=["hidden", "changed"])
def another_scikit_learn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that hides the trees that it boosts, or whose leaves mean something else."""
    leaves = boosting._leaves

    def other(*given: Any) -> Any:
        if request.param == "hidden":
            raise AttributeError("'TreePredictor' object has no attribute 'nodes'")
        return 2 * leaves(*given)

    monkeypatch.setattr(boosting, "_leaves", other)
    boosting.opens.cache_clear()
    yield
    boosting.opens.cache_clear()


@pytest.mark.usefixtures("another_scikit_learn")
def test_where_boosted_trees_cannot_be_read_the_others_answer() -> None:
    assert not boosting.opens()
    rows, target = drawn(2)
    imputer = TabMAE(max_epochs=1, random_state=0).fit(rows.numpy())
    assert (imputer.quality_["weight_direct"] == 0).all() and (imputer.quality_["weight_trees"] > 0).any()
    small: dict[str, Any] = {"max_epochs": 1, "random_state": 0}
    rows, target = rows[:120], target[:120]
    classifier = TabMAEClassifier(**small).fit(rows.numpy(), target.numpy())
    assert classifier.quality_.index.tolist() == ["linear", "trees", "network", "ensemble"]
    with pytest.raises(ParameterError, match="^The boosted trees of scikit-learn .* cannot be read"):
        TabMAEClassifier(**small, members=("boosting",)).fit(rows.numpy(), target.numpy())


def test_the_boosted_trees_of_this_scikit_learn_are_read() -> None:
    assert boosting.opens()
