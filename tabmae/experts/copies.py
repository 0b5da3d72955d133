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

from tabmae.experts.candidates import N_CANDIDATES, Remembered, Ties, likeliest, nearest, repeats, spacing
from tabmae.threads import shared_out

MAX_REMEMBERED, MAX_REMEMBERED_CELLS = 10_000, 200_000
"""Rows, and cells of them, that others may copy: every asked row is compared with all."""
MAX_TABLE_CELLS = 10_000_000
"""Numbers, a few a number and one a level, by which candidates are looked for: 40 MB, and twice that for a moment."""
MAX_COPYING = 1_000
"""Rows by which it is learnt how columns are copied."""
N_ROUNDS = 10
N_KNOTS = 64
"""Quantiles of a number that its density is told from."""
LEAST_WIDTH, MOST_WIDTH = 0.02, 2.0
"""Standard deviations by which copied numbers differ."""
EQUAL_AT_FIRST, LEAST_EQUAL, MOST_EQUAL = 0.5, 0.01, 0.99
"""Share of the copies of a column of repeated numbers that are the very same; with less they are not looked for."""
SURELY_APART = 0.4
"""Width of the copies of a number, in what lies between its few values, up to which the nearest one is the same."""
MANY_LEVELS, NAME = 16, 0.9
"""Levels beyond which a category may be a name, and how likely a copy shares one."""
MOST_NONE = 0.5
"""Probability that a row copies none; where it has a namesake, that is learnt, and this is the most."""
MOST_NATS = 50.0
"""What one number tells at most."""
COARSE_WIDTH = 0.6
"""Least width when candidates are looked for: one odd cell shall not hide a row."""
MAX_CELLS_AT_ONCE = 1_000_000
"""Cells of candidates that are compared at once: 4 MB an array."""


class Found(NamedTuple):
    """What remembered rows say of the asked ones.

    numbers : (B, Fn), levels : (B, Fc, L), of the rows that are copied by how likely they are, without the rest.
    shares : (B, F), how likely any row is copied, and with it the number; the rest is for others to say.
    variance : (B, Fn), of numbers that are copied, about what the copied rows say: as these differ, and as copies do.
    same, likely : (B, Fn), the number that the likeliest row has, and how likely it is to the last digit.
    """

    numbers: Tensor
    levels: Tensor
    shares: Tensor
    variance: Tensor
    same: Tensor
    likely: Tensor


