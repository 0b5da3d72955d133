"""Conformal calibration of central intervals from held-out cells.

Contract: levels are chosen on cells that no weight was fitted to; few cells of a column lean on those of all columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

POOLED_WEIGHT = 30.0
"""Held-out cells that all columns together stand for beside a column's own."""
HIGHEST = 1 - 1e-6


class Calibration:
    """Levels at which a model's own central intervals hold their nominal share of held-out cells.

    Parameters
    ----------
    centrality : for each numeric column the levels of the smallest central intervals that held its held-out cells.

    Source: distributional conformal prediction, Chernozhukov et al. 2021.
    Differs: the cells of all columns are pooled in with a fixed weight, as columns with few held-out cells need.

    >>> import torch
    >>> overconfident = Calibration([torch.linspace(0, 1, 1000).sqrt()])
    >>> round(overconfident.level(0, 0.5), 2)
    0.71
    """

    def __init__(self, centrality: Sequence[Tensor]) -> None:
        self.centrality = [column.double().sort().values for column in centrality]
        cells = torch.cat(self.centrality) if self.centrality else torch.zeros(0, dtype=torch.float64)
        self._pooled = cells.sort().values

    def level(self, column: int, nominal: float) -> float:
        """Level to ask of the model for intervals that hold `nominal` of a column's cells; without cells, `nominal`."""
        unseen = torch.tensor([HIGHEST], dtype=torch.float64)
        return float(self._quantile(column, torch.tensor(nominal, dtype=torch.float64), unseen))

    def spread(self, column: int, nominal: Tensor) -> Tensor:
        """Levels (n,) of the model that are as frequent among held-out cells as `nominal` ones should be, for draws."""
        return self._quantile(column, nominal.double(), torch.zeros(0, dtype=torch.float64))

    def _quantile(self, column: int, nominal: Tensor, unseen: Tensor) -> Tensor:
        """Quantiles of the levels of a column's cells, all columns' cells pooled in, and `unseen` ones."""
        if not len(self._pooled):
            return nominal
        own, pooled = self.centrality[column], self._pooled
        cells = torch.cat([own, pooled, unseen])
        weights = torch.ones_like(cells)
        weights[len(own) : len(own) + len(pooled)] = POOLED_WEIGHT / len(pooled)
        order = cells.argsort()
        share = weights[order].cumsum(0) / weights.sum()
        position = torch.searchsorted(share, nominal.contiguous()).clamp_max(len(cells) - 1)
        return cells[order][position].clamp_max(HIGHEST)
