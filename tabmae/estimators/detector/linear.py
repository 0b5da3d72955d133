"""How surprising each cell of a row is to a Gaussian, given the other cells.

Contract: as of the network's: a missing cell surprises nobody, and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from tabmae.estimators.detector.completion import MAX_COLUMNS, expanded, shown_levels
from tabmae.estimators.detector.network import (
    BACKGROUND,
    LEAST_SPREAD,
    NORMAL_MEDIAN,
    SMOOTHING,
    STRANGE,
    Cells,
    surprise_of,
)
from tabmae.estimators.detector.slips import bounded
from tabmae.experts.gaussian import Gaussian
from tabmae.saving import part_of

MAX_JUDGED_CELLS = 100_000
"""Cells that say what is usual; rows with holes of their own need an inverse each."""


class CellGaussian:
    """A Gaussian over numbers, on the scale sign(z) log(1 + abs(z)), and indicators of levels.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.

    Attributes
    ----------
    scale : float64 (F,), standard deviations of the numbers on that scale, 1 for categories.
    spread : float64 (F,), usual error of a number, in these: the median's, as of a normal.
    usual : float64 (F,), mean surprise of the cells of fit, in nats.
    """

    def __init__(self, n_levels: Sequence[int]) -> None:
        self.n_levels, self.n_shown = tuple(n_levels), shown_levels(n_levels)
        self.gaussian = Gaussian(sum(n or 1 for n in self.n_shown))
        self.scale, self.spread, self.usual = (torch.ones(len(n_levels), dtype=torch.float64) for _ in range(3))

    @classmethod
    def fit(cls, learnt: Cells, n_levels: Sequence[int]) -> Self | None:
        """Learn from the observed cells of rows (n, F); None for tables that are too wide."""
        cells = cls(n_levels)
        if len(cells.gaussian.mean) > MAX_COLUMNS:
            return None
        values, observed = bounded(learnt[0].double(), n_levels), learnt[1]
        is_number = torch.tensor([n == 0 for n in cells.n_shown])
        count = observed.sum(0).clamp_min(1)
        logs = torch.where(observed, values.sign() * values.abs().log1p(), 0)
        centred = torch.where(observed, logs - logs.sum(0) / count, 0)
        deviation = (centred.square().sum(0) / count).sqrt()
        cells.scale = torch.where(is_number & (deviation > 1e-6), deviation, 1.0)
        cells.gaussian.fit(*cells._expanded(values, observed))
        thin = slice(None, None, max(1, -(-values.numel() // MAX_JUDGED_CELLS)))
        errors, spreads = cells._judged(values[thin], observed[thin])
        typical = errors.abs().nanmedian(0).values.nan_to_num(1) / NORMAL_MEDIAN
        cells.spread = typical.clamp_min(LEAST_SPREAD)
        cells.usual = surprise_of(errors, spreads, cells.spread).nanmean(0).nan_to_num(0)
        return cells

    def surprise(
        self, values: Tensor, observed: Tensor, wanted: Tensor | None = None, strange: Tensor | None = None
    ) -> Tensor:
        """As the network's `surprise`; bool `strange` (B, F) are cells that hold levels that were not learnt."""
        strange = torch.zeros_like(observed) if strange is None else strange
        errors, spreads = self._judged(values.double(), observed & ~strange)
        starts = torch.tensor([0, *(n or 1 for n in self.n_shown)]).cumsum(0)[:-1]
        whole = self.gaussian.precision.diagonal()[starts].rsqrt()
        # usual errors are those of whole rows: they grow with what a missing cell adds to the deviation
        usual = self.spread * (spreads / whole).clamp_min(1)
        surprise = surprise_of(torch.where(strange, STRANGE, errors), spreads, usual)
        return torch.where(observed if wanted is None else wanted, (surprise - self.usual).clamp_min(0), 0)

    def state(self) -> dict[str, Tensor]:
        """What `restored` needs."""
        of_gaussian = {f"gaussian.{name}": tensor for name, tensor in self.gaussian.state_dict().items()}
        return {**of_gaussian, "scale": self.scale, "spread": self.spread, "usual": self.usual}

    @classmethod
    def restored(cls, n_levels: Sequence[int], tensors: dict[str, Tensor]) -> Self:
        """A fitted one from its state."""
        cells = cls(n_levels)
        cells.scale, cells.spread, cells.usual = (tensors[name] for name in ("scale", "spread", "usual"))
        cells.gaussian.load_state_dict(part_of(tensors, "gaussian."))
        return cells

    def _expanded(self, values: Tensor, observed: Tensor) -> Cells:
        """Numbers on their scale and indicators of levels, float64 (B, E), and which are observed."""
        logs = values.sign() * values.abs().log1p() / self.scale
        is_number = torch.tensor([n == 0 for n in self.n_shown])
        return expanded(torch.where(is_number, logs, values), observed, self.n_shown)

    def _judged(self, values: Tensor, observed: Tensor) -> Cells:
        """Error of each number, or surprise at each level, and spread of each number, (B, F), NaN for levels.

        Rows with the same holes share an inverse; its blocks give every cell's distribution given the others.

        Source: Rasmussen and Williams 2006, equations 5.10 to 5.12.
        """
        cells, shown = self._expanded(bounded(values, self.n_levels), observed)
        beyond = self._expanded(values, observed)[0] - cells
        errors = torch.full(values.shape, torch.nan, dtype=torch.float64)
        spreads = errors.clone()
        starts = torch.tensor([0, *(n or 1 for n in self.n_shown)]).cumsum(0).tolist()
        is_number = torch.tensor([n == 0 for n in self.n_shown])
        for rows, pattern in rows_of_equal_holes(observed):
            seen = torch.nonzero(shown[rows[0]])[:, 0]
            place = torch.zeros(shown.shape[1], dtype=torch.long)
            place[seen] = torch.arange(len(seen))
            precision = torch.linalg.inv(self.gaussian.covariance[seen][:, seen])
            known = cells[rows][:, seen]
            pull = (known - self.gaussian.mean[seen]) @ precision
            numbers = torch.nonzero(pattern & is_number)[:, 0]
            at = place[torch.tensor(starts)[numbers]]
            own = precision.diagonal()[at]
            errors[rows[:, None], numbers] = pull[:, at] / own + beyond[rows][:, seen][:, at]
            spreads[rows[:, None], numbers] = own.rsqrt()
            for j in torch.nonzero(pattern & ~is_number)[:, 0].tolist():
                block = place[starts[j] : starts[j + 1]]
                off = torch.linalg.solve(precision[block][:, block], pull[:, block].T).T
                errors[rows, j] = surprise_at_levels(known[:, block] - off, values[rows, j])
        return errors, spreads


def rows_of_equal_holes(observed: Tensor) -> Iterator[Cells]:
    """Positions of the rows (B, F) that have the same cells, and which these are, bool (F,)."""
    patterns, owner = torch.unique(observed, dim=0, return_inverse=True)
    order, ends = owner.argsort(stable=True), owner.bincount(minlength=len(patterns)).tolist()
    yield from zip(order.split(ends), patterns, strict=True)


def surprise_at_levels(expected: Tensor, codes: Tensor) -> Tensor:
    """Minus the log probability of levels (B,), of which indicators (B, L) are expected; the rest is one more level."""
    shown = expected.clamp_min(0)
    probable = torch.cat([shown, (1 - shown.sum(1, keepdim=True)).clamp_min(0)], 1)
    probable = probable / probable.sum(1, keepdim=True)
    level = codes.long().clamp(0, shown.shape[1])
    found = probable.gather(1, level[:, None])[:, 0]
    return -((1 - SMOOTHING) * found + BACKGROUND).log()
