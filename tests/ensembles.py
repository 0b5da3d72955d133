"""Small ensembles, and the tables that they grow from, that the tests of the members and of their growth share."""

import torch
from torch import Tensor

from tabmae.backbones import build_backbone
from tabmae.estimators import members
from tabmae.estimators.growing import grow_trees
from tabmae.estimators.validation import Validation, split_held_out
from tabmae.experts.direct import DirectTrees
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder, Members
from tabmae.tokenizers import CellTokenizer

N_ROWS = 90
N_LEVELS = (0, 3, 0, 2, 0, 0)
NUMBERS, CATEGORIES = [0, 2, 4, 5], [1, 3]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n_rows: int = N_ROWS, missing: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Draw numbers and levels that share a factor; also the folds of held-out cells."""
    generator = seeded()
    factor = torch.randn(n_rows, 1, generator=generator, dtype=torch.float64)
    values = factor + 0.5 * torch.randn(n_rows, 6, generator=generator, dtype=torch.float64)
    values[:, 1] = values[:, 1].round().clamp(-1, 1) + 1
    values[:, 3] = (values[:, 3] > 0).double()
    observed = torch.rand(n_rows, 6, generator=generator) >= missing
    held_out = observed & (torch.rand(n_rows, 6, generator=generator) < 0.2)
    return values, observed, split_held_out(held_out, generator)


def build(
    values: Tensor,
    trained: Tensor,
    n_levels: tuple[int, ...] = N_LEVELS,
    with_expert: bool = True,
    expert: Gaussian | None = None,
) -> MaskedAutoencoder:
    """Give a model of the cells that training may see, its network as it was drawn."""
    torch.manual_seed(0)
    tokenizer = CellTokenizer.fit(values.float(), trained, n_levels, d_token=4, with_guess=with_expert)
    network = build_backbone("mlp", n_tokens=len(n_levels), d_token=4, depth=1, dropout=0.0)
    tokenizer.double()
    network.double()
    if with_expert:
        expert = Gaussian(tokenizer.n_expert_columns).fit(*tokenizer.expand(values, trained))
    return MaskedAutoencoder(tokenizer, network, expert).eval()


def grown(
    values: Tensor, observed: Tensor, folds: Tensor, n_levels: tuple[int, ...] = N_LEVELS, with_expert: bool = True
) -> MaskedAutoencoder:
    model = build(values, observed & (folds == 0), n_levels, with_expert)
    validation = Validation(model, values, observed, folds)
    members.weigh_members(model, validation)
    grow_trees(model, values, observed, folds, validation, seeded(3))
    return model


def forest_of(model: MaskedAutoencoder, feature: int, sweep: int = -1) -> Forest:
    forest = model.get_submodule(f"sweeps.{range(len(model.sweeps))[sweep]}.{feature}")
    assert isinstance(forest, Forest)
    return forest


def direct_of(model: MaskedAutoencoder, feature: int) -> DirectTrees:
    trees = model.get_submodule(f"direct.{feature}")
    assert isinstance(trees, DirectTrees)
    return trees


def features_of(model: MaskedAutoencoder) -> list[list[int]]:
    """Give the features with a forest, sweep by sweep."""
    return [[int(name) for name, _ in sweep.named_children()] for sweep in model.sweeps]


def shifted(values: Tensor, cells: Tensor) -> Tensor:
    """Give other numbers and other levels in some cells."""
    other = values + 1.5
    other[:, CATEGORIES] = 1 - values[:, CATEGORIES].clamp_max(1)
    return torch.where(cells, other, values)


def bit_equal(one: MaskedAutoencoder, other: MaskedAutoencoder) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]) and tensor.dtype == second[name].dtype, name


@torch.no_grad()
def answers(model: MaskedAutoencoder, values: Tensor, visible: Tensor, fold: int = 0) -> Members:
    return model.members(values, visible, fold)
