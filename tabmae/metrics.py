"""Scores of predictions on chosen cells.

Contract: every function takes one-dimensional arrays with one entry a chosen cell, all known, and returns one float,
which is NaN where no cell was chosen.
"""

import numpy as np
from numpy.typing import ArrayLike

from tabmae.errors import DataError, check_number, listed


def rmse(target: ArrayLike, predicted: ArrayLike) -> float:
    """Give the root mean squared error, in the target's unit.

    >>> rmse([0.0, 1.0], [2.0, 3.0])
    2.0
    """
    target, predicted = _aligned(target, predicted)
    return float(np.sqrt(_mean((predicted - target) ** 2)))


def nrmse(target: ArrayLike, predicted: ArrayLike, scale: float) -> float:
    """Give the root mean squared error in units of `scale`, the standard deviation of the column's known values.

    Raises
    ------
    ParameterError : `scale` is not positive; a constant column has no normalised error.
    """
    check_number("scale", scale, low=0, low_open=True, hint="Leave out columns that are constant.")
    return rmse(target, predicted) / scale


def accuracy(target: ArrayLike, predicted: ArrayLike) -> float:
    """Give the share of cells whose level is predicted, for levels of any type.

    >>> accuracy(["a", "b"], ["a", "a"])
    0.5
    """
    target, predicted = np.asarray(target), np.asarray(predicted)
    _check_shapes(target, predicted)
    return _mean(np.asarray(target == predicted, dtype=np.float64))


def vus_pr(labels: ArrayLike, scores: ArrayLike, window: int) -> float:
    """Give the volume under the surface of precision and recall: of a series' scores, over lengths of a buffer.

    Around every anomaly lie buffers of `b` // 2 steps, where a step d away counts as sqrt(1 - d / b) of an anomalous
    one: scores that are a little early or late are not worthless. Recall is the sum of the labels found over half the
    sum of plain and buffered ones, and counts as far as anomalies are touched at all; the area under its curve with
    precision is averaged over b = 0 .. `window`.

    Parameters
    ----------
    labels : bool or 0 and 1 (T,), in the order of time. scores : float (T,), higher is odder.
    window : longest buffer in steps; 0 gives the area without any.

    Returns
    -------
    A share in [0, 1]; NaN where no step, or every step, is anomalous.

    Raises
    ------
    DataError : a score is not finite, or a label is neither 0 nor 1.
    ParameterError : `window` is no integer of 0 or more.

    Source: Paparrizos et al. 2022, "Volume Under the Surface", section 3. As in the authors' code, buffered labels
    count in recall's denominator where they are predicted, so that perfect scores have 1.
    Differs: every threshold instead of 250; of two anomalies on one side of a step the nearer one counts.

    >>> round(vus_pr([0, 0, 1, 0], [0.1, 0.2, 0.9, 0.3], window=0), 3)
    1.0
    """
    check_number("window", window, low=0, integer=True, hint="Pass the steps of the longest buffer, for example 100.")
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    strange = labels[~np.isin(labels, (0, 1))].tolist()
    if strange:
        raise DataError(
            f"`labels` must be bools, or 0 and 1; got {listed(dict.fromkeys(strange))}. Pass for example labels == -1."
        )
    anomalous = labels.astype(bool)
    _check_shapes(anomalous, scores)
    if not np.isfinite(scores).all():
        raise DataError("`scores` must be finite; got some that are not. Leave out the steps that have none.")
    if not anomalous.any() or anomalous.all():
        return float("nan")
    n_steps, step = len(scores), np.arange(len(scores))
    since = step - np.maximum.accumulate(np.where(anomalous, step, -2 * n_steps - window))
    until = np.minimum.accumulate(np.where(anomalous, step, 3 * n_steps + window)[::-1])[::-1] - step
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), n_steps - 1)  # of the steps of each threshold
    threshold = np.empty(n_steps, dtype=np.int64)
    threshold[order] = np.searchsorted(last, step)
    areas = []
    for buffer in range(window + 1):
        soft = anomalous.astype(np.float64)
        for distance in (since, until):
            near = ~anomalous & (distance <= buffer // 2)
            soft[near] += np.sqrt(1 - distance[near] / buffer)
        soft = np.minimum(soft, 1)
        found, found_plain = (np.cumsum(part[order])[last] for part in (soft, soft * anomalous))
        begins = np.flatnonzero((soft > 0) & (np.append(0, soft[:-1]) == 0))
        touched = np.minimum.reduceat(np.where(soft > 0, threshold, len(last)), begins)
        share = np.cumsum(np.bincount(touched, minlength=len(last))) / len(begins)
        recall = share * np.minimum(found / (anomalous.sum() + (found - found_plain) / 2), 1)
        areas.append(float(np.sum(np.diff(recall, prepend=0) * found / (last + 1))))
    return float(np.mean(areas))


def _aligned(*arrays: ArrayLike) -> list[np.ndarray]:
    floats = [np.asarray(array, dtype=np.float64) for array in arrays]
    _check_shapes(*floats)
    return floats


def _check_shapes(*arrays: np.ndarray) -> None:
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1 or arrays[0].ndim != 1:
        raise DataError(
            f"Chosen cells must be arrays of one length and one dimension; got shapes {shapes}. Align them."
        )


def _mean(scores: np.ndarray) -> float:
    return float(scores.mean()) if scores.size else float("nan")
