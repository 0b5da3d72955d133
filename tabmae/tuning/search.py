"""`tune`: one study, from the estimator as it is passed to the best one that was found, fitted.

Contract: everything is checked before the first fit; Optuna's log and torch's global generator are left as they were.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import optuna
import torch
from numpy.random import RandomState
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.utils import check_random_state, get_tags

from tabmae.errors import ParameterError, TrainingError, TrainingInterruptedWarning, check_number, kind_of
from tabmae.estimators.parameters import check_seed
from tabmae.tuning.parts import cut, last_step
from tabmae.tuning.spaces import Space, check_candidate, distributions_of, space_of

PASSED = "as_passed"
"""Attribute of the trial that scores the estimator's own parameters."""
ERROR = "error"
"""Attribute of a trial that failed: why."""


def tune(
    estimator: Any,
    X: Any,
    *,
    n_trials: int = 50,
    timeout: float | None = None,
    space: Mapping[str, Any] | Space | None = None,
    storage: str | BaseStorage | None = None,
    n_jobs: int = 1,
    random_state: int | RandomState | None = None,
) -> Any:
    """Look for the parameters with the best `score` on data that fit does not see, and fit with them to all of X.

    The first trial is the estimator as it is passed; where none beats it, it is what is fitted. Of tables, a fifth of
    the rows is kept for the score; of series, a fifth of them where there are 20 or more, else the last fifth of the
    steps of each. `TimeSeriesMAE.score` is about gaps, so forecasts are not tuned. The best of many scores owes
    something to luck: what it is worth, data that `tune` has not seen tell.

    Parameters
    ----------
    estimator : `TabMAE`, `TabMAEEncoder`, `TimeSeriesMAE`, or any estimator or Pipeline that learns without `y` and has
        a `score`, higher for better; it stays as it is, and keeps its own `random_state`.
    X : what its `fit` takes; of any other estimator a table.
    n_trials : trials of this call, the first one included.
    timeout : seconds after which no trial begins, None for no limit. The first one always ends; it and the last fit
        take as long as they take.
    space : dict from names of parameters to distributions (`optuna.distributions`) or lists of choices, or a function
        of a trial that gives a dict of parameters. None, for estimators of this package: `mask_ratio`, `dropout`, `lr`,
        `d_token` and `depth`.
    storage : of Optuna, as a URL such as "sqlite:///study.db" or an object; None keeps the study in memory. The study
        is named after the estimator's class and a digest of its parameters, X, space and seed: the same call goes on
        from the study that it finds, any other one begins its own. It takes a whole-numbered `random_state`; functions
        among the parameters are told apart by where they lie in memory, so with them another process begins anew.
    n_jobs : trials at once, in threads; -1 for as many as there are processors. Threads share torch's generator, so
        with more than one the same seed does not give the same scores.
    random_state : seed of the parts and of the parameters tried. With a whole number here and in the estimator, one
        job, and neither `timeout` nor `time_budget`, the result is always the same.

    Returns
    -------
    A clone of the estimator, fitted to X with the best parameters, and
        study_ : the `optuna.Study`; a trial that failed has its reason in `user_attrs["error"]`.
        best_params_ : dict of the parameters that were set; empty where the estimator's own won.
    `save` leaves out both.

    Raises
    ------
    ParameterError : a parameter is out of range, the estimator needs `y`, or `space` does not fit it.
    DataError : X cannot be read, or has fewer than ten rows or steps.
    TrainingError : every trial failed. A trial whose training fails is passed over.

    Source: tree-structured Parzen estimator, Bergstra et al. 2011, section 4; Optuna, Akiba et al. 2019.

    >>> import numpy as np
    >>> from tabmae import TabMAE, tune
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 3))
    >>> model = TabMAE(max_epochs=2, experts=(), random_state=0)
    >>> tuned = tune(model, X, n_trials=3, space={"mask_ratio": [0.2, 0.5, (0.1, 0.9)]}, random_state=0)
    >>> len(tuned.study_.trials), set(tuned.best_params_) <= {"mask_ratio"}
    (3, True)
    """
    _check_arguments(n_trials, timeout, storage, n_jobs, random_state)
    _check_estimator(estimator)
    rng = check_random_state(random_state)
    seed = int(rng.randint(2**31 - 1))
    with _left_as_it_was():
        chosen = space_of(estimator, space)
        training, validation, digest = cut(estimator, X, rng)

        def objective(trial: optuna.Trial) -> float:
            parameters = {}
            if PASSED not in trial.user_attrs:
                parameters = chosen(trial)
                check_candidate(estimator, parameters)
            try:
                with _interrupts_kept() if n_jobs == 1 else nullcontext():
                    return float(clone(estimator).set_params(**parameters).fit(training).score(validation))
            except TrainingError as error:
                trial.set_user_attr(ERROR, str(error))
                raise

        told = repr((sorted(estimator.get_params().items()), distributions_of(chosen), seed, digest))
        name = f"{type(estimator).__name__} {hashlib.sha256(told.encode()).hexdigest()[:16]}"
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        begun = time.monotonic()
        # A study that goes on must not draw again what it began with.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        if not any(PASSED in trial.user_attrs and trial.state == TrialState.COMPLETE for trial in study.trials):
            study.enqueue_trial({}, user_attrs={PASSED: True})
        study.optimize(objective, n_trials=1, catch=(TrainingError,))
        if n_trials > 1:
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
            study.optimize(objective, n_trials=n_trials - 1, timeout=left, n_jobs=n_jobs, catch=(TrainingError,))
        best = _best(study)
        parameters = {} if PASSED in best.user_attrs else chosen(optuna.trial.FixedTrial(best.params, best.number))
        tuned = clone(estimator).set_params(**parameters).fit(X)
    tuned.study_, tuned.best_params_ = study, parameters
    return tuned


