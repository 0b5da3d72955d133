"""Mean and covariance of incomplete normal rows by EM, with steps as long as the last ones allow.

Contract: cells that are not observed are never read.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from tabmae.experts import conditionals
from tabmae.experts.conditionals import blocks, chunk_end, places, positions

MAX_ROWS = 5_000
"""Rows that EM reads, of more a sample: a covariance needs no more."""
LEAST_VARIANCE = 1e-10
"""Added to the diagonal of a covariance before it is inverted."""
N_SHORTER = 5
"""Times that a step is halved which leads to no covariance, or too far."""
FARTHEST, WIDEST = 1.0, 2.0
"""Standard deviations, and variances in those of the last pass, to which a step may lead."""


def em(
    values: Tensor,
    observed: Tensor,
    shrinkage: float,
    wide: Tensor | None = None,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
    max_iter: int = 50,
    tol: float = 1e-3,
    long_steps: bool = True,
) -> tuple[Tensor, Tensor]:
    """Mean (E,) and covariance (E, E) of most penalised likelihood, from the given start.

    Parameters
    ----------
    values, observed : (n, E), in standard deviations; anything where not observed.
    shrinkage : share of the prior in [0, 1). wide : (E,), its scale in variances of the columns; None for 1.
    max_iter : passes of EM at most. tol : the change of a covariance that is none.
    long_steps : go on as far as the last passes allow; without, all are plain ones.

    Source: Dempster et al. 1977, accelerated by squared extrapolation, Varadhan and Roland 2008, step length S3.
    Differs: a step that leads to no covariance, or far away, is halved; no likelihood is asked, which a step can lower.

    >>> import torch
    >>> rows = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).double().repeat(1, 2)
    >>> mean, covariance = em(rows, torch.ones(400, 2, dtype=torch.bool), 0.01)
    >>> bool((covariance[0, 1] / covariance[0, 0] - 0.99).abs() < 1e-3)
    True
    """
    rows = _Rows.of(values, observed)
    n_rows, n_columns = rows.values.shape
    prior = n_rows * shrinkage / (1 - shrinkage)
    identity = torch.eye(n_columns, dtype=values.dtype, device=values.device)
    scale = prior * (identity if wide is None else wide.diag())
    path = [(values.new_zeros(n_columns) if mean is None else mean, identity if covariance is None else covariance)]
    for _ in range(max_iter):
        if len(path) == 3:
            path = [_extrapolated(*path)] if long_steps else path[-1:]
        location, before = path[-1]
        shift, scatter = rows.expected(location, before + LEAST_VARIANCE * identity)
        after = (scatter + scale) / (n_rows + prior)
        path.append((location + shift, (after + after.T) / 2))
        if (after - before).abs().max() < tol:
            break
    return path[-1]


class _Rows(NamedTuple):
    """Incomplete rows by patterns of their holes.

    values, observed : (n, E). patterns : bool (P, E), True where hidden, by rising numbers of holes, which `sizes` are.
    counts : (P,), rows of each. owner : (n,), the pattern of each row. by_pattern : (n,), rows pattern by pattern,
    which `ends` bounds.
    """

    values: Tensor
    observed: Tensor
    patterns: Tensor
    counts: Tensor
    owner: Tensor
    sizes: list[int]
    by_pattern: Tensor
    ends: list[int]

    @classmethod
    def of(cls, values: Tensor, observed: Tensor) -> Self:
        """Of all rows, or as many as EM reads."""
        sample = sampled(len(values), MAX_ROWS)
        values, observed = values[sample], observed[sample]
        patterns, owner, counts = torch.unique(~observed, dim=0, return_inverse=True, return_counts=True)
        order = torch.argsort(patterns.sum(1))
        patterns, counts, owner = patterns[order], counts[order], torch.argsort(order)[owner]
        by_pattern = torch.argsort(owner, stable=True)
        ends = [0, *counts.cumsum(0).tolist()]
        return cls(values, observed, patterns, counts, owner, patterns.sum(1).tolist(), by_pattern, ends)

    def expected(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """How far the mean of the completed rows lies from `mean`, (E,), and their expected scatter about it, (E, E).

        The hidden block of the precision is inverted once a pattern: (Lambda_hh)^-1 is both the conditional covariance
        and the solver of the conditional mean.
        """
        n_rows, n_columns = self.values.shape
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        filled = torch.where(self.observed, self.values - mean, 0)
        # One row and column more, for the padding.
        uncertainty = F.pad(torch.zeros_like(covariance), (0, 1, 0, 1))
        start = 0
        while start < len(self.patterns):
            stop = chunk_end(self.sizes, start, n_columns)
            width = self.sizes[stop - 1]
            if width:
                columns, real = positions(self.patterns[start:stop], width)
                alone = self.ends[stop] - self.ends[start] == stop - start
                inverse = torch.cholesky_inverse(torch.linalg.cholesky(blocks(precision, columns, real)))
                for rows in self.by_pattern[self.ends[start] : self.ends[stop]].split(
                    max(1, conditionals.MAX_CHUNK_CELLS // width**2)
                ):
                    pattern = self.owner[rows] - start
                    pull = torch.gather(filled[rows] @ precision, 1, columns[pattern]) * real[pattern]
                    solver = inverse if alone else inverse[pattern]
                    mean_hidden = -(solver @ pull[:, :, None])[:, :, 0]
                    filled[rows] = filled[rows].scatter_add(1, columns[pattern], mean_hidden)
                inverse = inverse.mT  # symmetric, and laid out by columns
                left = inverse if alone else inverse * self.counts[start:stop, None, None]
                uncertainty.view(-1).index_add_(0, places(columns, real, n_columns).view(-1), left.reshape(-1))
            start = stop
        shift = filled.mean(0)
        scatter = filled.T @ filled - n_rows * torch.outer(shift, shift)
        return shift, scatter + uncertainty[:n_columns, :n_columns]


def _extrapolated(
    start: tuple[Tensor, Tensor], first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Where two passes of EM lead to, gone on as they slow down; `second` where that is no distribution near it."""
    step = [after - before for before, after in zip(start, first, strict=True)]
    bend = [last - after - moved for after, last, moved in zip(first, second, step, strict=True)]
    squares = [float(sum(part.square().sum() for part in parts)) for parts in (step, bend)]
    length = (squares[0] / squares[1]) ** 0.5 if squares[1] > 0 else 1.0
    for _ in range(N_SHORTER):
        if length <= 1:
            break
        mean, covariance = (
            before + 2 * length * moved + length**2 * bent
            for before, moved, bent in zip(start, step, bend, strict=True)
        )
        is_near = (mean - second[0]).abs().max() <= FARTHEST
        is_narrow = (covariance.diagonal() <= WIDEST * second[1].diagonal()).all()
        if is_near and is_narrow and not torch.linalg.cholesky_ex(covariance).info:
            return mean, covariance
        length = (length + 1) / 2
    return second


def sampled(n_rows: int, most: int) -> slice | Tensor:
    """All rows, or `most` of them in their order, the same ones always; equal steps might take one hour of each day."""
    if n_rows <= most:
        return slice(None)
    return torch.randperm(n_rows, generator=torch.Generator().manual_seed(0))[:most].sort().values
