"""The straight line across a gap, from the last observed cell before it to the first after it, and how far to trust it.

Contract: a cell that is not visible has no influence on any output; a cell without visible ones on both sides has no
bridge.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

PULL = 0.5
"""Runs of a length whose weight pulls the share of all channels to what is taken unseen."""
OWN_PULL = 8.0
"""Runs of a length whose weight pulls a channel's share to that of all."""
GAIN = 0.9
"""Squared error of the blend on runs that it did not learn from, in that of the other answer, from which on the bridge
is left out: on few runs a slight gain is chance."""
LEAST_CELLS = 30
"""Cells of a channel that count as much as all others for the spread about its bridges."""
RIDGE = 2e-6
"""Squared weight that keeps the spread of bridges determined where all cells lie as far from their ends."""
TINY = 1e-12

Matrix = NDArray[np.float64]


class Bridge(NamedTuple):
    """Straight lines across the gaps of cells (..., T, C).

    mean : on the line, the value itself where visible, 0 without a bridge. gap : missing steps of the gap, 0 where
        visible and without a bridge. apart : harmonic mean of the steps to both ends, as Brownian bridges spread.
    """

    mean: Tensor
    gap: Tensor
    apart: Tensor


def bridged(values: Tensor, visible: Tensor, owner: Tensor | None = None) -> Bridge:
    """Span the gaps of values (..., T, C), anything where not visible.

    `owner` : int64 (T,), number of the series of each step; None where all are of one.
    """
    n_steps = values.shape[-2]
    step = torch.arange(n_steps, device=values.device)[:, None].expand(values.shape)
    before = torch.where(visible, step, -1).cummax(-2).values
    after = torch.where(visible, step, n_steps).flip(-2).cummin(-2).values.flip(-2)
    spanned = (before >= 0) & (after < n_steps)
    before, after = before.clamp_min(0), after.clamp_max(n_steps - 1)
    if owner is not None:
        owner = owner.to(values.device)
        spanned &= owner[before] == owner[after]
    values = torch.where(visible, values, 0)
    left, right = values.gather(-2, before), values.gather(-2, after)
    width = (after - before).clamp_min(1)
    share = (step - before) / width
    mean = torch.where(spanned, left + share * (right - left), 0)
    gap = torch.where(spanned & ~visible, width - 1, 0)
    return Bridge(mean, gap, 2 * (step - before) * (after - step) / width * (gap > 0))


class HeldOut(NamedTuple):
    """Cells of gaps that were hidden: each (n,), in standard deviations.

    value : the truth. answer, deviation : what is believed without bridges. bridge : the straight line. gap, apart : as
        in `Bridge`. nearest : steps to the nearest visible cell. fold : 0 or 1, the same for all cells of a run.
    alone : whether all channels of the step are missing. channel : its number.
    """

    value: Matrix
    answer: Matrix
    deviation: Matrix
    bridge: Matrix
    gap: NDArray[np.int64]
    apart: Matrix
    nearest: NDArray[np.int64]
    fold: NDArray[np.int64]
    alone: NDArray[np.bool_]
    channel: NDArray[np.int64]


