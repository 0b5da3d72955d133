"""How far one forecast is believed against another: by origins that neither has learnt.

Contract: a share is one of `SHARES`, the same for every series.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tabmae.estimators.series.origins import Origins

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_TYPICAL = 1e-3
"""Least squared error of a series, in those of all, that its origins are measured by."""


def shares(linear: Tensor, ahead: Tensor, origins: Origins, season: int, doubt: float = 0.0) -> Tensor:
    """How far the steps of another forecast are believed, (h, C): the share that misses least in each block of steps.

    `doubt` : put on again of what a share takes off: standard errors, and shares of the error at one origin.
    """
    n_steps, n_channels = ahead.shape[1:]
    target, known = origins.future[:, :n_steps], origins.known[:, :n_steps].float()
    size = (linear - target).square().mean((1, 2))
    count = torch.bincount(origins.series, minlength=int(origins.series.max()) + 1)
    typical = torch.zeros(len(count)).index_add_(0, origins.series, size) / count.clamp_min(1)
    known = known / (typical + LEAST_TYPICAL * size.mean())[origins.series][:, None, None]
    width = max(1, min(n_steps, season // 4 if season else n_steps // 4))
    found = torch.zeros(n_steps, n_channels)
    for low in range(0, n_steps, width):
        block = slice(low, low + width)
        missed = torch.stack(
            [((linear + share * (ahead - linear) - target).square() * known)[:, block].sum(1) for share in SHARES]
        )
        gained, n = missed - missed[:1], n_apart(origins, min(n_steps, low + width))
        # one origin more at which nothing is gained: a single one tells nothing of how gains vary
        variance = gained.var(1, correction=0) + gained.mean(1).square() / n
        chance = (variance / n).sqrt() + torch.tensor(SHARES)[:, None] * missed[0].mean(0) / n
        errors = missed.sum(1) + doubt * len(target) * chance
        own = errors / errors.amin(0).clamp_min(1e-9)
        found[block] = torch.tensor(SHARES)[(own + own.mean(1, keepdim=True)).argmin(0)]
    return found


def n_apart(origins: Origins, n_steps: int) -> float:
    """How many origins there are that share none of the `n_steps` after them, by the steps that they spread over."""
    _, count = origins.series.unique_consecutive(return_counts=True)
    ends = count.cumsum(0) - 1
    spread = origins.step[ends] - origins.step[ends - count + 1]
    return float((spread / n_steps + 1).minimum(count).sum())
