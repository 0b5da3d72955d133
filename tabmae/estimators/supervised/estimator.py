"""`TabMAEClassifier` and `TabMAERegressor`: predict a target from rows with holes, from few labels."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.errors import DataError, check_number
from tabmae.estimators.supervised.learner import SupervisedTableEstimator
from tabmae.estimators.supervised.network import Rows
from tabmae.estimators.supervised.target import (
    codes_of,
    labelled,
    numbers_of,
    weights_of,
    with_weight,
    without_doubts_of_classes,
)
from tabmae.estimators.tabular import unchanged_by_failure
from tabmae.saving import register
from tabmae.schema.levels import from_json, to_json


@register
class TabMAEClassifier(ClassifierMixin, SupervisedTableEstimator):
    """Classify rows of a table of numbers, categories, booleans and dates, with holes in fit and in prediction.

    A masked autoencoder learns from all rows, labelled or not, and completes them. Four members learn the labels from
    completed rows: logistic regression, forests, boosted trees and the autoencoder itself, fine-tuned. Each is a bag
    of up to five, and rows that they did not learn, as they came and with more cells hidden, decide how far each is
    believed on rows as complete as these.

    Parameters
    ----------
    pretrained : a fitted `TabMAE` to start from instead of pretraining on the rows of fit; it is not changed. In what
        clones an estimator (a grid search), pass `sklearn.frozen.FrozenEstimator(model)`.
    members : "auto" for all, or names out of "linear", "trees", "boosting" and "network".
    time_budget : seconds of wall time after which pretraining ends, None for no limit; the members come after it.
    mask_ratio, mask, backbone, d_token, depth, dropout, loss, visible_weight, experts, categorical_features,
    feature_shape, max_epochs, batch_size, lr, validation_fraction, patience, checkpoint, device, precision, callbacks,
    verbose : of pretraining, as in `TabMAE`.
    random_state : seed of everything that is drawn; None draws one.

    Attributes
    ----------
    classes_ : (L,), sorted. quality_ : DataFrame, a row a member, and the ensemble: log loss in nats on rows that they
        did not learn, that of the classes' frequencies, `skill` and `weight`; a row is judged by one model of a bag,
        and their mean is better. NaN where every class has one label.
    imputer_ : the masked autoencoder that completes rows. schema_ : what each column is.
    n_features_in_ : number of columns. feature_names_in_ : their names, if all are strings.

    Notes
    -----
    The gain over boosted trees is in few labels and in holes; `benchmarks/README.md` tells how large it is. `score`
    leaves out rows without a label, so that `cross_val_score(model, X, y, cv=KFold(5))` needs no other `scoring`.

    Source: fine-tuning a masked autoencoder, He et al. 2022; stacked members, Breiman 1996.
    Differs: fine-tuned rows stay masked; the network is one of four members.

    >>> from sklearn.datasets import load_iris
    >>> from tabmae import TabMAEClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> X[::3, 2] = float("nan")
    >>> classifier = TabMAEClassifier(max_epochs=5, random_state=0).fit(X[::2], y[::2])
    >>> bool(classifier.score(X[1::2], y[1::2]) > 0.9)
    True
    """

    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn to classify rows.

        Parameters
        ----------
        X : pandas or polars DataFrame, Arrow table or array (n, F); NaN, None, pd.NA, NaT and null are missing.
        y : (n,), labels of any plain type; rows whose label is missing (NaN, None, pd.NA) serve pretraining alone.
        sample_weight : (n,), how far each label counts, not negative; rows of weight 0 serve pretraining alone. For
            classes that count alike, `sklearn.utils.class_weight.compute_sample_weight("balanced", y)`.

        Raises
        ------
        ParameterError : a parameter is out of range, of the wrong type, or misspelt.
        DataError : X, y or the weights cannot be read, or y holds less than two classes.
        TrainingError : the loss is not finite, or a batch does not fit in the device's memory.
        """
        self._check()
        known, labels = labelled(X, y)
        counted, weight = with_weight(known, sample_weight)
        classes, codes = codes_of(labels[counted[known]])
        with unchanged_by_failure(self), without_doubts_of_classes():
            self._fit(X, counted, codes, len(classes), weight)
            self.classes_ = classes
            share = torch.bincount(codes, weight) / len(codes)
            self._baseline_error = -float((share * share.log()).sum())
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class, (n, L), in the order of `classes_`; rows sum to 1."""
        probability = self._predicted(X)
        return (probability / probability.sum(1, keepdim=True)).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each row, (n,)."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the rows with a label that are classified right."""
        known, labels = labelled(X, y, least=1)
        return float(accuracy_score(labels, self.predict(X)[known], sample_weight=weights_of(known, sample_weight)))

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state, tensors = super()._get_state()
        classes = {"levels": [to_json(level) for level in self.classes_.tolist()], "dtype": self.classes_.dtype.str}
        return {**state, "classes": classes}, tensors

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(state, tensors)
        levels = [from_json(level) for level in state["classes"]["levels"]]
        self.classes_ = np.array(levels, dtype=state["classes"]["dtype"])


