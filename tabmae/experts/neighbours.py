"""How far a row lies from the rows of fit: the mean distance to its nearest ones, in three scalings of the numbers,
as it is, or measured by how far those lie from theirs.

Contract: a missing cell is never compared; a row's distances depend on that row and the rows of fit alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALINGS = ("standard", "log", "rank")
N_NEIGHBOURS = 5
N_CANDIDATES = 16
"""Rows nearest by a fast product in single precision, whose distances are then taken exactly."""
MAX_REMEMBERED = 10_000
"""Rows that new ones are compared with; more are thinned to a sample at equal steps."""
MAX_KNOTS = 257
"""Quantiles of a column that its normal scores are interpolated between."""
MAX_LEVELS = 64
"""Levels of a category by which near rows are looked for; rarer and unseen ones are like no other until then."""
MAX_CHUNK_CELLS = 1_000_000
"""Distances, or cells of the candidates, that are held at once: 8 MB; four times as many take three times as long."""
USUAL_SPACING = 0.5
"""Share of the median spacing that is added to that of every place: copies of rows have none of their own."""
ROUNDING = 1e-9
"""Gaps that rounding may make, in standard deviations."""
CANCELLED = 1e-12
"""Share of two squared lengths that rounding may leave of the squared distance of equal rows."""


class Neighbours(nn.Module):
    """Distances to the nearest remembered rows.

    Numbers are compared on three scales: in standard deviations, by sign(z) log(1 + abs(z)), where far cells count
    little, and by their normal scores, where every column is spread alike, linear beyond the range of fit. Two levels
    of a category are as far apart as two numbers are typically. A distance is the root of the sum of squares over the
    columns that both rows have, times the number of columns over theirs. A new row has its observed cells; a remembered
    one may have been completed, since the nearest of many rows with holes would be those with the least to compare.

    A relative distance is the geometric mean of the distance and of its ratio to the spacing about there, the mean
    spacing of the nearest rows, of which each is the mean distance of a row to its own nearest, and half of the median
    (`USUAL_SPACING`): a row between two dense groups is odder than one as far out in a thin one, but the far one stays
    odd. There a column that a new row lacks is taken to be as far as is usual about there, not as far as the others:
    few cells are little evidence.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels (codes by falling frequency). Any
        higher code is a level unseen in fit.

    Buffers: `values` (N, F) of the remembered rows, `observed` (N, F), which cells they had, and `comparable` (N, F),
    with those that were completed; `spacing` (3, N) of these rows on each scale, NaN where it does not count;
    `location` and `scale` (Fn,), `knots` and `scores` (Fn, K) of the numbers; `spread`
    (3,), root mean square of the numbers on each scale.

    Source: distance to the nearest neighbours as a score, Ramaswamy et al. 2000; its mean, Angiulli and Pizzuti 2002;
    its ratio to that of the neighbours, Breunig et al. 2000 (LOF).
    Differs: one row that equals the new one in every cell is taken to be the row itself, so that rows of fit get their
    leave-one-out distance; the ratio counts half.

    >>> import torch
    >>> rows = torch.linspace(-1, 1, 21)[:, None]
    >>> expert = Neighbours([0]).fit(rows, torch.ones(21, 1, dtype=torch.bool))
    >>> near, far = expert.distances(torch.tensor([[0.02], [3.0]]), torch.ones(2, 1, dtype=torch.bool))
    >>> bool((far > 5 * near).all())
    True
    """

    values: Tensor
    observed: Tensor
    comparable: Tensor
    spacing: Tensor
    location: Tensor
    scale: Tensor
    knots: Tensor
    scores: Tensor
    spread: Tensor

    def __init__(self, n_levels: Sequence[int]) -> None:
        super().__init__()
        self.n_levels = tuple(n_levels)
        self.numbers = [j for j, n in enumerate(n_levels) if n == 0]
        self.categories = [j for j, n in enumerate(n_levels) if n > 0]
        n_numbers = len(self.numbers)
        self.register_buffer("values", torch.zeros(0, len(self.n_levels)))
        self.register_buffer("observed", torch.zeros(0, len(self.n_levels), dtype=torch.bool))
        self.register_buffer("comparable", torch.zeros(0, len(self.n_levels), dtype=torch.bool))
        self.register_buffer("spacing", torch.zeros(len(SCALINGS), 0))
        self.register_buffer("location", torch.zeros(n_numbers, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_numbers, dtype=torch.float64))
        self.register_buffer("knots", torch.zeros(n_numbers, MAX_KNOTS, dtype=torch.float64))
        self.register_buffer("scores", torch.zeros(n_numbers, MAX_KNOTS, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(len(SCALINGS), dtype=torch.float64))

    def fit(self, values: Tensor, observed: Tensor, completed: Tensor | None = None) -> Neighbours:
        """Learn the scales of the columns from rows, and remember these.

        Parameters
        ----------
        values : (n, F), numbers on any scale, categories as codes; anything where not observed.
        observed : bool (n, F).
        completed : (n, F), the same rows without holes; None leaves holes out of comparisons.

        Returns
        -------
        self
        """
        return self.learn_scales(values, observed).remember(values, observed, completed).learn_spacing()

    def learn_scales(self, values: Tensor, observed: Tensor) -> Neighbours:
        """Learn the scales of the columns from rows; parameters as in fit."""
        device = self.location.device
        values, observed = values.to(device), observed.to(device)
        for place, j in enumerate(self.numbers):
            known = values[observed[:, j], j].double()
            if not len(known):
                continue
            scale = known.std(correction=0)
            self.location[place], self.scale[place] = known.mean(), scale if scale > 1e-6 else 1.0
            self.knots[place], self.scores[place] = _normal_scores((known - self.location[place]) / self.scale[place])
        shown = observed[:, self.numbers]
        for number, scaling in enumerate(SCALINGS):
            squares = torch.where(shown, self.scaled(values, scaling).square(), 0).sum()
            self.spread[number] = (squares / shown.sum()).sqrt() if squares > 0 else 1.0
        return self

    def remember(self, values: Tensor, observed: Tensor, completed: Tensor | None = None) -> Neighbours:
        """Compare new rows with these from now on, on the scales of fit, and without a spacing; parameters as there."""
        step = max(1, -(-len(values) // MAX_REMEMBERED))
        device = self.location.device
        self.observed = observed[::step].clone().to(device)
        self.comparable = self.observed.clone() if completed is None else torch.ones_like(self.observed)
        holes = torch.zeros_like(values) if completed is None else completed
        self.values = torch.where(observed, values, holes)[::step].float().to(device)
        self.spacing = self.values.new_full((len(SCALINGS), len(self.values)), torch.nan)
        return self

    def learn_spacing(self, learnt: Tensor | None = None) -> Neighbours:
        """Learn how far the remembered rows lie from each other, which relative distances are measured by.

        Parameters
        ----------
        learnt : bool (n,), which of the rows given to `remember` count, which is among themselves; None for all.
        """
        step = 1 if learnt is None else max(1, -(-len(learnt) // MAX_REMEMBERED))
        counted = torch.ones(len(self.values), dtype=torch.bool) if learnt is None else learnt[::step]
        places = torch.nonzero(counted)[:, 0].to(self.location.device)
        of_rows = {name: getattr(self, name)[places] for name in ("values", "observed", "comparable")}
        state = {**self.state_dict(), **of_rows, "spacing": self.spacing[:, places]}
        among = Neighbours.restored(self.n_levels, state).to(self.location.device)
        self.spacing[:, places] = among.distances(among.values, among.observed).T
        return self

    @classmethod
    def restored(cls, n_levels: Sequence[int], buffers: dict[str, Tensor]) -> Neighbours:
        """Neighbours from the buffers that were saved."""
        neighbours = cls(n_levels)
        for name in ("values", "observed", "comparable", "spacing"):
            setattr(neighbours, name, torch.zeros_like(buffers[name]))
        neighbours.load_state_dict(buffers)
        return neighbours

    def distances(
        self, values: Tensor, observed: Tensor, scalings: Sequence[str] = SCALINGS, n_equal: int = 1
    ) -> Tensor:
        """Mean distance to the nearest remembered rows on each scale.

        Parameters
        ----------
        values : (B, F), as in fit. observed : bool (B, F).
        scalings : S names out of `SCALINGS`.
        n_equal : remembered rows that are left out at most since they equal the row in every cell.

        Returns
        -------
        distances : float32 (B, S); NaN for rows that share no observed column with any
            remembered row. Single precision rounds off what the other rows of a batch do to the last digits.
        """
        return self._measured(values, observed, scalings, n_equal)[0].float()

    def relative_distances(
        self, values: Tensor, observed: Tensor, scalings: Sequence[str] = SCALINGS, n_equal: int = 1
    ) -> Tensor:
        """As `distances`, holes as far as is usual, over the root of the spacing about there, in roots of the unit."""
        distance, spacing = self._measured(values, observed, scalings, n_equal)
        median = torch.tensor([self._median_spacing(scaling) for scaling in scalings]).to(distance)
        spacing = torch.where(spacing.isnan(), median, spacing)
        share = observed.double().mean(1, keepdim=True).to(distance.device)
        squares = share * distance.square() + (1 - share) * spacing.square()
        return (squares.sqrt() / (spacing + USUAL_SPACING * median).sqrt()).float()

    def _measured(
        self, values: Tensor, observed: Tensor, scalings: Sequence[str], n_equal: int
    ) -> tuple[Tensor, Tensor]:
        """Distance and spacing (NaN where there is none) of rows on each scale, float64 (B, S) each; parameters as in
        `distances`."""
        values, observed = values.to(self.values), observed.to(self.observed.device)
        distance = values.new_full((len(values), len(scalings)), torch.nan, dtype=torch.float64)
        spacing = distance.clone()
        n_cells = sum(n_indicators(n) for n in self.n_levels)
        n_near = min(N_CANDIDATES, len(self.values))
        chunk = max(1, MAX_CHUNK_CELLS // max(len(self.values), n_near * n_cells))
        for number, scaling in enumerate(scalings):
            remembered = self._expanded(self.values, self.comparable, scaling)
            scaled = self.scaled(self.values, scaling)
            of_columns = self._of_columns(self.comparable)
            place = SCALINGS.index(scaling)
            for start in range(0, len(values), chunk):
                rows, shown = values[start : start + chunk], observed[start : start + chunk]
                cells, seen = self._expanded(rows, shown, scaling, asked=True), self._of_columns(shown)
                nearest = self._nearest(cells, shown, seen, remembered, of_columns, n_near)
                gaps = self.scaled(rows, scaling)[:, None] - scaled[nearest]
                ordered, order, first = self._in_order(rows, shown, gaps, nearest, float(self.spread[place]), n_equal)
                after = torch.arange(n_near, device=first.device) >= first[:, None]
                counted = first_of(after & ordered.isfinite())
                distance[start : start + chunk, number] = mean_of(ordered, counted)
                of_nearest = self.spacing[place][nearest.gather(1, order)].double()
                counted = first_of(after & ordered.isfinite() & of_nearest.isfinite())
                spacing[start : start + chunk, number] = mean_of(of_nearest, counted)
        return distance, spacing

    def _median_spacing(self, scaling: str) -> float:
        """Median spacing of the remembered rows that have any; 1 without."""
        known = self.spacing[SCALINGS.index(scaling)].double()
        known = known[known > 0]
        return float(known.median()) if len(known) else 1.0

    def scaled(self, values: Tensor, scaling: str) -> Tensor:
        """The numbers (B, Fn) of cells on a scale."""
        standard = (values[:, self.numbers].double() - self.location) / self.scale
        if scaling == "log":
            return standard.sign() * standard.abs().log1p()
        if scaling == "rank" and self.numbers:
            return _interpolated(standard, self.knots, self.scores)
        return standard

    def _expanded(self, values: Tensor, observed: Tensor, scaling: str, asked: bool = False) -> Tensor:
        """Cells as near rows are looked for on a scale, float64 (B, E), 0 where not observed.

        A rare level of a row that is `asked` for is never that of a remembered row.
        """
        parts = [self.scaled(values, scaling) * observed[:, self.numbers]]
        for j in self.categories:
            width, codes = n_indicators(self.n_levels[j]), values[:, j].long().clamp_min(0)
            levels = F.one_hot(torch.where(codes < width - 2, codes, width - 1 - int(asked)), width)
            parts.append(levels * observed[:, j, None] * self.spread[SCALINGS.index(scaling)])
        return torch.cat(parts, 1)

    def _of_columns(self, observed: Tensor) -> Tensor:
        """Which of the compared cells are observed, bool (B, E)."""
        parts = [observed[:, self.numbers]]
        parts += [observed[:, j, None].expand(-1, n_indicators(self.n_levels[j])) for j in self.categories]
        return torch.cat(parts, 1)

    def _nearest(
        self, cells: Tensor, shown: Tensor, seen: Tensor, remembered: Tensor, of_columns: Tensor, n_near: int
    ) -> Tensor:
        """Positions (B, n_near) of the remembered rows that are nearest, but for rounding; of equals, the first."""
        whole, kept = bool(self.comparable.all()), 1 - CANCELLED
        own = cells.square().sum(1, keepdim=True) if whole else cells.square() @ of_columns.double().T
        squares = (seen.double() @ remembered.square().T).mul_(kept).add_(own, alpha=kept)
        squares.addmm_(cells, remembered.T, alpha=-2).clamp_(min=0)
        if not whole:
            shared = shown.double() @ self.comparable.double().T
            squares = torch.where(shared > 0, squares / shared, torch.inf)
        # the bits of a number that is not negative grow with it; whatever rounding a batch did is beyond them
        rank = squares.float().view(torch.int32).long().mul_(len(remembered))
        rank += torch.arange(len(remembered), device=rank.device)
        return rank.topk(n_near, dim=1, largest=False).values % len(remembered)

    def _in_order(
        self, rows: Tensor, shown: Tensor, gaps: Tensor, nearest: Tensor, spread: float, n_equal: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Exact distances (B, K) to the candidates from near to far, their order, and how many are the row itself.

        Parameters
        ----------
        gaps : (B, K, Fn), between numbers on a scale. spread : of two levels, over the root of 2.
        """
        both = shown[:, None] & self.comparable[nearest]
        differs = rows[:, None, self.categories] != self.values[nearest][:, :, self.categories]
        squares = (gaps.square() * (both[:, :, self.numbers] & (gaps.abs() > ROUNDING))).sum(2)
        squares = squares + 2 * spread**2 * (differs & both[:, :, self.categories]).sum(2)
        squares = squares * shown.shape[1] / both.sum(2)
        is_self = (squares == 0) & (self.observed[nearest] == shown[:, None]).all(2)
        ordered, order = torch.where(both.any(2), squares, torch.inf).sqrt().float().sort(dim=1, stable=True)
        return ordered.double(), order, is_self.sum(1).clamp_max(n_equal)


