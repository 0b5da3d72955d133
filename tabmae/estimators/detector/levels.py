"""Levels that were learnt, and cells that hold any other: a new level, or one of rows that were left out of learning.

Contract: what a cell counts as depends on the learnt rows alone, so that held-out rows and new ones are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def learnt_levels(values: Tensor, observed: Tensor, n_levels: Sequence[int]) -> Tensor:
    """Which levels occur in rows (n, F), bool (F, 1 + most levels); the code after a column's last one never does."""
    learnt = torch.zeros(len(n_levels), 1 + max(n_levels), dtype=torch.bool)
    for j, n in enumerate(n_levels):
        if n:
            codes = values[observed[:, j], j].long()
            learnt[j, codes[codes < n]] = True
    return learnt


def all_levels(n_levels: Sequence[int]) -> Tensor:
    """As `learnt_levels`, of rows in which every level occurs."""
    return torch.arange(1 + max(n_levels)) < torch.tensor(n_levels)[:, None]


def strange_cells(values: Tensor, observed: Tensor, n_levels: Sequence[int], learnt: Tensor) -> Tensor:
    """Which observed cells (B, F) hold a level that was not learnt, bool (B, F)."""
    strange = torch.zeros_like(observed)
    for j, n in enumerate(n_levels):
        if n:
            strange[:, j] = observed[:, j] & ~learnt[j, values[:, j].long().clamp(0, n)]
    return strange
