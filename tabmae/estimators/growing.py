"""Grow the trees of the ensemble: forests, and trees that know no expert's guess, within the time there is.

Contract: a held-out cell is judged by trees that never saw it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tabmae.deadline import NEVER, Deadline
from tabmae.estimators.members import weigh_members
from tabmae.estimators.validation import MAX_JUDGED_ROWS, Validation, answered, rows_that_weigh
from tabmae.experts.direct import DirectTrees, grows
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder
from tabmae.training import draw_seed

N_GROUPS = 5
"""Groups of columns hidden in turn, so that the rows that trees learn are completed without the cell they learn."""
TREES_OF_FOREST, TREES_OF_MANY = 40, 20
MANY_ROWS = 2_000
"""Learnt cells of a number from which on fewer trees do: one odd cell is in few of their leaves."""
MIN_DIRECT_CELLS = 400
"""Observed cells of a column from which on trees learn it without the expert's guess, too."""
MAX_READ = 20
"""Features that boosted trees of a number read at most: those that tell most of what the expert leaves of it, by the
forest. More take time, and tell no more."""
MIN_FOREST_ROWS = 20
MIN_ROWS_OF_LEVEL = 3
MAX_FOREST_LEVELS = 64
MAX_FOREST_ROWS = 20_000
MAX_FOREST_CELLS = 600_000
"""Rows, and cells of them, that grow a forest; it grows with them in time and in size on disk."""
MAX_FOREST_COLUMNS = 300
TRAINING_SHARE = 0.3
"""Share of a time budget that training takes at least when forests grow too."""
ROWS_TIMED = 500
"""Rows predicted to see how long that takes here."""
GROWTH = 3.0
"""How long a forest grows at most, in times of predicting its rows without forests."""
REFIT = 0.4
"""How long the expert's last fit takes at most, in times of its first."""
ASKED = 0.2
"""How long a forest takes to be weighed and judged, in times of its growth."""
DIRECT = 3.0
"""How long the direct trees of a column take at most, in times of its forest."""


class Phases(NamedTuple):
    """When training and the forests have to end, and how long the prediction of a row without forests takes."""

    training: Deadline
    forests: Deadline
    seconds_of_row: float = 0.0


@torch.no_grad()
def planned(
    model: MaskedAutoencoder,
    values: Tensor,
    observed: Tensor,
    deadline: Deadline,
    expert_seconds: float,
    with_forests: bool,
) -> Phases:
    """Divide the time left among training, forests and the last looks at held-out cells.

    Trees take what they need, within their share; where half of it would go before the first forest grows, training
    takes all.
    """
    model.eval()
    rows, shown = values[:ROWS_TIMED].to(next(model.parameters()).dtype), observed[:ROWS_TIMED]
    model.members(rows, shown)
    begun = deadline.elapsed()
    model.members(rows, shown).numbers.cpu()
    row = (deadline.elapsed() - begun) / len(rows)
    n_weighed = min(2 * len(values), 2 * rows_that_weigh(model))
    n_judged = min(2 * len(values), 2 * MAX_JUDGED_ROWS)
    forests = deadline.before(REFIT * expert_seconds + row * (n_weighed + n_judged))
    begin, left = seconds_to_begin(model, observed, row), forests.left()
    share = 1.0
    if with_forests and bears_forests(model) and 2 * begin < (1 - TRAINING_SHARE) * left:
        grown = GROWTH * row * rows_that_grow(model, len(values)) * values.shape[1]
        share = max(TRAINING_SHARE, 1 - (begin + (1 + DIRECT) * grown) / left)
    return Phases(forests.part(share), forests, row)


def bears_forests(model: MaskedAutoencoder) -> bool:
    """Whether forests are to be had of the columns."""
    return 0 < model.tokenizer.n_expert_columns <= MAX_FOREST_COLUMNS


