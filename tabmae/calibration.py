"""Conformal calibration: of central intervals from held-out cells, of scores by usual ones.

Contract: levels are chosen on cells that no weight was fitted to, by those that the model is about as sure of; few
cells of a column lean on those of all columns of its kind. A p-value never rises as the score grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

POOLED_WEIGHT = 30.0
"""Held-out cells that all columns of a kind together stand for beside a column's own, if the others have as many."""
MAX_POOLED = 2_000
"""Cells of a column, and of a kind, that are asked, at equal steps."""
HIGHEST = 1 - 1e-6
BAND = 0.5
"""Standard deviation of the normal by which a cell counts less as the logarithm of its deviation is another's."""
N_LIKE, LEAST_LIKE = 20, 0.5
"""Cells, the likest, that count no less than this, however unlike they are."""
STEP = 0.2
"""Steps of the logarithm of a deviation, each with levels of its own."""
ENDS = -50, 11
"""The first step and the one behind the last: e to the power of -10 and of 2."""
KINDS = (False, True)
KNOTS = torch.cat([torch.linspace(0, 0.99, 199), 1 - torch.logspace(-2, -6, 41)[1:]]).double()
"""Levels from which those of draws are interpolated."""
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
    deviations : for each column the standard deviations that the model gave its held-out cells, in those of the column;
        None for all alike. Cells of another deviation count less: where most of a column's cells follow exactly from
        the others, levels of all would promise too much of the rest.

    Source: distributional conformal prediction, Chernozhukov et al. 2021; weights by likeness, Guan 2023 (localized
    conformal prediction).
    Differs: the cells of all columns of a kind are pooled in with a fixed weight, as columns with few held-out cells
    need.

    >>> import torch
    >>> overconfident = Calibration([torch.linspace(0, 1, 1000).sqrt()])
    >>> round(overconfident.level(0, 0.5), 2)
    0.71
    """

    def __init__(
        self,
        centrality: Sequence[Tensor],
        has_single: Sequence[bool] | None = None,
        deviations: Sequence[Tensor] | None = None,
    ) -> None:
        self._has_single = [False] * len(centrality) if has_single is None else list(has_single)
        given = [torch.ones_like(own) for own in centrality] if deviations is None else deviations
        orders = [own.argsort(stable=True) for own in centrality]
        self.centrality = [own[order].double() for own, order in zip(centrality, orders, strict=True)]
        self.deviations = [own[order].double() for own, order in zip(given, orders, strict=True)]
        cells = list(map(_Cells.of, self.centrality, self.deviations))
        self._own = [own.thinned() for own in cells]
        kinds = {kind: [own for own, few in zip(cells, self._has_single, strict=True) if few == kind] for kind in KINDS}
        self._n_cells = {kind: sum(own.n for own in of_kind) for kind, of_kind in kinds.items()}
        self._pools = {kind: _Cells.pooled(of_kind).thinned() for kind, of_kind in kinds.items()}
        self._tables: dict[int, Tensor] = {}

    def level(self, column: int, nominal: float) -> float:
        """Level to ask of the model for intervals that hold `nominal` of a column's cells; without cells, `nominal`.

        Of cells with the column's median deviation.
        """
        return float(self.levels(column, nominal, self._usual(column)))

    def levels(self, column: int, nominal: float, deviation: Tensor) -> Tensor:
        """The same of cells to which the model gives a deviation (B,), in standard deviations; float64 (B,)."""
        # a few cells that count twice, as a column's own and as those of all, would promise too much
        weight, unseen = min(POOLED_WEIGHT, self._n_others(column)), torch.tensor([HIGHEST], dtype=torch.float64)
        steps, place = _steps(deviation).unique(return_inverse=True)
        return self._quantiles(column, steps, torch.tensor([nominal], dtype=torch.float64), weight, unseen)[place, 0]

    def spread(self, column: int, nominal: Tensor, deviation: Tensor | None = None) -> Tensor:
        """Levels (B,) of the model that are as frequent among held-out cells as `nominal` ones should be, for draws.

        `deviation` (B,) as of `levels`, None for the column's median. Draws of a column some of whose values count with
        all of their probability stay as the model spreads them.
        """
        nominal = nominal.double()
        if self._has_single[column] or not any(self._n_cells.values()):
            return nominal
        if column not in self._tables:
            nothing = torch.zeros(0, dtype=torch.float64)
            self._tables[column] = self._quantiles(column, torch.arange(*ENDS), KNOTS, POOLED_WEIGHT, nothing)
        above = torch.searchsorted(KNOTS, nominal.contiguous()).clamp(1, len(KNOTS) - 1)
        part = ((nominal - KNOTS[above - 1]) / (KNOTS[above] - KNOTS[above - 1])).clamp(0, 1)
        steps = _steps(self._usual(column) if deviation is None else deviation).expand(len(nominal))
        low, high = (self._tables[column][steps - ENDS[0], place] for place in (above - 1, above))
        return torch.lerp(low, high, part)

    def _usual(self, column: int) -> Tensor:
        """Median deviation of a column's cells, 1 without any; (1,)."""
        own = self.deviations[column] if self.centrality else torch.zeros(0)
        return own.median()[None] if len(own) else torch.ones(1, dtype=torch.float64)

    def _n_others(self, column: int) -> int:
        """Cells of the other columns that are pooled in with a column's."""
        if not self.centrality:
            return 0
        kind = self._has_single[column]
        return self._n_cells[kind] - len(self.centrality[column]) if self._n_cells[kind] else self._n_cells[not kind]

    def _quantiles(self, column: int, steps: Tensor, nominal: Tensor, weight: float, unseen: Tensor) -> Tensor:
        """Quantiles (S, K) of the levels of a column's cells as they count at steps (S,), those of its kind pooled in
        by a weight, and `unseen` ones."""
        if not any(self._n_cells.values()):
            return nominal.expand(len(steps), -1)
        own, kind = self._own[column], self._has_single[column]
        pool = self._pools[kind if self._n_cells[kind] else not kind]
        cells = torch.cat([own.centrality, pool.centrality, unseen])
        counts, pooled = own.counts(steps), pool.counts(steps)
        pooled = weight * pooled / pooled.sum(1, keepdim=True)
        counts = torch.cat([counts, pooled, torch.ones(len(steps), len(unseen), dtype=torch.float64)], 1)
        order = cells.argsort(stable=True)
        share = counts[:, order].cumsum(1) / counts.sum(1, keepdim=True)
        place = torch.searchsorted(share, nominal.expand(len(steps), -1).contiguous()).clamp_max(len(cells) - 1)
        return cells[order][place].clamp_max(HIGHEST)


