"""A target predicted from rows with holes, from few labels: `TabMAEClassifier`, `TabMAERegressor`."""

from tabmae.estimators.supervised.estimator import TabMAEClassifier, TabMAERegressor

__all__ = ["TabMAEClassifier", "TabMAERegressor"]
