"""Conditional forests: how surprising each cell of a row is to trees that predict its column from the others.

Contract: as of the network's: a missing cell surprises nobody, and is not read; what it leaves unsure of the others is
no surprise. What is usual is learnt from rows by trees that did not see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Self

import torch
from torch import Tensor

from tabmae.deadline import NEVER, Deadline
from tabmae.estimators.detector.completion import MAX_COLUMNS, Completion, expanded, shown_levels
from tabmae.estimators.detector.donors import Donors
from tabmae.estimators.detector.levels import all_levels, learnt_levels, strange_cells
from tabmae.estimators.detector.network import (
    BACKGROUND,
    LEAST_SPREAD,
    NORMAL_MEDIAN,
    ROUNDING,
    SMOOTHING,
    STRANGE,
    Cells,
    mean_of_rows,
    surprise_of,
)
from tabmae.estimators.detector.skill import explained_share
from tabmae.estimators.detector.slips import bounded, without_slips
from tabmae.experts.neighbours import Neighbours
from tabmae.experts.trees import Forest
from tabmae.saving import part_of
from tabmae.training import draw_seed

SCALES = ("standard", "rank")
"""Scales on which a number is judged, alike; trees grow on the last."""
N_TREES = 20
MIN_LEAF = 3
MAX_ROWS, MAX_CELLS = 2_000, 200_000
"""Rows, and cells of them, that grow the trees; these grow with them in time and in size."""
LEAST_CELLS = 10
"""Observed cells of a column in either half of the rows with which it has a forest."""
N_GROUPS = 5
"""Groups of columns that are hidden in turn, so that holes are filled without the cell that is judged."""
MAX_ROWS_AT_ONCE = 2_000
"""Rows that are judged together, as each of their donors completes them."""


class CellForests:
    """A forest for each column, that says how its cells are spread given the other cells of their row.

    The rows of fit fall into two halves, and each half of the trees learns one: all is judged by trees that do not
    know it.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.

    Attributes
    ----------
    forests : by the position of a column. Leaves hold means of a number on each scale and of its square, or
        probabilities of levels, rare ones as one. None of a table that is too wide, nor of a column of few cells.
    donors : the rows that grew the trees, which complete those that are judged.
    spread : float64 (F, S), usual error of a number on each scale: the median's, as of a normal.
    usual : float64 (F,), mean surprise of the cells of fit, in nats.
    skill : float64 (), share of the columns' variance, or entropy, that is explained.
    of_fit : float32 (n,), mean surprise of the rows that grew the trees; not kept with the state.

    Source: outliers by what conditional models leave unexplained, Noto et al. 2012 (FRaC).
    Differs: extremely randomised trees; two scales; what is usual is subtracted, and less than usual tells nothing.
    """

    def __init__(self, n_levels: Sequence[int]) -> None:
        self.n_levels, self.n_shown = tuple(n_levels), shown_levels(n_levels)
        self.starts = torch.tensor([0, *(n or 1 for n in self.n_shown)]).cumsum(0).tolist()
        self.scales, self.donors = Neighbours(n_levels), Donors(n_levels)
        self.forests: dict[int, Forest] = {}
        self.learnt_levels = all_levels(n_levels)
        self.spread = torch.ones(len(n_levels), len(SCALES), dtype=torch.float64)
        self.usual = torch.zeros(len(n_levels), dtype=torch.float64)
        self.skill = torch.zeros((), dtype=torch.float64)
        self.of_fit = torch.zeros(0)

    @property
    def share(self) -> float:
        """Share of the columns that have a forest."""
        return len(self.forests) / len(self.n_levels)

    @classmethod
    def fit(cls, learnt: Cells, n_levels: Sequence[int], seed: int, deadline: Deadline = NEVER) -> Self:
        """Learn from the observed cells of rows (n, F): of all columns, or of the first ones within the deadline."""
        cells = cls(n_levels)
        cells.learnt_levels = learnt_levels(*learnt, n_levels)
        width = cells.starts[-1]
        step = max(1, -(-len(learnt[0]) // min(MAX_ROWS, MAX_CELLS // width)))
        values, observed = (part[::step] for part in learnt)
        if width <= MAX_COLUMNS and not deadline.passed:
            completion = Completion.fit(bounded(values, n_levels), observed, n_levels)
            assert completion is not None
            cells.donors = Donors(n_levels, completion.complete(bounded(values, n_levels), observed))
            cells.scales.learn_scales(without_slips(values, observed, n_levels), observed)
            generator = torch.Generator().manual_seed(seed)
            half = 1 + torch.randperm(len(values), generator=generator) % 2
            cells._grow(values, observed, cells._inputs(values, observed, completion), half, generator, deadline)
            cells._learn_what_is_usual(values, observed, half)
        else:
            cells.of_fit = torch.zeros(len(values))
        return cells

    def _grow(
        self,
        values: Tensor,
        observed: Tensor,
        inputs: list[Tensor],
        half: Tensor,
        generator: torch.Generator,
        deadline: Deadline,
    ) -> None:
        """Grow the forests of the columns with enough cells in each half (n,) of the rows, 1 or 2."""
        slowest = 0.0
        targets = self._targets(bounded(values, self.n_levels))
        for feature, n_shown in enumerate(self.n_shown):
            rows = torch.nonzero(observed[:, feature])[:, 0]
            begun = deadline.elapsed()
            if deadline.left() <= slowest:
                return
            if min((half[rows] == side).sum() for side in (1, 2)) < LEAST_CELLS:
                continue
            others = self._others(inputs, feature, rows)
            seed, fold = draw_seed(generator), half[rows]
            if n_shown:
                target, kept = values[rows, feature].clamp_max(n_shown), None
            else:
                target, kept = targets[rows, feature, -1], torch.cat([targets, targets.square()], 2)[rows, feature]
            n_levels = self._n_outputs(feature) if n_shown else 0
            self.forests[feature] = Forest().fit(others, target, n_levels, seed, fold, N_TREES, MIN_LEAF, kept)
            slowest = max(slowest, deadline.elapsed() - begun)

    def _learn_what_is_usual(self, values: Tensor, observed: Tensor, half: Tensor) -> None:
        """Learn how large errors and surprise are in rows of fit, each judged by the trees without its half."""
        errors, spreads, unsure = self._judged(values, observed, half)
        typical = errors.abs().nanmedian(0).values.nan_to_num(1) / NORMAL_MEDIAN
        self.spread = typical.clamp_min(LEAST_SPREAD)
        surprise = self._surprise(errors, spreads, unsure)
        self.usual = surprise.nanmean(0).nan_to_num(0)
        self.skill = explained_share(self._targets(values)[:, :, 0], observed, errors[:, :, 0], self.n_levels)
        self.of_fit = mean_of_rows(self._above(surprise), observed)

    def surprise(self, values: Tensor, observed: Tensor, wanted: Tensor | None = None) -> Tensor:
        """By how many nats each wanted cell of rows (B, F), or each observed one, is less likely, given the others,
        than cells of its column usually are; float64 (B, F), 0 where a cell is missing or not wanted, its column
        without a forest, or it is no less likely."""
        found = []
        wanted = observed if wanted is None else wanted
        parts = (part.split(MAX_ROWS_AT_ONCE) for part in (values, observed, wanted))
        for rows, shown, asked in zip(*parts, strict=True):
            found.append(self._above(self._surprise(*self._judged(rows, shown, wanted=asked))))
        return torch.cat(found)

    def state(self) -> dict[str, Tensor]:
        """What `restored` needs."""
        tensors = {f"scales.{name}": tensor for name, tensor in self.scales.state_dict().items()}
        tensors["donors"] = self.donors.values
        for feature, forest in self.forests.items():
            tensors |= {f"{feature}.{name}": tensor for name, tensor in forest.state_dict().items()}
        own = ("spread", "usual", "skill", "learnt_levels")
        return {**tensors, **{name: getattr(self, name) for name in own}}

    @classmethod
    def restored(cls, n_levels: Sequence[int], tensors: dict[str, Tensor]) -> Self:
        """Fitted ones from their state.

        Raises
        ------
        ValueError : trees lead nowhere, or are not of a column; donors have other columns.
        """
        cells = cls(n_levels)
        cells.scales = Neighbours.restored(n_levels, part_of(tensors, "scales."))
        cells.donors = Donors(n_levels, tensors["donors"])
        if cells.donors.values.shape[1:] != (len(n_levels),):
            raise ValueError("Rows that complete others must have all columns; these do not. Save the model again.")
        for feature in sorted({int(name.split(".")[0]) for name in tensors if name[0].isdigit()}):
            forest = cells.forests[feature] = Forest()
            forest.load_state_dict(part_of(tensors, f"{feature}."))
            forest.check(cells.starts[-1], cells._n_outputs(feature))
        cells.spread, cells.usual, cells.skill = (tensors[name] for name in ("spread", "usual", "skill"))
        cells.learnt_levels = tensors["learnt_levels"]
        return cells

    def _n_outputs(self, feature: int) -> int:
        """How many numbers a leaf holds."""
        n_levels, n_shown = self.n_levels[feature], self.n_shown[feature]
        return n_shown + (n_levels > n_shown) if n_levels else 2 * len(SCALES)

    def _targets(self, values: Tensor) -> Tensor:
        """Numbers on each scale, and levels as they are, float64 (B, F, S)."""
        targets = values.double()[:, :, None].repeat(1, 1, len(SCALES))
        for place, scaling in enumerate(SCALES):
            targets[:, self.scales.numbers, place] = self.scales.scaled(values, scaling)
        return targets

    def _inputs(self, values: Tensor, observed: Tensor, completion: Completion) -> list[Tensor]:
        """What trees grow on: numbers and indicators of levels, float32 (B, E), holes filled by what the other cells
        make likely; once a group of columns, without its own cells, or once for all where there is no hole."""
        near = bounded(values, self.n_levels)
        known = observed & ~self._strange(values, observed)
        rows = torch.nonzero(~known.all(1))[:, 0]
        if not len(rows):
            return [expanded(near, known, self.n_shown)[0].float()]
        group = torch.arange(len(self.n_levels)) % N_GROUPS
        found = []
        for number in range(min(N_GROUPS, len(self.n_levels))):
            likely = completion.complete(near[rows], known[rows] & (group != number))
            whole = near.clone()
            whole[rows] = torch.where(known[rows], near[rows], likely)
            found.append(expanded(whole, known, self.n_shown)[0].float())
        return found

    def _others(self, inputs: list[Tensor], feature: int, rows: Tensor) -> Tensor:
        """What trees of a feature read of rows, (B, E): its own cells stand as 0."""
        others = inputs[feature % len(inputs)][rows]
        others[:, self.starts[feature] : self.starts[feature + 1]] = 0
        return others

    def _completed(self, values: Tensor, observed: Tensor, of_fit: bool) -> Iterator[tuple[int, Tensor, Tensor]]:
        """What trees read of rows (B, F), once a group of columns.

        Yields
        ------
        number of the group; positions (b,) of rows alike; float32 (D, b, E), once for rows without holes, else as each
        donor completes them.
        """
        near = bounded(values, self.n_levels)
        known = observed & ~self._strange(values, observed)
        whole = known.all(1)
        rows, others = (torch.nonzero(part)[:, 0] for part in (whole, ~whole))
        read = expanded(near[rows], known[rows], self.n_shown)[0].float()[None]
        group = torch.arange(len(self.n_levels)) % N_GROUPS
        for number in range(min(N_GROUPS, len(self.n_levels))):
            if len(rows):
                yield number, rows, read
            if len(others):
                seen = known[others]
                likely = self.donors.complete(near[others], seen & (group != number), others if of_fit else None)
                cells = torch.where(seen, near[others], likely)
                read_others = expanded(cells.flatten(0, 1), seen, self.n_shown)[0].float()
                yield number, others, read_others.unflatten(0, cells.shape[:2])

    def _judged(
        self, values: Tensor, observed: Tensor, half: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Errors of numbers and their predicted spread on each scale, float64 (B, F, S); the surprise at levels stands
        among the errors, and its spread is NaN. NaN both where a cell is not judged. Last what missing cells leave
        unsure: standard deviations of what a number is expected to be, or nats of a level.

        Parameters
        ----------
        half : (B,), 1 or 2 for rows of fit, that the other half of the trees learnt; None where no tree did.
        wanted : bool (B, F), the observed cells to judge; None for all.
        """
        errors = torch.full((*values.shape, len(SCALES)), torch.nan, dtype=torch.float64)
        spreads, unsure = errors.clone(), torch.zeros_like(errors)
        wanted = observed if wanted is None else wanted
        strange = self._strange(values, observed) & wanted
        targets = self._targets(values)
        for feature in self.forests:
            errors[strange[:, feature], feature] = STRANGE
        known = wanted & ~strange
        for number, group, read in self._completed(values, observed, half is not None) if self.forests else ():
            for feature, fold in product(self.forests, (0,) if half is None else (1, 2)):
                asked = known[group, feature] if half is None else known[group, feature] & (half[group] == fold)
                if feature % N_GROUPS != number or not asked.any():
                    continue
                rows, leaves = group[asked], self._leaves(feature, read[:, asked], fold)
                if self.n_shown[feature]:
                    code = values[rows, feature].long().clamp_max(self.n_shown[feature])
                    errors[rows, feature], unsure[rows, feature] = against_levels(leaves, code[:, None])
                else:
                    means, squares = leaves.chunk(2, 2)
                    errors[rows, feature] = targets[rows, feature] - means.mean(0)
                    spreads[rows, feature] = (squares - means.square()).clamp_min(0).mean(0).sqrt()
                    if len(means) > 1:
                        unsure[rows, feature] = means.std(0) * (1 + 1 / len(means)) ** 0.5
        return errors, spreads, unsure

    def _leaves(self, feature: int, read: Tensor, fold: int) -> Tensor:
        """What stands at the leaves of a feature's trees that read (D, B, E), its own cells as 0; float64 (D, B, K)."""
        read[:, :, self.starts[feature] : self.starts[feature + 1]] = 0
        return self.forests[feature].leaf_means(read.flatten(0, 1), fold).double().unflatten(0, read.shape[:2])

    def _surprise(self, errors: Tensor, spreads: Tensor, unsure: Tensor) -> Tensor:
        """Surprise (B, F) at cells, mean over the scales, beyond what missing cells leave unsure."""
        width = (spreads.clamp_min(LEAST_SPREAD) * self.spread).sqrt()
        forgiven = torch.where(spreads.isnan(), errors - unsure, errors / (1 + (unsure / width).square()).sqrt())
        return surprise_of(forgiven, spreads, self.spread).mean(2)

    def _strange(self, values: Tensor, observed: Tensor) -> Tensor:
        return strange_cells(values, observed, self.n_levels, self.learnt_levels)

    def _above(self, surprise: Tensor) -> Tensor:
        """Surprise (B, F) beyond the usual, 0 where a cell is not judged."""
        return (surprise - self.usual - ROUNDING).clamp_min(0).nan_to_num(0)


def against_levels(leaves: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Surprise at the codes (B, 1) of levels, whose probabilities each of D donors makes (D, B, L), and by how much it
    would be less on the mean if the right donor were known; (B, 1), in nats.

    Source: the entropy of a mean less the mean entropy, Lin 1991 (Jensen-Shannon divergence).
    """
    probable = (1 - SMOOTHING) * leaves + BACKGROUND
    mean = probable.mean(0)
    unsure = torch.special.entr(mean).sum(1) - torch.special.entr(probable).sum(2).mean(0)
    return -mean.gather(1, code).log(), unsure[:, None].clamp_min(0)