class _Cells(NamedTuple):
    """Held-out cells in the order of their centrality (n,), the logarithms of their deviations (n,), and how many cells
    each stands for."""

    centrality: Tensor
    logarithm: Tensor
    each: float = 1.0

    @classmethod
    def of(cls, centrality: Tensor, deviation: Tensor) -> Self:
        return cls(centrality, _logarithm(deviation))

    @classmethod
    def pooled(cls, columns: Sequence[_Cells]) -> Self:
        """The cells of all columns."""
        nothing = torch.zeros(0, dtype=torch.float64)
        centrality = torch.cat([nothing, *(own.centrality for own in columns)])
        logarithm = torch.cat([nothing, *(own.logarithm for own in columns)])
        order = centrality.argsort(stable=True)
        return cls(centrality[order], logarithm[order])

    @property
    def n(self) -> int:
        """Number of cells."""
        return len(self.centrality)

    def thinned(self) -> Self:
        """Cells at equal steps, where there are many."""
        step = max(1, -(-self.n // MAX_POOLED))
        centrality, logarithm = self.centrality[::step], self.logarithm[::step]
        return type(self)(centrality, logarithm, self.n / max(1, len(centrality)))

    def counts(self, steps: Tensor) -> Tensor:
        """How far each cell counts at steps (S,) of the logarithm of a deviation; float64 (S, n)."""
        unlike = (self.logarithm - STEP * steps.double()[:, None]).abs()
        counts = (-0.5 * (unlike / BAND).square()).exp()
        if not self.n:
            return counts
        likest = unlike <= unlike.kthvalue(min(N_LIKE, self.n), dim=1, keepdim=True).values
        # cells that are equally unlike share what that many count
        least = LEAST_LIKE * min(N_LIKE, self.n) / likest.sum(1, keepdim=True)
        return self.each * torch.where(likest, counts.maximum(least), counts)


def _logarithm(deviation: Tensor) -> Tensor:
    """Natural logarithm of deviations, float64, between the ends of the steps."""
    return deviation.double().log().clamp(STEP * ENDS[0], STEP * (ENDS[1] - 1))


def _steps(deviation: Tensor) -> Tensor:
    """The step of each deviation (B,), int64."""
    return (_logarithm(deviation) / STEP).round().long()
