"""Cells absurdly far from all others: they are odd themselves, and say nothing about other cells, rows or scales.

Contract: categories, and numbers that are not far out, stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tabmae.estimators import learner
from tabmae.schema.column import fenced

FARTHEST_VISIBLE = 8.0
"""Standard deviations from the mean as which a cell that lies farther out counts in what is expected of others."""


def bounded(values: Tensor, n_levels: Sequence[int]) -> Tensor:
    """Cells (B, F) with numbers at most `FARTHEST_VISIBLE` from the mean."""
    return learner.bounded(values, n_levels, FARTHEST_VISIBLE)


def without_slips(values: Tensor, observed: Tensor, n_levels: Sequence[int]) -> Tensor:
    """Cells (n, F) of fit by which scales are taken: a rare few far numbers of a column are moved to its fence."""
    moved = values.clone()
    for j, n in enumerate(n_levels):
        shown = observed[:, j]
        if not n and shown.any():
            moved[shown, j] = torch.from_numpy(fenced(values[shown, j].double().numpy())).to(values)
    return moved
