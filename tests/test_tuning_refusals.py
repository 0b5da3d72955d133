"""`tune` refuses what it cannot use before the first fit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from watched import PLACE, SEEN, Hill, Series, numbers

from tabmae import TabMAE, TabMAEClassifier, TabMAEDetector, TimeSeriesMAE, tune
from tabmae.errors import DataError, ParameterError


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_trials": 0}, "`n_trials` must be an integer of at least 1; got 0"),
        ({"n_trials": 2.0}, "`n_trials` must be an integer"),
        ({"timeout": 0}, "`timeout` must be a finite number above 0; got 0"),
        ({"storage": 3}, "`storage` must be a URL, a storage of Optuna or None; got 3"),
        ({"n_jobs": 0}, "`n_jobs` must be an integer of at least 1; got 0"),
        ({"random_state": "a"}, "`random_state` must be None, an integer"),
        ({"space": {}}, "`space` must be a dict that is not empty, or a function of a trial; got {}"),
        ({"space": ["place"]}, "`space` must be a dict"),
        ({"space": {"plaec": [1]}}, "`space` must be one of .* got 'plaec'. Did you mean 'place'"),
        (
            {"space": {"place": 0.5}},
            "`space` must hold distributions of Optuna or lists of choices; got 0.5 for 'place'",
        ),
        ({"space": {"place": []}}, "`space` must hold distributions"),
        ({"space": {"place": [1, 1]}}, "Choices of `space` must differ; got 1, 1 for 'place'"),
        ({"space": lambda trial: {"plaec": 1}}, "`space` must be one of .* Did you mean 'place'"),
        ({"space": lambda trial: None}, "`space` must give a dict of parameters, one or more; got None"),
        ({"space": None}, "`space` must be given for a Hill; got None"),
        ({"estimator": Hill}, "`estimator` must be an estimator with `fit` and `score`; got the class Hill"),
        ({"estimator": numbers()}, "`estimator` must be an estimator with `fit` and `score`; got ndarray"),
        (
            {"estimator": TabMAEDetector()},
            "`estimator` must be an estimator with `fit` and `score`; got TabMAEDetector",
        ),
        ({"estimator": TabMAEClassifier()}, "`estimator` must learn without `y`; TabMAEClassifier needs it"),
        (
            {"estimator": make_pipeline(StandardScaler(), Ridge())},
            "`estimator` must learn without `y`; Ridge needs it",
        ),
        ({"estimator": TabMAE(checkpoint="a")}, "`checkpoint` must be None to tune"),
        ({"estimator": TabMAE(), "space": {"mask_ratio": FloatDistribution(0.2, 1)}}, "`mask_ratio` must lie in"),
        ({"estimator": TabMAE(), "space": {"d_token": FloatDistribution(4, 8)}}, "`d_token` must be an integer"),
        ({"estimator": TabMAE(), "space": {"mask": ["block", "gird"]}}, "`mask` must be one of .* Did you mean 'grid'"),
        ({"estimator": TimeSeriesMAE(), "space": {"patch": IntDistribution(0, 3)}}, "`patch` must be an integer"),
    ],
)
def test_bad_arguments_are_refused_before_any_fit(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"estimator": Hill(), "X": numbers(), "space": PLACE} | arguments
    with pytest.raises(ParameterError, match=f"^{message}"):
        tune(**given)
    assert SEEN == []


@pytest.mark.parametrize(
    ("estimator", "X", "message"),
    [
        (Hill(), numbers(9), "X must have at least 10 rows to tune on; got 9"),
        (Hill(), "table.csv", "X must be a table in memory"),
        (Series(), np.zeros((3, 9, 1)), "X must hold a series of at least 10 steps to tune on; the longest has 9"),
        (Series(), numbers(), r"X must be an array \(n, T, C\)"),
    ],
)
def test_data_that_cannot_be_cut_are_refused_before_any_fit(estimator: Any, X: Any, message: str) -> None:
    space = PLACE if isinstance(estimator, Hill) else None
    with pytest.raises(DataError, match=f"^{message}"):
        tune(estimator, X, space=space)
    assert SEEN == []


def test_a_name_that_comes_up_late_is_refused_too() -> None:
    def space(trial: optuna.Trial) -> dict[str, Any]:
        return {"place": trial.suggest_float("place", 0, 1)} | ({"plaec": 1} if trial.number == 2 else {})

    with pytest.raises(ParameterError, match="Did you mean 'place'"):
        tune(Hill(), numbers(), space=space, random_state=0)
    assert len(SEEN) == 4
