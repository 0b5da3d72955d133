"""The members of the ensemble: how far each is believed, the expert's last fit, room for what was saved."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tabmae import stacking
from tabmae.estimators.validation import Validation
from tabmae.experts.copies import Copies
from tabmae.experts.direct import DirectTrees
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.model import OF_SURE, MaskedAutoencoder, Members, followed, share_of

WEIGHTS = ("weight_mean", "weight_gaussian", "weight_network", "weight_trees", "weight_direct", "weight_copies")
"""Columns of `quality_`: how far each member of the ensemble is believed; the mean of a category is its frequencies."""
COPIES_AT_FIRST = 0.25
"""How far copies are believed before any cell is seen, where a network is believed wholly."""
FEW_ROWS = 50
"""Rows of which the Gaussian is believed half as far as trees before any cell is seen, of more the less: trees of few
rows know little, and few held-out cells cannot say so. Without trees it is believed wholly."""
FAINT = 0.05
"""Weight of trees of a column below which they are not asked: they would change no answer, and take most of the time.
"""
MAX_REFIT_ROWS = 2_000
"""Rows from which on held-out cells teach the expert nothing that lowers its errors on the mean of tables, and the
network little for its time."""
SURE = (1e-4, 1e-3, 1e-2)
"""Doubts at which a member may be followed half of the way beyond its weight: variances of the expert's, in those of a
number, and squares of the copies'."""


@torch.no_grad()
def weigh_members(model: MaskedAutoencoder, validation: Validation) -> None:
    """Set how far each column believes each member of the last sweep, by held-out cells."""
    tokenizer = model.tokenizer
    has_expert, has_trees = float(model.expert is not None), float(len(model.sweeps) > 0)
    few = FEW_ROWS / (FEW_ROWS + validation.n_rows)
    believed = [has_expert * (few if has_trees else 1.0), 1.0, has_trees, float(len(model.direct) > 0)]
    start = torch.tensor(believed if model.copies is None else [*believed, COPIES_AT_FIRST])
    start = start / start.sum()
    of_numbers = torch.cat([torch.zeros(1), start])
    model.number_weights[-1] = of_numbers.to(model.number_weights)
    model.level_weights[-1] = start.to(model.level_weights)
    for name in OF_SURE:
        getattr(model, name)[-1] = 0.0
    if not validation.parts:
        _settle(model)
        return
    members = Members(*(torch.cat(parts, 1) for parts in zip(*validation.members(), strict=True)))
    numbers, levels, _ = members
    target = torch.cat([part.values for part in validation.parts])
    held_out = torch.cat([part.held_out for part in validation.parts])
    truth, hidden = target[:, tokenizer.numbers], held_out[:, tokenizer.numbers]
    model.number_weights[-1] = stacking.fit(numbers, truth, hidden, of_numbers).to(model.number_weights)
    for place, (feature, n_levels) in enumerate(zip(tokenizer.categories, tokenizer.n_modelled, strict=True)):
        chosen = held_out[:, feature]
        codes = target[chosen, feature].long().clamp_max(int(n_levels) - 1)
        weights = stacking.fit_levels(levels[:, chosen, place, : int(n_levels)], codes, start)
        model.level_weights[-1, place] = weights.to(model.level_weights)
    _settle(model)
    line, doubt = (torch.cat([ask(batch) for batch in chain(*validation.batches)]) for ask in (model.line, model.doubt))
    low = torch.where(hidden, truth, torch.inf).amin(0).minimum(tokenizer.edges[:, 0].to(truth))
    high = torch.where(hidden, truth, -torch.inf).amax(0).maximum(tokenizer.edges[:, -1].to(truth))
    mean = torch.einsum("mbf,fm->bf", numbers, model.number_weights[-1].to(numbers))
    line = line.to(mean).clamp(low, high)
    model.sure[-1] = fit_sure(mean, line, doubt, truth, hidden)
    if model.copies is None:
        return
    then = partial(followed, expert=line, variance=doubt, sure=model.sure[-1])
    model.sure_copies[-1] = fit_sure(mean, numbers[-1], members.doubt, truth, hidden, then)
    levels, places = torch.einsum("mbfl,fm->bfl", levels, model.level_weights[-1].to(levels)), tokenizer.categories
    codes = target[:, places].long().minimum(tokenizer.n_modelled - 1)
    of_levels = fit_sure_of_levels(levels, members.levels[-1], members.doubt_of_levels, codes, held_out[:, places])
    model.sure_copies_of_levels[-1] = of_levels


def _settle(model: MaskedAutoencoder) -> None:
    """Pass the weights of trees that are not there on to what stands for them, those of faint ones to all others."""
    for features, of_last, forests in _last_weights(model):
        for member, trees in ((forests + 1, model.direct), (forests, forests_of(model))):
            treeless = torch.tensor([str(feature) not in trees for feature in features.tolist()], dtype=torch.bool)
            of_last[treeless, member - 1] += of_last[treeless, member]
            of_last[treeless, member] = 0
        of_trees = of_last[:, forests : forests + 2]
        of_trees[of_trees < FAINT] = 0
        of_last /= of_last.sum(1, keepdim=True)


