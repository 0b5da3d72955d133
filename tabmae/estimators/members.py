"""The members that start from the network: forests, how far each member is believed, the expert's last fit.

Contract: a held-out cell is judged by trees that never saw it, and by a network and an expert that never saw it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tabmae import stacking
from tabmae.deadline import NEVER, Deadline
from tabmae.experts.gaussian import MAX_ROWS
from tabmae.experts.trees import Forest
from tabmae.model import Batch, MaskedAutoencoder, Members
from tabmae.tokenizers import CellDistribution
from tabmae.training import draw_seed

N_SWEEPS = 2
N_GROUPS = 5
"""Groups of columns hidden in turn, so that a sweep's training rows are completed without the cell it learns."""
TREES_OF_FIRST_SWEEP = 20
"""Trees that stay of a forest when a second sweep follows, which needs its completions alone."""
LEAST_TREE_WEIGHT = 0.5
"""Mean weight that the forests must pass for a second sweep to be worth its time."""
MIN_FOREST_ROWS = 20
MIN_ROWS_OF_LEVEL = 3
MAX_FOREST_LEVELS = 64
MAX_FOREST_ROWS = 10_000
MAX_FOREST_CELLS = 600_000
"""Rows, and cells of them, that grow a forest; it grows with them in time and in size on disk."""
MAX_FOREST_COLUMNS = 300
MAX_JUDGED_ROWS = 5_000
MAX_WEIGHED_OUTPUTS = 10_000_000
"""Rows that judge the members and calibrate, and their outputs when the members are weighed."""
MAX_BATCH_OUTPUTS = 2_000_000
"""Outputs (bins of numbers, levels of categories) predicted at once: some hundred megabytes with all between."""
BATCHES_OF_FORESTS = 8
"""Batches of which a forest is asked at once, while its nodes are at hand; what is kept of them is some hundred
megabytes more."""
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
NEXT_SWEEP = 1.2
"""How long a second sweep takes at most, in times of the first: its rows are completed by forests, too."""


