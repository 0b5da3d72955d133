"""Pooled least-squares forecasters over several contexts, blended into one matrix per channel.

Contract: a forecast is a linear map of the last `context` steps of a series, all of them known; nothing else enters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.signal import correlate
from torch import Tensor, nn

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Ridge of the pooled coefficients, in mean variances of a centred context."""
SHRINKAGES = (1e-2, 1e-1, 1.0)
"""Pull of a channel's own coefficients to the pooled ones, in the same unit."""
SHARPNESS = 8
"""Power of the mean squared error by which members are weighed."""
MAX_COEFFICIENTS = 60_000_000
"""Numbers of the channels' own matrices; beyond, all channels share one."""

MAX_OWN_CHANNELS = 64
"""Channels that have coefficients of their own; each costs about a second."""
MANY_SERIES = 5
"""Series from which on each weighs the members itself."""
ORIGINS_A_HORIZON = 6
MAX_ORIGINS_OF_SERIES = 24
PRIOR_ORIGINS = 12.0
"""Origins by which a series is judged: how many a horizon, at most, and those of all series that they stand beside."""
LEAST_CHANGE = 0.02
"""Least change of a series over a season that it is measured by, in standard deviations."""

Matrix = NDArray[np.float64]


class Linear(nn.Module):
    """Forecasts `horizon` steps of every channel from its last `context` steps.

    Buffers
    -------
    coefficients : float32 (M, K, context, horizon), K members for each of M = C channels, or for all together (M = 1).
    weights : float32 (S + 1, K, horizon), how far each of S series of fit believes each member; the last row is for
        series that fit has not seen. Where series are few, members are blended before they are kept: S = 0, K = 1.

    Source: linear forecasters, Zeng et al. 2023; one coefficient set for all channels and own ones shrunk to it.
    """

    coefficients: Tensor
    weights: Tensor

    def __init__(self, n_matrices: int, n_members: int, context: int, horizon: int, n_series: int = 0) -> None:
        super().__init__()
        self.register_buffer("coefficients", torch.zeros(n_matrices, n_members, context, horizon))
        self.register_buffer("weights", torch.ones(n_series + 1, n_members, horizon))

    @property
    def context(self) -> int:
        return self.coefficients.shape[2]

    @property
    def horizon(self) -> int:
        return self.coefficients.shape[3]

    def forecast(self, history: Tensor, series: Tensor | None = None) -> Tensor:
        """The next (n, horizon, C) steps after histories (n, context, C), in the unit of the histories.

        `series` : int64 (n,), which series of fit each history belongs to, -1 for none; None for all of them.
        """
        found: Tensor | float = 0.0
        for k, believed in enumerate(self.weights.unbind(1)):
            matrix = self.coefficients[:, k].to(history)
            if len(matrix) == 1:
                member = torch.einsum("ntc,th->nhc", history, matrix[0])
            else:
                member = torch.einsum("ntc,cth->nhc", history, matrix)
            weight = believed[-1:] if series is None or len(believed) == 1 else believed[series]
            found = found + weight.to(history)[:, :, None] * member
        assert isinstance(found, Tensor)
        return found

    @classmethod
    def naive(cls, context: int, horizon: int, season: int) -> Self:
        """Repeats the last season; without one, the last step."""
        return cls._of(naive_matrix(season if season else "last", context, horizon)[None, None])

    @classmethod
    def fit(
        cls,
        series: Sequence[Matrix],
        splits: Sequence[int],
        horizon: int,
        contexts: Sequence[int],
        season: int,
        *,
        with_naive: bool = True,
    ) -> tuple[Self, Self]:
        """Choose, weigh and fit members.

        Parameters
        ----------
        series : complete (T, C) each, in comparable units. Those shorter than the longest context and the horizon are
            left out.
        splits : for each series the step from which on its targets choose and weigh the members.
        contexts : steps, each a member's; season : of the seasonal naive member, 0 for none.
        with_naive : whether the last step and the last season are members, too.

        Returns
        -------
        fitted to all steps, and fitted to those before the splits, with the same members. Where series weigh them
        themselves, the weights (2 S + 1, K, horizon) of the second are for origins that did not choose them: row s for
        the earlier half of the origins of series s, row S + s for the later one (`in_later_half`).

        Series count by how far their last season misses, not by their variance: one that is noise teaches as much as
        one that can be forecast.
        """
        context, n_channels = max(contexts), series[0].shape[1]
        size = context + horizon
        evened = [values / typical_change(values, season) for values in series]
        parts = [(values, split) for values, split in zip(evened, splits, strict=True) if len(values) >= size]
        before = [_ranges(values, 0, split - size + 1) for values, split in parts]
        after = [_ranges(values, max(0, split - context), len(values) - size + 1) for values, split in parts]
        pooled = np.zeros((size, size)), np.zeros((size, size))
        for c in range(n_channels):
            pooled[0][:] += gram(before, c, size)
            pooled[1][:] += gram(after, c, size)
        naive = [naive_matrix("last", context, horizon)] if with_naive else []
        if with_naive and 0 < season <= context:
            naive.append(naive_matrix(season, context, horizon))
        members = [(centre, length) for length in contexts for centre in ("mean", "last")]
        bases = [solved(pooled, context, length, centre, RIDGES) for centre, length in members]
        many = len(series) >= MANY_SERIES
        n_kept = n_channels * context * horizon * (4 * len(contexts) + 2 if many else 1)
        own = 1 < n_channels <= MAX_OWN_CHANNELS and n_kept <= MAX_COEFFICIENTS
        fitted, early, errors = [], [], []
        for c in range(n_channels if own else 1):
            # moments of a channel are made again, not kept: those of all would fill the memory
            pair = (gram(before, c, size), gram(after, c, size)) if own else pooled
            found = [(matrix, matrix) for matrix in naive] + bases
            if own:
                found += [
                    solved(pair, context, length, centre, SHRINKAGES, base)
                    for (centre, length), base in zip(members, bases, strict=True)
                ]
            missed = np.stack([squared_errors(matrix, pair[1], context) for matrix, _ in found])
            if many:
                early.append(np.stack([matrix for matrix, _ in found]))
                fitted.append(np.stack([matrix for _, matrix in found]))
                errors.append(missed)
            else:
                weights = blend(missed, season)
                early.append(sum(w * matrix for w, (matrix, _) in zip(weights, found, strict=True))[None])
                fitted.append(sum(w * matrix for w, (_, matrix) in zip(weights, found, strict=True))[None])
        final, first = cls._of(np.stack(fitted)), cls._of(np.stack(early))
        if many:
            total = sum(errors, np.zeros_like(errors[0]))
            final.weights, first.weights = series_weights(first, evened, splits, total, season)
        return final, first

    @classmethod
    def _of(cls, matrices: Matrix) -> Self:
        expert = cls(*matrices.shape)
        expert.coefficients = torch.from_numpy(matrices).float()
        return expert


