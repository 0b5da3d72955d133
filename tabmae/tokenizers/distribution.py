"""The predictive distribution of every cell of a batch: mixtures for numbers, class probabilities for categories.

Contract: everything asked of it (mean, density, quantile, draw) is of one and the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from tabmae.tokenizers.bins import FAR, Bins
from tabmae.tokenizers.mixture import Mixture, Section

BISECTIONS = 40
LEAST_WEIGHT = 1e-4
LEAST_PROBABILITY, LEAST_SCALE = 1e-30, 1e-3
"""Of a bin, whose logarithm is finite, and of a normal."""
TAIL = 8.0
"""Standard deviations beyond the outer bins that a quantile may reach."""
ROUNDING = torch.finfo(torch.float32).eps
"""Share of a bound by which it is moved outwards: cells are read in single precision, and a column's few values are
bounds themselves."""
HELD_SURELY = 1e-4
"""Share of what a level leaves out that is held too: the calibrated level of a column of few values is the very step of
its distribution that brings a value in."""


@dataclass(frozen=True)
class CellDistribution:
    """What the model believes of every cell.

    A number is a mixture of one normal and a histogram over the bins of its column:
    p(x) = gate * N(x; direct, scale) + (1 - gate) * sum_k p_k h_k(x).
    The normal is sharp where other columns determine the cell; the histogram holds several modes and skew. Within bin k
    the density h_k is one constant below its centre c and another above, the part (edges_k+1 - c) / width of its mass
    below: thus c is its mean, also where a skewed column's values crowd at one end. Beyond the outer edges it is 0. The
    mean of the mixture is the imputed value.

    Bins of one value (of few values, or frequent among many) have their p_k whatever the gate, which divides the rest
    alone. The normal of a column with frequent values lies between those that are outer bins, and has none of their
    probability. As such values cannot move, the mixture of a column that has them is tilted to its mean.

    Attributes
    ----------
    direct, scale, gate : (B, Fn) of the numeric columns, in standard deviations (gate in (0, 1)).
    mass : (B, Fn, K) probabilities of the bins; next to nothing where a column has fewer, but more than 0.
    bins : where they lie.
    log_levels : (B, Fc, L) log probabilities of the modelled levels of the categorical columns, -inf beyond; the last
        modelled level of a column with `has_rare` stands for all rarer ones.
    moved : (B, Fn), the mean about which a cell's mixture is moved, or to which it is tilted; None for its own.
    excess : (B, Fn), by how much what is imputed lies above the mean; None for nothing.
    fixed : bool (B, Fn), cells that are their mean to the last digit; None for none.
    numbers, categories : the features' positions, (Fn,) and (Fc,).
    has_rare : bool (Fc,). n_modelled : (Fc,), levels with a probability of their own, the rare one included.
    """

    direct: Tensor
    scale: Tensor
    gate: Tensor
    mass: Tensor
    bins: Bins
    log_levels: Tensor
    numbers: Tensor
    categories: Tensor
    has_rare: Tensor
    n_modelled: Tensor
    moved: Tensor | None = None
    excess: Tensor | None = None
    fixed: Tensor | None = None

    @cached_property
    def mean(self) -> Tensor:
        """Mean of every numeric cell, (B, Fn)."""
        return self._mean_in_place if self.moved is None else self.moved

    @cached_property
    def _mean_in_place(self) -> Tensor:
        """Mean of every numeric cell before it is moved, (B, Fn)."""
        gate, has_frequent = self.gate, self.bins.has_frequent
        if not has_frequent.any():
            return gate * self.direct + (1 - gate) * (self.mass * self.bins.splits).sum(2)
        section = Section(self.direct, self.scale, *self.bins.ends)
        location = torch.where(has_frequent, section.mean, self.direct)
        weights = torch.where(self.bins.frequent, 1, 1 - gate[:, :, None]) * self.mass
        return gate * torch.where(has_frequent, self._share_of_rest, 1) * location + (weights * self.bins.splits).sum(2)

    @property
    def variance(self) -> Tensor:
        """Variance of every numeric cell but for what spreads within a bin, (B, Fn), wherever its mean is."""
        binned = (self.mass * self.bins.splits.square()).sum(2)
        square = self.gate * (self.scale.square() + self.direct.square()) + (1 - self.gate) * binned
        variance = (square - self._mean_in_place.square()).clamp_min(0)
        if self.bins.has_frequent.any():
            moments = self._untilted.moments(self.bins, self.scale)
            variance = torch.where(self.bins.has_frequent, moments[1], variance)
        return self._or_fixed(variance, torch.zeros_like(variance))

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of every numeric cell, as of its variance, (B, Fn)."""
        return self.variance.sqrt()

    @cached_property
    def _shift(self) -> Tensor | None:
        """By how much a cell's mixture is moved, (B, Fn); taken where it is asked for, as means alone need it not."""
        if self.moved is None:
            return None
        return torch.where(self.bins.has_single, 0, self.moved - self._mean_in_place)

    @cached_property
    def _untilted(self) -> Mixture:
        """Weights of the mixture before the means of columns with bins of one value are met."""
        gate = self.gate.clamp(LEAST_WEIGHT, 1 - LEAST_WEIGHT)
        if not self.bins.has_single.any():
            return Mixture(gate, self.direct, (1 - gate[:, :, None]) * self.mass)
        weights = torch.where(self.bins.single, 1, 1 - gate[:, :, None]) * self.mass
        return Mixture(gate * self._share_of_rest, self.direct, weights)

    @cached_property
    def _share_of_rest(self) -> Tensor:
        """Probability of no bin of one value, (B, Fn), 0 where a column has no other."""
        return torch.where(self.bins.discrete, 0, (self.mass * ~self.bins.single).sum(2))

    @cached_property
    def _mixture(self) -> Mixture:
        """Weights of the mixture, tilted to the mean in columns with bins of one value."""
        found, at = self._untilted, torch.nonzero(self.bins.has_single)[:, 0]
        if not len(at):
            return found
        own = Mixture(*(part[:, at] for part in found))
        tilted = own.tilted(self.bins.of(at), self.scale[:, at], self.mean[:, at])
        return Mixture(*(part.index_copy(1, at, new) for part, new in zip(found, tilted, strict=True)))

    def moved_to(self, mean: Tensor) -> CellDistribution:
        """The same distribution of the numeric cells about another mean (B, Fn)."""
        return replace(self, moved=mean)

    def fixed_at(self, numbers: Tensor, fixed: Tensor) -> CellDistribution:
        """The same distribution, whose cells `fixed` (B, Fn) are `numbers` (B, Fn) and nothing else."""
        return replace(self, moved=torch.where(fixed, numbers, self.mean), fixed=fixed)

    def gathered(self, at: Tensor, spread: Tensor, share: Tensor) -> CellDistribution:
        """The same distribution drawn together by a share: of 1, numbers are normal about `at`, or its bin's one value.

        at, spread, share : (B, Fn), the standard deviation `spread` of the normal, which gets no wider.
        """
        spread, position = spread.clamp_min(LEAST_SCALE), self.bins.bin(at)
        mass = self.mass * (1 - share[:, :, None])
        mass = mass.scatter_add(2, position[:, :, None], share[:, :, None]).clamp_min(LEAST_PROBABILITY)
        return replace(
            self,
            direct=torch.lerp(self.direct, at, share),
            scale=torch.lerp(self.scale.log(), spread.minimum(self.scale).log(), share).exp(),
            gate=torch.lerp(self.gate, torch.ones_like(share), share),
            mass=mass,
        )

    def of(self, feature: int) -> CellDistribution:
        """The distribution of one feature's cells alone, (B, 1)."""
        alone = torch.zeros(1, dtype=torch.long, device=self.direct.device)
        number, category = (torch.nonzero(places == feature)[:, 0] for places in (self.numbers, self.categories))
        return CellDistribution(
            direct=self.direct[:, number],
            scale=self.scale[:, number],
            gate=self.gate[:, number],
            mass=self.mass[:, number],
            bins=self.bins.of(number),
            log_levels=self.log_levels[:, category],
            numbers=alone[: len(number)],
            categories=alone[: len(category)],
            has_rare=self.has_rare[category],
            n_modelled=self.n_modelled[category],
            moved=None if self.moved is None else self.moved[:, number],
            fixed=None if self.fixed is None else self.fixed[:, number],
        )

    def point(self) -> Tensor:
        """The value to impute, (B, F): the mean of numbers with its excess, the code of the most probable level."""
        point = self._whole(self.direct.dtype)
        point[:, self.numbers] = self.mean if self.excess is None else self.mean + self.excess
        point[:, self.categories] = self._named_levels().argmax(2).to(point.dtype)
        return point

    def _whole(self, dtype: torch.dtype) -> Tensor:
        n_features = len(self.numbers) + len(self.categories)
        return torch.zeros(len(self.direct), n_features, dtype=dtype, device=self.direct.device)

    def _named_levels(self) -> Tensor:
        """Log probabilities without the class that stands for rare levels; (B, Fc, L)."""
        level = torch.arange(self.log_levels.shape[2], device=self.log_levels.device)
        rare = self.has_rare[:, None] & (level == self.n_modelled[:, None] - 1)
        return self.log_levels.masked_fill(rare, -math.inf)

    def number_log_density(self, target: Tensor, detach_direct: bool = False, of_frequent: float = 0.0) -> Tensor:
        """Log density of the numeric cells at `target` (B, Fn) as it is learnt, neither moved nor tilted.

        In nats per standard deviation. Where a bin is of one value, the log of its probability: a density rises without
        end as the normal narrows about that value, and leaves others too little. `detach_direct` keeps its gradient off
        the location. Which frequent value a cell is, or none, counts `of_frequent` times more.
        """
        bins, direct = self.bins, self.direct.detach() if detach_direct else self.direct
        gate = self.gate.clamp(LEAST_WEIGHT, 1 - LEAST_WEIGHT)
        standard = (target - direct) / self.scale
        normal = -0.5 * standard.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        piece = bins.piece(target)
        position = piece // 2
        mass = _of_cells(self.mass, position)
        flat = mass.log() + bins.log_heights.gather(0, piece)
        flat = flat.masked_fill((target < bins.edges[:, 0]) | (target > bins.edges[:, -1]), -math.inf)
        if not bins.has_single.any():
            return torch.logaddexp(gate.log() + normal, torch.log1p(-gate) + flat)
        weight, is_single = (gate * self._share_of_rest).clamp_min(LEAST_WEIGHT), _of_bins(bins.single, position)
        if not bins.has_frequent.any():
            density = torch.logaddexp(weight.log() + normal, torch.log1p(-gate) + flat)
            low, high = ((end - direct) / self.scale for end in self._reach_of(position))
            probability = mass + weight * (torch.special.ndtr(high) - torch.special.ndtr(low))
            return torch.where(is_single, probability.log(), density)
        # Bins of frequent values are as narrow as their neighbours are near: the normal holds next to nothing of those
        # that are no outer ones.
        normal = torch.where(bins.has_frequent, normal - Section(direct, self.scale, *bins.ends).log_mass, normal)
        density = torch.logaddexp(weight.log() + normal, torch.log1p(-gate) + flat)
        share = torch.where(is_single, mass, self._share_of_rest.clamp_min(LEAST_WEIGHT)).log()
        return torch.where(is_single, share, density) + of_frequent * bins.has_frequent * share

    def _reach_of(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the bins at positions (B, Fn); outer ones reach as far as the tails, which are drawn as theirs."""
        low, high = _of_bins(self.bins.edges, position), _of_bins(self.bins.edges, position + 1)
        low = low.masked_fill(low <= self.bins.edges[:, 0], -FAR)
        return low, high.masked_fill(high >= self.bins.edges[:, -1], FAR)

    def level_log_probability(self, codes: Tensor) -> Tensor:
        """Log probability of the categorical cells' codes (B, Fc), in nats; rare codes share one class."""
        position = codes.long().clamp_min(0).minimum(self.n_modelled - 1)
        return torch.gather(self.log_levels, 2, position[:, :, None])[:, :, 0]

    @cached_property
    def _climb(self) -> Tensor:
        """Probability of the histogram below each knot, (B, Fn, 2 K + 1)."""
        below, weights = self.bins.share_below, self._mixture.weights
        pieces = torch.stack([weights * below, weights * (1 - below)], 3).flatten(2)
        return F.pad(pieces.cumsum(2), (1, 0))

    def cdf(self, numbers: Tensor) -> Tensor:
        """Probability that a numeric cell is at most `numbers` (B, Fn)."""
        place = numbers if self._shift is None else numbers - self._shift
        position = self.bins.bin(place)
        top = _of_bins(self.bins.edges, position + 1)
        below = self._cdf_in_place(torch.where(_of_bins(self.bins.frequent, position), top, place))
        return self._or_fixed(below, (numbers >= self.mean).to(below))

    def _or_fixed(self, told: Tensor, of_fixed: Tensor) -> Tensor:
        """What is told of numeric cells (B, Fn), and of those that are fixed."""
        return told if self.fixed is None else torch.where(self.fixed, of_fixed, told)

    def _cdf_in_place(self, numbers: Tensor) -> Tensor:
        """Probability that a numeric cell is at most `numbers` (B, Fn) before its mixture is moved."""
        piece, column = self.bins.piece(numbers), torch.arange(len(self.numbers), device=numbers.device)
        low, high = self.bins.knots[column, piece], self.bins.knots[column, piece + 1]
        share = ((numbers - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
        below, above = (_of_cells(self._climb, piece + end) for end in (0, 1))
        return self._mixture.normal_below(self.bins, self.scale, numbers) + below + share * (above - below)

    def centrality(self, numbers: Tensor) -> Tensor:
        """Level of the smallest central interval that holds each value, (B, Fn) in [0, 1]: 0 at the median.

        The one value of a bin counts with the whole of it: it is held as soon as a part of it is. The outer bins reach
        as far as the tails, which are drawn as their values.
        """
        place = numbers if self._shift is None else numbers - self._shift
        position = self.bins.bin(place)
        low, high = self._reach_of(position)
        is_single = _of_bins(self.bins.single, position)
        below = self._cdf_in_place(torch.where(is_single, low, place))
        above = self._cdf_in_place(torch.where(is_single, high, place))
        central = torch.maximum(2 * below - 1, 1 - 2 * above).clamp_min(0)
        return self._or_fixed(central, (numbers != self.mean).to(central))

    def quantile(self, probability: Tensor | float, wanted: Tensor | None = None) -> Tensor:
        """Value below which a numeric cell lies with the given probability (scalar or broadcastable to (B, Fn)).

        `wanted` bool (B, Fn) spares the search for other cells, for which it gives anything; None wants all.
        """
        probability = torch.as_tensor(probability, dtype=self.direct.dtype, device=self.direct.device)
        if wanted is not None:
            most = int(wanted.sum(0).amax()) if wanted.numel() else 0
            rows = wanted.to(self.direct.device, torch.int8).argsort(dim=0, descending=True, stable=True)[:most]
            found = self._numbers_at(rows).quantile(probability.expand_as(self.direct).gather(0, rows))
            return self.direct.scatter(0, rows, found)
        location = self._mixture.location
        low = torch.minimum(self.bins.edges[:, 0] - TAIL, location - TAIL * self.scale)
        high = torch.maximum(self.bins.edges[:, -1] + TAIL, location + TAIL * self.scale)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self._cdf_in_place(middle) < probability
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        place = (low + high) / 2
        value = place if self._shift is None else place + self._shift
        position = self.bins.bin(place)
        found = torch.where(_of_bins(self.bins.single, position), _of_bins(self.bins.centres, position), value)
        return self._or_fixed(found, self.mean)

    def _numbers_at(self, rows: Tensor) -> CellDistribution:
        """The numeric cells of rows (K, Fn) of their own in each column, as a distribution of K rows."""
        of_bins = rows[:, :, None].expand(-1, -1, self.mass.shape[2])
        return replace(
            self,
            direct=self.direct.gather(0, rows),
            scale=self.scale.gather(0, rows),
            gate=self.gate.gather(0, rows),
            mass=self.mass.gather(0, of_bins),
            moved=None if self.moved is None else self.moved.gather(0, rows),
            excess=None,
            fixed=None if self.fixed is None else self.fixed.gather(0, rows),
        )

    def interval(self, level: Tensor | float, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Bounds of the central interval of every numeric cell, float64 (B, Fn), on the processor.

        A value that is a bound is held, and so is one whose centrality is the level: they lie outside by what rounding
        may take from either. `wanted` as of `quantile`.
        """
        inner = torch.as_tensor(level).to(self.direct)
        inner = torch.lerp(inner, torch.ones_like(inner), HELD_SURELY)
        lower, upper = (self.quantile((1 + side * inner) / 2, wanted).cpu() for side in (-1, 1))
        lower, upper = lower - ROUNDING * lower.abs().clamp_min(1), upper + ROUNDING * upper.abs().clamp_min(1)
        return lower.double(), upper.double()

    def sample(
        self,
        generator: torch.Generator,
        level: Callable[[Tensor], Tensor] | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """One draw of every cell, (B, F); cells are drawn independently given the visible ones.

        `level` turns the levels of central intervals (B, Fn) into those to ask for, to widen or narrow the draws.
        `wanted` bool (B, F), cells to draw; others hold anything; None draws all.
        """
        draw = self._whole(self.direct.dtype)

        def uniform(like: Tensor) -> Tensor:
            return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)

        side = 2 * uniform(self.direct) - 1
        asked = side.abs() if level is None else level(side.abs()).to(side)
        numbers = None if wanted is None else wanted.to(self.direct.device)[:, self.numbers]
        draw[:, self.numbers] = self.quantile((1 + side.sign() * asked) / 2, numbers)
        probability = F.softmax(self._named_levels(), 2)
        chosen = (uniform(probability[:, :, 0])[:, :, None] >= probability.cumsum(2)[:, :, :-1]).sum(2)
        draw[:, self.categories] = chosen.to(draw.dtype)
        return draw

    def probabilities(self, feature: int) -> Tensor:
        """Probabilities of the modelled levels of one categorical feature, (B, levels), the rare class last if any."""
        (at,) = torch.nonzero(self.categories == feature, as_tuple=True)
        return self.log_levels[:, int(at), : int(self.n_modelled[at])].exp()


def _of_cells(told: Tensor, position: Tensor) -> Tensor:
    """What is told of each cell (B, Fn, K) at positions (B, Fn)."""
    return torch.gather(told, 2, position[:, :, None])[:, :, 0]


def _of_bins(told: Tensor, position: Tensor) -> Tensor:
    """What is told of bins (Fn, K) at positions (B, Fn)."""
    return _of_cells(told.expand(len(position), -1, -1), position)
