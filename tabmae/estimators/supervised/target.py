"""The target of a table: which rows have a label, and what the members learn in its place.

Contract: a missing label is no label; every other one is learnt or refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import Tensor

from tabmae.errors import DataError, kind_of, listed, warn
from tabmae.estimators.row_weights import checked_weight
from tabmae.schema import open_table

LEAST_LABELS = 2


def labelled(X: Any, y: Any, least: int = LEAST_LABELS) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which rows of X have a label (n,), and the labels of these.

    Raises
    ------
    DataError : X is no table; y is not one column, has less than `least` labels, or infinite ones. ValueError : y is
    not as long as X.
    """
    if y is None:
        raise DataError("This estimator requires y to be passed, but the target y is None. Pass one label a row.")
    open_table(X)
    # Nullable types would become floats, and a NaN among strings the string "nan".
    if pd.api.types.is_extension_array_dtype(getattr(y, "dtype", None)):
        y = y.astype(object)
    elif isinstance(y, list | tuple):
        y = np.array(y, dtype=object)
    try:
        labels = column_or_1d(y, warn=True)
    except ValueError as error:
        raise DataError(f"{error} Pass one label a row, such as X['target'] or labels.idxmax(axis=1).") from error
    check_consistent_length(X, labels)
    known = ~np.asarray(pd.isna(labels))
    if known.sum() < least:
        raise DataError(
            f"y must hold at least {least} label{'s' if least > 1 else ''}; got {int(known.sum())} for "
            f"n_samples = {len(labels)}. Pass more labelled rows."
        )
    labels = labels[known]
    if labels.dtype == object:
        labels = pd.Series(labels).infer_objects().to_numpy()
    infinite = int(np.isinf(labels).sum()) if labels.dtype.kind == "f" else 0
    if infinite:
        raise DataError(f"y must be finite; it contains infinity in {infinite} rows. Drop these rows, or mend them.")
    return known, labels


def codes_of(labels: NDArray[Any]) -> tuple[NDArray[Any], Tensor]:
    """Sorted classes, and the position of each label (n,) among them.

    Raises
    ------
    DataError : there is one class alone, or types that cannot be sorted. ValueError : labels are no classes, but for
    example real numbers.
    """
    try:
        if type_of_target(labels) == "unknown":
            raise DataError(f"y must hold labels of one plain type; got {kind_of(labels[0])}. Convert them to strings.")
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise DataError(f"y must hold labels of one plain type; {error}. Convert them to strings.") from error
    if len(classes) < 2:
        raise DataError(
            f"y must hold at least two classes; got one class, {listed(classes.tolist())}. Pass rows of another class."
        )
    _warn_of_minus_ones(classes, int((codes == 0).sum()), len(codes))
    return classes, torch.from_numpy(codes.astype(np.int64))


def _warn_of_minus_ones(classes: NDArray[Any], n_lowest: int, n_labels: int) -> None:
    """Warn where most of the labels are -1 beside several other classes, all of them numbers from 0 on."""
    beside_others = classes.dtype.kind in "if" and len(classes) > 2 and classes[0] == -1 and classes[1] >= 0
    if beside_others and n_lowest > n_labels / 2:
        warn(
            f"y holds -1 in {n_lowest} of {n_labels} rows, by which scikit-learn's semi-supervised estimators mean "
            "rows without a label; here it is learnt as a class. If these rows have no label, pass "
            "y.astype(float).replace(-1, numpy.nan)."
        )


@contextmanager
def without_doubts_of_classes() -> Iterator[None]:
    """Keep scikit-learn's members from saying again, each, that so many classes may be numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        yield


def numbers_of(labels: NDArray[Any]) -> Tensor:
    """Labels as float64 (n,).

    Raises
    ------
    DataError : labels are no numbers.
    """
    if labels.dtype.kind in "mM":
        raise DataError(
            f"y must hold numbers; it holds {labels.dtype}. Convert dates and durations to numbers of a unit, for "
            "example (y - y.min()) / pandas.Timedelta(days=1)."
        )
    try:
        return torch.from_numpy(np.array(labels, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(f"y must hold numbers; {error}. Pass numbers, or use TabMAEClassifier.") from error


def weights_of(known: NDArray[np.bool_], sample_weight: Any) -> NDArray[Any] | None:
    """Weights of the rows that have a label, (m,), None where all count alike."""
    if sample_weight is None:
        return None
    checked_weight(sample_weight, len(known))
    return np.asarray(sample_weight)[known]


def with_weight(known: NDArray[np.bool_], sample_weight: Any) -> tuple[NDArray[np.bool_], Tensor | None]:
    """The rows (n,) that have a label and a positive weight, and the weights of these, 1 on the mean; float64 (m,).

    Raises
    ------
    DataError : the weights are not one finite number a row that is not negative, or too few labels have a positive one.
    """
    if sample_weight is None:
        return known, None
    weight = checked_weight(sample_weight, len(known)).double()
    counted = known & (weight > 0).numpy()
    if counted.sum() < LEAST_LABELS:
        raise DataError(
            f"`sample_weight` must be positive for at least {LEAST_LABELS} labelled rows; it is for "
            f"{int(counted.sum())} of {int(known.sum())}. Give more of them a positive weight."
        )
    weight = weight[torch.from_numpy(counted)]
    return counted, weight / weight.mean()
