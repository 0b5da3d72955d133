"""The bins of the numeric columns: histograms, each with two pieces a bin, and all that follows from where bins lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_BINS = 16
FREQUENT = 0.15
"""Share of a column's cells from which on a value of many has its own bin: the zeros of rain, of incomes, of claims."""
LEAST_BINS = 4
"""Bins of the rest at least, which has as many as it would without frequent values: finer ones are learnt worse."""
FAR = 1e3
"""Standard deviations beyond which nothing is, and which have a gradient, as infinity has not."""
LEAST_WIDTH = 1e-3
"""Standard deviations below which a piece of a bin is not made narrower, nor its density higher."""


@dataclass(frozen=True)
class Bins:
    """Bins of Fn columns, K at most. Absent ones are empty (equal edges) and stand last.

    A bin has two pieces of one density each, below and above its centre: thus its centre is its mean.

    Attributes
    ----------
    edges : (Fn, K + 1). centres : (Fn, K), mean of the values in a bin.
    single : bool (Fn, K), True where a bin is of one value, its centre.
    """

    edges: Tensor
    centres: Tensor
    single: Tensor

    @classmethod
    def fit(cls, values: Tensor, observed: Tensor) -> Self:
        """Quantile bins of each column of values (n, Fn), from its observed cells.

        A column of at most `MAX_BINS` values gets a bin a value, with edges midway; others get a bin for each frequent
        value, and bins of equal counts for the rest.
        """
        n_columns = values.shape[1]
        edges, centres = torch.zeros(n_columns, MAX_BINS + 1), torch.zeros(n_columns, MAX_BINS)
        single = torch.zeros(n_columns, MAX_BINS, dtype=torch.bool)
        for j in range(n_columns):
            known = values[observed[:, j], j].double()
            known = known if len(known) else torch.zeros(1, dtype=torch.float64)
            distinct, counts = known.unique(return_counts=True)
            is_few = len(distinct) <= MAX_BINS
            edge, centre, own = _one_a_value(distinct) if is_few else _of_equal_counts(known, distinct, counts)
            n_bins = len(centre)
            edges[j, : n_bins + 1], edges[j, n_bins + 1 :] = edge.float(), edge[-1].float()
            centres[j, :n_bins], centres[j, n_bins:] = centre.float(), centre[-1].float()
            single[j, :n_bins] = own
        return cls(edges, centres, single)

    def of(self, columns: Tensor) -> Bins:
        """The bins of some columns alone."""
        return Bins(self.edges[columns], self.centres[columns], self.single[columns])

    @cached_property
    def discrete(self) -> Tensor:
        """Columns of so few values that each has its own bin, bool (Fn,)."""
        return (self.single | ~self.present).all(1)

    @cached_property
    def has_single(self) -> Tensor:
        """Columns with a bin of one value, which counts with all of its probability, bool (Fn,)."""
        return self.single.any(1)

    @cached_property
    def frequent(self) -> Tensor:
        """Bins of one value among many others, bool (Fn, K)."""
        return self.single & ~self.discrete[:, None]

    @cached_property
    def present(self) -> Tensor:
        """Whether a column has each bin, bool (Fn, K)."""
        return self.edges[:, 1:] > self.edges[:, :-1]

    @cached_property
    def has_frequent(self) -> Tensor:
        """Columns with a bin of one value among many others, bool (Fn,)."""
        return self.frequent.any(1)

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Where numbers between the frequent values that are outer bins begin and end, (Fn,) each; `FAR` off without
        any such."""
        last = (self.present.sum(1, keepdim=True) - 1).clamp_min(0)
        low = torch.where(self.frequent[:, 0], self.edges[:, 1], -FAR)
        high = torch.where(self.frequent.gather(1, last), self.edges.gather(1, last), FAR)[:, 0]
        return low, high

    @cached_property
    def lengths(self) -> Tensor:
        """How long each bin is, (Fn, K); next to nothing where it is absent."""
        return self.edges.diff(dim=1).clamp_min(1e-6)

    @cached_property
    def equal_shares(self) -> Tensor:
        """The same share for each bin that a column has, (Fn, K)."""
        return self.present / self.present.sum(1, keepdim=True)

    @cached_property
    def splits(self) -> Tensor:
        """Where the two pieces of each bin meet, (Fn, K): its centre, `LEAST_WIDTH` off the edges if there is room."""
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        room = ((high - low) / 2).clamp_max(LEAST_WIDTH)
        return torch.minimum(torch.maximum(self.centres, low + room), high - room)

    @cached_property
    def knots(self) -> Tensor:
        """Ends of all pieces, (Fn, 2 K + 1); pieces 2 k and 2 k + 1 are those of bin k."""
        pairs = torch.stack([self.edges[:, :-1], self.splits], 2).flatten(1)
        return torch.cat([pairs, self.edges[:, -1:]], 1)

    @cached_property
    def share_below(self) -> Tensor:
        """Share of each bin's mass in its lower piece, (Fn, K)."""
        length = self.edges.diff(dim=1)
        return (self.edges[:, 1:] - self.splits) / torch.where(length > 0, length, 1)

    @cached_property
    def log_heights(self) -> Tensor:
        """Log density of a bin in each of its pieces, (2 K, Fn)."""
        below = self.share_below
        width = self.knots.diff(dim=1).clamp_min(LEAST_WIDTH)
        return (torch.stack([below, 1 - below], 2).flatten(1) / width).log().T.contiguous()

    @cached_property
    def last_piece(self) -> Tensor:
        """Upper piece of the last bin that is not absent, (Fn,)."""
        return 2 * self.present.sum(1) - 1

    def piece(self, numbers: Tensor) -> Tensor:
        """Piece in which each number (B, Fn) lies, or the nearest outer one; (B, Fn)."""
        found = torch.searchsorted(self.knots, numbers.T.contiguous().to(self.knots.dtype), right=True).T - 1
        return found.clamp_min(0).minimum(self.last_piece)

    def bin(self, numbers: Tensor) -> Tensor:
        """Bin in which each number (B, Fn) lies, or the nearest outer one; (B, Fn)."""
        return self.piece(numbers) // 2


