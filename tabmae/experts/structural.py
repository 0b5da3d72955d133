"""Forecasts of single series by what they may be made of: level, trend, season and noise, weighed by their evidence.

Contract: a forecast depends on the steps given alone; what is learnt is only how likely each structure is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WALKS = (0.0, 0.02, 0.1, 0.5, 3.0, 100.0)
"""Variance of a step of a level that walks, in those of the noise."""
TURNING = ((0.0, 1e-5), (0.0, 1e-3), (0.0, 0.3), (0.1, 1e-3), (0.1, 0.02), (1.0, 0.1))
"""The same of a level and of its slope, where that walks, too."""
RETURNING = (*product((1.0, 20.0), (0.5, 0.8, 0.95)), (1000.0, 0.98))
"""Variance of a level that returns to its mean, and its correlation from one step to the next."""
MOVING = (0.05, 1.0)
"""Variance of a step of a season from one cycle to the next."""
REACHES = (0.4, 0.8)
"""How far phases of a smooth season are alike, in radii of the circle on which they lie."""
LEAST_SMOOTH = 12
"""Steps of a season from which on it may be smooth: of fewer, neighbours lie far apart."""
CLEAR = (10.0, 1000.0)
"""How much larger variances of slope and season are of series that have little noise, or hardly any."""
LEVEL, SLOPE, SEASON = 1e4, 0.05, 4.0
"""Variances of a level, a slope and a phase of the season before anything is seen, in those of noise and a step."""
LATE = (0.1, 0.3)
"""Half-lives of surprises that tell how large they are in the end, in steps of the series."""
PRIOR_SURPRISES = 5.0
"""Surprises of the usual size that stand beside them."""
MOST_STEPS = 400
"""Last steps of a series that are asked."""
LEAST_STEPS = 3
MOST_KEPT = 16
LEAST_SHARE = 1e-3
"""Structures that are kept: so many at most, and of all series together so much of one at least."""
N_ROUNDS = 20


class Structure(NamedTuple):
    """What a series may be made of beside noise of variance 1 and a constant level.

    `has_season` : 0, 1 for a season whose phases are independent, 1 + reach where neighbouring phases are alike.
    """

    walk: float = 0.0
    turn: float = 0.0
    has_slope: float = 0.0
    returning: float = 0.0
    stays: float = 0.0
    has_season: float = 0.0
    moving: float = 0.0
    clear: float = 1.0

    def covariance(self, one: Tensor, other: Tensor, season: int, now: int) -> Tensor:
        """Of the steps `one` (n,) with `other` (m,), counted from 1; `now` is the last that is known."""
        one, other = one[:, None], other[None]
        first, last = torch.minimum(one, other), torch.maximum(one, other)
        size = 1 + self.walk + self.returning
        found = torch.full_like(first, LEVEL * size)
        if self.walk:
            found = found + self.walk * first
        if self.returning:
            found = found + self.returning * self.stays ** (last - first)
        if self.turn:
            found = found + self.turn * first**2 * (3 * last - first) / 6
        if self.has_slope:
            found = found + self.clear * SLOPE * size * (one - now) * (other - now)
        if self.has_season:
            alike = phases_alike(one - other, season, self.has_season - 1)
            found = found + alike * (
                self.clear * SEASON * (size + self.moving) + self.moving * (first / season).floor()
            )
        return found

    def factor(self, step: Tensor, season: int) -> Tensor:
        """Cholesky factor of the covariance of known steps (n,) with their noise, (n, n)."""
        noise = torch.eye(len(step), dtype=torch.float64)
        return torch.linalg.cholesky(self.covariance(step, step, season, len(step)) + noise)

    def left(self, ahead: Tensor, step: Tensor, factor: Tensor, season: int) -> Tensor:
        """Covariance (H, H) of steps ahead once `step` are known, whose own has the Cholesky factor `factor`."""
        now = len(step)
        seen = torch.linalg.solve_triangular(factor, self.covariance(step, ahead, season, now), upper=False)
        noise = torch.eye(len(ahead), dtype=torch.float64)
        return self.covariance(ahead, ahead, season, now) + noise - seen.T @ seen


class Structural(nn.Module):
    """Blends the forecasts of structures by how likely each makes the steps of a series.

    Buffers
    -------
    structures : float64 (K, 8), the fields of each `Structure`. odds : float64 (K,), log of their share among series.
    share : (H, C), how far it is believed against other forecasts.

    `season` : steps, 0 for none. `steps` : that it looks back on.

    Source: structural time series, Harvey 1989; as Gaussian processes, whose level is not known beforehand.
    """

    structures: Tensor
    odds: Tensor
    share: Tensor

    def __init__(self, n_structures: int, horizon: int, n_channels: int, season: int, steps: int) -> None:
        super().__init__()
        self.season, self.steps = season, steps
        self.register_buffer("structures", torch.zeros(n_structures, len(Structure._fields), dtype=torch.float64))
        self.register_buffer("odds", torch.zeros(n_structures, dtype=torch.float64))
        self.register_buffer("share", torch.ones(horizon, n_channels))

    @classmethod
    def fit(cls, series: list[NDArray[np.float64]], horizon: int, season: int) -> Self:
        """Keep the structures that series (T, C) have, and learn how many have each.

        Source: shares of a mixture by EM, Dempster et al. 1977, with one more series for each structure with a season,
        and as many without one as with.
        """
        n_channels, steps = series[0].shape[1], min(MOST_STEPS, max(map(len, series)))
        candidates = structures_of(season if season > 1 else 0)
        every = cls(len(candidates), horizon, n_channels, season, steps)
        every.structures[:] = torch.tensor(candidates, dtype=torch.float64)
        told = [torch.zeros(0, len(candidates), dtype=torch.float64)]
        for length in sorted({min(len(values), steps) for values in series}):
            same = [values[-length:] for values in series if min(len(values), steps) == length]
            if length >= LEAST_STEPS:
                told.append(every._asked(torch.from_numpy(np.concatenate(same, 1)), 0)[0])
        evidence = torch.cat(told)
        has_season = every.structures[:, Structure._fields.index("has_season")] > 0
        prior = torch.where(has_season, 1.0, (has_season.sum() / (~has_season).sum()).clamp_min(1)).double()
        every.odds = prior.log()
        for _ in range(N_ROUNDS):
            likely = (evidence + every.odds).softmax(1).sum(0)
            every.odds = ((likely + prior) / (likely + prior).sum()).log()
        likely = (evidence + every.odds).softmax(1).sum(0)
        kept = likely.argsort(descending=True)[: max(1, min(MOST_KEPT, int((likely > LEAST_SHARE).sum())))]
        found = cls(len(kept), horizon, n_channels, season, steps)
        found.structures, found.odds = every.structures[kept], every.odds[kept]
        return found

    def forecast(self, history: Tensor, observed: Tensor, otherwise: Tensor) -> Tensor:
        """The next (n, H, C) steps after histories (n, T, C) whose gaps are filled; `observed` are the real cells.

        What comes before the first real cell is not believed; of histories with less than `LEAST_STEPS` steps, all is
        as `otherwise` (n, H, C) has it.
        """
        mean = self.ahead(history, observed, otherwise.shape[1])[0].to(otherwise)
        return mean.where(~mean.isnan(), otherwise)

    def ahead(self, history: Tensor, observed: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, horizon, C) of the next steps, as of `forecast`; NaN after too few steps.

        The deviation is that of each structure and that between them.
        """
        real = observed.any(2).double()
        known = torch.where(real.any(1), real.shape[1] - real.argmax(1), 0).clamp_max(self.steps)
        found = torch.full((2, len(history), horizon, history.shape[2]), torch.nan, dtype=torch.float64)
        for length in known.unique().tolist():
            rows = torch.nonzero(known == length)[:, 0]
            if length >= LEAST_STEPS:
                columns = history[rows, history.shape[1] - length :].double().permute(1, 0, 2)
                both = torch.stack(self._asked(columns.flatten(1), horizon)[1:])
                found[:, rows] = both.reshape(2, horizon, len(rows), -1).transpose(1, 2)
        return found[0], found[1]

    def paths(self, n: int, n_steps: int, horizon: int) -> Tensor:
        """Errors (n, horizon) over their deviation that structures expect after `n_steps`, each as often as it is."""
        generator = torch.Generator().manual_seed(0)
        step = torch.arange(1.0, n_steps + 1, dtype=torch.float64)
        ahead = torch.arange(n_steps + 1.0, n_steps + horizon + 1, dtype=torch.float64)
        noise = torch.randn(n, horizon, generator=generator, dtype=torch.float64)
        chosen = torch.multinomial(self.odds.softmax(0), n, replacement=True, generator=generator)
        for k in chosen.unique().tolist():
            structure = Structure(*self.structures[k].tolist())
            factor = structure.factor(step, self.season)
            left = structure.left(ahead, step, factor, self.season)
            drawn = noise[chosen == k] @ torch.linalg.cholesky(left).T
            noise[chosen == k] = drawn / left.diagonal().sqrt()
        return noise

    def _asked(self, columns: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log evidence (n, K) of each structure in columns (T, n), and the blend (horizon, n) of what they forecast.

        The latter are mean and standard deviation. The variance of the noise is the one that suits each structure best.
        """
        n_steps = len(columns)
        centre = columns.mean(0)
        values, step = columns - centre, torch.arange(1.0, n_steps + 1, dtype=torch.float64)
        ahead = torch.arange(n_steps + 1.0, n_steps + horizon + 1, dtype=torch.float64)
        weights_of_late = _late_weights(n_steps)
        evidence, forecasts, variances = [], [], []
        for fields in self.structures.tolist():
            structure = Structure(*fields)
            factor = structure.factor(step, self.season)
            solved = torch.cholesky_solve(values, factor)
            size = ((values * solved).sum(0) / n_steps).clamp_min(1e-12)
            evidence.append(-factor.diagonal().log().sum() - n_steps / 2 * size.log())
            if not horizon:
                continue
            forecasts.append(structure.covariance(ahead, step, self.season, n_steps) @ solved)
            left = structure.left(ahead, step, factor, self.season).diagonal()
            surprises = torch.linalg.solve_triangular(factor, values, upper=False).square() / size
            grown = late_size(surprises, weights_of_late)
            variances.append(left[:, None] * grown * size * n_steps / (n_steps - 1))  # of which one tells the level
        told = torch.stack(evidence, 1)
        if not horizon:
            return told, columns[:0], columns[:0]
        each = torch.stack(forecasts)
        weights = (told + self.odds).softmax(1)
        mean = torch.einsum("nk,khn->hn", weights, each)
        variance = torch.einsum("nk,khn->hn", weights, torch.stack(variances) + (each - mean).square())
        return told, mean + centre, variance.sqrt()


def phases_alike(gap: Tensor, season: int, reach: float) -> Tensor:
    """Correlation of the phases of steps that lie `gap` apart, as far as that reaches.

    Source: periodic covariance, MacKay 1998, section 5.2.
    """
    if not reach:
        return (gap % season == 0).to(gap)
    return torch.exp(-2 * (torch.sin(torch.pi * gap / season) / reach).square())


def late_size(surprises: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """How much larger than 1, their mean, the squared surprises (T, n) of columns are in the end: (n,).

    Means of the latest ones, of `weights` (T + 1, T) before each step, are believed as far as they have foretold the
    next ones better than all together did.
    """
    told, late = [-surprises.sum(0) / 2], [torch.zeros_like(surprises[0])]
    for of_steps in weights:
        size = (of_steps @ surprises + PRIOR_SURPRISES) / (of_steps.sum(1, keepdim=True) + PRIOR_SURPRISES)
        told.append(-(size[:-1].log() + surprises / size[:-1]).sum(0) / 2)
        late.append(size[-1].log())
    return (torch.stack(told).softmax(0) * torch.stack(late)).sum(0).exp()


def _late_weights(n_steps: int) -> list[Tensor]:
    """How far each earlier step counts in the mean of the latest ones before each step and the next, (T + 1, T)."""
    back = torch.arange(n_steps + 1.0, dtype=torch.float64)[:, None] - torch.arange(n_steps, dtype=torch.float64)
    return [torch.where(back > 0, 0.5 ** (back / (share * n_steps)), 0.0) for share in LATE]


def structures_of(season: int) -> list[Structure]:
    """All structures that are asked, those with a season last."""
    walks = [Structure(walk=walk, has_slope=slope) for slope in (0.0, 1.0) for walk in WALKS]
    turning = [Structure(walk=walk, turn=turn, has_slope=1.0) for walk, turn in TURNING]
    returning = [Structure(returning=size, stays=stays) for size, stays in RETURNING]
    clear = [Structure(walk=walk, has_slope=1.0, clear=clear) for clear in CLEAR for walk in WALKS[:3]]
    if not season:
        return [*walks, *turning, *returning, *clear]
    seasonal = [*walks, *turning, *returning, *clear, *(each._replace(has_slope=0.0) for each in clear)]
    seasonal += [each._replace(moving=moving) for moving in MOVING for each in (*walks, *turning, *returning)]
    kinds = (1.0, *(1 + reach for reach in REACHES if season >= LEAST_SMOOTH))
    seasonal = [each._replace(has_season=kind) for kind in kinds for each in seasonal]
    return [*walks, *turning, *returning, *clear, *seasonal]