@register
class TabMAERegressor(RegressorMixin, SupervisedTableEstimator):
    """Predict a number from rows of a table of numbers, categories, booleans and dates, with holes in them.

    As `TabMAEClassifier`, with ridge regression for logistic regression and squared errors for log losses: parameters,
    attributes (`quality_` in units of the target, no `classes_`) and what may be handed in are the same.

    >>> from sklearn.datasets import load_diabetes
    >>> from tabmae import TabMAERegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> X[::3, 2] = float("nan")
    >>> regressor = TabMAERegressor(max_epochs=5, random_state=0).fit(X[::2], y[::2])
    >>> bool(regressor.score(X[1::2], y[1::2]) > 0.35)
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn to predict a number.

        Parameters
        ----------
        X : (n, F), as for `TabMAEClassifier`.
        y : (n,), finite numbers; rows whose number is missing serve pretraining alone.
        sample_weight : (n,), as for `TabMAEClassifier`.

        Raises
        ------
        ParameterError, DataError, TrainingError : as of `TabMAEClassifier.fit`; y holds something else than numbers.
        """
        self._check()
        known, labels = labelled(X, y)
        counted, weight = with_weight(known, sample_weight)
        numbers = numbers_of(labels[counted[known]])
        mean = float(numbers.mean() if weight is None else (weight * numbers).mean())
        if (numbers == numbers[0]).all():
            mean = float(numbers[0])  # that of a constant is a last digit off, which would be its deviation
        squares = (numbers - mean).square()
        deviation = float((squares if weight is None else weight * squares).mean().sqrt())
        if not np.isfinite(deviation):
            raise DataError(
                f"y must have a standard deviation that is finite; it is {deviation}. Pass y in a larger unit."
            )
        with unchanged_by_failure(self):
            self._unit = deviation or 1.0
            self._fit(X, counted, (numbers - mean) / self._unit, 0, weight)
            self._mean, self._baseline_error = mean, deviation
            self._least = 0.0 if numbers.min() >= 0 else -np.inf
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The expected number of each row, (n,), in units of the target."""
        predicted = self._predicted(X)[:, 0].numpy()
        return self._mean + self._unit * predicted

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of the number of each row, wider where held-out rows like it, with holes like its, were farther off.

        Parameters
        ----------
        X : (n, F), as for `predict`.
        level : share of rows whose number the interval is to hold, in (0, 1). Of few labels the highest levels cannot
            be told; they get the widest error that was seen.

        Returns
        -------
        lower, upper : (n,) each, in units of the target, about what `predict` says; not below zero where no label is,
            unless the prediction is.

        Source: locally weighted conformal prediction, Lei et al. 2018.
        """
        hint = "Pass the share of rows to hold, for example 0.9."
        check_number("level", level, low=0, high=1, low_open=True, high_open=True, hint=hint)
        check_is_fitted(self, "ensemble_")

        def answer(rows: Rows) -> Tensor:
            predicted = self.ensemble_.predict(rows)
            return torch.stack([predicted[:, 0], self.ensemble_.width(rows, predicted, level)], 1)

        middle, width = self._unit * self._asked(X, answer).numpy().T
        middle = self._mean + middle
        return np.minimum(middle, np.maximum(middle - width, self._least)), middle + width

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination on the rows with a number."""
        known, labels = labelled(X, y, least=1)
        weights = weights_of(known, sample_weight)
        return float(r2_score(numbers_of(labels), self.predict(X)[known], sample_weight=weights))

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state, tensors = super()._get_state()
        return {**state, "mean": self._mean, "unit": self._unit, "least": self._least}, tensors

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(state, tensors)
        self._mean, self._unit, self._least = state["mean"], state["unit"], state["least"]