class Bridges:
    """How far answers for gaps are drawn to the straight line, by the length of the gap.

    Parameters
    ----------
    shares : (2, K, C), of the bridge in gaps of 1, 2, 4 .. steps: where another channel is observed, and where none is.
    spread : (2, C), variance about a bridge: at its ends, and a step that cells lie apart from them.
    """

    def __init__(self, shares: Matrix, spread: Matrix) -> None:
        self.shares, self.spread = shares, spread

    @classmethod
    def fit(cls, cells: HeldOut, n_lengths: int, n_channels: int, window: int) -> Self:
        """Learn the shares from gaps that were hidden.

        Where none was, gaps that no `window` sees both sides of are bridged, others not.
        """
        if not n_lengths:
            return cls(np.zeros((2, 0, n_channels)), np.zeros((2, n_channels)))
        class_of = np.clip(np.rint(np.log2(cells.gap)).astype(int), 0, n_lengths - 1)
        place = cells.fold, cells.alone.astype(int), class_of, cells.channel
        away, off = cells.bridge - cells.answer, cells.value - cells.answer
        totals = np.zeros((4, 2, 2, n_lengths, n_channels))
        for total, part in zip(totals, (away**2, away * off, 1 / cells.gap, off**2), strict=True):
            np.add.at(total, place, part)
        unseen = (2.0 ** np.arange(n_lengths) > window - 2).astype(float)[None, :, None]
        first, second = totals[:, 0], totals[:, 1]
        missed = square_missed(shares_of(second, unseen), first) + square_missed(shares_of(first, unseen), second)
        both = totals.sum(1)
        shares = shares_of(both, unseen)
        believed = (with_neighbours(missed) < GAIN * with_neighbours(both[3])) | (both[2] == 0)
        return cls(np.where(believed, shares, 0), spread_of(cells, n_channels))

    def inform(self, mean: Tensor, deviation: Tensor, bridge: Bridge, alone: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of cells (..., T, C), drawn to their bridges. `alone` : as in `HeldOut`, (..., T, C)."""
        channel = torch.arange(mean.shape[-1], device=mean.device).expand(mean.shape)
        return self.blended(mean, deviation, bridge, alone, channel)

    def blended(
        self, mean: Tensor, deviation: Tensor, bridge: Bridge, alone: Tensor, channel: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same for cells of any one shape; `channel` : int64, the number of each."""
        n_lengths = self.shares.shape[1]
        if not n_lengths:
            return mean, deviation
        shares, spread = (torch.from_numpy(part).to(mean) for part in (self.shares, self.spread))
        place = bridge.gap.clamp_min(1).to(mean).log2().clamp_max(n_lengths - 1)
        low = place.floor().long()
        high, between = (low + 1).clamp_max(n_lengths - 1), place - low
        kind = alone.long()
        share = shares[kind, low, channel] * (1 - between) + shares[kind, high, channel] * between
        share = torch.where(bridge.gap > 0, share, 0)
        wide = (spread[0, channel] + spread[1, channel] * bridge.apart).sqrt()
        return mean + share * (bridge.mean - mean), deviation + share * (wide - deviation)


def shares_of(totals: Matrix, unseen: Matrix) -> Matrix:
    """Least-squares shares (2, K, C), pulled to those of all channels, and these to what is taken `unseen` (1, K, 1).

    `totals` : (4, 2, K, C), squares of the bridge's distance from the answer, products with the truth's, runs, and
    squares of the truth's.
    """
    square, cross, n_runs, _ = totals
    together = (part.sum(2, keepdims=True) for part in (square, cross, n_runs))
    shared = drawn_to(unseen, PULL, *together)
    found: Matrix = drawn_to(shared, OWN_PULL, square, cross, n_runs).clip(0, 1)
    return found


def drawn_to(prior: Matrix, pull: float, square: Matrix, cross: Matrix, n_runs: Matrix) -> Matrix:
    """Least-squares shares, with the weight of so many runs pulled to a prior share."""
    weight = pull * square / np.maximum(n_runs, TINY)
    found: Matrix = np.where(square > TINY, (cross + weight * prior) / np.maximum(square + weight, TINY), prior)
    return found


def with_neighbours(totals: Matrix) -> Matrix:
    """Sums (2, K, C) over each length, the next shorter and the next longer: what one gains by chance others do not."""
    padded = np.pad(totals, ((0, 0), (1, 1), (0, 0)))
    found: Matrix = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return found


def square_missed(shares: Matrix, totals: Matrix) -> Matrix:
    """Sum of the squared errors of shares (2, K, C)."""
    missed: Matrix = totals[3] - 2 * shares * totals[1] + shares**2 * totals[0]
    return missed


def spread_of(cells: HeldOut, n_channels: int) -> Matrix:
    """Variance (2, C) about the bridges at their ends and per step apart; a channel's shape is that of all."""
    square = (cells.value - cells.bridge) ** 2
    basis = np.stack([np.ones_like(cells.apart), cells.apart], 1) / cells.apart[:, None]  # far cells err the most
    ridge = np.sqrt(RIDGE) * np.eye(2)
    coefficients, _ = nnls(np.concatenate([basis, ridge]), np.concatenate([square / cells.apart, np.zeros(2)]))
    expected = coefficients[0] + coefficients[1] * cells.apart
    ratio = np.bincount(cells.channel, square / expected.clip(TINY), minlength=n_channels)
    count = np.bincount(cells.channel, minlength=n_channels)
    return coefficients[:, None] * ((ratio + LEAST_CELLS) / (count + LEAST_CELLS))
