"""The network of a detector: how surprising each cell of a row is, given the other cells.

Contract: a missing cell surprises nobody, and its row's other cells are predicted as if it were hidden. So they are
where a cell holds a level that was not learnt, which surprises as one of background probability.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from tabmae.calibration import Calibration
from tabmae.deadline import Deadline
from tabmae.estimators import base
from tabmae.estimators.detector.levels import all_levels, learnt_levels, strange_cells
from tabmae.estimators.detector.skill import explained_share
from tabmae.estimators.detector.slips import bounded
from tabmae.estimators.learner import MaskedTableEstimator, observed_range
from tabmae.estimators.validation import rows_at_once
from tabmae.model import MaskedAutoencoder
from tabmae.schema import Column, TableSchema
from tabmae.tokenizers import CellDistribution

FREEDOM = 3.0
"""Degrees of freedom of the Student-t about a predicted number: its errors have heavy tails."""
LEAST_SPREAD = 0.02
"""Standard deviations of a column below which a predicted spread, or a usual error, is not believed."""
NORMAL_MEDIAN = 0.6745
"""Median of the absolute value of a standard normal."""
SMOOTHING, BACKGROUND = 0.01, 0.002
"""Share of its probability that a level loses, and the probability that it keeps where the network rules it out."""
ROUNDING = 1e-5
"""Nats beyond the usual that rounding may make."""
DIAGONAL, DIAGONAL_AMONG_OUTLIERS = 0.5, 0.1
"""How far the Gaussian's covariance is moved to its diagonal. Half way it tells normal rows best from others, but says
too little of the ends of the data, where few rows teach the network the rest and outliers are looked for."""
STRANGE = -math.log(BACKGROUND)
"""Surprise at a level that was not learnt, in nats."""

Cells = tuple[Tensor, Tensor]
"""Values (B, F) of rows, and which are observed."""


class Expected(NamedTuple):
    """What is expected of every cell given the others of its row, (B, F) each; NaN bounds where there are none."""

    point: Tensor
    lower: Tensor
    upper: Tensor


class CellNetwork(MaskedTableEstimator):
    """A masked autoencoder that judges cells.

    Attributes
    ----------
    spread_ : float64 (F,), usual error of a number, in standard deviations: the median's, as of a normal.
    usual_ : float64 (F,), mean surprise of the training rows' cells, in nats.
    skill_ : float64 (), share of the columns' variance, or entropy, that the network explains in rows that it learnt.
    intervals_ : calibration of the intervals of a cell given all others.
    learnt_levels_ : bool (F, 1 + most levels), levels that rows of training held.
    """

    default_ratio = (0.05, 0.8)
    expert_diagonal = DIAGONAL

    spread_: Tensor
    usual_: Tensor
    skill_: Tensor
    intervals_: Calibration
    learnt_levels_: Tensor

    @classmethod
    def of(cls, fitted: MaskedTableEstimator) -> Self:
        """Take over a fitted estimator's network, which stays as it is, without the forests and the copies.

        A judged cell is observed, and stands in the very row that would be copied.
        """
        network = cls(**fitted.get_params(deep=False))
        for name in ("schema_", "size_", "history_", "n_iter_", "calibration_", "quality_"):
            setattr(network, name, copy(getattr(fitted, name)))
        network.n_features_in_ = fitted.n_features_in_
        network.learnt_levels_ = all_levels(fitted.schema_.n_levels)
        model = fitted.model_
        network.model_ = MaskedAutoencoder(model.tokenizer, model.backbone, model.expert).eval()
        network.model_.number_weights = model.number_weights[:1].clone()
        network.model_.level_weights = model.level_weights[:1].clone()
        network.model_.sure = model.sure[:1].clone()
        network.model_.copies = model.copies
        network.model_.set_copies(None)
        return network

    def learn(
        self, values: Tensor, observed: Tensor, schema: TableSchema, deadline: Deadline, all_normal: bool
    ) -> Self:
        """Train on the cells (n, F) of a schema, those of normal rows or of rows that were told from outliers."""
        self.expert_diagonal = DIAGONAL if all_normal else DIAGONAL_AMONG_OUTLIERS
        self.n_features_in_ = values.shape[1]
        self.learnt_levels_ = learnt_levels(values, observed, schema.n_levels)
        return self._learn(bounded(values, schema.n_levels), observed, schema, None, False, deadline)

    def judge(self, learnt: Cells, held_out: Cells) -> tuple[Tensor, Tensor]:
        """Learn how surprising cells usually are from rows that were learnt, how wide intervals are from held-out ones.

        Returns
        -------
        What `surprise` gives for either.
        """
        errors, spreads, *_ = self._judged(*learnt)
        typical = errors.abs().nanmedian(0).values.nan_to_num(1) / NORMAL_MEDIAN
        self.spread_ = typical.clamp_min(LEAST_SPREAD)
        surprise, known = surprise_of(errors, spreads, self.spread_), learnt[1]
        self.skill_ = explained_share(*learnt, errors, self.schema_.n_levels)
        self.usual_ = torch.where(known, surprise, 0).sum(0) / known.sum(0).clamp_min(1)
        held_out_errors, held_out_spreads, *bounds = self._judged(*held_out, with_centrality=True)
        numbers, has_single = self.model_.tokenizer.numbers.tolist(), self.model_.tokenizer.bins.has_single.tolist()
        centrality, deviations = ([part[held_out[1][:, j], j] for j in numbers] for part in bounds)
        self.intervals_ = Calibration(centrality, has_single, deviations)
        return self._above(surprise, known), self._above(
            surprise_of(held_out_errors, held_out_spreads, self.spread_), held_out[1]
        )

    def surprise(self, values: Tensor, observed: Tensor, wanted: Tensor | None = None) -> Tensor:
        """By how many nats each cell is less likely, given the others of its row, than cells of its column usually are.

        Parameters
        ----------
        values, observed : (B, F).
        wanted : bool (B, F), cells to judge, observed ones; None for all of these.

        Returns
        -------
        surprise : float64 (B, F), 0 where a cell is missing, not wanted or no less likely than usual.
        """
        errors, spreads, *_ = self._judged(values, observed, wanted)
        return self._above(surprise_of(errors, spreads, self.spread_), observed if wanted is None else wanted)

    def strange_cells(self, values: Tensor, observed: Tensor) -> Tensor:
        """Which observed cells (B, F) hold a level that was not learnt."""
        return strange_cells(values, observed, self.schema_.n_levels, self.learnt_levels_)

    def _above(self, surprise: Tensor, observed: Tensor) -> Tensor:
        """Surprise beyond the usual."""
        return torch.where(observed, (surprise - self.usual_ - ROUNDING).clamp_min(0), 0)

    def expected(self, values: Tensor, observed: Tensor, level: float) -> Expected:
        """Mean or likeliest level of every cell given the others, and bounds that hold `level` of a column's cells.

        A value that equals a bound lies within. Numbers and durations stay on the side of zero on which all cells of
        their column were, those of a column of few values between these, and in a constant column at its value.
        """
        point = torch.full(values.shape, torch.nan, dtype=torch.float64)
        bounds = [point.clone(), point.clone()]
        everywhere = torch.ones_like(observed)
        observed = observed & ~self.strange_cells(values, observed)
        tokenizer = self.model_.tokenizer
        places = tokenizer.place.tolist()
        for feature, rows, cell in self._each_hidden(values, observed, everywhere):
            point[rows, feature] = cell.point()[:, 0].cpu().double()
            if self._is_number(feature):
                found = cell.interval(
                    self.intervals_.levels(places[feature], level, cell.deviation[:, 0].cpu())[:, None]
                )
                for bound, side in zip(bounds, found, strict=True):
                    bound[rows, feature] = side[:, 0]
        least, most = ends_of(self.schema_.columns, tokenizer.numbers[tokenizer.bins.discrete].tolist())
        return Expected(*(numbers.clamp(least, most) for numbers in (point, *bounds)))

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        state, tensors = super()._get_state()
        tensors |= {f"intervals.{k}": cells for k, cells in enumerate(self.intervals_.centrality)}
        tensors |= {f"interval_deviations.{k}": cells for k, cells in enumerate(self.intervals_.deviations)}
        return state, {
            **tensors,
            "usual": self.usual_,
            "spread": self.spread_,
            "skill": self.skill_,
            "learnt_levels": self.learnt_levels_,
        }

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(state, tensors)
        self.usual_, self.spread_, self.skill_ = (tensors[name] for name in ("usual", "spread", "skill"))
        self.learnt_levels_ = tensors["learnt_levels"]
        has_single = self.model_.tokenizer.bins.has_single.tolist()
        centrality, deviations = (
            [tensors[f"{name}.{k}"] for k in range(len(has_single))] for name in ("intervals", "interval_deviations")
        )
        self.intervals_ = Calibration(centrality, has_single, deviations)

    def _is_number(self, feature: int) -> bool:
        return self.model_.tokenizer.n_levels[feature] == 0

    def _judged(
        self, values: Tensor, observed: Tensor, wanted: Tensor | None = None, with_centrality: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each observed cell, or those `wanted`, against its prediction from the others, (B, F) each.

        Returns
        -------
        error of a number, or the surprise at a level; the predicted spread of a number, NaN for levels; its centrality
        and predicted deviation if asked for.
        """
        errors = torch.full(values.shape, torch.nan, dtype=torch.float64)
        spreads, centrality, deviations = errors.clone(), torch.zeros_like(errors), torch.ones_like(errors)
        strange = self.strange_cells(values, observed)
        known = observed & ~strange
        errors[strange] = STRANGE
        for feature, rows, cell in self._each_hidden(values, known, known if wanted is None else wanted & ~strange):
            target = values[rows, feature, None].to(cell.direct)
            if self._is_number(feature):
                errors[rows, feature] = (target - cell.mean)[:, 0].cpu().double()
                spreads[rows, feature] = cell.scale[:, 0].cpu().double()
                if with_centrality:
                    centrality[rows, feature] = cell.centrality(target)[:, 0].cpu().double()
                    deviations[rows, feature] = cell.deviation[:, 0].cpu().double()
            else:
                probability = (1 - SMOOTHING) * cell.level_log_probability(target).exp() + BACKGROUND
                errors[rows, feature] = -probability.log()[:, 0].cpu().double()
        return errors, spreads, centrality, deviations

    @torch.no_grad()
    def _each_hidden(
        self, values: Tensor, observed: Tensor, wanted: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor, CellDistribution]]:
        """Hide each feature in turn, in the rows where it is wanted (where it is observed, unless told).

        Yields
        ------
        feature, positions of the rows of a batch, and the distribution of that one cell in each of them.
        """
        model, weight = self.model_, next(self.model_.parameters())
        values = bounded(values, self.schema_.n_levels)
        wanted = observed if wanted is None else wanted
        for feature in range(values.shape[1]):
            for rows in torch.nonzero(wanted[:, feature])[:, 0].split(rows_at_once(model)):
                visible = observed[rows].to(weight.device)
                visible[:, feature] = False
                with base.out_of_memory_explained(len(rows)):
                    found = model(values[rows].to(weight), visible, learnt=visible)
                yield feature, rows, found.of(feature)


