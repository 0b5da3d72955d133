"""How odd a row is by one member, as minus the log of the share of normal rows that are at least as odd.

Contract: evidence never falls as the member's value grows, and its tail depends on the learnt rows alone.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from tabmae.calibration import NO_EVIDENCE, TAIL, p_value


class Evidence(NamedTuple):
    """The values of normal rows, and the exponential tail beyond them.

    Attributes
    ----------
    ranks : float64 (n,), sorted values of normal rows.
    start, scale : where the tail begins, and by how much a value grows for one nat.
    """

    ranks: Tensor
    start: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, learnt: Tensor, held_out: Tensor | None = None) -> Self:
        """Evidence from a member's values of the rows that it learnt, (n,), and of rows that were held out, (m,).

        The held-out rows give the ranks, without them the learnt ones do; the learnt rows give the tail. Values that
        are not finite are left out.
        """
        learnt = learnt[learnt.isfinite()].double().cpu().sort().values
        ranks = learnt if held_out is None else held_out[held_out.isfinite()].double().cpu().sort().values
        if not len(learnt):
            return cls(ranks, torch.tensor(torch.inf, dtype=torch.float64), torch.ones((), dtype=torch.float64))
        start = torch.quantile(learnt, 1 - TAIL)
        beyond = (learnt - start)[learnt > start]
        scale = beyond.mean() if len(beyond) else learnt.mean().abs()
        return cls(ranks, start, scale if scale > 0 else torch.ones_like(scale))

    def nats(self, values: Tensor) -> Tensor:
        """Evidence against rows by their values (B,), float64; that of a median row for NaN."""
        values = values.double().cpu()
        share = p_value(self.ranks, values.nan_to_num())
        tail = ((values - self.start) / self.scale).clamp_min(0)
        return torch.where(values.isnan(), NO_EVIDENCE, tail - share.log())