def solved(
    moments: tuple[Matrix, Matrix],
    context: int,
    length: int,
    centre: str,
    penalties: Sequence[float],
    bases: tuple[Matrix, Matrix] | None = None,
) -> tuple[Matrix, Matrix]:
    """Coefficients fitted to the first moments and to both, with the penalty that misses the second ones least."""
    early, late = bases if bases is not None else (None, None)
    problem = Problem(moments[0], context, length, centre)
    candidates = [problem.solved(penalty, early) for penalty in penalties]
    reach = moments[1][context - length :, context - length :]
    errors = [squared_errors(matrix[context - length :], reach, length).mean() for matrix in candidates]
    best = int(np.argmin(errors))
    whole = Problem(moments[0] + moments[1], context, length, centre)
    return candidates[best], whole.solved(penalties[best], late)


def typical_change(values: Matrix, season: int) -> float:
    """Root mean square change of a series (T, C) over a season, or a step; 1 where nothing changes."""
    lag = season if 0 < season < len(values) else 1
    changes = values[lag:] - values[:-lag]
    change = float(np.sqrt(np.mean(changes**2))) if len(changes) else 0.0
    return max(change, LEAST_CHANGE)


def in_later_half(
    origins: NDArray[np.int64],
    length: int | NDArray[np.int64],
    split: int | NDArray[np.int64],
    context: int,
    horizon: int,
) -> NDArray[np.bool_]:
    """Which origins (n,) lie in the later half of those that judge a series of `length` steps, or each its own (n,)."""
    return np.asarray(2 * origins > np.maximum(split, context) + length - horizon)


