"""The members of the ensemble: what they answer, how far each is believed, the expert's last fit.

Contract: a held-out cell is judged by trees that never saw it, and by a network and an expert that never saw it.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tabmae import stacking
from tabmae.experts.copies import Copies
from tabmae.experts.direct import DirectTrees
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.model import Batch, MaskedAutoencoder, Members, followed
from tabmae.tokenizers import CellDistribution

WEIGHTS = ("weight_mean", "weight_gaussian", "weight_network", "weight_trees", "weight_direct", "weight_copies")
"""Columns of `quality_`: how far each member of the ensemble is believed; the mean of a category is its frequencies."""
COPIES_AT_FIRST = 0.25
"""How far copies are believed before any cell is seen, where a network is believed wholly."""
FEW_ROWS = 50
"""Rows of which the Gaussian is believed half as far as trees before any cell is seen, of more the less: trees of few
rows know little, and few held-out cells cannot say so. Without trees it is believed wholly."""
MAX_REFIT_ROWS = 2_000
"""Rows from which on held-out cells teach the expert nothing that lowers its errors, on the mean of tables."""
MAX_JUDGED_ROWS = 5_000
MAX_WEIGHED_OUTPUTS = 10_000_000
"""Rows that judge the members and calibrate, and their outputs when the members are weighed."""
SURE = (1e-4, 1e-3, 1e-2)
"""Variances, in those of a number, at which the expert may be followed half of the way beyond its weight."""
MAX_BATCH_OUTPUTS = 2_000_000
"""Outputs (bins of numbers, levels of categories) predicted at once: some hundred megabytes with all between."""
BATCHES_OF_FORESTS = 8
"""Batches of which a forest is asked at once, while its nodes are at hand; what is kept of them is some hundred
megabytes more."""


class Judged(NamedTuple):
    """Rows with held-out cells of one fold, as they are judged: values, visible cells, held-out cells, the fold."""

    values: Tensor
    visible: Tensor
    held_out: Tensor
    fold: int


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
    model: MaskedAutoencoder,
    values: Tensor,
    visible: Tensor,
    fold: int = 0,
    learnt: Tensor | None = None,
) -> Iterator[tuple[Batch, CellDistribution]]:
    """Ask the model for the distribution of rows, a batch at a time, and each forest for many batches at once.

    Parameters
    ----------
    values : (n, F); visible : bool (n, F), on any device; batches travel to the model's.
    fold : 1 or 2 leaves out what learnt from that fold of the held-out cells.
    learnt : bool (n, F), where some observed cells are hidden, the visible ones that may have been learnt: a row does
        not copy the remembered row that has all of these, which may be itself.
    """
    weight, size = next(model.parameters()), rows_at_once(model)
    for start in range(0, len(values), BATCHES_OF_FORESTS * size):
        batches = []
        for first in range(start, min(start + BATCHES_OF_FORESTS * size, len(values)), size):
            rows = slice(first, first + size)
            shown, same = visible[rows].to(weight.device), None if learnt is None else learnt[rows].to(weight.device)
            batches.append(model.begin(values[rows].to(weight), shown, learnt=same))
        yield from zip(batches, model.believed(batches, fold), strict=True)


@torch.no_grad()
def weigh_members(model: MaskedAutoencoder, values: Tensor, observed: Tensor, folds: Tensor) -> None:
    """Set how far each column believes each member of the last sweep, by held-out cells."""
    weight, tokenizer = next(model.parameters()), model.tokenizer
    has_expert, has_trees = float(model.expert is not None), float(len(model.sweeps) > 0)
    few = FEW_ROWS / (FEW_ROWS + len(values))
    believed = [has_expert * (few if has_trees else 1.0), 1.0, has_trees, float(len(model.direct) > 0)]
    start = torch.tensor(believed if model.copies is None else [*believed, COPIES_AT_FIRST])
    start = start / start.sum()
    of_numbers = torch.cat([torch.zeros(1), start])
    model.number_weights[-1] = of_numbers.to(model.number_weights)
    model.level_weights[-1] = start.to(model.level_weights)
    model.sure[-1] = 0.0
    found: list[Members] = []
    targets, cells, doubts = [], [], []
    for part in judged(values, observed, folds, rows_that_weigh(model)):
        batches = zip(part.values.split(rows_at_once(model)), part.visible.split(rows_at_once(model)), strict=True)
        for rows, shown in batches:
            if len(rows):
                guess = model.guess(rows.to(weight.dtype), shown)
                found.append(model.members(rows.to(weight.dtype), shown, part.fold, guess))
                doubts.append(model.doubt(guess, found[-1]))
        targets.append(part.values)
        cells.append(part.held_out)
    if not found:
        return
    target, held_out = torch.cat(targets), torch.cat(cells)
    numbers, levels = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    truth, hidden = target[:, tokenizer.numbers], held_out[:, tokenizer.numbers]
    model.number_weights[-1] = stacking.fit(numbers, truth, hidden, of_numbers).to(model.number_weights)
    mean = torch.einsum("mbf,fm->bf", numbers, model.number_weights[-1].to(numbers))
    model.sure[-1] = fit_sure(mean, numbers[1], torch.cat(doubts), truth, hidden)
    for place, (feature, n_levels) in enumerate(zip(tokenizer.categories, tokenizer.n_modelled, strict=True)):
        chosen = held_out[:, feature]
        codes = target[chosen, feature].long().clamp_max(int(n_levels) - 1)
        weights = stacking.fit_levels(levels[:, chosen, place, : int(n_levels)], codes, start)
        model.level_weights[-1, place] = weights.to(model.level_weights)


def fit_sure(mean: Tensor, expert: Tensor, variance: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """The expert's variance at which each number (n, F) is best moved half of the way to its mean, or 0; (F,)."""
    best, least = torch.zeros(mean.shape[1]).to(mean), torch.where(hidden, mean - target, 0).square().sum(0)
    for half in SURE:
        moved = followed(mean, expert, variance, torch.full_like(best, half))
        squared = torch.where(hidden, moved - target, 0).square().sum(0)
        best, least = torch.where(squared < least, half, best), torch.minimum(squared, least)
    return best