class Copies(nn.Module):
    """Every row copies one of the remembered rows, or none; each cell of a copy is the copied one, but for a normal
    error of its column, or drawn anew from its column.

    With a probability of `copied` a number lies about that of the copied row, `width` standard deviations off, or is
    the very same with the share `equal`, and a level is the same. The rows that are likely to be copied by the visible
    cells tell the others. Before anything is seen, a row copies none with a probability of a half, and of `none` where
    it has a namesake: a column may say of whom rows are, and strangers have other names.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else how many levels have a probability; higher codes share that of
        the last one, and are told apart when rows are compared.

    Buffers: `values` (N, F), `observed` (N, F) of the remembered rows; `copied`, `width`, `equal` (F,); `exact` (F,),
    share of the copied numbers that are the very same, as far as that is told; `none` (); `knots` (Fn, K) of the
    numbers' densities; `frequency` (Fc, L).

    Source: rows as imperfect copies, Li and Stephens 2003, without an order of the columns; kernel densities
    as normal mixtures about the rows, widths by EM on rows left out, Duin 1976.

    >>> import torch
    >>> rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    >>> known = torch.ones(80, 6, dtype=torch.bool)
    >>> asked = known[:1].clone()
    >>> asked[0, 2] = False
    >>> found = Copies([0] * 6).fit(rows, known).predict(rows[:1], asked)
    >>> bool((found.numbers - found.shares * rows[:1])[0, 2].abs() < 0.01) and bool(found.shares[0, 2] > 0.98)
    True
    """

    values: Tensor
    observed: Tensor
    copied: Tensor
    width: Tensor
    equal: Tensor
    exact: Tensor
    none: Tensor
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
        self.register_buffer("equal", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("exact", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("none", torch.tensor(MOST_NONE, dtype=torch.float64))
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
        ValueError : a code is none of a level.
        """
        for j in self.categories:
            codes = self.values[:, j]
            if not ((codes >= 0) & codes.isfinite()).all():
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
        self.equal[[j for j in self.numbers if repeats(self.values[observed[:, j], j])]] = EQUAL_AT_FIRST
        remembered = self._remembered()
        n_copying = min(MAX_COPYING, len(self.values))
        own = torch.linspace(0, len(self.values) - 1, n_copying, device=self.values.device).round().long()
        for number in range(N_ROUNDS):
            if number and until():
                break
            parts = [
                self._counts(self.values[rows], self.observed[rows], rows, remembered)
                for rows in own.split(self._rows_at_once())
            ]
            counts, (none, n_told) = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
            compared, copied, same, squares = counts
            self.copied = ((copied + 1) / (compared + 2)).clamp(0.01, 0.99)
            self.equal = (same / (copied + 1)).clamp_max(MOST_EQUAL)
            self.width = ((squares + LEAST_WIDTH) / (copied - same + 1)).sqrt().clamp(LEAST_WIDTH, MOST_WIDTH)
            self.none = ((none + 1) / (n_told + 2)).clamp_max(MOST_NONE)
        self.exact = torch.where(self.equal > LEAST_EQUAL, self.equal, 0)
        for j in self.numbers:
            apart = spacing(self.values[self.observed[:, j], j])
            if apart > LEAST_WIDTH and self.width[j] <= max(LEAST_WIDTH, SURELY_APART * apart):
                self.exact[j] = 1.0
        return self

    def remember(self, values: Tensor, observed: Tensor) -> Self:
        """Let these rows be copied from now on, as they were learnt to be; parameters as in `fit`."""
        self.values, self.observed = self._cells(values, observed), observed.clone()
        for place, j in enumerate(self.categories):
            codes = self._codes(self.values, j)
            counts = torch.bincount(codes[observed[:, j]], minlength=self.frequency.shape[1]).double() + 0.5
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
        device, size, remembered = self.values.device, self._rows_at_once(), self._remembered()
        learnt = torch.zeros_like(visible) if learnt is None else learnt
        asked = self._cells(values, visible).to(device)
        chunks = [part.split(size) for part in (asked, visible.to(device), learnt.to(device))]
        told = partial(self._told, remembered=remembered)
        parts = shared_out(told, *chunks) if device.type == "cpu" else list(map(told, *chunks))
        return Found(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _cells(self, values: Tensor, observed: Tensor) -> Tensor:
        """Cells as they are compared, float32 (B, F): 0 where not observed."""
        cells = torch.where(observed, values, 0).float()
        cells[:, self.categories] = cells[:, self.categories].clamp_min(0)
        return cells

    def _codes(self, cells: Tensor, j: int) -> Tensor:
        """Codes of a category's cells (..., F) as they have a probability, higher ones that of the last."""
        return cells[..., j].long().clamp_max(self.n_levels[j] - 1)

    def _told(self, asked: Tensor, shown: Tensor, learnt: Tensor, remembered: Remembered) -> Found:
        near = self._candidates(asked, shown, remembered)
        known = self.observed[near]
        if learnt.any():
            alike = ((asked[:, None] == self.values[near]) & known | ~learnt[:, None]).all(2) & learnt.any(1)[:, None]
            known = known & ~(alike & (alike.cumsum(1) == 1))[:, :, None]
        as_copy, _ = self._as_copy(asked, near, remembered)
        evidence = self._evidence(as_copy, shown[:, None] & known).sum(2, keepdim=True).masked_fill(~known, -torch.inf)
        none = self._none((self._namesakes(asked, shown, near)[:, :, None] & known).any(1, keepdim=True))
        weight = torch.cat([evidence, none], 1).softmax(1)[:, :-1]
        # A number that is drawn anew is for others to say.
        weight[:, :, self.numbers] *= self.copied[self.numbers].float()
        cells, share = self.values[near], weight.sum(1)
        told = weight * cells
        sums, squares, copying = told.sum(1), (told * cells).sum(1), share.clamp_min(torch.finfo(share.dtype).tiny)
        apart = (squares / copying - (sums / copying).square()).clamp_min(0)
        numbers, variance = sums[:, self.numbers], (apart + self._error().float())[:, self.numbers]
        levels = asked.new_zeros(len(asked), *self.frequency.shape)
        for place, j in enumerate(self.categories):
            copied = float(self.copied[j])
            levels[:, place].scatter_add_(1, self._codes(cells, j), copied * weight[:, :, j])
            levels[:, place] += (1 - copied) * share[:, j, None] * self.frequency[place].float()
        same, likely = torch.zeros_like(numbers), torch.zeros_like(numbers)
        for place, j in enumerate(self.numbers):
            if self.exact[j] > 0:
                same[:, place], told_by = likeliest(weight[:, :, j], cells[:, :, j])
                likely[:, place] = told_by * self.exact[j].float()
        return Found(numbers, levels, share, variance, same, likely)

    def _counts(self, asked: Tensor, shown: Tensor, own: Tensor, remembered: Remembered) -> tuple[Tensor, Tensor]:
        """Cells compared, those copied, those of the very same value, the squares of the others' errors, by columns
        (4, F); with it, how many rows copy none, of those that have namesakes, and how many have (2,)."""
        near = self._candidates(asked, shown, remembered, own)
        both, (as_copy, as_same) = shown[:, None] & self.observed[near], self._as_copy(asked, near, remembered)
        evidence = self._evidence(as_copy, both).sum(2)
        weight = evidence.softmax(1)[:, :, None]
        compared = weight * both
        chance = as_copy + 1 - self.copied.float()
        copied, same = compared * (as_copy / chance), torch.zeros_like(compared)
        for j, likely in as_same.items():
            same[:, :, j] = compared[:, :, j] * (likely / chance[:, :, j])
        squares = (copied - same) * (asked[:, None] - self.values[near]).square()
        counts = torch.stack([part.sum((0, 1)) for part in (compared, copied, same, squares)]).double()
        told = self._namesakes(asked, shown, near).any(1)
        none = torch.sigmoid(self._none(told) - evidence.logsumexp(1))[told].sum()
        return counts, torch.stack([none, told.sum()]).double()

    def _error(self) -> Tensor:
        """Variance of copied numbers about those they are copied from, (F,)."""
        return (1 - self.equal) * self.width.square()

    def _namesakes(self, asked: Tensor, shown: Tensor, near: Tensor) -> Tensor:
        """Which candidates (B, K) have the name of the asked row: a column of many values that copies share is one.

        Where there are several such columns, none may speak against it.
        """
        same, other = torch.zeros_like(near, dtype=torch.bool), torch.zeros_like(near, dtype=torch.bool)
        for j, n_levels in enumerate(self.n_levels):
            shared = self.copied[j] * (1 if n_levels else self.equal[j])
            if shared > NAME and (n_levels == 0 or n_levels > MANY_LEVELS):
                both, equal = shown[:, j, None] & self.observed[near, j], asked[:, j, None] == self.values[near, j]
                same, other = same | (both & equal), other | (both & ~equal)
        return same & ~other

    def _none(self, has_namesake: Tensor) -> Tensor:
        """Nats by which rows copy none, beside 0 for each remembered row; of the shape of `has_namesake`."""
        return (math.log(len(self.values)) + torch.where(has_namesake, self.none, MOST_NONE).logit()).float()

    def _as_copy(self, asked: Tensor, near: Tensor, remembered: Remembered) -> tuple[Tensor, dict[int, Tensor]]:
        """How likely each cell is as a copy of the candidate's (B, K), beside what it is drawn anew; (B, K, F).

        With it, how much of that (B, K) is of the very same value, for columns where that is told.
        """
        gap = asked[:, None] - self.values[near]
        copied, width = self.copied.float(), self.width[self.numbers].float()
        anew = _log_normal(asked[:, self.numbers, None] - self.knots.float(), self._spread()).logsumexp(2)
        near_by = torch.log(self.copied * (1 - self.equal)).float()[self.numbers]
        base = near_by - width.log() - anew + math.log(N_KNOTS)
        if self.categories:
            as_copy, gaps = torch.empty_like(gap), gap[:, :, self.numbers]
            as_copy[:, :, self.numbers] = (base[:, None] - 0.5 * (gaps / width).square()).clamp_max(MOST_NATS).exp()
        else:
            as_copy = (base[:, None] - 0.5 * (gap / width).square()).clamp_max(MOST_NATS).exp()
        for place, j in enumerate(self.categories):
            frequency = self._frequency(asked, place, j, remembered)
            as_copy[:, :, j] = (gap[:, :, j] == 0) * (copied[j] / frequency[:, None])
        as_same = {}
        for j in remembered.ties.keys() - set(self.categories):
            likely = (self.copied[j] * self.equal[j]).float() / remembered.ties[j].frequency(asked[:, j])
            as_same[j] = (gap[:, :, j] == 0) * likely[:, None]
            as_copy[:, :, j] += as_same[j]
        return as_copy, as_same

    def _frequency(self, asked: Tensor, place: int, j: int, remembered: Remembered) -> Tensor:
        """How frequent the asked codes (B,) of a category are, those that share a probability each for itself."""
        codes = self._codes(asked, j)
        frequency = self.frequency[place].float()[codes]
        if j not in remembered.ties:
            return frequency
        return torch.where(codes < self.n_levels[j] - 1, frequency, remembered.ties[j].frequency(asked[:, j]))

    def _evidence(self, as_copy: Tensor, both: Tensor) -> Tensor:
        """By how many nats each cell that both rows have speaks for a copy; 0 for others, (B, K, F)."""
        return torch.where(both, (as_copy + (1 - self.copied.float())).log(), 0.0)

    def _candidates(self, asked: Tensor, shown: Tensor, remembered: Remembered, own: Tensor | None = None) -> Tensor:
        """Positions (B, K) of the remembered rows that are likeliest to be copied, without the rows' `own` (B,).

        A product of matrices: squares of gaps, and what every column that both rows have, and every equal level, tells;
        and what equal values tell that few rows share.
        """
        scale, bonus = self._coarse()
        cells, seen = asked[:, self.numbers].double(), shown[:, self.numbers].double()
        parts = [cells.square() * scale - seen * bonus, seen * scale, -2 * cells * scale]
        for place, j in enumerate(self.categories):
            told = (self.copied[j] / self.frequency[place, : self.n_levels[j]] + 1 - self.copied[j]).log()
            other, known = (1 - self.copied[j]).log(), shown[:, j, None]
            if j in remembered.ties:
                told[-1] = other
            level = F.one_hot(self._codes(asked, j), self.n_levels[j])
            parts += [level * known * (other - told), known * -other]
        distance = torch.cat(parts, 1).float() @ remembered.table
        for j, ties in remembered.ties.items():
            copied, told = self.copied[j], shown[:, j]
            same, anew = copied * self.equal[j], 1 - copied
            if self.n_levels[j]:  # what differs has lost as much by the product
                told, same, anew = told & (asked[:, j] >= self.n_levels[j] - 1), copied / anew, torch.ones_like(anew)
            ties.draw_near(distance, asked[:, j], told, same, anew)
        n_near = min(N_CANDIDATES, len(self.values))
        if own is not None:
            distance[torch.arange(len(own), device=own.device), own] = torch.inf
            n_near = min(n_near, len(self.values) - 1)
        return nearest(distance, n_near)

    def _remembered(self) -> Remembered:
        """The remembered rows as they are compared."""
        repeated = [j for j in self.numbers if self.equal[j] > LEAST_EQUAL]
        shared = [j for j in self.categories if (self.values[:, j] >= self.n_levels[j]).any()]
        ties = {j: Ties.of(self.values[:, j], self.observed[:, j]) for j in repeated + shared}
        return Remembered(self._table(), ties)

    def _table(self) -> Tensor:
        """The remembered rows as candidates are looked for among them, float32 (E, N)."""
        cells, known = self.values[:, self.numbers], self.observed[:, self.numbers]
        parts = [known, cells.square(), cells]
        for j in self.categories:
            known = self.observed[:, j, None]
            parts += [F.one_hot(self._codes(self.values, j), self.n_levels[j]) * known, known]
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


def _log_normal(gap: Tensor, width: Tensor) -> Tensor:
    """Log density of normal errors, but for its constant."""
    return -0.5 * (gap / width).square() - width.log()
