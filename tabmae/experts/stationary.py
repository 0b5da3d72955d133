"""A stationary Gaussian over windows of series: lag covariances, and the conditional mean of any hidden cells.

Contract: a cell that is not visible has no influence on any output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import scipy.linalg
import torch
from torch import Tensor, nn

CLIP = 1e-5
"""Least eigenvalue of a window's covariance, in variances of a channel."""
MAX_GATHERED = 1_000_000
"""Numbers of the matrices that are solved at once: copied out of the covariance, they should stay in the cache."""


class Conditional(NamedTuple):
    """What a Gaussian believes of the cells of windows (B, D).

    mean : conditional mean where hidden, the value itself where visible.
    variance : conditional variance where hidden; where visible that of the cell given all other visible ones.
    left_out : of visible cells, the mean given the other visible ones; `mean` where hidden.
    """

    mean: Tensor
    variance: Tensor
    left_out: Tensor


class Stationary(nn.Module):
    """Gaussian over windows (W, C) whose covariance depends on the lag between two steps alone.

    Parameters
    ----------
    window : steps W. n_channels : C.

    Buffers
    -------
    covariance, precision : float64 (W * C, W * C), steps first.

    Source: the conditional of a Gaussian, Bishop 2006, section 2.3.1; leave-one-out residuals from the precision,
    Rasmussen & Williams 2006, section 5.4.2.
    """

    covariance: Tensor
    precision: Tensor

    def __init__(self, window: int, n_channels: int) -> None:
        super().__init__()
        self.window, self.n_channels = window, n_channels
        size = window * n_channels
        self.register_buffer("covariance", torch.eye(size, dtype=torch.float64))
        self.register_buffer("precision", torch.eye(size, dtype=torch.float64))
        self.ridge, self.taper = 0.0, 0.0
        self._without_noise = torch.eye(size, dtype=torch.float64)

    def fit(self, values: Tensor, observed: Tensor, ridge: float = 1e-3, taper: float = 0.0) -> Self:
        """Learn the lag covariances of the pairs of cells that are both observed.

        Parameters
        ----------
        values : (T, C) in standard deviations about the mean, series after series with at least W missing steps
            between two of them.
        observed : bool (T, C).
        ridge : variance of the noise added to every cell.
        taper : power of the share of a window that a lag leaves, by which its covariance shrinks: 0 leaves them as they
            are; 1 is the estimate whose window covariance cannot have negative eigenvalues, for few pairs.
        """
        self.taper = taper
        return self._set(lag_covariances(values, observed, self.window), ridge)

    def estimate_again(self, values: Tensor, observed: Tensor, most: int) -> Self:
        """Learn the lag covariances from the series with their missing cells filled by the present ones.

        `most` : windows to fill, spread over the series.

        Source: the two steps of EM, Dempster et al. 1977.
        Differs: without the conditional variance, whose part at lag 0 alone would blur the others.
        """
        window, size = self.window, self.window * self.n_channels
        filled, seen = torch.where(observed, values, 0), observed.any(1)
        count = torch.cat([torch.zeros(1), seen.double()]).cumsum(0)
        starts = torch.arange(0, len(values) - window + 1, window)
        inside = count[starts + window] - count[starts]
        starts = starts[inside > 0]
        starts = starts[:: max(1, -(-len(starts) // most))]
        steps = starts[:, None] + torch.arange(window)
        for chunk in steps.split(256):
            found = self.condition(values[chunk].reshape(-1, size), observed[chunk].reshape(-1, size)).mean
            filled[chunk] = found.reshape(*chunk.shape, self.n_channels)
        known = torch.zeros_like(seen)
        known[steps] = True
        known &= _between_ends(seen, window)
        return self._set(lag_covariances(filled, known[:, None].expand_as(filled), window), self.ridge)

    def refit(self, values: Tensor, observed: Tensor, most: int) -> Self:
        """Let all of the series into the lag covariances, those that judged too; the ridge stays."""
        if int(observed.sum()) < int(observed.any(1).sum()) * self.n_channels:
            return self.estimate_again(values, observed, most)
        return self._set(lag_covariances(values, observed, self.window), self.ridge)

    def set_ridge(self, ridge: float) -> Self:
        """Change the variance of the noise."""
        self.ridge = ridge
        self.covariance = self._without_noise.to(self.covariance.device, copy=True)
        self.covariance.diagonal().add_(ridge)
        # Rows one after another, as a saved model has them: products of the other layout are rounded otherwise.
        self.precision = torch.cholesky_inverse(torch.linalg.cholesky(self.covariance)).contiguous()
        return self

    def _set(self, lags: Tensor, ridge: float) -> Self:
        share = (1 - torch.arange(len(lags)) / len(lags)).double() ** self.taper
        self._without_noise = clipped(block_toeplitz(lags * share[:, None, None]))
        return self.set_ridge(ridge)

    def condition(self, values: Tensor, visible: Tensor) -> Conditional:
        """Mean and variance of every cell of windows given the visible ones; windows of one pattern share the work.

        Parameters
        ----------
        values : (B, W * C); anything where not visible. visible : bool (B, W * C).
        """
        values = torch.where(visible, values, 0)
        patterns, pattern_of = torch.unique(visible, dim=0, return_inverse=True)
        n_hidden = (~patterns).sum(1)
        size = values.shape[1]
        answer = Conditional(values.clone(), torch.zeros_like(values), values.clone())
        precision, covariance = self.precision.to(values), self.covariance.to(values)
        counts = pattern_of.bincount(minlength=len(patterns))
        rows_of = pattern_of.argsort(stable=True).split(counts.tolist())
        for chosen, few in _chunks(n_hidden, size):
            rows = [rows_of[pattern] for pattern in chosen.tolist()]
            most = max(map(len, rows))
            index = torch.stack([torch.nn.functional.pad(of, (0, most - len(of)), value=int(of[0])) for of in rows])
            solve, matrix = (self._by_precision, precision) if few else (self._by_covariance, covariance)
            found = solve(matrix, values[index], patterns[chosen])  # (U, k, D)
            # Not the copies of a row that pad the others: they are rounded otherwise, and threads race for its place.
            own, where = torch.arange(most, device=index.device) < counts[chosen][:, None], torch.cat(rows)
            for whole, part in zip(answer, found, strict=True):
                whole[where] = part[own]
        return answer

    def joint_noise(self, visible: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal cells (B, W * C), correlated as the hidden cells are given the visible ones; 0 elsewhere."""
        noise = torch.zeros(visible.shape, dtype=torch.float64)
        precision = self.precision.cpu()
        for row, seen in enumerate(visible.cpu()):
            hidden = torch.nonzero(~seen)[:, 0]
            factor = torch.linalg.cholesky(precision[hidden][:, hidden])
            drawn = torch.randn(len(hidden), 1, generator=generator, dtype=torch.float64)
            inverse = torch.linalg.solve_triangular(factor, torch.eye(len(hidden), dtype=torch.float64), upper=False)
            noise[row, hidden] = (inverse.T @ drawn)[:, 0] / inverse.square().sum(0).sqrt()
        return noise

    def _by_precision(self, precision: Tensor, values: Tensor, visible: Tensor) -> Conditional:
        """For values (U, k, D) and patterns (U, D) with few hidden cells."""
        index, real = positions(~visible)
        inverse = self._inverse(precision, index, real)
        times = values @ precision
        right = times.gather(2, index[:, None].expand(-1, values.shape[1], -1))
        found = -(right * real[:, None]) @ inverse
        mean = values.scatter_add(2, index[:, None].expand_as(found), found)
        hidden = torch.zeros_like(visible, dtype=values.dtype).scatter_add(1, index, inverse.diagonal(dim1=1, dim2=2))
        left, tests = positions(visible)
        across = precision[index[:, :, None], left[:, None, :]]  # (U, m, S)
        own = 1 / (precision.diagonal()[left] - ((inverse @ across) * across).sum(1)).clamp_min(1e-9)
        residual = (mean @ precision).gather(2, left[:, None].expand(-1, values.shape[1], -1)) * own[:, None]
        return self._answer(mean, hidden, left, tests, own, residual)

    def _by_covariance(self, covariance: Tensor, values: Tensor, visible: Tensor) -> Conditional:
        """For values (U, k, D) and patterns (U, D) with few visible cells."""
        index, real = positions(visible)
        inverse = self._inverse(covariance, index, real)
        rows = covariance[index]  # (U, m, D)
        right = values.gather(2, index[:, None].expand(-1, values.shape[1], -1)) * real[:, None]
        weights = right @ inverse
        mean = torch.where(visible[:, None], values, weights @ rows)
        variance = (covariance.diagonal() - ((inverse @ rows) * rows).sum(1)).clamp_min(1e-9)
        own = 1 / inverse.diagonal(dim1=1, dim2=2).clamp_min(1e-9)
        return self._answer(mean, torch.where(visible, 0, variance), index, real, own, weights * own[:, None])

    @staticmethod
    def _answer(
        mean: Tensor, hidden_variance: Tensor, left: Tensor, tests: Tensor, own: Tensor, residual: Tensor
    ) -> Conditional:
        """Put together means (U, k, D), and what is known of the visible cells (U, S) that were left out."""
        variance = hidden_variance.scatter_add(1, left, own * tests)
        missed = torch.zeros_like(mean).scatter_add(2, left[:, None].expand_as(residual), residual * tests[:, None])
        return Conditional(mean, variance[:, None].expand_as(mean), mean - missed)

    @staticmethod
    def _inverse(matrix: Tensor, index: Tensor, real: Tensor) -> Tensor:
        """Inverse (U, m, m) of the chosen block of a matrix, zero at padding."""
        padded = ~(real[:, :, None] & real[:, None, :])
        block = matrix[index[:, :, None], index[:, None, :]].masked_fill_(padded, 0)
        block.diagonal(dim1=1, dim2=2).add_(~real)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(block))
        inverse.diagonal(dim1=1, dim2=2).mul_(real)
        return inverse


def _chunks(n_hidden: Tensor, size: int) -> Iterator[tuple[Tensor, bool]]:
    """Patterns of like counts of hidden cells, few enough to be solved at once; whether by the hidden side."""
    order = n_hidden.argsort()
    n_few = int((n_hidden <= size // 2).sum())
    for group, few in ((order[:n_few], True), (order[n_few:].flip(0), False)):
        start = 0
        sides = n_hidden[group] if few else size - n_hidden[group]
        while start < len(group):
            step = max(1, min(256, MAX_GATHERED // (size * max(1, int(sides[start])))))
            while step > 1 and step * size * int(sides[min(start + step, len(group)) - 1]) > MAX_GATHERED:
                step //= 2
            yield group[start : start + step], few
            start += step


def _between_ends(seen: Tensor, window: int) -> Tensor:
    """Steps that lie within a series: seen, or in a gap shorter than a window; bool (T,)."""
    step = torch.arange(len(seen))
    before = torch.where(seen, step, -(10**9)).cummax(0).values
    after = torch.where(seen, step, 10**9).flip(0).cummin(0).values.flip(0)
    return seen | (after - before < window)


def positions(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the True cells of each row of chosen (B, D), padded to the longest: index (B, m), real bool."""
    counts = chosen.sum(1)
    most = max(1, int(counts.max()))
    index = chosen.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    return index, torch.arange(most, device=chosen.device) < counts[:, None]


def lag_covariances(values: Tensor, observed: Tensor, n_lags: int) -> Tensor:
    """Mean product of cells `lag` steps apart over the pairs where both are observed; float64 (n_lags, C, C)."""
    filled = torch.where(observed, values, 0).double()
    shown = observed.double()
    n = len(filled)
    lags = []
    for lag in range(n_lags):
        if lag >= n:
            lags.append(torch.zeros(filled.shape[1], filled.shape[1], dtype=torch.float64))
            continue
        product = filled[: n - lag].T @ filled[lag:]
        count = shown[: n - lag].T @ shown[lag:]
        lags.append(product / count.clamp_min(1))
    return torch.stack(lags)


def block_toeplitz(lags: Tensor) -> Tensor:
    """Covariance (W * C, W * C) of a window, steps first, from lag covariances (W, C, C)."""
    n_lags, n_channels, _ = lags.shape
    both = torch.cat([lags[1:].flip(0).transpose(1, 2), lags])  # lags -(W-1) .. W-1
    step = torch.arange(n_lags)
    index = step[None, :] - step[:, None] + n_lags - 1
    return both[index].permute(0, 2, 1, 3).reshape(n_lags * n_channels, n_lags * n_channels)


def clipped(covariance: Tensor) -> Tensor:
    """The symmetric matrix (D, D) with eigenvalues of `CLIP` at least."""
    least = covariance.clone()
    least.diagonal().sub_(CLIP)
    if not int(torch.linalg.cholesky_ex(least).info):
        return covariance
    try:
        eigenvalues, vectors = torch.linalg.eigh(covariance)
    except RuntimeError:  # LinAlgError: divide and conquer gives up where most eigenvalues are nearly zero
        if not covariance.isfinite().all():
            raise
        found = scipy.linalg.eigh(covariance.cpu().numpy(), driver="ev")
        eigenvalues, vectors = (torch.from_numpy(part).to(covariance) for part in found)
    return (vectors * eigenvalues.clamp_min(CLIP)) @ vectors.T