def surprise_of(errors: Tensor, spreads: Tensor, usual: Tensor) -> Tensor:
    """Minus the log likelihood of cells (B, F), with tails that forgive.

    A number has a Student-t about its mean, half way (in logarithms) between as wide as its own distribution says,
    `spreads` (B, F), and as its column's errors usually are, `usual` (F,). Where a spread is NaN, a level's surprise
    stands in `errors` already.
    """
    width = (spreads.clamp_min(LEAST_SPREAD) * usual).sqrt()
    constant = math.lgamma(FREEDOM / 2) - math.lgamma((FREEDOM + 1) / 2) + 0.5 * math.log(FREEDOM * math.pi)
    numbers = constant + width.log() + (FREEDOM + 1) / 2 * torch.log1p((errors / width).square() / FREEDOM)
    return torch.where(spreads.isnan(), errors, numbers)


def mean_of_rows(surprise: Tensor, observed: Tensor) -> Tensor:
    """Mean surprise (B, F) over all columns, NaN where no cell is observed.

    Rounded to single precision, so that the other rows of a batch leave no trace.
    """
    return torch.where(observed.any(1), surprise.mean(1).float(), torch.nan)


def ends_of(columns: Sequence[Column], have_few_values: Collection[int]) -> tuple[Tensor, Tensor]:
    """What no cell is expected below, and above, in standard deviations, (F,) each.

    The ends of the range at the positions `have_few_values`, and of a constant number; elsewhere zero where no cell of
    a column was, else infinite.
    """
    low, high = observed_range(columns)
    most = torch.full_like(high, torch.inf)
    least = -most
    for j, column in enumerate(columns):
        if column.kind == "number" and (column.constant or j in have_few_values):
            least[j], most[j] = low[j], high[j]
        elif column.kind == "number" and column.family in ("number", "duration"):
            zero = column.zero
            least[j] = zero if column.low >= 0 else -torch.inf
            most[j] = zero if column.high <= 0 else torch.inf
    return least, most