def first_of(usable: Tensor) -> Tensor:
    """The first `N_NEIGHBOURS` of the usable candidates (B, K) of each row."""
    return usable & (usable.cumsum(1) <= N_NEIGHBOURS)


def mean_of(measured: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted ones of (B, K), NaN without any; (B,)."""
    return torch.where(counted, measured, 0).sum(1) / counted.sum(1)


def n_indicators(n_levels: int) -> int:
    """How many columns a column is looked for by: 1 for a number, else one a level and two for all that are rare."""
    return min(n_levels, MAX_LEVELS) + 2 if n_levels else 1


def _normal_scores(known: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles (K,) of a column and the normal scores of their mean ranks; the last ones repeated up to K."""
    ordered = known.sort().values
    position = torch.linspace(0, len(ordered) - 1, MAX_KNOTS, device=known.device).round().long()
    knots = ordered[position].unique()
    below, above = (torch.searchsorted(ordered, knots, right=right) for right in (False, True))
    share = (below + above) / (2 * len(ordered))
    scores = torch.special.ndtri(share)
    padding = MAX_KNOTS - len(knots)
    return F.pad(knots, (0, padding), value=float(knots[-1])), F.pad(scores, (0, padding), value=float(scores[-1]))


def _interpolated(standard: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """Normal scores of numbers (B, Fn), linear between the knots, and beyond them one a standard deviation."""
    place = torch.searchsorted(knots, standard.T.contiguous()).clamp(1, MAX_KNOTS - 1)
    low, high = torch.gather(knots, 1, place - 1), torch.gather(knots, 1, place)
    share = ((standard.T - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    left, right = torch.gather(scores, 1, place - 1), torch.gather(scores, 1, place)
    beyond = (standard.T - knots[:, -1:]).clamp_min(0) + (standard.T - knots[:, :1]).clamp_max(0)
    return (left + share * (right - left) + beyond).T