class Judged(NamedTuple):
    """Rows with held-out cells of one fold, as they are judged: values, visible cells, held-out cells, the fold."""

    values: Tensor
    visible: Tensor
    held_out: Tensor
    fold: int


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

    Forests take what two sweeps need, within their share; where half of it would go before the first one grows,
    training takes all.
    """
    model.eval()
    rows, shown = values[:ROWS_TIMED].to(next(model.parameters()).dtype), observed[:ROWS_TIMED]
    model.members(rows, shown)
    begun = deadline.elapsed()
    model.members(rows, shown).numbers.cpu()
    row = (deadline.elapsed() - begun) / len(rows)
    n_weighed = min(2 * len(values), 2 * rows_that_weigh(model))
    n_judged = min(2 * len(values), 2 * MAX_JUDGED_ROWS)
    forests = deadline.before(REFIT * expert_seconds + row * (2 * n_weighed + n_judged))
    begin, left = seconds_to_begin(model, len(values), row), forests.left()
    share = 1.0
    if with_forests and bears_forests(model) and 2 * begin < (1 - TRAINING_SHARE) * left:
        grown = GROWTH * row * rows_that_grow(model, len(values)) * values.shape[1]
        share = max(TRAINING_SHARE, 1 - N_SWEEPS * (begin + grown) / left)
    return Phases(forests.part(share), forests, row)


def bears_forests(model: MaskedAutoencoder) -> bool:
    """Whether forests are to be had of the columns."""
    return 0 < model.tokenizer.n_expert_columns <= MAX_FOREST_COLUMNS


def rows_that_grow(model: MaskedAutoencoder, n_rows: int) -> int:
    """Rows of a table that grow forests."""
    return min(n_rows, MAX_FOREST_ROWS, MAX_FOREST_CELLS // max(1, model.tokenizer.n_expert_columns))


def seconds_to_begin(model: MaskedAutoencoder, n_rows: int, seconds_of_row: float) -> float:
    """How long a sweep needs before its first forest: rows are guessed, and completed for each group."""
    return seconds_of_row * (N_GROUPS + 2) * rows_that_grow(model, n_rows)


def split_held_out(held_out: Tensor, generator: torch.Generator) -> Tensor:
    """Folds of the held-out cells, int8 (n, F): 1 or 2 by halves, 0 where not held out."""
    second = torch.rand(held_out.shape, generator=generator, device=held_out.device) < 0.5
    return held_out.to(torch.int8) * (1 + second.to(torch.int8))


def judged(values: Tensor, observed: Tensor, folds: Tensor, most: int = MAX_JUDGED_ROWS) -> Iterator[Judged]:
    """Both folds in turn, each thinned to `most` rows; a fold's cells alone are hidden when it is judged."""
    for fold in (1, 2):
        cells = folds == fold
        rows = torch.nonzero(cells.any(1))[:, 0]
        rows = rows[:: max(1, -(-len(rows) // most))]
        yield Judged(values[rows], (observed & ~cells)[rows], cells[rows], fold)


def rows_at_once(model: MaskedAutoencoder) -> int:
    """Rows of a batch of predictions."""
    return max(1, MAX_BATCH_OUTPUTS // model.tokenizer.n_outputs)


def rows_that_weigh(model: MaskedAutoencoder) -> int:
    """Rows of each fold by which members are weighed, at most."""
    return max(1, min(MAX_JUDGED_ROWS, MAX_WEIGHED_OUTPUTS // model.tokenizer.n_outputs) // 2)


@torch.no_grad()
def beliefs(
    model: MaskedAutoencoder, values: Tensor, visible: Tensor, fold: int = 0, wanted: Tensor | None = None
) -> Iterator[tuple[Batch, CellDistribution]]:
    """Ask the model for the distribution of rows, a batch at a time, and each forest for many batches at once.

    Parameters
    ----------
    values : (n, F); visible : bool (n, F), on any device; batches travel to the model's.
    fold : 1 or 2 leaves out what learnt from that fold of the held-out cells.
    wanted : bool (n, F), the cells that forests are asked for; None for all that are not visible.
    """
    weight, size = next(model.parameters()), rows_at_once(model)
    for start in range(0, len(values), BATCHES_OF_FORESTS * size):
        batches = []
        for first in range(start, min(start + BATCHES_OF_FORESTS * size, len(values)), size):
            rows = slice(first, first + size)
            asked = None if wanted is None else wanted[rows].to(weight.device)
            batches.append(model.begin(values[rows].to(weight), visible[rows].to(weight.device), wanted=asked))
        yield from zip(batches, model.believed(batches, fold), strict=True)


@torch.no_grad()
def grow_forests(
    model: MaskedAutoencoder,
    values: Tensor,
    observed: Tensor,
    folds: Tensor,
    generator: torch.Generator,
    deadline: Deadline = NEVER,
    seconds_of_row: float = 0.0,
) -> None:
    """Grow sweeps of forests, one for every column with enough observed cells, and weigh each by held-out cells.

    Parameters
    ----------
    values, observed : (n, F) on the model's device; held-out cells are among the observed ones.
    folds : int8 (n, F), from `split_held_out`; a half of each forest's trees does not learn fold 1, the other fold 2.
    deadline : leaves the columns with fewest holes without forests in the first sweep, and a second one whole or out.
    seconds_of_row : how long the prediction of a row without forests takes; asked for under a deadline alone.

    A sweep learns from rows as the ensemble so far completes them without the cell that it learns. The second is grown
    where the first is believed.
    """
    tokenizer, weight = model.tokenizer, next(model.parameters())
    if not bears_forests(model):
        return
    most = rows_that_grow(model, len(values))
    sample = torch.arange(len(values), device=values.device)
    if len(values) > most:
        order = torch.randperm(len(values), generator=generator, device=generator.device)
        sample = order[:most].sort().values.to(values.device)
    values_here, shown, fold = values[sample].to(weight.dtype), observed[sample], folds[sample]
    features = [
        feature
        for feature, n_levels in enumerate(tokenizer.n_levels)
        if n_levels <= MAX_FOREST_LEVELS
        and shown[:, feature].sum() >= max(MIN_FOREST_ROWS, MIN_ROWS_OF_LEVEL * n_levels)
    ]
    if not features or deadline.left() < seconds_to_begin(model, len(values), seconds_of_row):
        return
    if deadline.exists:
        features.sort(key=lambda feature: int(observed[:, feature].sum()))
    own = _own_guesses(model, values_here, shown)
    for sweep in range(N_SWEEPS):
        begun, whole = deadline.elapsed(), list(model.sweeps)
        if sweep:
            model.thin_last_sweep(TREES_OF_FIRST_SWEEP)
        cells = [tokenizer.sweep_cells(rows) for rows in _completed_by_groups(model, values_here, shown)]
        forests, slowest, grown_since = nn.ModuleDict(), seconds_of_row * len(sample), deadline.elapsed()
        for feature in features:
            start = deadline.elapsed()
            if deadline.left() < (1 + ASKED) * slowest + ASKED * (start - grown_since):
                break
            rows = torch.nonzero(shown[:, feature])[:, 0]
            inputs = tokenizer.sweep_features(cells[feature % len(cells)], rows, own, feature)
            target, n_levels = _target(model, values_here[rows, feature], own[rows], feature)
            forests[str(feature)] = Forest().fit(inputs, target, n_levels, draw_seed(generator), fold[rows, feature])
            slowest = max(slowest, deadline.elapsed() - start)
        if len(forests) < (len(features) if sweep else 1):
            model.sweeps = nn.ModuleList(whole)
            return
        model.add_sweep(forests)
        weigh_members(model, values, observed, folds)
        took = deadline.elapsed() - begun
        if _tree_weight(model) <= LEAST_TREE_WEIGHT or deadline.left() < NEXT_SWEEP * took:
            return


def _own_guesses(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> Tensor:
    """The expert's mean of every observed cell of values (n, F) from the other cells of its row; (n, E)."""
    tokenizer = model.tokenizer
    cells, shown = tokenizer.expand(values, observed)
    if model.expert is None:
        return torch.zeros_like(cells)
    own = model.expert.leave_one_out(cells, shown)
    for feature in tokenizer.categories.tolist():
        indicators = tokenizer.expert_feature == feature
        if indicators.sum() > 1:
            mean, _ = model.expert.condition(cells, shown & ~indicators, with_variance=False)
            own = torch.where(indicators, mean, own)
    return tokenizer.bounded(own)


def _completed_by_groups(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> list[Tensor]:
    """Rows (n, F) completed by the ensemble without the cells of a group of features, for each group in turn."""
    n_features = values.shape[1]
    n_groups = min(N_GROUPS, n_features)
    group = torch.arange(n_features, device=values.device) % n_groups
    completed = []
    for number in range(n_groups):
        visible = observed & (group != number)
        points = torch.cat([found.point() for _, found in beliefs(model, values, visible, wanted=~observed)])
        completed.append(torch.where(observed, values, points))
    return completed


def _target(model: MaskedAutoencoder, truth: Tensor, own: Tensor, feature: int) -> tuple[Tensor, int]:
    """What a feature's forest learns, what is left of the expert's guess of a number or the level, and the levels."""
    tokenizer = model.tokenizer
    place, n_numbers = int(tokenizer.place[feature]), len(tokenizer.numbers)
    if place < n_numbers:
        return truth - own[:, tokenizer.expert_of_number[place]], 0
    n_levels = int(tokenizer.n_modelled[place - n_numbers])
    return truth.clamp_max(n_levels - 1), n_levels


def _tree_weight(model: MaskedAutoencoder) -> float:
    """How far the last sweep is believed, mean over the features."""
    weights = torch.cat([model.number_weights[-1, :, -1], model.level_weights[-1, :, -1]])
    grown = [int(feature) for feature in cast(nn.ModuleDict, model.sweeps[-1])]
    return float(weights[model.tokenizer.place[grown]].mean()) if grown else 0.0


@torch.no_grad()
def weigh_members(model: MaskedAutoencoder, values: Tensor, observed: Tensor, folds: Tensor) -> None:
    """Set how far each column believes each member of the last sweep, by held-out cells."""
    weight, tokenizer = next(model.parameters()), model.tokenizer
    has_expert, has_trees = float(model.expert is not None), float(len(model.sweeps) > 0)
    start = torch.tensor([has_expert * (1 - has_trees), 1.0, has_trees])
    start = start / start.sum()
    of_numbers = torch.cat([torch.zeros(1), start])
    model.number_weights[-1] = of_numbers.to(model.number_weights)
    model.level_weights[-1] = start.to(model.level_weights)
    found: list[Members] = []
    targets, cells = [], []
    for part in judged(values, observed, folds, rows_that_weigh(model)):
        batches = zip(part.values.split(rows_at_once(model)), part.visible.split(rows_at_once(model)), strict=True)
        found += [model.members(rows.to(weight.dtype), shown, part.fold) for rows, shown in batches if len(rows)]
        targets.append(part.values)
        cells.append(part.held_out)
    if not found:
        return
    target, held_out = torch.cat(targets), torch.cat(cells)
    numbers, levels = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    model.number_weights[-1] = stacking.fit(
        numbers, target[:, tokenizer.numbers], held_out[:, tokenizer.numbers], of_numbers
    ).to(model.number_weights)
    for place, (feature, n_levels) in enumerate(zip(tokenizer.categories, tokenizer.n_modelled, strict=True)):
        chosen = held_out[:, feature]
        codes = target[chosen, feature].long().clamp_max(int(n_levels) - 1)
        weights = stacking.fit_levels(levels[:, chosen, place, : int(n_levels)], codes, start)
        model.level_weights[-1, place] = weights.to(model.level_weights)


def refit_expert(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> None:
    """Give the expert the held-out cells, too, once they have judged it; its shrinkage stays."""
    if model.expert is not None:
        device = next(model.parameters()).device
        step = max(1, -(-len(values) // MAX_ROWS))
        cells, shown = model.tokenizer.expand(values[::step].to(device), observed[::step].to(device))
        model.expert.fit(cells, shown, shrinkage=float(model.expert.shrinkage), warm_start=True)


def restored_sweeps(model: MaskedAutoencoder, weights: dict[str, Tensor]) -> None:
    """Make room in a model for the forests of saved weights."""
    names = sorted({tuple(name.split(".")[1:3]) for name in weights if name.startswith("sweeps.")})
    for sweep in sorted({sweep for sweep, _ in names}, key=int):
        forests = nn.ModuleDict()
        for feature in (feature for of, feature in names if of == sweep):
            nodes, leaves, roots = (
                weights[f"sweeps.{sweep}.{feature}.{part}"] for part in ("feature", "value", "roots")
            )
            forest = Forest(len(nodes), leaves.shape[0], leaves.shape[1], len(roots))
            forest.value = torch.zeros_like(leaves)
            forests[feature] = forest
        model.add_sweep(forests)


def check_forests(model: MaskedAutoencoder) -> None:
    """Refuse forests that came from elsewhere and lead nowhere.

    Raises
    ------
    ValueError : a child, a leaf, a root or a feature lies outside; a forest is of no column, or not of its levels.
    """
    tokenizer = model.tokenizer
    for sweep in model.sweeps:
        for name, module in cast(nn.ModuleDict, sweep).items():
            forest, known = cast(Forest, module), name.isdigit() and int(name) < len(tokenizer.n_levels)
            place = int(tokenizer.place[int(name)]) - len(tokenizer.numbers) if known else -1
            n_outputs = int(tokenizer.n_modelled[place]) if place >= 0 else 1
            if not known or forest.value.shape[1] != n_outputs:
                raise ValueError(
                    "A forest must be of a column and hold its levels; one of these does not. Save the model again."
                )
            forest.check(tokenizer.n_expert_columns)
