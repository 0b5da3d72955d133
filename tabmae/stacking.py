"""Weights of the members of an ensemble, per column, from held-out cells.

Contract: weights are non-negative and sum to one; few cells pull them to the weights shared by all columns.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

Weights = NDArray[np.float64]

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
    shared = _shrunk(members[:, cells], truth[cells], believed, int(cells.sum()))
    columns = [
        _shrunk(members[:, cells[:, j], j], truth[cells[:, j], j], shared, int(cells[:, j].sum()))
        for j in range(truth.shape[1])
    ]
    return torch.from_numpy(np.array(columns).reshape(truth.shape[1], len(believed)))


def fit_levels(probabilities: Tensor, codes: Tensor, start: Tensor) -> Tensor:
    """Weigh members by least squares of the probabilities of a category's levels on the level that was there.

    Parameters
    ----------
    probabilities : (M, n, L), by each member for n hidden cells. codes : (n,), below L.
    start : (M,), weights believed before any cell is seen.

    Returns
    -------
    weights : float64 (M,).
    """
    indicator = torch.nn.functional.one_hot(codes, probabilities.shape[2])
    members, target = probabilities.double().flatten(1).cpu().numpy(), indicator.double().flatten().cpu().numpy()
    return torch.from_numpy(_shrunk(members, target, start.double().cpu().numpy(), len(codes)))


def _shrunk(members: Weights, target: Weights, believed: Weights, n_cells: int) -> Weights:
    """Least-squares weights on the simplex of members (M, n), mixed with the believed ones by the number of cells."""
    if n_cells == 0:
        return believed
    strict = 1e3 * max(1.0, float(np.abs(members).max())) * np.sqrt(members.shape[1])
    matrix = np.vstack([members.T, np.full((1, len(members)), strict)])
    try:
        weights, _ = nnls(matrix, np.append(target, strict))
    except RuntimeError:
        return believed
    found = weights / weights.sum() if weights.sum() > 0 else believed
    return (n_cells * found + PRIOR_CELLS * believed) / (n_cells + PRIOR_CELLS)