def _one_a_value(distinct: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges and centres of a column of few values, these in order, and that each is of one value."""
    gap = (distinct[1:] - distinct[:-1]).min() if len(distinct) > 1 else torch.tensor(1.0, dtype=torch.float64)
    middle = (distinct[1:] + distinct[:-1]) / 2
    edge = torch.cat([distinct[:1] - gap / 2, middle, distinct[-1:] + gap / 2])
    return edge, distinct, torch.ones(len(distinct), dtype=torch.bool)


def _of_equal_counts(known: Tensor, distinct: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges and centres of a column of many values, and which are of one, a frequent one."""
    at = torch.nonzero(counts >= FREQUENT * len(known))[:, 0]
    at = at[distinct[at].diff(prepend=distinct[:1] - 1) >= LEAST_WIDTH]
    half = (F.pad(distinct.diff(), (1, 1)) / 2).clamp_min(LEAST_WIDTH / 2)
    frequent, low, high = distinct[at], distinct[at] - half[at], distinct[at] + half[at + 1]
    rest = known[~torch.isin(known, frequent)]
    n_bins = min(MAX_BINS - 2 * len(at), max(LEAST_BINS, round(MAX_BINS * len(rest) / len(known))))
    probability = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]
    inner = torch.quantile(rest[:: max(1, len(rest) // 100_000)], probability)
    points = torch.cat([distinct[:1], inner, distinct[-1:]])
    within = ((points[:, None] >= low) & (points[:, None] <= high)).any(1)
    edge = torch.cat([points[~within], low, high]).unique()
    position = torch.bucketize(known, edge[1:-1], right=True)
    total = torch.zeros(len(edge) - 1, dtype=torch.float64)
    count = total.index_add(0, position, torch.ones_like(known))
    centre = total.index_add(0, position, known) / count
    centre = torch.where(count > 0, centre, (edge[1:] + edge[:-1]) / 2)
    own = torch.bucketize(frequent, edge[1:-1], right=True)
    centre[own] = frequent
    return edge, centre, torch.zeros(len(centre), dtype=torch.bool).index_fill(0, own, True)
