"""Every public estimator keeps scikit-learn's rules, all of them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from tabmae import TimeSeriesMAE
from tabmae.estimators import growing
from tabmae.estimators.detector import TabMAEDetector, forests
from tabmae.estimators.supervised import TabMAEClassifier, TabMAERegressor, members, network
from tabmae.estimators.table import TabMAE, TabMAEEncoder
from tabmae.experts import boosting

STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": "Batches, masks and held-out cells are drawn for each row, so a "
    "row of weight 2 draws others than the same row twice. scikit-learn excepts its own stochastic estimators too."
}


def expected_failures(estimator: Any) -> dict[str, str]:
    """Give the checks that cannot hold; `TabMAE` gives complete tables back as they are, so all of its hold."""
    return STOCHASTIC if isinstance(estimator, TabMAEEncoder | TabMAEClassifier | TabMAERegressor) else {}


@pytest.fixture
def small_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every fit have all of its members, each of few trees, folds and steps."""
    monkeypatch.setattr(growing, "TREES_OF_FOREST", 4)
    monkeypatch.setattr(forests, "N_TREES", 4)
    monkeypatch.setattr(boosting, "MAX_ROUNDS", boosting.LEAST_ROUNDS)
    monkeypatch.setattr(members, "N_FOLDS", 2)
    monkeypatch.setattr(network, "MAX_STEPS", 20)


@pytest.mark.usefixtures("small_ensembles")
@parametrize_with_checks(
    [
        kind(max_epochs=2, d_token=4)
        for kind in (TabMAE, TabMAEEncoder, TabMAEDetector, TabMAEClassifier, TabMAERegressor)
    ],
    expected_failed_checks=expected_failures,
)
def test_estimator_keeps_the_rules(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", [TabMAEDetector, TabMAEClassifier, TabMAERegressor])
def test_parameters_of_the_network_are_those_of_tabmae(kind: type[Any]) -> None:
    own, shared = (inspect.signature(each).parameters for each in (kind, TabMAE))
    assert set(shared) - set(own) == {"warm_start"}
    assert {name: own[name].default for name in set(own) & set(shared)} == {
        name: shared[name].default for name in set(own) & set(shared)
    }


@pytest.mark.parametrize(
    "kind", [TabMAE, TabMAEEncoder, TabMAEDetector, TabMAEClassifier, TabMAERegressor, TimeSeriesMAE]
)
def test_an_unknown_parameter_is_refused_in_the_name_of_the_class_with_the_nearest_one(kind: type[Any]) -> None:
    with pytest.raises(
        TypeError, match=rf"^{kind.__name__} has no parameter `max_epoch`. Did you mean `max_epochs`\?$"
    ):
        kind(max_epoch=3)
    with pytest.raises(
        TypeError, match=rf"^{kind.__name__} has no parameters `zzz`, `dtoken`. Did you mean `d_token`\?$"
    ):
        kind(zzz=1, dtoken=2)
    with pytest.raises(TypeError, match=rf"^{kind.__name__} has no parameter `zzz`. help\({kind.__name__}\) lists"):
        kind(zzz=1)
    with pytest.raises(TypeError, match=rf"^{kind.__name__} takes its parameters by name; got 1 without one. Pass for"):
        kind(0.5)
    assert (
        "max_epochs" in inspect.signature(kind).parameters and clone(kind(max_epochs=3)).get_params()["max_epochs"] == 3
    )


def test_an_unknown_parameter_of_a_class_of_the_user_has_its_name() -> None:
    class Imputer(TabMAE):
        """A class that hands its parameters on."""

    misspelt: dict[str, Any] = {"maskratio": 0.5}
    with pytest.raises(TypeError, match="^Imputer has no parameter `maskratio`. Did you mean `mask_ratio`"):
        Imputer(**misspelt)
