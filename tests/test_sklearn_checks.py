"""Every public estimator keeps scikit-learn's rules, all of them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tabmae.estimators.detector import TabMAEDetector
from tabmae.estimators.supervised import TabMAEClassifier, TabMAERegressor
from tabmae.estimators.table import TabMAE, TabMAEEncoder

STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": "Batches, masks and held-out cells are drawn for each row, so a "
    "row of weight 2 draws others than the same row twice. scikit-learn excepts its own stochastic estimators too."
}


def expected_failures(estimator: Any) -> dict[str, str]:
    """Give the checks that cannot hold; `TabMAE` gives complete tables back as they are, so all of its hold."""
    return STOCHASTIC if isinstance(estimator, TabMAEEncoder) else {}


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
