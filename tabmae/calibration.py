"""Conformal calibration: of central intervals from held-out cells, of scores by usual ones.

Contract: levels are chosen on cells that no weight was fitted to; few cells of a column lean on those of all columns of
its kind. A p-value never rises as the score grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

POOLED_WEIGHT = 30.0
"""Held-out cells that all columns of a kind together stand for beside a column's own, if the others have as many."""
MAX_POOLED = 10_000
"""Cells of a kind that are kept to be asked, at equal steps."""
HIGHEST = 1 - 1e-6
TAIL = 0.1
"""Share of usual scores beyond which evidence grows by the value, not by the rank alone: few are as far out."""
NO_EVIDENCE = math.log(2)
"""Nats of a median score, which one that cannot be judged gets."""


def p_value(usual: Tensor, scores: Tensor) -> Tensor:
    """Share of scores that are at least as odd as each of `scores` (B,), among the sorted `usual` (n,) and itself.

    Returns
    -------
    float64 (B,), so that a share that is an alarm level equals it.

    Source: conformal p-values, Vovk et al. 2005, section 2.2; for outliers, Bates et al. 2023.

    >>> p_value(torch.arange(9.0), torch.tensor([-1.0, 4.5, 20.0])).tolist()
    [1.0, 0.5, 0.1]
    """
    at_least = len(usual) - torch.searchsorted(usual, scores.contiguous())
    return (1 + at_least).double() / (1 + len(usual))


class Calibration:
    """Levels at which a model's own central intervals hold their nominal share of held-out cells.

    Parameters
    ----------
    centrality : for each numeric column the levels of the smallest central intervals that held its held-out cells.
    has_single : for each column whether some of its values count with all of their probability; None for no column.
        Levels of such columns are lower: they say nothing of other columns, nor how far draws should spread.

    Source: distributional conformal prediction, Chernozhukov et al. 2021.
    Differs: the cells of all columns of a kind are pooled in with a fixed weight, as columns with few held-out cells
    need.

    >>> import torch
    >>> overconfident = Calibration([torch.linspace(0, 1, 1000).sqrt()])
    >>> round(overconfident.level(0, 0.5), 2)
    0.71
    """

    def __init__(self, centrality: Sequence[Tensor], has_single: Sequence[bool] | None = None) -> None:
        self.centrality = [column.double().sort().values for column in centrality]
        self._has_single = [False] * len(self.centrality) if has_single is None else list(has_single)
        whole = {kind: self._pool(kind) for kind in (False, True)}
        self._n_cells = {kind: len(cells) for kind, cells in whole.items()}
        self._pools = {kind: cells[:: max(1, -(-len(cells) // MAX_POOLED))] for kind, cells in whole.items()}

    def _pool(self, kind: bool) -> Tensor:
        """Cells of all columns of a kind, sorted."""
        chosen = [own for own, few in zip(self.centrality, self._has_single, strict=True) if few == kind]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *chosen]).sort().values

    def level(self, column: int, nominal: float) -> float:
        """Level to ask of the model for intervals that hold `nominal` of a column's cells; without cells, `nominal`."""
        # a few cells that count twice, as a column's own and as those of all, would promise too much
        weight, unseen = min(POOLED_WEIGHT, self._n_others(column)), torch.tensor([HIGHEST], dtype=torch.float64)
        return float(self._quantile(column, torch.tensor(nominal, dtype=torch.float64), weight, unseen))

    def spread(self, column: int, nominal: Tensor) -> Tensor:
        """Levels (n,) of the model that are as frequent among held-out cells as `nominal` ones should be, for draws.

        The draws of a column of such values stay as the model spreads them.
        """
        if self._has_single[column]:
            return nominal.double()
        return self._quantile(column, nominal.double(), POOLED_WEIGHT, torch.zeros(0, dtype=torch.float64))

    def _n_others(self, column: int) -> int:
        """Cells of the other columns that are pooled in with a column's."""
        if not self.centrality:
            return 0
        kind = self._has_single[column]
        return self._n_cells[kind] - len(self.centrality[column]) if self._n_cells[kind] else self._n_cells[not kind]

    def _quantile(self, column: int, nominal: Tensor, weight: float, unseen: Tensor) -> Tensor:
        """Quantiles of the levels of a column's cells, those of its kind pooled in by a weight, and `unseen` ones."""
        if not self.centrality:
            return nominal
        own, kind = self.centrality[column], self._has_single[column]
        pooled = self._pools[kind] if len(self._pools[kind]) else self._pools[not kind]
        if not len(pooled):
            return nominal
        cells = torch.cat([own, pooled, unseen])
        weights = torch.ones_like(cells)
        weights[len(own) : len(own) + len(pooled)] = weight / len(pooled)
        order = cells.argsort()
        share = weights[order].cumsum(0) / weights.sum()
        position = torch.searchsorted(share, nominal.contiguous()).clamp_max(len(cells) - 1)
        return cells[order][position].clamp_max(HIGHEST)
