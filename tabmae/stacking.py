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
"""Held-out cells that the first weights are worth to the weights shared by all columns."""
PRIOR_LEVELS = 30.0
"""Held-out cells that the first weights are worth to a category."""
SHARED_CELLS = 300.0
"""Held-out cells that the shared weights are worth to a column."""
OUTLYING = 1.5
"""Standard deviations (by the median) beyond which the error of one of up to `ROBUST_CELLS` cells counts linearly."""
ROBUST_CELLS = 300.0
"""Cells from which on the bound grows, as their root: many cells average an outlier out."""
N_REWEIGHTED = 3


def fit(
    predictions: Tensor, target: Tensor, hidden: Tensor, start: Tensor, sample_weight: Tensor | None = None
) -> Tensor:
    """Weigh members by least squares on hidden cells, outlying ones less (Huber).

    Parameters
    ----------
    predictions : (M, n, F), what each member predicts. target : (n, F), in standard deviations.
    hidden : bool (n, F), the cells that no member saw.
    start : (M,), weights believed before any cell is seen; they sum to one.
    sample_weight : (n,), how far each row counts, 1 on the mean; None for all alike.

    Returns
    -------
    weights : float64 (F, M).

    Source: stacked regressions, Breiman 1996.
    Differs: shrunk to shared weights, and these to `start`, because a column of a small table has a handful of cells;
    reweighted, because one outlier among them would decide (the bound grows with the cells: Sun et al. 2020).

    >>> import torch
    >>> target = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    >>> members = torch.stack([torch.zeros(500, 1), target])
    >>> fit(members, target, torch.ones(500, 1, dtype=torch.bool), torch.tensor([0.5, 0.5])).round(decimals=2)
    tensor([[0.0300, 0.9700]], dtype=torch.float64)
    """
    members, truth = predictions.double().cpu().numpy(), target.double().cpu().numpy()
    cells, believed = hidden.cpu().numpy(), start.double().cpu().numpy()
    counts = np.broadcast_to(_counts(len(truth), sample_weight)[:, None], truth.shape)
    shared = _shrunk(members[:, cells], truth[cells], counts[cells], believed, PRIOR_CELLS, N_REWEIGHTED)
    columns = []
    for j in range(truth.shape[1]):
        seen = cells[:, j]
        columns.append(
            _shrunk(members[:, seen, j], truth[seen, j], counts[seen, j], shared, SHARED_CELLS, N_REWEIGHTED)
        )
    return torch.from_numpy(np.array(columns).reshape(truth.shape[1], len(believed)))


def fit_levels(probabilities: Tensor, codes: Tensor, start: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Weigh members by least squares of the probabilities of a category's levels on the level that was there.

    Parameters
    ----------
    probabilities : (M, n, L), by each member for n hidden cells. codes : (n,), below L.
    start : (M,), weights believed before any cell is seen.
    sample_weight : (n,), how far each cell counts, 1 on the mean; None for all alike.

    Returns
    -------
    weights : float64 (M,).
    """
    indicator = torch.nn.functional.one_hot(codes, probabilities.shape[2])
    members, target = probabilities.double().flatten(1).cpu().numpy(), indicator.double().flatten().cpu().numpy()
    counts = np.repeat(_counts(len(codes), sample_weight), probabilities.shape[2])
    prior = PRIOR_LEVELS * probabilities.shape[2]
    return torch.from_numpy(_shrunk(members, target, counts, start.double().cpu().numpy(), prior))


def _counts(n_rows: int, sample_weight: Tensor | None) -> Weights:
    """How far each row counts, (n,)."""
    return np.ones(n_rows) if sample_weight is None else sample_weight.double().cpu().numpy()


def _shrunk(
    members: Weights, target: Weights, counts: Weights, believed: Weights, prior: float, n_reweighted: int = 0
) -> Weights:
    """Least-squares weights on the simplex of members (M, n), mixed with the believed ones by the number of targets."""
    if not len(target):
        return believed
    found = _on_simplex(members, target, counts, believed)
    bound = OUTLYING * max(1.0, (len(target) / ROBUST_CELLS) ** 0.5)
    for _ in range(n_reweighted):
        error = np.abs(target - found @ members)
        most = bound * 1.4826 * float(np.median(error))
        if most < 1e-9:
            break
        found = _on_simplex(members, target, counts * most / np.maximum(error, most), believed)
    return (len(target) * found + prior * believed) / (len(target) + prior)


def _on_simplex(members: Weights, target: Weights, importance: Weights, believed: Weights) -> Weights:
    """Weights that are non-negative, sum to one and fit the targets best."""
    strict = 1e3 * max(1.0, float(np.abs(members).max())) * np.sqrt(members.shape[1])
    root = np.sqrt(importance)
    matrix = np.vstack([members.T * root[:, None], np.full((1, len(members)), strict)])
    try:
        weights, _ = nnls(matrix, np.append(target * root, strict))
    except RuntimeError:
        return believed
    return weights / weights.sum() if weights.sum() > 0 else believed
