"""The mean of amounts that are told by their logarithms, which lies above that of these.

Contract: a cell of which all is told has no excess, one of which nothing is has that of its column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tabmae.estimators.validation import Judged, Validation
from tabmae.model import Batch
from tabmae.schema import Column
from tabmae.tokenizers import CellDistribution, CellTokenizer

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SURE = 2.0
"""Standard errors by which the deviance of held-out cells must be less with a part of the excess."""


def excess(
    columns: Sequence[Column],
    values: Tensor,
    observed: Tensor,
    errors: Tensor,
    tokenizer: CellTokenizer,
    validation: Validation,
    most: int,
) -> Tensor:
    """By how much the mean of amounts that are told by logarithms lies above that of these, in standard deviations of
    theirs, for each unit of a cell's predicted variance; float64 (F,), 0 for other columns.

    That of the column belongs to the variance of 1 that a cell has of which nothing is told, and less to less; a part
    of it where held-out cells say so.

    Parameters
    ----------
    columns : F, as fitted. values : (n, F), in standard deviations; observed : bool (n, F).
    errors : float64 (F,), mean squared ones of held-out cells.
    tokenizer : of the model.
    validation : the held-out cells. most : rows of a fold that are asked at most.
    """
    found = torch.zeros(len(columns), dtype=torch.float64)
    amounts = [(k, j) for k, j in enumerate(tokenizer.numbers.tolist()) if columns[j].log]
    if not amounts:
        return found
    judged = _held_out(amounts, tokenizer, validation, most)
    for (_, j), (residuals, variances) in zip(amounts, judged, strict=True):
        if len(variances) and variances.mean() > 0:
            scale = columns[j].scale
            logs = values[observed[:, j], j].double().cpu() * scale
            above = (logs.logsumexp(0) - math.log(len(logs)) - logs.mean()) / scale
            found[j] = above * errors[j].clamp_max(1) / variances.mean()
            found[j] *= _share(scale * residuals, scale * found[j] * variances)
    return found


def with_excess(
    tokenizer: CellTokenizer, distribution: CellDistribution, batch: Batch, per_variance: Tensor
) -> CellDistribution:
    """The distribution of a batch with the excess of its cells, `per_variance` (F,) for each unit of their variance."""
    variance = _variance(tokenizer, distribution, batch)
    return replace(distribution, excess=variance * per_variance.to(variance)[tokenizer.numbers])


def _variance(tokenizer: CellTokenizer, distribution: CellDistribution, batch: Batch) -> Tensor:
    """Predicted variance of the numeric cells (B, Fn), at most 1: the smaller one of the distribution's and the
    expert's, each of which may miss what tells a cell."""
    variance = distribution.variance.clamp_max(1)
    if batch.guess is None:
        return variance
    return variance.minimum(batch.guess.variance[:, tokenizer.expert_of_number].to(variance))


def _held_out(
    amounts: Sequence[tuple[int, int]], tokenizer: CellTokenizer, validation: Validation, most: int
) -> list[tuple[Tensor, Tensor]]:
    """Of the held-out cells of columns, by place among the numbers and among all: by how much they exceed their
    predicted mean, and the predicted variance; float64 (k,) each."""

    def answer(_: Judged, batch: Batch, told: CellDistribution, __: slice) -> tuple[Tensor, Tensor]:
        return told.mean.cpu(), _variance(tokenizer, told, batch).cpu()

    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in amounts]
    for part, answers in validation.answered(answer, most):
        if answers:
            mean, variance = (torch.cat(each).double() for each in zip(*answers, strict=True))
            for cells, (k, j) in zip(found, amounts, strict=True):
                rows = part.held_out[:, j].cpu()
                cells.append((part.values[rows, j].double().cpu() - mean[rows, k], variance[rows, k]))
    none = torch.zeros(0, dtype=torch.float64)
    return [(torch.cat([none, *(r for r, _ in cells)]), torch.cat([none, *(v for _, v in cells)])) for cells in found]


def _share(residuals: Tensor, above: Tensor) -> float:
    """The share of what is added to the logarithms (k,) that held-out cells (k,) bear out, 1 unless they are sure.

    Means of amounts have the least deviance of a gamma distribution, whose errors are shares of the amount.
    """
    if len(residuals) < 2:
        return 1.0
    deviances = torch.stack([(residuals - share * above).exp() + share * above for share in SHARES])
    best = int(deviances.mean(1).argmin())
    lost = deviances[-1] - deviances[best]
    return SHARES[best] if lost.mean() > SURE * lost.std() / math.sqrt(len(lost)) else 1.0
