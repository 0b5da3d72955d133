"""How far a target may lie from what is predicted: wider where held-out errors were larger.

Contract: rows that calibrate a width were learnt neither by what predicts them nor by the trees that tell their width.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from tabmae.experts.trees import Forest
from tabmae.training import draw_seed

MIN_LEAF = 10
"""Held-out rows whose errors make a usual error together."""
MAX_ROWS = 20_000
"""Labelled rows whose errors are learnt, each as it came and with more cells hidden."""
LEAST_USUAL = 0.1
"""Share of the mean error below which no usual error is believed."""


class Spread(nn.Module):
    """The usual error of a row, and how many times as large held-out errors were.

    Buffers: `ratios` (n,), held-out errors over their usual ones, sorted; `shares` (n,), how far each counts; `mean`
    (), of all errors.

    Source: locally weighted split conformal prediction, Lei et al. 2018, section 5.2; errors by cross-validation,
    Barber et al. 2021.
    Differs: the model that predicts is the mean of those that made the errors, so that intervals are a little wide.

    >>> import torch
    >>> rows = torch.rand(400, 1, generator=torch.Generator().manual_seed(0))
    >>> errors = rows[:, 0] * torch.rand(400, generator=torch.Generator().manual_seed(1))
    >>> spread = Spread().fit(rows, errors, 400, torch.Generator().manual_seed(2))
    >>> narrow, wide = spread.width(torch.tensor([[0.1], [0.9]]), 0.9).tolist()
    >>> narrow < 0.3 < 0.6 < wide
    True
    """

    ratios: Tensor
    shares: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.forest = Forest()
        for name in ("ratios", "shares"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def fit(
        self,
        features: Tensor,
        errors: Tensor,
        n_rows: int,
        generator: torch.Generator,
        sample_weight: Tensor | None = None,
    ) -> Self:
        """Learn from the errors of rows that were predicted by models that had not learnt them.

        Parameters
        ----------
        features : (C * n_rows, E), each row as it came, then copies of all with more cells hidden.
        errors : (C * n_rows,), not negative. sample_weight : (n_rows,), how far each row counts.
        """
        chosen = torch.randperm(n_rows, generator=generator, device=generator.device)[:MAX_ROWS].to(errors.device)
        n_copies, fold = len(errors) // n_rows, 1 + torch.arange(len(chosen), device=errors.device) % 2
        rows = torch.cat([chosen + number * n_rows for number in range(n_copies)])
        weight = torch.ones_like(errors[:n_rows]) if sample_weight is None else sample_weight.to(errors)
        own, weight = errors[chosen].double(), weight[chosen].double()
        self.mean = (weight * own).sum() / weight.sum()
        shared = draw_seed(generator), fold.repeat(n_copies)
        self.forest.fit(
            features[rows], errors[rows], 0, *shared, min_leaf=MIN_LEAF, sample_weight=weight.repeat(n_copies)
        )
        usual = torch.zeros_like(own)
        for half in (1, 2):
            usual[fold == half] = self._usual(features[chosen[fold == half]], half)
        ratio = own / usual.clamp_min(torch.finfo(own.dtype).tiny)
        order = ratio.argsort()
        self.ratios, self.shares = ratio[order], weight[order]
        return self

    def width(self, features: Tensor, level: float) -> Tensor:
        """How far the target of rows (B, E) lies from what is predicted, at most, in `level` of the cases; (B,).

        Levels that so few errors cannot tell get the widest of them.
        """
        # The row asked for counts as one more, whose error may be the largest.
        total = self.shares.sum() + self.shares.mean()
        place = int(torch.searchsorted(self.shares.cumsum(0), level * total))
        return self.ratios[min(place, len(self.ratios) - 1)] * self._usual(features, 0)

    def _usual(self, features: Tensor, fold: int) -> Tensor:
        """The mean error of rows like these (B, E), by the trees that did not learn a fold; (B,)."""
        return self.forest.predict(features, fold)[:, 0].double().clamp_min(LEAST_USUAL * float(self.mean))
