"""Rows as imperfect copies of other rows: a missing cell is that of the remembered rows which the visible ones copy.

Contract: an invisible cell of the asked row, and an unobserved one of a remembered row, are never read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabmae.threads import shared_out

MAX_REMEMBERED, MAX_REMEMBERED_CELLS = 10_000, 200_000
"""Rows, and cells of them, that others may copy: every asked row is compared with all."""
MAX_TABLE_CELLS = 10_000_000
"""Numbers, a few a number and one a level, by which candidates are looked for: 40 MB, and twice that for a moment."""
MAX_COPYING = 1_000
"""Rows by which it is learnt how columns are copied."""
N_CANDIDATES = 64
"""Remembered rows that a row may be a copy of, by a fast product; of these it is weighed exactly."""
HEAPS = 16
"""Heaps of remembered rows for each candidate, where they are many: one of each may be one."""
N_ROUNDS = 10
N_KNOTS = 64
"""Quantiles of a number that its density is told from."""
LEAST_WIDTH, MOST_WIDTH = 0.02, 2.0
"""Standard deviations by which copied numbers differ."""
MOST_NATS = 50.0
"""What one number tells at most."""
COARSE_WIDTH = 0.6
"""Least width when candidates are looked for: one odd cell shall not hide a row."""
MAX_CELLS_AT_ONCE = 1_000_000
"""Cells of candidates that are compared at once: 4 MB an array."""


class Found(NamedTuple):
    """What remembered rows say of the asked ones.

    numbers : (B, Fn), levels : (B, Fc, L), of the rows that are copied by how likely they are, without the rest.
    shares : (B, F), how likely any row is copied; the rest is for others to say.
    """

    numbers: Tensor
    levels: Tensor
    shares: Tensor


class Copies(nn.Module):
    """Every row copies one of the remembered rows, or none; each cell of a copy is the copied one, but for a normal
    error of its column, or drawn anew from its column.

    With a probability of `copied` a number lies about that of the copied row, `width` standard deviations off, and a
    level is the same. The rows that are likely to be copied by the visible cells tell the others; a row that copies
    none has as much weight as all remembered ones had before anything was seen.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else how many levels are told apart; higher codes are the last one.

    Buffers: `values` (N, F), `observed` (N, F) of the remembered rows; `copied`, `width` (F,); `knots` (Fn, K) of the
    numbers' densities; `frequency` (Fc, L).

    Source: rows as imperfect copies, Li and Stephens 2003, without an order of the columns; kernel densities
    as normal mixtures about the rows, widths by EM on rows left out, Duin 1976.

    >>> import torch
    >>> rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    >>> known = torch.ones(80, 6, dtype=torch.bool)
    >>> asked = known[:1].clone()
    >>> asked[0, 2] = False
    >>> found = Copies([0] * 6).fit(rows, known).predict(rows[:1], asked)
    >>> bool((found.numbers[0, 2] - rows[0, 2]).abs() < 0.01) and bool(found.shares[0, 2] > 0.99)
    True
    """

    values: Tensor
    observed: Tensor
    copied: Tensor
    width: Tensor
    knots: Tensor
    frequency: Tensor

    def __init__(self, n_levels: Sequence[int]) -> None:
        super().__init__()
        self.n_levels = tuple(n_levels)
        self.numbers = [j for j, n in enumerate(n_levels) if n == 0]
        self.categories = [j for j, n in enumerate(n_levels) if n > 0]
        n_features, most = len(self.n_levels), max(1, *self.n_levels) if self.n_levels else 1
        self.register_buffer("values", torch.zeros(0, n_features))
        self.register_buffer("observed", torch.zeros(0, n_features, dtype=torch.bool))
        self.register_buffer("copied", torch.full((n_features,), 0.5, dtype=torch.float64))
        self.register_buffer("width", torch.full((n_features,), 0.5, dtype=torch.float64))
        self.register_buffer("knots", torch.zeros(len(self.numbers), N_KNOTS, dtype=torch.float64))
        self.register_buffer("frequency", torch.ones(len(self.categories), most, dtype=torch.float64))

    def most_rows(self) -> int:
        """Rows of a table that are remembered at most."""
        width = 3 * len(self.numbers) + sum(self.n_levels) + len(self.categories)
        return min(MAX_REMEMBERED, max(1, min(MAX_REMEMBERED_CELLS // len(self.n_levels), MAX_TABLE_CELLS // width)))

    @classmethod
    def restored(cls, n_levels: Sequence[int], n_rows: int) -> Self:
        """As many rows as are to be loaded."""
        copies = cls(n_levels)
        copies.values = torch.zeros(n_rows, len(copies.n_levels))
        copies.observed = torch.zeros(n_rows, len(copies.n_levels), dtype=torch.bool)
        return copies

    def check(self) -> None:
        """Refuse rows that came from elsewhere and hold levels that there are not.

        Raises
        ------
        ValueError : a code lies outside of its column's levels.
        """
        for j in self.categories:
            codes = self.values[:, j]
            if not ((codes >= 0) & (codes < self.n_levels[j])).all():
                raise ValueError(
                    "Rows that others may copy must hold levels of their columns; these do not. Save the model again."
                )

    def fit(self, values: Tensor, observed: Tensor, until: Callable[[], bool] = lambda: False) -> Self:
        """Remember rows, and learn how each column is copied.

        Parameters
        ----------
        values : (n, F), numbers in standard deviations, codes of levels; anything where not observed.
        observed : bool (n, F).
        until : asked before every further round; True ends learning.
        """
        self.remember(values, observed)
        if len(self.values) < 2:  # a row tells nothing of how it is copied
            return self
        n_copying = min(MAX_COPYING, len(self.values))
        own = torch.linspace(0, len(self.values) - 1, n_copying, device=self.values.device).round().long()
        for number in range(N_ROUNDS):
            if number and until():
                break
            counts = torch.zeros(3, len(self.n_levels), dtype=torch.float64, device=own.device)
            table = self._table()
            for rows in own.split(self._rows_at_once()):
                counts += self._counts(self.values[rows], self.observed[rows], rows, table)
            compared, copied, squares = counts
            self.copied = ((copied + 1) / (compared + 2)).clamp(0.01, 0.99)
            self.width = ((squares + LEAST_WIDTH) / (copied + 1)).sqrt().clamp(LEAST_WIDTH, MOST_WIDTH)
        return self

    def remember(self, values: Tensor, observed: Tensor) -> Self:
        """Let these rows be copied from now on, as they were learnt to be; parameters as in `fit`."""
        self.values, self.observed = self._cells(values, observed), observed.clone()
        for place, j in enumerate(self.categories):
            codes = self.values[:, j]
            counts = torch.bincount(codes[observed[:, j]].long(), minlength=self.frequency.shape[1]).double() + 0.5
            counts[self.n_levels[j] :] = 0
            self.frequency[place] = counts / counts.sum()
        steps = torch.linspace(0, 1, N_KNOTS, dtype=torch.float64, device=values.device)
        for place, j in enumerate(self.numbers):
            known = self.values[observed[:, j], j].double()
            if len(known):
                self.knots[place] = torch.quantile(known, steps)
        return self

    def predict(self, values: Tensor, visible: Tensor, learnt: Tensor | None = None) -> Found:
        """What the remembered rows say of every cell of values (B, F) from the visible ones, float32.

        `learnt` (B, F), visible cells, tells that rows are of those that are remembered: one that has all of these
        cells is taken to be the row itself, and not copied. None tells that hidden cells are not remembered.
        """
        device, size, table = self.values.device, self._rows_at_once(), self._table()
        learnt = torch.zeros_like(visible) if learnt is None else learnt
        asked = self._cells(values, visible).to(device)
        chunks = [part.split(size) for part in (asked, visible.to(device), learnt.to(device))]
        told = partial(self._told, table=table)
        parts = shared_out(told, *chunks) if device.type == "cpu" else list(map(told, *chunks))
        return Found(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _cells(self, values: Tensor, observed: Tensor) -> Tensor:
        """Cells as they are compared, float32 (B, F): 0 where not observed, codes of levels that are told apart."""
        cells = torch.where(observed, values, 0).float()
        for j in self.categories:
            cells[:, j] = cells[:, j].clamp(0, self.n_levels[j] - 1)
        return cells

    def _told(self, asked: Tensor, shown: Tensor, learnt: Tensor, table: Tensor) -> Found:
        near = self._candidates(asked, shown, table)
        known = self.observed[near]
        if learnt.any():
            alike = ((asked[:, None] == self.values[near]) & known | ~learnt[:, None]).all(2) & learnt.any(1)[:, None]
            known = known & ~(alike & (alike.cumsum(1) == 1))[:, :, None]
        as_copy = self._as_copy(asked, near)
        evidence = self._evidence(as_copy, shown[:, None] & known).sum(2, keepdim=True).masked_fill(~known, -torch.inf)
        none = evidence.new_full((len(asked), 1, len(self.n_levels)), math.log(len(self.values)))
        weight = torch.cat([evidence, none], 1).softmax(1)[:, :-1]
        cells, share = self.values[near], weight.sum(1)
        numbers = (weight * cells).sum(1)[:, self.numbers]
        levels = asked.new_zeros(len(asked), *self.frequency.shape)
        for place, j in enumerate(self.categories):
            copied = float(self.copied[j])
            levels[:, place].scatter_add_(1, cells[:, :, j].long(), copied * weight[:, :, j])
            levels[:, place] += (1 - copied) * share[:, j, None] * self.frequency[place].float()
        return Found(numbers, levels, share)

    def _counts(self, asked: Tensor, shown: Tensor, own: Tensor, table: Tensor) -> Tensor:
        """Cells compared, those that were copied, and the squares of their errors, by columns (3, F)."""
        near = self._candidates(asked, shown, table, own)
        both, as_copy = shown[:, None] & self.observed[near], self._as_copy(asked, near)
        weight = self._evidence(as_copy, both).sum(2).softmax(1)[:, :, None]
        compared = weight * both
        copied = compared * (as_copy / (as_copy + 1 - self.copied.float()))
        squares = copied * (asked[:, None] - self.values[near]).square()
        return torch.stack([part.sum((0, 1)) for part in (compared, copied, squares)]).double()

    def _as_copy(self, asked: Tensor, near: Tensor) -> Tensor:
        """How likely each cell is as a copy of the candidate's (B, K), beside what it is drawn anew; (B, K, F)."""
        gap = asked[:, None] - self.values[near]
        copied, width = self.copied.float(), self.width[self.numbers].float()
        anew = _log_normal(asked[:, self.numbers, None] - self.knots.float(), self._spread()).logsumexp(2)
        base = copied[self.numbers].log() - width.log() - anew + math.log(N_KNOTS)
        if not self.categories:
            return (base[:, None] - 0.5 * (gap / width).square()).clamp_max(MOST_NATS).exp()
        as_copy = torch.empty_like(gap)
        of_numbers = gap[:, :, self.numbers] / width
        as_copy[:, :, self.numbers] = (base[:, None] - 0.5 * of_numbers.square()).clamp_max(MOST_NATS).exp()
        for place, j in enumerate(self.categories):
            frequency = self.frequency[place].float()[asked[:, j].long()]
            as_copy[:, :, j] = (gap[:, :, j] == 0) * (copied[j] / frequency[:, None])
        return as_copy

    def _evidence(self, as_copy: Tensor, both: Tensor) -> Tensor:
        """By how many nats each cell that both rows have speaks for a copy; 0 for others, (B, K, F)."""
        return torch.where(both, (as_copy + (1 - self.copied.float())).log(), 0.0)

    def _candidates(self, asked: Tensor, shown: Tensor, table: Tensor, own: Tensor | None = None) -> Tensor:
        """Positions (B, K) of the remembered rows that are likeliest to be copied, without the rows' `own` (B,).

        A product of matrices: squares of gaps, and what every column that both rows have, and every equal level, tells.
        """
        scale, bonus = self._coarse()
        cells, seen = asked[:, self.numbers].double(), shown[:, self.numbers].double()
        parts = [cells.square() * scale - seen * bonus, seen * scale, -2 * cells * scale]
        for place, j in enumerate(self.categories):
            told = (self.copied[j] / self.frequency[place, : self.n_levels[j]] + 1 - self.copied[j]).log()
            other, known = (1 - self.copied[j]).log(), shown[:, j, None]
            level = F.one_hot(asked[:, j].long(), self.n_levels[j])
            parts += [level * known * (other - told), known * -other]
        distance = torch.cat(parts, 1).float() @ table
        n_near = min(N_CANDIDATES, len(self.values))
        if own is not None:
            distance[torch.arange(len(own), device=own.device), own] = torch.inf
            n_near = min(n_near, len(self.values) - 1)
        return nearest(distance, n_near)

    def _table(self) -> Tensor:
        """The remembered rows as candidates are looked for among them, float32 (E, N)."""
        cells, known = self.values[:, self.numbers], self.observed[:, self.numbers]
        parts = [known, cells.square(), cells]
        for j in self.categories:
            known = self.observed[:, j, None]
            parts += [F.one_hot(self.values[:, j].long(), self.n_levels[j]) * known, known]
        return torch.cat([part.float() for part in parts], 1).T.contiguous()

    def _spread(self) -> Tensor:
        """Width of the normal about each knot, no less than half of what lies between its neighbours, (Fn, K).

        Beyond the last knots there is next to nothing that is drawn anew else, and rows far out would be copies.
        """
        gap = F.pad(self.knots.diff(dim=1)[:, None], (1, 1), mode="replicate")[:, 0]
        return torch.maximum((gap[:, 1:] + gap[:, :-1]) / 2, self.width[self.numbers, None]).float()

    def _coarse(self) -> tuple[Tensor, Tensor]:
        """What a squared gap of the numbers takes from a candidate, and what being known there gives, (Fn,) each."""
        width = self.width[self.numbers].clamp_min(COARSE_WIDTH)
        return 0.5 / width.square(), (-width.log()).clamp_min(0) + 0.05

    def _rows_at_once(self) -> int:
        """Rows that are compared at once."""
        n_cells = len(self.n_levels) * min(N_CANDIDATES, max(1, len(self.values)))
        return max(1, min(MAX_CELLS_AT_ONCE // n_cells, 10 * MAX_CELLS_AT_ONCE // max(1, len(self.values))))


def nearest(distance: Tensor, n_near: int) -> Tensor:
    """Positions (B, K) of the least distances (B, N), in no order; of many, the least of each of some heaps.

    What is left out is one of two that lie in the same heap, the lesser one: next to never one of the very first.
    """
    n_heaps, n_rows = HEAPS * n_near, distance.shape[1]
    if n_rows < 2 * n_heaps:
        return distance.topk(n_near, dim=1, largest=False, sorted=False).indices
    n_layers, n_more = divmod(n_rows, n_heaps)
    least = distance[:, : n_layers * n_heaps].unflatten(1, (n_layers, n_heaps)).amin(1)
    if n_more:
        least[:, :n_more] = torch.minimum(least[:, :n_more], distance[:, -n_more:])
    heap = least.topk(n_near, dim=1, largest=False, sorted=False).indices
    place = heap[:, None] + n_heaps * torch.arange(n_layers + 1, device=heap.device)[:, None]
    held = (
        distance.gather(1, place.clamp_max(n_rows - 1).flatten(1))
        .view_as(place)
        .masked_fill(place >= n_rows, torch.inf)
    )
    return place.gather(1, held.argmin(1, keepdim=True))[:, 0]


def _log_normal(gap: Tensor, width: Tensor) -> Tensor:
    """Log density of normal errors, but for its constant."""
    return -0.5 * (gap / width).square() - width.log()
