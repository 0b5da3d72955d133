"""Sharp relations between columns, such as a total of its parts, and numbers that are off them.

Contract: a missing cell tells nothing, and is not read. How far off numbers usually are is learnt from rows by a
Gaussian that did not see them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from tabmae.calibration import TAIL
from tabmae.estimators.detector.completion import MAX_COLUMNS, expanded, shown_levels
from tabmae.estimators.detector.linear import rows_of_equal_holes
from tabmae.estimators.detector.network import NORMAL_MEDIAN, Cells
from tabmae.estimators.detector.slips import FARTHEST_VISIBLE, without_slips
from tabmae.experts.gaussian import SHRINKAGES, Gaussian
from tabmae.saving import part_of
from tabmae.schema import Column

SUMS, PROPORTIONS = RELATIONS = ("relations", "proportions")
"""Members that tell of rows that break a relation, and of no others."""
MAX_ROWS = 2_000
"""Rows that say how columns go together, and how far off they are."""
LEAST_ROWS = 10
"""Rows of either half, and observed cells of a column, with which they do."""
ROWS_A_COLUMN = 5
"""Rows without holes a column, with which these are learnt from alone: exact relations come late to EM."""
SHARP_SHRINKAGE = 1e-6
"""Share of the Gaussian's prior."""
SHARP = 0.05
"""Error of most numbers, in what these lie apart, up to which their relation is sharp: a few that are off it by far are
wrong. Elsewhere these are the tail of errors, which a row that is as far off may belong to."""
USUAL_ROWS = 5.0
"""How many rows one is among whose farthest number is farther off than is usual: any other tells nothing."""
RARE_ROWS = 100.0
"""The same for a number that explains why its row is odd: a normal one would be blamed for another's fault."""
WEIGHT = 2.0
"""How far what is told counts: as that of the two members that find a row oddest."""
LEAST_ERROR = 0.1
"""Conditional standard deviations, of which the prior lets none be under a thousandth of the column's, up to which a
number is never off: cells are read in single precision."""
ROUNDING = 1e-6
"""Share of a row's farthest cell by which rounding may put the others off, and a zero from its place."""
LEAST_DEVIATION = 1e-6
"""Standard deviations beyond which a column of some rows is not one value."""
LEAST_SHARE = 0.1
"""Share of the least number of a positive column below which another has no logarithm: it is next to zero."""
LEAST_SLOPE = 0.2
"""Growth of an error's logarithm for one nat, at least: that of a normal's tail, about."""
UNSURE = 3.0
"""Conditional standard deviations, of those that missing cells add, that are not off: as far as the tail of a skewed
column may be, where the errors of rows without holes say nothing of them."""
MAX_PRODUCTS = 4_000_000
"""Products that are summed at once: 32 MB."""


