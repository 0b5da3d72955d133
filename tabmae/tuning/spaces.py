"""Where a study looks for parameters: the package's own spaces, and what a user passes.

Contract: a space is a function from a trial to parameters by name; what Optuna stores of a choice is plain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from optuna import Trial, create_study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from sklearn.base import clone

from tabmae.errors import ParameterError, check_choice, listed
from tabmae.estimators.learner import MaskedTableEstimator
from tabmae.estimators.parameters import check_parameters
from tabmae.estimators.series import TimeSeriesMAE
from tabmae.estimators.series.checks import check_series_parameters
from tabmae.tuning.parts import last_step

Space = Callable[[Any], dict[str, Any]]
Draw = FloatDistribution | IntDistribution | dict[Any, Any]
"""Numbers, or choices by what Optuna stores of them."""

HINT = "Pass for example {'mask_ratio': optuna.distributions.FloatDistribution(0.1, 0.9)}."


def of_tables(trial: Trial) -> dict[str, Any]:
    """What is worth tuning of `TabMAE` and `TabMAEEncoder`: bounds of the mask ratio, dropout, step size, network."""
    return {
        "mask_ratio": mask_ratio(trial),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
        "lr": trial.suggest_float("lr", 1e-3, 2e-2, log=True),
        "d_token": trial.suggest_int("d_token", 8, 32, step=4),
        "depth": trial.suggest_int("depth", 1, 4),
    }


def of_series(trial: Trial) -> dict[str, Any]:
    """What is worth tuning of `TimeSeriesMAE`: the same, of a network of convolutions, which is deeper and wider."""
    return {
        "mask_ratio": mask_ratio(trial),
        "dropout": trial.suggest_float("dropout", 0.0, 0.3),
        "lr": trial.suggest_float("lr", 5e-4, 1e-2, log=True),
        "d_token": trial.suggest_int("d_token", 32, 128, step=32),
        "depth": trial.suggest_int("depth", 2, 6),
    }


def mask_ratio(trial: Trial) -> tuple[float, float]:
    """Bounds of the share of cells to hide, drawn so that the lower one is never above the other."""
    return trial.suggest_float("mask_ratio_low", 0.05, 0.5), trial.suggest_float("mask_ratio_high", 0.5, 0.95)


def space_of(estimator: Any, space: Any) -> Space:
    """The space to look in, tried out once, and each end of its distributions checked.

    Raises
    ------
    ParameterError : no space where one is needed, an empty one, one of no distributions, unknown names, or values
        that the estimator refuses.
    """
    if space is None:
        chosen = _own_space(estimator)
    elif callable(space):
        chosen = space
    else:
        draws = _draws(space)
        for name, draw in draws.items():
            for value in draw.values() if isinstance(draw, dict) else (draw.low, draw.high):
                check_candidate(estimator, {name: value})
        chosen = partial(_drawn, draws)
    check_candidate(estimator, chosen(_trial()))
    return chosen


def distributions_of(space: Space) -> str:
    """What a space draws from, as text."""
    trial = _trial()
    space(trial)
    return repr(sorted(trial.distributions.items()))


def check_candidate(estimator: Any, parameters: Any) -> None:
    """Refuse parameters that an estimator does not have, or, of this package, values that it does not take."""
    if not isinstance(parameters, dict) or not parameters:
        raise ParameterError(f"`space` must give a dict of parameters, one or more; got {parameters!r}. {HINT}")
    names = list(estimator.get_params())
    for name in parameters:
        check_choice("space", name, names)
    learner = last_step(clone(estimator).set_params(**parameters))
    if isinstance(learner, MaskedTableEstimator):
        check_parameters(learner)
    elif isinstance(learner, TimeSeriesMAE):
        check_series_parameters(learner)


def _trial() -> Trial:
    """A trial of no study that is kept, always the same."""
    return create_study(sampler=RandomSampler(seed=0)).ask()


def _own_space(estimator: Any) -> Space:
    if isinstance(estimator, MaskedTableEstimator):
        return of_tables
    if isinstance(estimator, TimeSeriesMAE):
        return of_series
    raise ParameterError(
        f"`space` must be given for a {type(estimator).__name__}; got None. "
        "Pass a dict from its parameters to Optuna's distributions or lists of choices."
    )


def _draws(space: Any) -> dict[str, Draw]:
    if not isinstance(space, Mapping) or not space:
        raise ParameterError(
            f"`space` must be a dict that is not empty, or a function of a trial; got {space!r}. {HINT}"
        )
    return {name: _draw(name, given) for name, given in space.items()}


def _draw(name: Any, given: Any) -> Draw:
    if isinstance(given, FloatDistribution | IntDistribution):
        return given
    choices = given.choices if isinstance(given, CategoricalDistribution) else given
    if not isinstance(choices, list | tuple) or not choices:
        raise ParameterError(
            f"`space` must hold distributions of Optuna or lists of choices; got {given!r} for {name!r}. {HINT}"
        )
    by_label = {_label(choice): choice for choice in choices}
    if len(by_label) < len(choices):
        raise ParameterError(f"Choices of `space` must differ; got {listed(choices)} for {name!r}. Name each one once.")
    return by_label


def _label(choice: Any) -> Any:
    """What Optuna stores of a choice: numbers and text as they are, all else as it is shown."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else repr(choice)


def _drawn(draws: Mapping[str, Draw], trial: Any) -> dict[str, Any]:
    """A value of each parameter."""
    return {name: _suggested(trial, name, draw) for name, draw in draws.items()}


def _suggested(trial: Any, name: str, draw: Draw) -> Any:
    match draw:
        case FloatDistribution():
            return trial.suggest_float(name, draw.low, draw.high, step=draw.step, log=draw.log)
        case IntDistribution():
            return trial.suggest_int(name, draw.low, draw.high, step=draw.step, log=draw.log)
        case _:
            return draw[trial.suggest_categorical(name, list(draw))]
