"""What a study learns from and what it is scored on.

Contract: the parts depend on the data's shape and the generator alone, and have the container of the data.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from tabmae.errors import DataError
from tabmae.estimators.series import TimeSeriesMAE
from tabmae.estimators.series.fitting import MANY_SERIES
from tabmae.estimators.series.learner import read_schema
from tabmae.schema import TableSchema, open_table, take_rows

VALIDATION = 0.2
"""Share of the rows, series or steps that score a trial."""
LEAST = 10
"""Rows or steps without which two of them cannot be kept for the score."""


class Parts(NamedTuple):
    """Data cut in two, in their container, and a digest of their cells."""

    training: Any
    validation: Any
    digest: str


def last_step(estimator: Any) -> Any:
    """The estimator that a pipeline ends in, or the estimator itself."""
    return last_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def cut(estimator: Any, X: Any, rng: RandomState) -> Parts:
    """Cut the data of an estimator in two.

    Tables: a fifth of the rows validates. Series: a fifth of them where there are 20 or more, else the last fifth of
    the steps of each.

    Raises
    ------
    DataError : X cannot be read, or has fewer than ten rows or steps.
    """
    learner = last_step(estimator)
    return _cut_series(learner, X, rng) if isinstance(learner, TimeSeriesMAE) else _cut_table(learner, X, rng)


def _cut_table(learner: Any, X: Any, rng: RandomState) -> Parts:
    n_rows = open_table(X).n_rows
    if n_rows < LEAST:
        raise DataError(
            f"X must have at least {LEAST} rows to tune on; got {n_rows}. "
            "Pass more rows, or fit the estimator as it is."
        )
    order = rng.permutation(n_rows)
    n_validation = round(VALIDATION * n_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        schema = TableSchema.fit(X, getattr(learner, "categorical_features", "auto"))
    values, observed = schema.encode(X)
    return Parts(
        take_rows(X, np.sort(order[n_validation:])),
        take_rows(X, np.sort(order[:n_validation])),
        _digest(repr(schema.to_dict()), values, observed),
    )


def _cut_series(learner: TimeSeriesMAE, X: Any, rng: RandomState) -> Parts:
    schema = read_schema(learner, X)
    panel = schema.read(X, of_fit=True)
    lengths = np.array(panel.lengths)
    if lengths.max() < LEAST:
        raise DataError(
            f"X must hold a series of at least {LEAST} steps to tune on; the longest has {lengths.max()}. "
            "Pass longer series, or fit the estimator as it is."
        )
    starts = _validation_starts(lengths, rng)
    digest = _digest(repr((schema.to_dict(), panel.ids, panel.starts, panel.lengths)), panel.values, panel.future)
    if schema.layout != "array":
        series, steps = schema.places(X)
        validates = steps >= starts[series]
        return Parts(take_rows(X, np.flatnonzero(~validates)), take_rows(X, np.flatnonzero(validates)), digest)
    array = panel.values.reshape(len(lengths), lengths[0], -1)
    if len(lengths) >= MANY_SERIES:
        return Parts(array[starts > 0], array[starts == 0], digest)
    return Parts(array[:, : starts[0]], array[:, starts[0] :], digest)


def _validation_starts(lengths: NDArray[np.int64], rng: RandomState) -> NDArray[np.int64]:
    """For every series the step from which on it validates: 0 where it only does that, its length where it never does.

    Source: as `TimeSeriesMAE` itself keeps steps or series to judge by, `split_steps`.
    """
    if len(lengths) < MANY_SERIES:
        return lengths - (VALIDATION * lengths).astype(np.int64)
    validating = rng.permutation(len(lengths))[: round(VALIDATION * len(lengths))]
    return np.where(np.isin(np.arange(len(lengths)), validating), 0, lengths)


def _digest(text: str, *arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(repr((array.dtype, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