class Residuals:
    """What a Gaussian leaves unexplained of each number, given the other cells of its row, on one scale.

    Its covariance is not moved towards its diagonal: what a relation leaves of a number may be a thousandth of a
    standard deviation, and more where a part of it is missing. The tail of a column's errors is one of a power law,
    whose steepness is the column's own.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.
    zero, least : float64 (F,), of columns on a logarithmic scale, in standard deviations: the number 0, and the
        distance from it below which a cell has no logarithm, and counts as missing; NaN for others.

    Attributes
    ----------
    centre, deviation : float64 (F,), of the numbers on their scale.
    floor : float64 (F,), error below which a number is not off. start, slope : where the tail of the logarithms of
        the errors begins, infinite where they are too few, and their growth for one nat.

    Source: slope of the tail, Hill 1975; errors given the other cells, Rasmussen and Williams 2006, equation 5.12.
    """

    LEARNT = ("zero", "least", "centre", "deviation", "floor", "start", "slope")

    def __init__(self, n_levels: Sequence[int], zero: Tensor, least: Tensor) -> None:
        self.n_levels, self.n_shown = tuple(n_levels), shown_levels(n_levels)
        self.is_number = torch.tensor([n == 0 for n in n_levels])
        self.places = torch.tensor([0, *(n or 1 for n in self.n_shown)]).cumsum(0)[:-1]
        self.zero, self.least = zero, least
        self.centre, self.deviation, self.floor, self.start, self.slope = (torch.ones_like(zero) for _ in range(5))
        self.gaussian = Gaussian(sum(n or 1 for n in self.n_shown))

    def fit(self, values: Tensor, observed: Tensor) -> Self:
        """Learn from the observed cells of rows (n, F), each half judged by a Gaussian of the other."""
        observed = self._on_scale(values, observed)
        self.centre, self.deviation = torch.zeros_like(self.zero), torch.ones_like(self.zero)
        numbers, shown = self._scaled(values), observed & self.is_number
        usual = torch.where(shown, without_slips(numbers, observed, self.n_levels), torch.nan)
        self.centre = usual.nanmean(0).nan_to_num(0)
        deviation = (usual - self.centre).square().nanmean(0).sqrt().nan_to_num(0)
        self.deviation = torch.where(deviation > LEAST_DEVIATION, deviation, 1.0)
        near = ~(shown & (((numbers - self.centre) / self.deviation).abs() > FARTHEST_VISIBLE)).any(1)
        half = torch.randperm(len(values), generator=torch.Generator().manual_seed(0)) % 2 == 0
        cells, known = self._expanded(values, observed)
        errors = torch.full(values.shape, torch.nan, dtype=torch.float64)
        for judged in (half, ~half):
            learnt = ~judged & near
            if learnt.sum() < LEAST_ROWS:
                self.start = torch.full_like(self.zero, torch.inf)
                return self
            self._learn_relations(cells[learnt], known[learnt])
            errors[judged] = self._errors(values[judged], observed[judged])
        self._learn_relations(cells[near], known[near])
        self._learn_tails(errors, torch.where(shown, (numbers - self.centre) / self.deviation, torch.nan))
        return self

    def _learn_relations(self, cells: Tensor, known: Tensor) -> None:
        """Fit the Gaussian to cells (n, E): of the rows without holes, where these are enough to say what is exact."""
        whole = known.all(1)
        if whole.sum() < ROWS_A_COLUMN * cells.shape[1]:
            self.gaussian.fit(cells, known, shrinkage=SHRINKAGES[0])
            self.gaussian.fit(cells, known, shrinkage=SHARP_SHRINKAGE, warm_start=True)
        else:
            self.gaussian.fit(cells[whole], known[whole], shrinkage=SHARP_SHRINKAGE)

    def _learn_tails(self, errors: Tensor, numbers: Tensor) -> None:
        """Learn how far off numbers usually are from their errors (n, F), and whether that is little beside how far the
        numbers (n, F) themselves lie apart; NaN where there is none."""
        usual = errors.nanmedian(0).values.nan_to_num(0) / NORMAL_MEDIAN
        self.floor = usual.clamp_min(LEAST_ERROR)
        logs = errors.maximum(self.floor).log()
        start = logs.nanquantile(1 - TAIL, 0)
        beyond = (logs - start).clamp_min(0)
        apart = (numbers - numbers.nanmedian(0).values).abs().nanquantile(1 - TAIL, 0)
        is_sharp = start.exp() * self.gaussian.precision.diagonal()[self.places].rsqrt() < SHARP * apart
        n_known = (~errors.isnan()).sum(0)
        share = torch.where(is_sharp, TAIL, (beyond > 0).sum(0) / n_known.clamp_min(1))
        self.slope = (beyond.nanmean(0) / share).nan_to_num(0).clamp_min(LEAST_SLOPE)
        self.start = torch.where(n_known < 2 * LEAST_ROWS, torch.inf, start)

    def nats(self, values: Tensor, observed: Tensor) -> Tensor:
        """Minus the log of the share of usual errors that are as large as those of rows (B, F), where these are large;
        float64 (B, F), 0 where a cell is missing, no number or not off."""
        unsure = (UNSURE / self.start.exp()).clamp_min(1)
        logs = self._errors(values, observed, unsure).maximum(self.floor).log()
        return ((logs - self.start) / self.slope - math.log(TAIL)).clamp_min(0).nan_to_num(0, posinf=0)

    def _on_scale(self, values: Tensor, observed: Tensor) -> Tensor:
        """Which observed cells of rows (B, F) lie on the scale."""
        return observed & ~(values - self.zero < self.least)

    def _scaled(self, values: Tensor) -> Tensor:
        """Numbers of rows (B, F) on their scale, levels as they are; float64."""
        exact = values.double()
        logs = (exact - self.zero).maximum(self.least).log()
        numbers = (torch.where(self.zero.isnan(), exact, logs) - self.centre) / self.deviation
        return torch.where(self.is_number, numbers, exact)

    def _expanded(self, values: Tensor, observed: Tensor) -> Cells:
        return expanded(self._scaled(torch.where(observed, values, 0)), observed, self.n_shown)

    def _errors(self, values: Tensor, observed: Tensor, unsure: Tensor | None = None) -> Tensor:
        """How far each number of rows (B, F) is from its mean given the other cells, in conditional standard
        deviations; NaN for other cells.

        What missing cells add to these counts `unsure` times (F,): a number that its row tells exactly may be off by a
        tenth of one at most, which the prior makes large, and by several where a part is missing.
        """
        observed = self._on_scale(values, observed)
        cells, known = self._expanded(values, observed)
        added = torch.zeros(cells.shape[1], dtype=torch.float64)
        added[self.places] = 0 if unsure is None else unsure.square() - 1
        centred, errors = cells - self.gaussian.mean, torch.zeros_like(cells)
        farthest = torch.where(known, cells.abs(), 0).amax(1, keepdim=True)
        for rows, shown in rows_of_equal_holes(known):
            seen, precision = torch.nonzero(shown)[:, 0], self._precision(shown)
            sharpness = precision.diagonal().sqrt()
            blurred = (1 - precision.diagonal() / self.gaussian.precision.diagonal()[seen]).clamp_min(0)
            wider = (1 + added[seen] * blurred).sqrt()
            for some in rows.split(max(1, MAX_PRODUCTS // max(1, len(seen)) ** 2)):
                # summed row by row: a matrix product's last digits depend on how many rows there are
                pull = (centred[some][:, None, seen] * precision).sum(2)
                rounding = ROUNDING * farthest[some] * sharpness
                errors[some[:, None], seen] = ((pull / sharpness).abs() - rounding).clamp_min(0) / wider
        return torch.where(observed & self.is_number, errors[:, self.places], torch.nan)

    def _precision(self, shown: Tensor) -> Tensor:
        """Inverse covariance of the shown cells (E,); where few are missing from that of all, as less is to solve."""
        whole, seen, gone = self.gaussian.precision, torch.nonzero(shown)[:, 0], torch.nonzero(~shown)[:, 0]
        if len(gone) > len(seen):
            return torch.linalg.inv(self.gaussian.covariance[seen][:, seen])
        between = whole[gone][:, seen]
        return whole[seen][:, seen] - between.T @ torch.linalg.solve(whole[gone][:, gone], between)


class Relations:
    """Sharp relations between the numbers of a table as they are, and between logarithms: sums and proportions.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.

    Attributes
    ----------
    scales : by the names of members. A table that is too wide has none, one without positive numbers no logarithms.
    """

    def __init__(self, n_levels: Sequence[int]) -> None:
        self.n_levels = tuple(n_levels)
        self.scales: dict[str, Residuals] = {}

    @classmethod
    def fit(cls, learnt: Cells, columns: Sequence[Column], n_levels: Sequence[int]) -> Self:
        """Learn from the observed cells of rows (n, F) of columns."""
        relations = cls(n_levels)
        step = max(1, -(-len(learnt[0]) // MAX_ROWS))
        values, observed = (part[::step] for part in learnt)
        if sum(n or 1 for n in shown_levels(n_levels)) > MAX_COLUMNS:
            return relations
        as_they_are = torch.full((len(n_levels),), torch.nan, dtype=torch.float64)
        logarithms = ends_of_logarithms(values, observed, columns)
        relations.scales[SUMS] = Residuals(n_levels, as_they_are, as_they_are).fit(values, observed)
        if not logarithms[0].isnan().all():
            relations.scales[PROPORTIONS] = Residuals(n_levels, *logarithms).fit(values, observed)
        return relations

    def evidence(self, values: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Evidence against rows (B, F) by member, in nats: of the number that is farthest off; float64 (B,)."""
        nothing = torch.zeros(len(values), dtype=torch.float64)
        found = dict.fromkeys(RELATIONS, nothing)
        for name, scale in self.scales.items():
            # single precision rounds off what the other rows of a batch may do to the last digits
            found[name] = WEIGHT * self._beyond(USUAL_ROWS, scale, values, observed).amax(1).float().double()
        return found

    def surprise(self, values: Tensor, observed: Tensor, wanted: Tensor | None = None) -> Tensor:
        """By how many nats each wanted number of rows (B, F), or each observed one, breaks a relation; float64 (B, F),
        0 where it breaks none."""
        found = torch.zeros(values.shape, dtype=torch.float64)
        for scale in self.scales.values():
            found = found.maximum(self._beyond(RARE_ROWS, scale, values, observed))
        return torch.where(observed if wanted is None else wanted, found, 0)

    def _beyond(self, n_rows: float, scale: Residuals, values: Tensor, observed: Tensor) -> Tensor:
        """How much farther off each number of rows (B, F) is than the farthest one of all but one of `n_rows` rows, in
        nats; float64 (B, F)."""
        usual = math.log(n_rows * max(1, self.n_levels.count(0)))
        return (scale.nats(values, observed) - usual).clamp_min(0)

    def state(self) -> dict[str, Tensor]:
        """What `restored` needs."""
        tensors: dict[str, Tensor] = {}
        for name, scale in self.scales.items():
            tensors |= {f"{name}.{part}": getattr(scale, part) for part in Residuals.LEARNT}
            tensors |= {f"{name}.gaussian.{part}": tensor for part, tensor in scale.gaussian.state_dict().items()}
        return tensors

    @classmethod
    def restored(cls, n_levels: Sequence[int], tensors: dict[str, Tensor]) -> Self:
        """Fitted ones from their state."""
        relations = cls(n_levels)
        for name in RELATIONS:
            own = part_of(tensors, f"{name}.")
            if own:
                scale = relations.scales[name] = Residuals(n_levels, own["zero"], own["least"])
                for part in Residuals.LEARNT:
                    setattr(scale, part, own[part])
                scale.gaussian.load_state_dict(part_of(own, "gaussian."))
        return relations


def ends_of_logarithms(values: Tensor, observed: Tensor, columns: Sequence[Column]) -> Cells:
    """Where the number 0 lies, and how far from it a number has a logarithm, in standard deviations, float64 (F,) each.

    NaN where a column of rows (n, F) is not of positive numbers or durations.
    """
    zero = torch.full((len(columns),), torch.nan, dtype=torch.float64)
    for j, column in enumerate(columns):
        if column.kind == "number" and column.family in ("number", "duration") and not column.constant:
            zero[j] = column.zero
    lowest = torch.where(observed, values.double() - zero, torch.inf).amin(0)
    is_positive = lowest.isfinite() & (lowest > ROUNDING * zero.abs().clamp_min(1))
    return torch.where(is_positive, zero, torch.nan), torch.where(is_positive, LEAST_SHARE * lowest, torch.nan)
