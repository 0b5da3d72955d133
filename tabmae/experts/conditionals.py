"""Conditional means and variances of a normal distribution for rows of any holes, solved in batches of like sizes.

Contract: what a row is told depends on its visible cells and the distribution alone.
"""

from __future__ import annotations

from bisect import bisect_right

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CHUNK_CELLS = 4_000_000
"""Cells of the matrices that one batched solve holds at once: 32 MB in float64."""


def conditional(
    centred: Tensor, visible: Tensor, covariance: Tensor, precision: Tensor, with_variance: bool
) -> tuple[Tensor, Tensor]:
    """Conditional mean (minus the mean) and variance; rows are sorted, so that a solve holds rows of like size."""
    n_rows, n_columns = visible.shape
    n_visible = visible.sum(1)
    by_visible = n_visible <= n_columns // 2
    size = torch.where(by_visible, n_visible, n_columns - n_visible)
    mean = torch.zeros_like(centred)
    variance = torch.where(visible, torch.zeros_like(centred), covariance.diagonal())
    side_and_size = size + (n_columns + 1) * by_visible
    order = torch.argsort(side_and_size)
    keys = side_and_size[order].tolist()
    start = 0
    while start < n_rows:
        stop = chunk_end(keys, start, n_columns)
        rows, (from_visible, width) = order[start:stop], divmod(keys[stop - 1], n_columns + 1)
        if width > 0:
            solve = _from_visible if from_visible else _from_hidden
            matrix = covariance if from_visible else precision
            mean[rows], found = solve(centred[rows], visible[rows], matrix, width, with_variance)
            if with_variance:
                variance[rows] = found
        start = stop
    return mean, variance


def squared_distances(centred: Tensor, visible: Tensor, covariance: Tensor) -> Tensor:
    """Squared Mahalanobis distance of the visible cells of rows (B, E), 0 elsewhere, from the mean, (B,)."""
    n_rows, n_columns = visible.shape
    n_visible = visible.sum(1)
    order = torch.argsort(n_visible)
    sizes, squared = n_visible[order].tolist(), torch.zeros_like(centred[:, 0])
    start = 0
    while start < n_rows:
        stop = chunk_end(sizes, start, n_columns)
        rows, width = order[start:stop], sizes[stop - 1]
        if width:
            columns, real = positions(visible[rows], width)
            factor = torch.linalg.cholesky(blocks(covariance, columns, real))
            known = torch.gather(centred[rows], 1, columns) * real
            whitened = torch.linalg.solve_triangular(factor, known[:, :, None], upper=False)
            squared[rows] = whitened.square().sum((1, 2))
        start = stop
    return squared


def chunk_end(keys: list[int], start: int, n_columns: int) -> int:
    """End of the run of rows solved together: one side, sizes within a quarter (and 4) of the first, bounded memory.

    `keys`, in rising order, are sizes up to `n_columns`, plus `n_columns` + 1 on the other side.
    """
    side, size = divmod(keys[start], n_columns + 1)
    largest = min(n_columns, size + max(4, size // 4)) if size else 0
    most = start + max(1, MAX_CHUNK_CELLS // max(1, largest * n_columns))
    return min(most, bisect_right(keys, side * (n_columns + 1) + largest, start))


def positions(chosen: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Column numbers of the chosen cells of each row, padded to `width`, and which of them are no padding."""
    columns = torch.argsort(~chosen, dim=1, stable=True)[:, :width]
    return columns, torch.gather(chosen, 1, columns)


def places(columns: Tensor, real: Tensor, n_columns: int) -> Tensor:
    """Where the square block of each row's columns lies in a flattened square of one row and column more than
    `n_columns`, which hold the padding; (B, K, K)."""
    columns = torch.where(real, columns, n_columns)
    return columns[:, :, None] * (n_columns + 1) + columns[:, None, :]


def blocks(matrix: Tensor, columns: Tensor, real: Tensor) -> Tensor:
    """The square block of each row's columns, with the identity in the padding; (B, K, K)."""
    flat = places(columns, real, len(matrix))
    block = F.pad(matrix, (0, 1, 0, 1)).view(-1).index_select(0, flat.view(-1)).view(flat.shape)
    block.diagonal(dim1=1, dim2=2).add_(~real)
    return block


def _from_visible(
    centred: Tensor, visible: Tensor, covariance: Tensor, width: int, with_variance: bool
) -> tuple[Tensor, Tensor]:
    columns, real = positions(visible, width)
    factor = torch.linalg.cholesky(blocks(covariance, columns, real))
    known = torch.gather(centred, 1, columns) * real
    if not with_variance:
        weights = torch.cholesky_solve(known[:, :, None], factor)[:, :, 0] * real
        spread = torch.zeros_like(centred).scatter_add_(1, columns, weights)
        return torch.where(visible, 0, spread @ covariance), centred
    cross = covariance[columns] * real[:, :, None]
    both = torch.linalg.solve_triangular(factor, torch.cat([cross, known[:, :, None]], 2), upper=False)
    whitened = both[:, :, :-1]
    mean = (whitened * both[:, :, -1:]).sum(1)
    variance = (covariance.diagonal() - whitened.square().sum(1)).clamp_min(0)
    return torch.where(visible, 0, mean), torch.where(visible, 0, variance)


def _from_hidden(
    centred: Tensor, visible: Tensor, precision: Tensor, width: int, with_variance: bool
) -> tuple[Tensor, Tensor]:
    columns, real = positions(~visible, width)
    factor = torch.linalg.cholesky(blocks(precision, columns, real))
    pull = torch.gather(centred @ precision, 1, columns) * real
    mean = -torch.cholesky_solve(pull[:, :, None], factor)[:, :, 0] * real
    means = torch.zeros_like(centred).scatter_add_(1, columns, mean)
    if not with_variance:
        return means, centred
    identity = torch.eye(width, dtype=factor.dtype, device=factor.device).expand_as(factor)
    variance = torch.linalg.solve_triangular(factor, identity, upper=False).square().sum(1) * real
    return means, torch.zeros_like(centred).scatter_add_(1, columns, variance)
