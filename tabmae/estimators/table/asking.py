"""What may be asked of an imputer, and the tables that it is asked with."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from tabmae.errors import DataError
from tabmae.estimators.learner import MaskedTableEstimator


def has_categories(estimator: MaskedTableEstimator) -> bool:
    """Whether a column of fit has class probabilities; the error is the cause that a user sees."""
    check_is_fitted(estimator)
    if any(column.kind == "category" for column in estimator.schema_.columns):
        return True
    raise DataError(
        "A column of fit must be categorical; got numbers and times alone. Name those that are categories in "
        "`categorical_features`, or pass them as strings, or take `predict_interval` of numbers."
    )


def as_array(X: Any) -> Any:
    """A list of rows as an array, which scikit-learn's transformers give back for it; any other table as it is."""
    if not isinstance(X, list | tuple):
        return X
    cells = np.array(X, dtype=object)
    numeric = all(cell is None or (isinstance(cell, Real) and not isinstance(cell, bool)) for cell in cells.flat)
    return cells.astype(np.float64) if numeric else cells
