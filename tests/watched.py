"""Estimators that learn nothing and keep what they are given, by which `tune` is watched."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from sklearn.base import BaseEstimator

from tabmae import TimeSeriesMAE

PLACE = {"place": FloatDistribution(0, 1)}
SEEN: list[tuple[str, Any]] = []
"""What fits and scores were given, in order."""


class Hill(BaseEstimator):
    """Scores the higher the nearer `place` is to the top; keeps what it is given."""

    def __init__(self, place: Any = 0.0, top: float = 0.7, steep: float = 1.0, error: Any = None) -> None:
        self.place = place
        self.top = top
        self.steep = steep
        self.error = error

    def fit(self, X: Any, y: object = None) -> Self:
        SEEN.append(("fit", X))
        if self.error is not None and self.place >= self.error[0]:
            raise self.error[1]
        self.is_fitted_ = True
        return self

    def score(self, X: Any, y: object = None) -> float:
        SEEN.append(("score", X))
        return -self.steep * abs(np.mean(self.place) - self.top)


class Series(TimeSeriesMAE):
    """`TimeSeriesMAE` that learns nothing and keeps what it is given."""

    def fit(self, X: Any, y: object = None) -> Self:
        SEEN.append(("fit", X))
        return self

    def score(self, X: Any, y: object = None) -> float:
        SEEN.append(("score", X))
        return 0.0


def numbers(n_rows: int = 50) -> NDArray[np.float64]:
    return np.arange(2.0 * n_rows).reshape(n_rows, 2)
