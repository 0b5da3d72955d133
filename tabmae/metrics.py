"""Scores of predictions on chosen cells.

Contract: every function takes one-dimensional arrays with one entry a chosen cell, all known, and returns one float,
which is NaN where no cell was chosen.
"""

import numpy as np
from numpy.typing import ArrayLike

from tabmae.errors import DataError, check_number

SMALLEST_PROBABILITY = 1e-15


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


def mae(target: ArrayLike, predicted: ArrayLike) -> float:
    """Give the mean absolute error, in the target's unit."""
    target, predicted = _aligned(target, predicted)
    return _mean(np.abs(predicted - target))


def accuracy(target: ArrayLike, predicted: ArrayLike) -> float:
    """Give the share of cells whose level is predicted, for levels of any type.

    >>> accuracy(["a", "b"], ["a", "a"])
    0.5
    """
    target, predicted = np.asarray(target), np.asarray(predicted)
    _check_shapes(target, predicted)
    return _mean(np.asarray(target == predicted, dtype=np.float64))


def log_loss(target_codes: ArrayLike, probabilities: ArrayLike) -> float:
    """Give the mean negative log probability of the true levels, in nats.

    Parameters
    ----------
    target_codes : int (n,), each the column of its true level in `probabilities`.
    probabilities : float (n, K). A probability of zero counts as 1e-15, so that one cell costs 34.5 nats at most.
    """
    codes, shares = np.asarray(target_codes, dtype=np.intp), np.asarray(probabilities, dtype=np.float64)
    _check_shapes(codes, shares[:, 0])
    return _mean(-np.log(np.maximum(shares[np.arange(len(codes)), codes], SMALLEST_PROBABILITY)))


def crps(target: ArrayLike, draws: ArrayLike) -> float:
    """Give the mean continuous ranked probability score of draws, in the target's unit.

    Parameters
    ----------
    target : float (n,).
    draws : float (S, n), S >= 2.

    Raises
    ------
    DataError : fewer than two draws.

    Source: the fair form for ensembles, unbiased in the number of draws, Ferro 2014, section 3.
    """
    target, draws = np.asarray(target, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    n_draws = len(draws)
    if n_draws < 2:
        raise DataError(f"`draws` must hold two draws at least; got {n_draws}. Draw more, for example 20.")
    _check_shapes(target, draws[0])
    # The sum of |x_i - x_j| over all ordered pairs, from the sorted draws in one pass.
    weight = 2 * np.arange(n_draws) - n_draws + 1
    pairs = 2 * np.tensordot(weight, np.sort(draws, axis=0), axes=1)
    return _mean(np.abs(draws - target).mean(axis=0) - pairs / (2 * n_draws * (n_draws - 1)))


def coverage(target: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Give the share of cells that lie within their interval, both ends included."""
    target, lower, upper = _aligned(target, lower, upper)
    return _mean(np.asarray((lower <= target) & (target <= upper), dtype=np.float64))


def interval_width(lower: ArrayLike, upper: ArrayLike) -> float:
    """Give the mean width of the intervals, in the target's unit."""
    lower, upper = _aligned(lower, upper)
    return _mean(upper - lower)


def interval_score(target: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: float) -> float:
    """Give the mean width plus the penalty for cells outside, in the target's unit; lower is better.

    Parameters
    ----------
    level : float in (0, 1), the nominal coverage. A cell outside costs its distance times 2 / (1 - level).

    Source: Gneiting and Raftery 2007, section 6.2.
    """
    hint = "Pass the nominal coverage, for example 0.9."
    check_number("level", level, low=0, high=1, low_open=True, high_open=True, hint=hint)
    target, lower, upper = _aligned(target, lower, upper)
    outside = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
    return _mean(upper - lower + 2 / (1 - level) * outside)


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