def _best(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The first trial with the highest score."""
    trials = study.get_trials(deepcopy=False)
    scored = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not scored:
        reason = trials[-1].user_attrs.get(ERROR, "The score was not a number.")
        raise TrainingError(
            f"One trial at least must end with a score; all {len(trials)} failed, the last one so: {reason} "
            "Pass an estimator whose own fit succeeds."
        )
    return max(scored, key=lambda trial: trial.values[0])


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Let an interrupt end the study: training alone would keep its best weights, warn, and go on to be scored."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingInterruptedWarning)
        try:
            yield
        except TrainingInterruptedWarning as told:
            raise KeyboardInterrupt from told


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Quieten Optuna and keep torch's global generator, which fits in threads may leave otherwise, as before."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        awake = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
        with torch.random.fork_rng(devices=awake):
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _check_arguments(n_trials: Any, timeout: Any, storage: Any, n_jobs: Any, random_state: Any) -> None:
    check_number("n_trials", n_trials, low=1, integer=True, hint="Pass the number of trials, for example 50.")
    if timeout is not None:
        hint = "Pass seconds, for example 600, or None for no limit."
        check_number("timeout", timeout, low=0, low_open=True, hint=hint)
    if not isinstance(storage, str | BaseStorage | None):
        raise ParameterError(
            f"`storage` must be a URL, a storage of Optuna or None; got {storage!r}. "
            "Pass for example 'sqlite:///study.db'."
        )
    if n_jobs != -1:
        hint = "Pass the number of trials at once, or -1 for as many as there are processors."
        check_number("n_jobs", n_jobs, low=1, integer=True, hint=hint)
    check_seed(random_state)


def _check_estimator(estimator: Any) -> None:
    lacking = [name for name in ("get_params", "fit", "score") if not hasattr(estimator, name)]
    if isinstance(estimator, type) or lacking:
        raise ParameterError(
            f"`estimator` must be an estimator with `fit` and `score`; got {kind_of(estimator)}. "
            "Pass for example TabMAE() or TimeSeriesMAE()."
        )
    learner = last_step(estimator)
    if hasattr(learner, "__sklearn_tags__") and get_tags(learner).target_tags.required:
        raise ParameterError(
            f"`estimator` must learn without `y`; {type(learner).__name__} needs it. "
            "Search its parameters with sklearn.model_selection.GridSearchCV."
        )
    checkpoint = getattr(learner, "checkpoint", None)
    if checkpoint is not None:
        raise ParameterError(
            f"`checkpoint` must be None to tune, for every trial trains anew; got {checkpoint!r}. "
            "Pass `storage` to `tune`, which keeps what the trials found."
        )
