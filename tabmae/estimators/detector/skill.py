"""How far the columns of a table follow from each other: the share of their variance, or entropy, that is explained.

Contract: a column of one value, or without a judged cell, plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_VARIANCE = 1e-12
"""Variance, or entropy, of a column beyond which it is not one value."""


def explained_share(values: Tensor, observed: Tensor, errors: Tensor, n_levels: Sequence[int]) -> Tensor:
    """Mean over the columns of the share that errors of their cells leave nothing of; 0 without such a column.

    Parameters
    ----------
    values, observed : (B, F). errors : float64 (B, F), of numbers, in their units, or the surprise at levels in nats;
        NaN where a cell is not judged.
    n_levels : for each column 0 for a number, else the number of its levels.
    """
    shares = []
    for feature, n in enumerate(n_levels):
        known = observed[:, feature] & errors[:, feature].isfinite()
        if not known.any():
            continue
        cells, left = values[known, feature].double(), errors[known, feature]
        if n:
            counts = cells.unique(return_counts=True)[1].double()
            whole = -torch.special.xlogy(counts / len(cells), counts / len(cells)).sum()
        else:
            whole, left = cells.var(correction=0), left.square()
        if whole > LEAST_VARIANCE:
            shares.append((1 - left.mean() / whole).clamp(0, 1))
    return torch.stack(shares).mean() if shares else torch.zeros((), dtype=torch.float64)