def believed_weights(model: MaskedAutoencoder) -> NDArray[np.float64]:
    """How far each member is believed, a row a column; a member that is not there has passed its weight on."""
    tokenizer = model.tokenizer
    weights = torch.zeros(len(tokenizer.n_levels), len(WEIGHTS), dtype=torch.float64)
    n_members = model.number_weights.shape[2]
    weights[tokenizer.numbers.cpu(), :n_members] = model.number_weights[-1].double().cpu()
    weights[tokenizer.categories.cpu(), 1:n_members] = model.level_weights[-1].double().cpu()
    forests = cast(nn.ModuleDict, model.sweeps[-1]) if len(model.sweeps) else nn.ModuleDict()
    for member, trees in ((4, model.direct), (3, forests)):
        treeless = torch.tensor([str(feature) not in trees for feature in range(len(weights))])
        weights[treeless, member - 1] += weights[treeless, member]
        weights[treeless, member] = 0
    if model.expert is None:
        numbers, categories = tokenizer.numbers.cpu(), tokenizer.categories.cpu()
        weights[numbers, 2] += weights[numbers, 1]
        weights[categories, 0] += weights[categories, 1]
        weights[:, 1] = 0
    return weights.numpy()


def modelled_levels(model: MaskedAutoencoder) -> list[int]:
    """Levels of each feature that have a probability, 0 for a number."""
    tokenizer = model.tokenizer
    levels = dict(zip(tokenizer.categories.tolist(), tokenizer.n_modelled.tolist(), strict=True))
    return [levels.get(feature, 0) for feature in range(len(tokenizer.n_levels))]


def refit_expert(model: MaskedAutoencoder, values: Tensor, observed: Tensor) -> None:
    """Give the expert of few rows the held-out cells, too, once they have judged it.

    Its shrinkage stays, and forests go on to read the one that they were grown with.
    """
    if model.expert is None or len(values) >= MAX_REFIT_ROWS:
        return
    if len(model.sweeps):
        model.grown_with = deepcopy(model.expert)
    device = next(model.parameters()).device
    cells, shown = model.tokenizer.expand(values.to(device), observed.to(device))
    model.expert.fit(cells, shown, shrinkage=float(model.expert.shrinkage), warm_start=True)


def make_room(model: MaskedAutoencoder, weights: dict[str, Tensor]) -> None:
    """Make room in a model for the forests' own expert, the copied rows and the trees of saved weights."""
    if "grown_with.mean" in weights:
        model.grown_with = Gaussian(model.tokenizer.n_expert_columns)
    if "copies.values" in weights:
        model.set_copies(Copies.restored(modelled_levels(model), len(weights["copies.values"])))
    names = sorted({tuple(name.split(".")[1:3]) for name in weights if name.startswith("sweeps.")})
    for sweep in sorted({sweep for sweep, _ in names}, key=int):
        model.add_sweep(nn.ModuleDict({feature: Forest() for of, feature in names if of == sweep}))
    for feature in sorted({name.split(".")[1] for name in weights if name.startswith("direct.")}):
        of_levels = weights.get(f"direct.{feature}.forest.value")
        model.direct[feature] = DirectTrees(0 if of_levels is None else of_levels.shape[1])


def check_parts(model: MaskedAutoencoder) -> None:
    """Refuse copied rows and trees that came from elsewhere and lead nowhere.

    Raises
    ------
    ValueError : a row holds a level that its column has not; a child, a leaf, a root or a feature lies outside; trees
        are of no column, or not of its levels.
    """
    if model.copies is not None:
        model.copies.check()
    tokenizer = model.tokenizer
    forests = [(name, cast(Forest, forest)) for sweep in model.sweeps for name, forest in sweep.named_children()]
    forests += [(name, forest) for name, trees in model.direct.items() for forest in cast(DirectTrees, trees).forests()]
    for name, forest in forests:
        known = name.isdigit() and int(name) < len(tokenizer.n_levels)
        place = int(tokenizer.place[int(name)]) - len(tokenizer.numbers) if known else -1
        n_outputs = int(tokenizer.n_modelled[place]) if place >= 0 else 1
        if not known:
            raise ValueError("A forest must be of a column; one of these is of none. Save the model again.")
        forest.check(tokenizer.n_expert_columns, n_outputs)