def rows_that_grow(model: MaskedAutoencoder, n_rows: int) -> int:
    """Rows of a table that grow forests."""
    return min(n_rows, MAX_FOREST_ROWS, MAX_FOREST_CELLS // max(1, model.tokenizer.n_expert_columns))


def seconds_to_begin(model: MaskedAutoencoder, observed: Tensor, seconds_of_row: float) -> float:
    """How long it takes until the first forest grows: rows are guessed, and those with holes completed for each group.

    observed : bool (n, F), of all rows.
    """
    has_holes = float((~observed.all(1)).double().mean())
    return seconds_of_row * (2 + N_GROUPS * has_holes) * rows_that_grow(model, len(observed))


class Sample(NamedTuple):
    """Rows that grow trees: values and observed cells (n, F), the folds of the held-out ones, the expert's guesses of
    observed cells, in its columns (n, E), and the features of which trees are to be had."""

    values: Tensor
    observed: Tensor
    folds: Tensor
    own: Tensor
    features: list[int]


class _Pace:
    """How long the trees of the slowest column take, `slowest` seconds at first, and whether there is time for more."""

    def __init__(self, deadline: Deadline, slowest: float) -> None:
        self.deadline, self.slowest, self.since = deadline, slowest, deadline.elapsed()

    def too_late(self) -> bool:
        """Whether one more column, and asking all trees that will be there, would end after the deadline."""
        grown = self.deadline.elapsed() - self.since
        return self.deadline.left() < (1 + ASKED) * self.slowest + ASKED * grown

    @contextmanager
    def column(self) -> Iterator[None]:
        """Times the trees of a column."""
        start = self.deadline.elapsed()
        yield
        self.slowest = max(self.slowest, self.deadline.elapsed() - start)


@torch.no_grad()
def grow_trees(
    model: MaskedAutoencoder,
    values: Tensor,
    observed: Tensor,
    folds: Tensor,
    validation: Validation,
    generator: torch.Generator,
    deadline: Deadline = NEVER,
    seconds_of_row: float = 0.0,
) -> None:
    """Grow the trees of every column with enough observed cells, and weigh the members by held-out cells.

    Parameters
    ----------
    values, observed : (n, F) on the model's device; held-out cells are among the observed ones.
    folds : int8 (n, F), from `split_held_out`; a half of each column's trees does not learn fold 1, the other fold 2.
    validation : of these cells.
    deadline : leaves the columns with fewest holes without forests, and as many as it must without direct trees.
    seconds_of_row : how long the prediction of a row without forests takes; asked for under a deadline alone.

    All learn from rows as the ensemble without trees completes them without the cell that they learn.
    """
    if not bears_forests(model) or deadline.left() < seconds_to_begin(model, observed, seconds_of_row):
        return
    sample = _drawn(model, values, observed, folds, generator)
    if not sample.features:
        return
    if deadline.exists:
        sample.features.sort(key=lambda feature: int(observed[:, feature].sum()))
    pace = _Pace(deadline, seconds_of_row * len(sample.values))
    completed = _completed_by_groups(model, sample.values, sample.observed, sample.folds)
    cells = [model.tokenizer.sweep_cells(rows) for rows in completed]
    forests = _forests(model, sample, cells, generator, pace)
    if not len(forests):
        return
    model.add_sweep(forests)
    _grow_direct(model, sample, cells, forests, generator, pace)
    weigh_members(model, validation)


def _drawn(
    model: MaskedAutoencoder, values: Tensor, observed: Tensor, folds: Tensor, generator: torch.Generator
) -> Sample:
    """The rows that grow trees, all or as many as there may be."""
    most = rows_that_grow(model, len(values))
    rows = torch.arange(len(values), device=values.device)
    if len(values) > most:
        order = torch.randperm(len(values), generator=generator, device=generator.device)
        rows = order[:most].sort().values.to(values.device)
    values, observed = values[rows].to(next(model.parameters()).dtype), observed[rows]
    features = [
        feature
        for feature, n_levels in enumerate(model.tokenizer.n_levels)
        if n_levels <= MAX_FOREST_LEVELS
        and observed[:, feature].sum() >= max(MIN_FOREST_ROWS, MIN_ROWS_OF_LEVEL * n_levels)
    ]
    return Sample(values, observed, folds[rows], _own_guesses(model, values, observed), features)


def _forests(
    model: MaskedAutoencoder,
    sample: Sample,
    cells: Sequence[Tensor],
    generator: torch.Generator,
    pace: _Pace,
) -> nn.ModuleDict:
    """The forests of as many features as there is time for."""
    forests = nn.ModuleDict()
    for feature in sample.features:
        if pace.too_late():
            break
        with pace.column():
            inputs, target, n_levels, fold = _lesson(model, sample, cells, feature, sample.own)
            n_trees = TREES_OF_FOREST if n_levels or len(inputs) < MANY_ROWS else TREES_OF_MANY
            forests[str(feature)] = Forest().fit(inputs, target, n_levels, draw_seed(generator), fold, n_trees)
    return forests


def _grow_direct(
    model: MaskedAutoencoder,
    sample: Sample,
    cells: Sequence[Tensor],
    forests: nn.ModuleDict,
    generator: torch.Generator,
    pace: _Pace,
) -> None:
    """The direct trees of as many features with a forest and enough observed cells as there is time for."""
    pace.slowest *= DIRECT
    for feature in map(int, forests):
        if sample.observed[:, feature].sum() < MIN_DIRECT_CELLS or not grows(model.tokenizer.n_levels[feature]):
            continue
        if pace.too_late():
            break
        with pace.column():
            inputs, target, n_levels, fold = _lesson(model, sample, cells, feature, None)
            read = _most_read(cast(Forest, forests[str(feature)]), model.tokenizer.expert_feature == feature)
            model.direct[str(feature)] = DirectTrees(n_levels).fit(inputs, target, draw_seed(generator), fold, read)


def _most_read(forest: Forest, own: Tensor) -> list[Tensor | None]:
    """The features (R,) that matter most to either half of a forest but its `own` (E,); None for all where few are."""
    importances = forest.importances
    if importances.shape[1] <= MAX_READ:
        return [None, None]
    return list(importances.masked_fill(own.cpu(), -torch.inf).topk(MAX_READ).indices.sort().values)


def _lesson(
    model: MaskedAutoencoder, sample: Sample, cells: Sequence[Tensor], feature: int, own: Tensor | None
) -> tuple[Tensor, Tensor, int, Tensor]:
    """What trees of a feature learn from rows completed by groups of columns: features, target, levels, folds.

    The target is a level, or a number; with the expert's guesses `own` (n, E) what they leave of the number.
    """
    tokenizer = model.tokenizer
    rows = torch.nonzero(sample.observed[:, feature])[:, 0]
    inputs = tokenizer.sweep_features(cells[feature % len(cells)], rows, own, feature)
    truth, fold = sample.values[rows, feature], sample.folds[rows, feature]
    place, n_numbers = int(tokenizer.place[feature]), len(tokenizer.numbers)
    if place >= n_numbers:
        n_levels = int(tokenizer.n_modelled[place - n_numbers])
        return inputs, truth.clamp_max(n_levels - 1), n_levels, fold
    return inputs, truth if own is None else truth - own[rows, tokenizer.expert_of_number[place]], 0, fold


def _own_guesses(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> Tensor:
    """The expert's mean of every observed cell of values (n, F) from the other cells of its row; (n, E)."""
    tokenizer = model.tokenizer
    cells, shown = tokenizer.expand(values, observed)
    if model.expert is None:
        return torch.zeros_like(cells)
    own = model.expert.leave_one_out(cells, shown)
    for feature in range(len(tokenizer.n_levels)):
        indicators = tokenizer.expert_feature == feature
        if indicators.sum() > 1:
            mean, _ = model.expert.condition(cells, shown & ~indicators, with_variance=False)
            own = torch.where(indicators, mean, own)
    return tokenizer.bounded(own)


def _completed_by_groups(model: MaskedAutoencoder, values: Tensor, observed: Tensor, folds: Tensor) -> list[Tensor]:
    """Rows (n, F) completed by the ensemble without the cells of a group of features, for each group in turn."""
    n_features = values.shape[1]
    n_groups = min(N_GROUPS, n_features)
    group = torch.arange(n_features, device=values.device) % n_groups
    has_holes = ~observed.all(1)
    holed, known, learnt = values[has_holes], observed[has_holes], folds[has_holes] == 0
    completed = []
    for number in range(n_groups):
        visible = known & (group != number)
        told = answered(model, holed, visible, lambda _, found, __: found.point(), learnt=visible & learnt)
        points = torch.cat([holed[:0], *told])
        rows = values.clone()
        rows[has_holes] = torch.where(known, holed, points)
        completed.append(rows)
    return completed
