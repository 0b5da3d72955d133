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

from tabmae.tokenizers.bins import Bins

BISECTIONS = 40
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

    Attributes
    ----------
    direct, scale, gate : (B, Fn) of the numeric columns, in standard deviations (gate in (0, 1)).
    mass : (B, Fn, K) probabilities of the bins; next to nothing where a column has fewer, but more than 0.
    bins : where they lie.
    log_levels : (B, Fc, L) log probabilities of the modelled levels of the categorical columns, -inf beyond; the last
        modelled level of a column with `has_rare` stands for all rarer ones.
    moved : (B, Fn), the mean about which all of a cell's mixture is moved, but for values that are frequent among many;
        None for not at all.
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

    @cached_property
    def mean(self) -> Tensor:
        """Mean of every numeric cell, (B, Fn)."""
        return self._mean_in_place if self.moved is None else self.moved

    @cached_property
    def _mean_in_place(self) -> Tensor:
        """Mean of every numeric cell before it is moved, (B, Fn)."""
        binned = (self.mass * self.bins.splits).sum(2)
        return self.gate * self.direct + (1 - self.gate) * binned

    @cached_property
    def _shift(self) -> Tensor | None:
        """By how much a cell's mixture is moved, (B, Fn); taken where it is asked for, as means alone need it not."""
        return None if self.moved is None else self.moved - self._mean_in_place

    def moved_to(self, mean: Tensor) -> CellDistribution:
        """The same distribution of the numeric cells about another mean (B, Fn)."""
        return replace(self, moved=mean)

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
        )

    def _unshifted(self, numbers: Tensor) -> Tensor:
        """Where numbers (B, Fn) were before the mixture was moved; a frequent value as the upper edge of its bin.

        All others keep to their side of the frequent values, which are not moved.
        """
        if self._shift is None:
            return numbers
        place, frequent = numbers - self._shift, self.bins.frequent
        if not frequent.any():
            return place
        low, high = self.bins.edges[:, :-1], self.bins.edges[:, 1:]
        is_below = low < numbers[:, :, None]
        floor = torch.where(frequent & is_below, high, -math.inf).amax(2)
        ceiling = torch.where(frequent & ~is_below, low.nextafter(torch.full_like(low, -math.inf)), math.inf).amin(2)
        return place.maximum(floor).minimum(ceiling)

    def point(self) -> Tensor:
        """The value to impute, (B, F): the mean of numbers, the code of the most probable level of categories."""
        point = self._whole(self.direct.dtype)
        point[:, self.numbers] = self.mean
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

    def number_log_density(self, target: Tensor, detach_direct: bool = False) -> Tensor:
        """Log density of the numeric cells at `target` (B, Fn), in nats per standard deviation.

        `detach_direct` keeps its gradient off the location.
        """
        if self._shift is not None:
            is_frequent = _of_bins(self.bins.frequent, self.bins.bin(target))
            target = torch.where(is_frequent, target, self._unshifted(target))
        direct = self.direct.detach() if detach_direct else self.direct
        standard = (target - direct) / self.scale
        normal = -0.5 * standard.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        bins = self.bins
        piece = bins.piece(target)
        flat = self.mass.gather(2, piece[:, :, None] // 2)[:, :, 0].log() + bins.log_heights.gather(0, piece)
        flat = flat.masked_fill((target < bins.edges[:, 0]) | (target > bins.edges[:, -1]), -math.inf)
        gate = self.gate.clamp(1e-4, 1 - 1e-4)
        return torch.logaddexp(gate.log() + normal, torch.log1p(-gate) + flat)

    def level_log_probability(self, codes: Tensor) -> Tensor:
        """Log probability of the categorical cells' codes (B, Fc), in nats; rare codes share one class."""
        position = codes.long().clamp_min(0).minimum(self.n_modelled - 1)
        return torch.gather(self.log_levels, 2, position[:, :, None])[:, :, 0]

    @cached_property
    def _climb(self) -> Tensor:
        """Share of the histogram below each knot, (B, Fn, 2 K + 1)."""
        below = self.bins.share_below
        pieces = torch.stack([self.mass * below, self.mass * (1 - below)], 3).flatten(2)
        return F.pad(pieces.cumsum(2), (1, 0))

    def cdf(self, numbers: Tensor) -> Tensor:
        """Probability that a numeric cell is at most `numbers` (B, Fn)."""
        return self._cdf_in_place(self._unshifted(numbers))

    def _cdf_in_place(self, numbers: Tensor) -> Tensor:
        """Probability that a numeric cell is at most `numbers` (B, Fn) before its mixture is moved."""
        piece, column = self.bins.piece(numbers), torch.arange(len(self.numbers), device=numbers.device)
        low, high = self.bins.knots[column, piece], self.bins.knots[column, piece + 1]
        share = ((numbers - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
        below, above = (torch.gather(self._climb, 2, (piece + end)[:, :, None])[:, :, 0] for end in (0, 1))
        normal = torch.special.ndtr((numbers - self.direct) / self.scale)
        return self.gate * normal + (1 - self.gate) * (below + share * (above - below))

    def centrality(self, numbers: Tensor) -> Tensor:
        """Level of the smallest central interval that holds each value, (B, Fn) in [0, 1]: 0 at the median.

        The one value of a bin counts with the whole of it: it is held as soon as a part of it is. The outer bins reach
        as far as the tails, which are drawn as their values.
        """
        position = self.bins.bin(numbers)
        low, high = _of_bins(self.bins.edges, position), _of_bins(self.bins.edges, position + 1)
        low = low.masked_fill(low <= self.bins.edges[:, 0], -math.inf)
        high = high.masked_fill(high >= self.bins.edges[:, -1], math.inf)
        is_single = _of_bins(self.bins.single, position)
        below = self.cdf(torch.where(is_single, low, numbers))
        above = self.cdf(torch.where(is_single, high, numbers))
        return torch.maximum(2 * below - 1, 1 - 2 * above).clamp_min(0)

    def quantile(self, probability: Tensor | float) -> Tensor:
        """Value below which a numeric cell lies with the given probability (scalar or broadcastable to (B, Fn))."""
        probability = torch.as_tensor(probability, dtype=self.direct.dtype, device=self.direct.device)
        low = torch.minimum(self.bins.edges[:, 0] - TAIL, self.direct - TAIL * self.scale)
        high = torch.maximum(self.bins.edges[:, -1] + TAIL, self.direct + TAIL * self.scale)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self._cdf_in_place(middle) < probability
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        place = (low + high) / 2
        value = place if self._shift is None else place + self._shift
        value = torch.where(self.bins.discrete, self._snapped(value), value)
        return self._held(place, value) if self.bins.frequent.any() else value

    def _held(self, place: Tensor, value: Tensor) -> Tensor:
        """Moved values (B, Fn), kept to their side of the frequent ones, which stay where they are."""
        frequent, centres = self.bins.frequent, self.bins.centres
        floor = torch.where(frequent & (self.bins.edges[:, :-1] < place[:, :, None]), centres, -math.inf).amax(2)
        ceiling = torch.where(frequent & (self.bins.edges[:, 1:] >= place[:, :, None]), centres, math.inf).amin(2)
        value = value.maximum(floor).minimum(ceiling)
        return torch.where(_of_bins(frequent, self.bins.bin(value)), self._snapped(value), value)

    def interval(self, level: Tensor | float) -> tuple[Tensor, Tensor]:
        """Bounds of the central interval of every numeric cell, float64 (B, Fn), on the processor.

        A value that is a bound is held, and so is one whose centrality is the level: they lie outside by what rounding
        may take from either.
        """
        inner = torch.as_tensor(level).to(self.direct)
        inner = torch.lerp(inner, torch.ones_like(inner), HELD_SURELY)
        lower, upper = (self.quantile((1 + side * inner) / 2).cpu() for side in (-1, 1))
        lower, upper = lower - ROUNDING * lower.abs().clamp_min(1), upper + ROUNDING * upper.abs().clamp_min(1)
        return lower.double(), upper.double()

    def _snapped(self, numbers: Tensor) -> Tensor:
        return _of_bins(self.bins.centres, self.bins.bin(numbers))

    def sample(self, generator: torch.Generator, level: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """One draw of every cell, (B, F); cells are drawn independently given the visible ones.

        `level` turns the levels of central intervals (B, Fn) into those to ask for, to widen or narrow the draws.
        """
        draw = self._whole(self.direct.dtype)

        def uniform(like: Tensor) -> Tensor:
            return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)

        side = 2 * uniform(self.direct) - 1
        asked = side.abs() if level is None else level(side.abs()).to(side)
        draw[:, self.numbers] = self.quantile((1 + side.sign() * asked) / 2)
        probability = F.softmax(self._named_levels(), 2)
        chosen = (uniform(probability[:, :, 0])[:, :, None] >= probability.cumsum(2)[:, :, :-1]).sum(2)
        draw[:, self.categories] = chosen.to(draw.dtype)
        return draw

    def probabilities(self, feature: int) -> Tensor:
        """Probabilities of the modelled levels of one categorical feature, (B, levels), the rare class last if any."""
        (at,) = torch.nonzero(self.categories == feature, as_tuple=True)
        return self.log_levels[:, int(at), : int(self.n_modelled[at])].exp()


def _of_bins(told: Tensor, position: Tensor) -> Tensor:
    """What is told of bins (Fn, K) at positions (B, Fn)."""
    return torch.gather(told.expand(len(position), -1, -1), 2, position[:, :, None])[:, :, 0]
