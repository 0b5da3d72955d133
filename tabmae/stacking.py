"""Weights of the members of an ensemble, per column, from held-out cells.

Contract: weights are non-negative and sum to one; few cells pull them to the weights shared by all columns.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

PRIOR_CELLS = 100.0
"""Held-out cells that the shared weights are worth to a column, and equal weights to the shared ones."""


def fit(predictions: Tensor, target: Tensor, hidden: Tensor, start: Tensor) -> Tensor:
    """Weigh members by least squares on hidden cells.

    Parameters
    ----------
    predictions : (M, n, F), what each member predicts. target : (n, F), in standard deviations.
    hidden : bool (n, F), the cells that no member saw.
    start : (M,), weights believed before any cell is seen; they sum to one.

    Returns
    -------
    weights : float64 (F, M).

    Source: stacked regressions, Breiman 1996.
    Differs: shrunk to shared weights, and these to `start`, because a column of a small table has a handful of cells.

    >>> import torch
    >>> target = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    >>> members = torch.stack([torch.zeros(500, 1), target])
    >>> fit(members, target, torch.ones(500, 1, dtype=torch.bool), torch.tensor([0.5, 0.5])).round(decimals=2)
    tensor([[0.0100, 0.9900]], dtype=torch.float64)
    """
    members, truth = predictions.double().cpu().numpy(), target.double().cpu().numpy()
    cells, believed = hidden.cpu().numpy(), start.double().cpu().numpy()
    shared = _shrunk(members[:, cells], truth[cells], believed)
    columns = [_shrunk(members[:, cells[:, j], j], truth[cells[:, j], j], shared) for j in range(truth.shape[1])]
    return torch.from_numpy(np.array(columns).reshape(truth.shape[1], len(believed)))


def _shrunk(members: np.ndarray, truth: np.ndarray, believed: np.ndarray) -> np.ndarray:
    """Least-squares weights on the simplex of members (M, n), mixed with the believed ones by the number of cells."""
    n = len(truth)
    if n == 0:
        return believed
    strict = 1e3 * max(1.0, float(np.abs(members).max())) * np.sqrt(n)
    matrix = np.vstack([members.T, np.full((1, len(members)), strict)])
    weights, _ = nnls(matrix, np.append(truth, strict))
    found = weights / weights.sum() if weights.sum() > 0 else believed
    return (n * found + PRIOR_CELLS * believed) / (n + PRIOR_CELLS)