def _last_weights(model: MaskedAutoencoder) -> tuple[tuple[Tensor, Tensor, int], ...]:
    """Of numbers and of categories: the features (K,), how far each believes each member in the end (K, M), and the
    position of the forests there, behind which are the direct trees."""
    tokenizer = model.tokenizer
    return (tokenizer.numbers, model.number_weights[-1], 3), (tokenizer.categories, model.level_weights[-1], 2)


def forests_of(model: MaskedAutoencoder) -> nn.ModuleDict:
    """The forests of the last sweep, by position of their feature; none where none grew."""
    return cast(nn.ModuleDict, model.sweeps[-1]) if len(model.sweeps) else nn.ModuleDict()


def drop_unasked(model: MaskedAutoencoder) -> None:
    """Take the trees out of a model that their columns do not believe: they would be asked and saved for nothing."""
    for features, of_last, forests in _last_weights(model):
        for member, trees in ((forests, forests_of(model)), (forests + 1, model.direct)):
            for feature in features[of_last[:, member].to(features.device) == 0].tolist():
                if str(feature) in trees:
                    del trees[str(feature)]


def fit_sure(
    mean: Tensor,
    member: Tensor,
    doubt: Tensor,
    target: Tensor,
    hidden: Tensor,
    then: Callable[[Tensor], Tensor] = lambda moved: moved,
) -> Tensor:
    """The doubt of a member at which each number (n, F) is best moved half of the way to its mean, or 0; (F,).

    `then` says what becomes of the moved numbers before they are judged.
    """
    return _surest(doubt, hidden, lambda share: (then(torch.lerp(mean, member, share.to(mean))) - target).square())


def fit_sure_of_levels(levels: Tensor, member: Tensor, doubt: Tensor, codes: Tensor, hidden: Tensor) -> Tensor:
    """The same of probabilities (n, F, L) of categories' codes (n, F), by the squares of what they lack."""
    target = nn.functional.one_hot(torch.where(hidden, codes, 0), levels.shape[2]).to(levels)

    def lacking(share: Tensor) -> Tensor:
        return (torch.lerp(levels, member, share[:, :, None].to(levels)) - target).square().sum(2)

    return _surest(doubt, hidden, lacking)


def _surest(doubt: Tensor, hidden: Tensor, error: Callable[[Tensor], Tensor]) -> Tensor:
    """The doubt (F,) at which half of the way makes the error (n, F) of a share (n, F) least on hidden cells, or 0."""

    def total(half: Tensor) -> Tensor:
        return torch.where(hidden, error(share_of(doubt, half)), 0).sum(0)

    best = doubt.new_zeros(doubt.shape[1], dtype=torch.float64)
    least = total(best)
    for sure in SURE:
        half = torch.full_like(best, sure)
        found = total(half)
        best, least = torch.where(found < least, half, best), torch.minimum(found, least)
    return best


def believed_weights(model: MaskedAutoencoder) -> NDArray[np.float64]:
    """How far each member is believed, a row a column; an expert that is not there has passed its weight on."""
    tokenizer = model.tokenizer
    weights = torch.zeros(len(tokenizer.n_levels), len(WEIGHTS), dtype=torch.float64)
    n_members = model.number_weights.shape[2]
    weights[tokenizer.numbers.cpu(), :n_members] = model.number_weights[-1].double().cpu()
    weights[tokenizer.categories.cpu(), 1:n_members] = model.level_weights[-1].double().cpu()
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
    """Give the expert the held-out cells, too, once they have judged it.

    Its shrinkage stays, and forests go on to read the one that they were grown with.
    """
    if model.expert is None:
        return
    if len(model.sweeps):
        model.grown_with = deepcopy(model.expert)
    device = next(model.parameters()).device
    cells, shown = model.tokenizer.expand(values.to(device), observed.to(device))
    indicators = model.tokenizer.expert_level >= 0 if model.expert.diagonal == 0 else None
    shrinkage = float(model.expert.shrinkage)
    model.expert.fit(cells, shown, shrinkage=shrinkage, warm_start=True, indicators=indicators)


def make_room(model: MaskedAutoencoder, weights: dict[str, Tensor]) -> None:
    """Make room in a model for the forests' own expert, the copied rows and the trees of saved weights."""
    if "grown_with.mean" in weights:
        model.grown_with = Gaussian(model.tokenizer.n_expert_columns)
    if "copies.values" in weights:
        model.set_copies(Copies.restored(modelled_levels(model), len(weights["copies.values"])))
    names = sorted({tuple(name.split(".")[1:3]) for name in weights if name.startswith("sweeps.")})
    for sweep in range(len(weights["number_weights"]) - 1):
        model.add_sweep(nn.ModuleDict({feature: Forest() for of, feature in names if of == str(sweep)}))
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
