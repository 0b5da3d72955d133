"""Numbers beyond the range of the observed cells: how far imputed ones may go, how far the expert is followed, and how
unsure cells are that lie beside such numbers.

Contract: a cell whose guess by the expert lies within the range keeps its mean, clamped to the range; beside visible
cells within their range it keeps its spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tabmae.estimators.learner import observed_range
from tabmae.model import WIDE, Batch, MaskedAutoencoder, followed
from tabmae.schema import Column
from tabmae.tokenizers import CellDistribution

MAX_VALUES_OF_SCALE = 16
"""A column of at most so many distinct values is taken for a scale, which ends where its values do."""
SURE = 3.0
"""Conditional standard deviations beyond the range at which the expert is followed half of the way: what looks like a
line within the range may bend outside."""
DOUBT = 2.0
"""Standard deviations for each that the expert's mean moves beside cells outside their range: at an end, a curve may be
twice as steep as the line through it."""
ROUNDING = 1e-6
"""Standard deviations by which a mean at an end of the range may lie beyond it."""


class Reach(NamedTuple):
    """Where a table's numbers were observed and where imputed ones may lie, float64 (F,) each, in standard deviations.

    low, high : range of the observed cells. least, most : at most as far outside it as it is wide, of columns told by
    logarithms half the lowest and twice the highest. All are infinite for categories and columns without any cell.
    """

    low: Tensor
    high: Tensor
    least: Tensor
    most: Tensor


def reach(columns: Sequence[Column], values: Tensor, observed: Tensor) -> Reach:
    """How far the numbers of a table's columns reach, from its observed cells.

    Parameters
    ----------
    columns : F, as fitted. values : (n, F), in standard deviations; observed : bool (n, F).

    An end that several cells share is a bound, such as 0 or 100 %, and stays; so do both ends of whole numbers, of
    times and of columns of few values. A column without negative (positive) cells gets none.
    """
    low, high = observed_range(columns)
    least, most = low.clone(), high.clone()
    for j, column in enumerate(columns):
        known = values[observed[:, j], j]
        continuous = column.kind == "number" and column.family == "number" and not column.whole
        if not continuous or len(known.unique()) <= MAX_VALUES_OF_SCALE:
            continue
        width, zero = high[j] - low[j], column.zero
        lowest, highest = low[j] - width, high[j] + width
        if column.log:
            lowest, highest = (torch.tensor(float(column.standard(end))) for end in (column.low / 2, 2 * column.high))
        if (known == known.min()).sum() == 1:
            least[j] = lowest.clamp_min(zero if column.low >= 0 else -torch.inf)
        if (known == known.max()).sum() == 1:
            most[j] = highest.clamp_max(zero if column.high <= 0 else torch.inf)
    return Reach(low, high, least, most)


def extended(model: MaskedAutoencoder, distribution: CellDistribution, batch: Batch, reach: Reach) -> CellDistribution:
    """Move the means of numbers to the range of the observed cells, and beyond it where the expert is there.

    Parameters
    ----------
    distribution : of every cell of the batch.

    Forests and network learn from cells within the range, and so do their weights: they say nothing of cells outside.
    The expert, a line, goes on. Its mean outside, e beyond the end, with the variance v out of the column's V, is
    followed by the share (1 - v / V) * e^2 / (e^2 + 9 v): as far as it knows the cell at all, and as far as it is sure
    that the cell lies outside. Tables so wide that there is no variance stay within the range.
    """
    tokenizer, guess = model.tokenizer, batch.guess
    low, high, least, most = (end.to(distribution.mean)[tokenizer.numbers] for end in reach)
    mean = distribution.mean.clamp(low, high)
    if model.expert is not None and guess is not None and tokenizer.n_expert_columns <= WIDE:
        place = tokenizer.expert_of_number
        line, variance = guess.line[:, place].clamp(least, most), guess.variance[:, place]
        # Held-out cells may lie outside of the range of those that trained, which bounds what members read.
        within_range = line.clamp(low, high)
        sure = followed(mean, within_range, variance, model.sure[-1])
        mean = torch.where(within_range == guess.mean[:, place], mean, sure)
        squared = (line - within_range).square()
        known = (1 - variance / model.expert.covariance.diagonal()[place].to(variance)).clamp(0, 1)
        share = known * squared / (squared + (SURE**2 * variance).clamp_min(torch.finfo(variance.dtype).tiny))
        mean = torch.where(batch.visible[:, tokenizer.numbers], mean, torch.lerp(mean, line, share))
    if distribution.fixed is not None:  # as other rows of the same person tell them
        mean = torch.where(distribution.fixed, distribution.mean, mean)
    return distribution.moved_to(mean)


def doubted(model: MaskedAutoencoder, distribution: CellDistribution, batch: Batch, reach: Reach) -> CellDistribution:
    """Widen numbers beside visible ones outside the range of the observed cells, where nothing was learnt.

    A normal about the mean takes the place of the histogram. Its standard deviation grows, in squares, by twice as far
    as the expert's mean moves from the ends of the ranges to the visible cells: outside, a line may go on, bend or end.
    """
    outside = far(batch.values, batch.visible, reach)
    rows = torch.nonzero(outside.any(1))[:, 0]
    if model.expert is None or batch.guess is None or not len(rows):
        return distribution
    low, high = (end.to(batch.values) for end in (reach.low, reach.high))
    values, visible = batch.values[rows], batch.visible[rows]
    at_ends = model.guess(torch.where(outside[rows], values.clamp(low, high), values), visible)
    assert at_ends is not None
    place = model.tokenizer.expert_of_number
    moved = torch.zeros_like(distribution.scale)
    moved[rows] = (batch.guess.line[rows] - at_ends.line)[:, place].abs().to(moved)
    gate = torch.where(moved > ROUNDING, 1.0, distribution.gate)
    return replace(distribution, scale=(distribution.scale.square() + (DOUBT * moved).square()).sqrt(), gate=gate)


def far(values: Tensor, visible: Tensor, reach: Reach) -> Tensor:
    """Which visible cells (B, F) lie outside the range of the observed ones, but for rounding."""
    low, high = (end.to(values) for end in (reach.low, reach.high))
    return visible & ((values < low - ROUNDING) | (values > high + ROUNDING))


def within(drawn: Tensor, distribution: CellDistribution, reach: Reach) -> Tensor:
    """Draws (B, F) in the range of the observed cells, and in their reach where the mean of a number is beyond it."""
    numbers, mean = distribution.numbers, distribution.mean
    low, high, least, most = (end.to(mean)[numbers] for end in reach)
    kept = drawn.clone()
    lower, upper = torch.where(mean < low - ROUNDING, least, low), torch.where(mean > high + ROUNDING, most, high)
    kept[:, numbers] = drawn[:, numbers].clamp(lower, upper)
    return kept