def series_weights(
    linear: Linear, series: Sequence[Matrix], splits: Sequence[int], errors: Matrix, season: int
) -> tuple[Tensor, Tensor]:
    """Weights (S + 1, K, horizon) of each series, by its own last origins and, where they are few, those of all.

    Parameters
    ----------
    linear : unweighed members, fitted before the splits. errors : (K, horizon), squared errors over all series.

    Returns
    -------
    by all origins, and (2 S + 1, K, horizon) by the later half of each series' origins and by the earlier half.
    """
    context, horizon = linear.context, linear.horizon
    shared = errors / errors.mean(0)
    rows: tuple[list[Matrix], ...] = ([], [], [])
    for values, split in zip(series, splits, strict=True):
        every = np.arange(len(values) - horizon, max(split, context) - 1, -max(1, horizon // ORIGINS_A_HORIZON))
        origins = every[:MAX_ORIGINS_OF_SERIES]
        missed = missed_at(linear, values, origins) if len(origins) else np.zeros((0, *shared.shape))
        later = in_later_half(origins, len(values), split, context, horizon)
        for found, chosen in zip(rows, (np.ones(len(origins), dtype=bool), later, ~later), strict=True):
            n = int(chosen.sum())
            own = missed[chosen].sum(0) + 1e-9
            pooled = (n * own / own.mean(0) + PRIOR_ORIGINS * shared) / (n + PRIOR_ORIGINS)
            found.append(blend(pooled, season))
    last = [blend(shared, season)]
    return torch.from_numpy(np.stack(rows[0] + last)).float(), torch.from_numpy(
        np.stack(rows[1] + rows[2] + last)
    ).float()


def missed_at(linear: Linear, values: Matrix, origins: NDArray[np.int64]) -> Matrix:
    """Squared errors (n, K, horizon) of each member at the origins of a series (T, C), summed over channels."""
    context, horizon = linear.context, linear.horizon
    history = torch.from_numpy(np.stack([values[o - context : o] for o in origins])).float()
    future = np.stack([values[o : o + horizon] for o in origins])
    missed = np.empty((len(origins), linear.coefficients.shape[1], horizon))
    for k, matrix in enumerate(linear.coefficients.unbind(1)):
        found = torch.einsum("ntc,cth->nhc", history, matrix.expand(values.shape[1], -1, -1)).double().numpy()
        missed[:, k] = ((found - future) ** 2).sum(2)
    return missed


class Problem:
    """Least squares of a centred context on the centred horizon, from the moments of whole windows."""

    def __init__(self, moments: Matrix, context: int, length: int, centre: str) -> None:
        self.context, self.length = context, length
        x, y = slice(context - length, context), slice(context, None)
        self.weights = np.full(length, 1 / length) if centre == "mean" else np.eye(length)[-1]
        xx, xy = moments[x, x], moments[x, y]
        left = xx - np.outer(np.ones(length), self.weights @ xx)
        self.xx = left - np.outer(left @ self.weights, np.ones(length))
        shifted = xy - (xx @ self.weights)[:, None]
        self.xy = shifted - self.weights @ shifted
        self.scale = max(np.trace(self.xx) / length, 1e-12)

    def solved(self, ridge: float, base: Matrix | None = None) -> Matrix:
        """Coefficients (context, horizon) on the raw context; pulled to those of `base`, where given, else to zero."""
        right = self.xy
        if base is not None:
            # what `base` does to a centred context: its effect on the centre is the same by construction
            right = right + ridge * self.scale * (base[self.context - self.length :] - self.weights[:, None])
        left = self.xx.copy()
        left.flat[:: self.length + 1] += ridge * self.scale
        inner = solved_symmetric(left, right)
        raw = inner - np.outer(self.weights, inner.sum(0)) + self.weights[:, None]
        return np.concatenate([np.zeros((self.context - self.length, raw.shape[1])), raw])


def solved_symmetric(left: Matrix, right: Matrix) -> Matrix:
    """Solve left (n, n) x = right (n, k): by Cholesky, unless rounding has left the matrix indefinite."""
    try:
        found = cho_solve(cho_factor(left, check_finite=False), right, check_finite=False)
    except LinAlgError:
        found = np.linalg.solve(left, right)
    return np.asarray(found, dtype=np.float64)


def _ranges(values: Matrix, start: int, stop: int) -> tuple[Matrix, int, int]:
    """Windows of a series from start to stop."""
    return values, start, max(start, stop)


def gram(parts: Iterable[tuple[Matrix, int, int]], channel: int, size: int) -> Matrix:
    """Second moments (size, size), about zero, of all stride-1 windows that begin in [start, stop) of the series.

    Neighbouring windows share all steps but two, so a row of the matrix follows from the one before.
    """
    first = np.zeros(size)
    heads, tails = [], []
    for values, start, stop in parts:
        if stop <= start:
            continue
        x = np.ascontiguousarray(values[:, channel])
        first += correlate(x[start : stop + size - 1], x[start:stop], mode="valid")
        heads.append(x[start : start + size])
        tails.append(x[stop : stop + size - 1])
    moments = np.zeros((size, size))
    if not heads:
        return moments
    head, tail = np.stack(heads)[:, : size - 1], np.stack(tails)
    gained = tail.T @ tail - head.T @ head
    moments[0] = first
    for row in range(1, size):
        moments[row, 1:] = moments[row - 1, :-1] + gained[row - 1]
    return np.triu(moments) + np.triu(moments, 1).T


def squared_errors(matrix: Matrix, moments: Matrix, context: int) -> Matrix:
    """Summed squared error of each step of the horizon over the windows behind the moments."""
    xx, xy = moments[:context, :context], moments[:context, context:]
    errors = moments.diagonal()[context:] - 2 * (matrix * xy).sum(0) + (matrix * (xx @ matrix)).sum(0)
    return np.maximum(errors, 1e-9)


def naive_matrix(period: str | int, context: int, horizon: int) -> Matrix:
    """Coefficients that repeat the last step, or the last `period` steps."""
    matrix = np.zeros((context, horizon))
    for step in range(horizon):
        back = 1 if period == "last" else int(period) - step % int(period)
        matrix[context - back, step] = 1
    return matrix


def blend(errors: Matrix, season: int) -> Matrix:
    """Weights (members, horizon) by the errors (members, horizon), summed over blocks that grow with the horizon."""
    horizon = errors.shape[1]
    edges = [0]
    width = max(1, season // 4 if season else horizon // 8)
    while edges[-1] < horizon:
        edges.append(min(horizon, edges[-1] + width))
        width *= 2
    weights = np.empty_like(errors)
    for low, high in pairwise(edges):
        total = errors[:, low:high].sum(1)
        share = (total.min() / total) ** SHARPNESS
        weights[:, low:high] = (share / share.sum())[:, None]
    return weights
